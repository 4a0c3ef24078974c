"""``harness inspect``: what a model is made of, by its header alone."""

from __future__ import annotations

import json
from dataclasses import dataclass

import click

from harness.errors import UsageError
from harness.gguf_file import read_file_header
from harness.render.inspect import Fetched, Repacked, export_anatomy, show_anatomy
from harness.theory.anatomy import describe_model
from harness.theory.gguf import Header
from harness.theory.repack import find_repacked_types


@dataclass(frozen=True, slots=True)
class Found:
    """A model's header, and what it took to get it (fetched is None for a local file)."""

    header: Header
    fetched: Fetched | None = None


def find_header(reference: str) -> Found:
    """Turn what the user named into a header: the one step that knows where models are.

    Raises
    ------
    HarnessError : there is no such model, or its header cannot be read.
    """
    from harness.references import resolve

    return Found(read_file_header(resolve(reference)))


def find_repacked(header: Header) -> tuple[Repacked, ...] | None:
    """Say which weights this CPU would repack; None where its features are not known.

    The CPU is asked, not llama.cpp, which would have to be started for it.
    """
    from harness.machine import read_cpu_features

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
  harness inspect smollm2:135m
  harness inspect -m model-00001-of-00003.gguf
  harness inspect model.gguf -o json
"""


@click.command("inspect", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("reference", metavar="[MODEL]", required=False)
@click.option("-m", "--model", "--gguf", "option", metavar="REF", help="The same as the argument.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format. [table]")
def command(reference: str | None, option: str | None, output: str) -> None:
    """Show what MODEL is made of: size by type and by part, cache per token, context, tokenizer.

    Only the header is read, of all files where the model is split (name the first one).
    """
    if (reference is None) == (option is None):
        raise UsageError("name one model, such as `harness inspect model.gguf`")
    label = reference or option or ""
    found = find_header(label)
    anatomy = describe_model(found.header)
    repacked = find_repacked(found.header)
    if output == "json":
        data = export_anatomy(anatomy, label, fetched=found.fetched, repacked=repacked)
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        click.echo(show_anatomy(anatomy, label, fetched=found.fetched, repacked=repacked))
