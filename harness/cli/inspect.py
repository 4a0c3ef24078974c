"""``harness inspect``: what a model is made of, by its header alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import reference_options
from harness.errors import UsageError
from harness.gguf.anatomy import describe_model
from harness.gguf.header import Header
from harness.memory.repack import find_repacked_types
from harness.sources.references import parse_reference
from harness.untrusted import harmless
from harness.views.inspect import Repacked, export_anatomy, show_anatomy


def find_repacked(header: Header) -> tuple[Repacked, ...] | None:
    """Say which weights this CPU would repack; None where its features are not known.

    The CPU is asked, not llama.cpp, which would have to be started for it.
    """
    from harness.host.machine import read_cpu_features

    features = read_cpu_features()
    if features is None:
        return None
    return tuple(
        Repacked(item.type_name, item.layout, item.size_bytes) for item in find_repacked_types(header, features)
    )


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


@click.command("inspect", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("reference", metavar="[MODEL]", required=False)
@reference_options(argument="reference")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format. [table]")
def command(models: Sequence[str], output: str) -> None:
    """Show what MODEL is made of: size by type and by part, cache per token, context, tokenizer.

    Only the header is read, of all files where the model is split (name the first one); from a server, by a few ranges. A catalog
    model that is neither here nor at the hub is computed from its shape.
    """
    if len(models) > 1:
        raise UsageError("inspect shows one model at a time; name one.")
    reference = parse_reference(models[0] if models else "smollm2:135m")
    found, label = reference.header(), reference.shown
    anatomy = describe_model(found.header)
    repacked = find_repacked(found.header)
    facts: dict[str, Any] = {"fetched": found.fetched, "repacked": repacked, "is_computed": found.is_computed}
    if found.note:
        terminal.echo_error(f"note: {found.note}")
    if output == "json":
        terminal.show(harmless.json_text(export_anatomy(anatomy, label, **facts)))
    else:
        terminal.show(show_anatomy(anatomy, label, **facts))
