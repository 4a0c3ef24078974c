"""`harness reference`: the article's task over every model of the catalog that is here and fits."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import click

from harness.catalog import Entry
from harness.cli import terminal
from harness.cli.options import results_option, save_option
from harness.cli.output import Output, output_options, show
from harness.cli.progress import end, open_session
from harness.cli.text_options import text_options
from harness.errors import UsageError
from harness.gguf.model_kinds import Question
from harness.host.memory import available_memory_bytes
from harness.memory.placement import shares_host_memory
from harness.records.cells import Device
from harness.records.text import REFERENCE_PROMPT, TextRequest, TextRun
from harness.runs.asking import read_for
from harness.runs.session import Session
from harness.units import format_gb

_EXAMPLES = f"""
\b
Examples:
  harness reference                     every catalog model that is here
  harness reference --gpu-layers 0      on the CPU, as the article does it
  harness reference -m llama3.2:1b -m llama3.1:8b
  harness reference --max-tokens 100 -o json

The task is: {REFERENCE_PROMPT}
"""


@click.command("reference", epilog=_EXAMPLES)
@click.option("-m", "--model", "names", multiple=True, metavar="NAME", help="Only these names of the catalog. [all]")
@text_options
@output_options()
@save_option
@results_option
def command(names: tuple[str, ...], output: Output, results: pathlib.Path, save: bool, **options: Any) -> None:
    """Run the article's task, `ollama run --verbose MODEL` with the prompt below, over the models of the catalog that are on this
    disk (the catalog's own files, or Ollama's) and fit into memory; one record each.

    PP is Ollama's prompt eval rate and TG its eval rate. What was not run is listed with the reason.
    """
    from harness.runs.text import write_text
    from harness.sources.user_catalog import load_catalog
    from harness.views.text import describe_texts

    catalog = load_catalog()
    entries = [catalog.find(name) for name in names] or list(catalog.entries.values())
    runs: list[tuple[str, TextRun]] = []
    with open_session("reference", {"results": results, "save": save}) as session:
        runnable, skipped = _choose(entries, _room_bytes(options["n_gpu_layers"], session))
        for name, path in runnable:
            terminal.echo_note(f"{name} …")
            runs.append((name, write_text(TextRequest(str(path), REFERENCE_PROMPT, **options), session)))
            session.keep(runs[-1][1])
            if session.is_interrupted:
                break
    show(describe_texts(runs, skipped), output)
    end(session)


def _room_bytes(n_gpu_layers: int, session: Session) -> int:
    """Memory for weights: what is free in RAM, and on GPUs where layers may go there."""
    free = available_memory_bytes()
    if n_gpu_layers == 0:
        return free
    with session.worker():
        return free + (add_up_cards(session.build.devices) if session.build else 0)


def add_up_cards(devices: Sequence[Device]) -> int:
    """Free memory of cards in bytes; one that computes in the host's memory has none of its own."""
    cards = [device for device in devices if device.kind == "gpu" and not shares_host_memory(device)]
    return sum(card.memory_free_bytes or 0 for card in cards)


def _choose(entries: Sequence[Entry], room_bytes: int) -> tuple[list[tuple[str, pathlib.Path]], list[tuple[str, str]]]:
    """What can be run, as (name with quantization, file), and what not, as (name, why)."""
    runnable: list[tuple[str, pathlib.Path]] = []
    skipped: list[tuple[str, str]] = []
    for entry in entries:
        if entry.refused:
            skipped.append((entry.name, entry.refused))
            continue
        found = next(_files_of(entry), None)
        if found is None:
            skipped.append((entry.name, "not on this disk"))
            continue
        name, path, size = found
        try:
            read_for(path, Question.TEXT)
        except UsageError as error:
            skipped.append((name, str(error).rstrip(".")))
            continue
        if size > room_bytes:
            skipped.append((name, f"{format_gb(size)}, and only {format_gb(room_bytes)} of memory are free"))
        else:
            runnable.append((name, path))
    return runnable, skipped


def _files_of(entry: Entry) -> Iterator[tuple[str, pathlib.Path, int]]:
    """(name, first file, bytes of all parts) of a model's files on this disk; what Ollama's bare name stood for comes first."""
    from harness.sources.catalog_reference import CatalogReference
    from harness.sources.model_file import model_size_bytes
    from harness.sources.ollama_store import find_ollama

    known = [files.quantization for files in entry.files]
    order = dict.fromkeys(filter(None, [entry.ollama_2024, entry.embedded, *known]))
    for quantization in order:
        try:
            path = CatalogReference(entry, quantization).find()
        except UsageError:
            continue
        if path is not None:
            yield f"{entry.name}:{quantization.lower()}", path, model_size_bytes(path)
    try:
        path = find_ollama(entry.name)
        yield f"{entry.name} (Ollama's)", path, path.stat().st_size
    except UsageError:
        pass
