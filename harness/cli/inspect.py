"""``harness inspect``: what a model is made of, by its header alone."""

from __future__ import annotations

from collections.abc import Sequence

import click

from harness.cli.options import complete_models, reference_options
from harness.cli.output import Output, output_options, show
from harness.errors import UsageError
from harness.runs.inspection import inspect_model
from harness.sources.model_file import DEFAULT_MODEL
from harness.views.inspect import describe_inspection

_EXAMPLES = """
\b
Examples:
  harness inspect model.gguf
  harness inspect llama3.2:1b:q4_0              of the catalog
  harness inspect hf:owner/repository:Q4_K_M    a few MB are fetched
  harness inspect https://host/model.gguf
  harness inspect ollama:llama3.2:1b
  harness inspect -m model-00001-of-00003.gguf
  harness inspect model.gguf -o json
"""


@click.command("inspect", epilog=_EXAMPLES)
@click.argument("reference", metavar="[MODEL]", required=False, shell_complete=complete_models)
@reference_options(argument="reference")
@output_options()
def command(models: Sequence[str], output: Output) -> None:
    """Show what MODEL is made of: size by type and by part, cache per token, context, tokenizer.

    Only the header is read, of all files where the model is split (name the first one); from a server, by a few ranges. A catalog
    model that is neither here nor at the hub is computed from its shape.
    """
    if len(models) > 1:
        raise UsageError("inspect shows one model at a time; name one.")
    show(describe_inspection(inspect_model(models[0] if models else DEFAULT_MODEL)), output)
