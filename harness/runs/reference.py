"""The article's task over every model of the catalog that is here and fits."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.catalog import Entry
from harness.errors import UsageError
from harness.events import Measured, Progress
from harness.gguf.model_kinds import Question
from harness.host.memory import available_memory_bytes
from harness.memory.placement import shares_host_memory
from harness.records.cells import Device
from harness.records.text import Skip, Skipped, TextRequest, TextRun
from harness.runs.asking import read_for
from harness.runs.session import Session
from harness.runs.text import write_text
from harness.sources.catalog_reference import CatalogReference
from harness.sources.model_file import model_size_bytes
from harness.sources.ollama_store import find_ollama


@dataclass(frozen=True, slots=True)
class Here:
    """A model's file on this disk: name with quantization, first file, bytes of all."""

    name: str
    path: pathlib.Path
    size_bytes: int


def run_reference(
    entries: Sequence[Entry], request: TextRequest, session: Session
) -> tuple[list[tuple[str, TextRun]], list[Skipped]]:
    """Write the text of a request with each model that is here and fits, and keep a record of each: (names and runs, what was not
    run). The request's model is replaced. Ctrl-C ends with what there is.

    Raises
    ------
    NativeError : the worker cannot be started.
    """
    here, skipped = choose_models(entries, _free_bytes(request.n_gpu_layers, session))
    runs: list[tuple[str, TextRun]] = []
    for number, model in enumerate(here):
        session.on_event(Progress(model.name, number, len(here)))
        run = write_text(dataclasses.replace(request, model=str(model.path)), session)
        runs.append((model.name, run))
        session.keep(run)
        session.on_event(Measured(run))
        if session.is_interrupted:
            break
    return runs, skipped


def _free_bytes(n_gpu_layers: int, session: Session) -> int:
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


def choose_models(entries: Sequence[Entry], free_bytes: int) -> tuple[list[Here], list[Skipped]]:
    """What can be run, and what not."""
    here: list[Here] = []
    skipped: list[Skipped] = []
    for entry in entries:
        if entry.refused:
            skipped.append(Skipped(entry.name, Skip.CANNOT_RUN, entry.refused))
        elif (found := next(find_files(entry), None)) is None:
            skipped.append(Skipped(entry.name, Skip.NOT_HERE))
        elif found.size_bytes > free_bytes:
            skipped.append(Skipped(found.name, Skip.TOO_LARGE, "", found.size_bytes, free_bytes))
        else:
            try:
                read_for(found.path, Question.TEXT)
                here.append(found)
            except UsageError as error:
                skipped.append(Skipped(found.name, Skip.NO_TEXT, str(error)))
    return here, skipped


def find_files(entry: Entry) -> Iterator[Here]:
    """A model's files on this disk; what Ollama's bare name stood for comes first."""
    known = [files.quantization for files in entry.files]
    for quantization in dict.fromkeys(filter(None, [entry.ollama_2024, entry.embedded, *known])):
        try:
            path = CatalogReference(entry, quantization).find()
        except UsageError:
            continue
        if path is not None:
            yield Here(f"{entry.name}:{quantization.lower()}", path, model_size_bytes(path))
    try:
        path = find_ollama(entry.name)
        yield Here(f"{entry.name} (Ollama's)", path, path.stat().st_size)
    except UsageError:
        pass
