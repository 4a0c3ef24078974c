"""What a model is made of: its header found, taken apart, and held against this CPU."""

from __future__ import annotations

from dataclasses import dataclass

from harness.gguf.anatomy import Anatomy, describe_model
from harness.gguf.header import Fetched, Header
from harness.host.machine import predict_features
from harness.memory.repack import RepackedType, find_repacked_types
from harness.sources.references import parse_reference


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model's anatomy and where it is from.

    label is what the user called it. fetched is the cost of a remote header, None for a local file; is_computed says that the header
    follows from a shape and no file was read, note why. repacked are weights that this CPU stores in another layout; None where its
    features are not known.
    """

    label: str
    anatomy: Anatomy
    fetched: Fetched | None = None
    is_computed: bool = False
    note: str | None = None
    repacked: tuple[RepackedType, ...] | None = None


def inspect_model(reference: str) -> Inspection:
    """Read a model's header, of all files where it is split, and take it apart; from a server by a few ranges.

    Raises
    ------
    UsageError   : there is no such model.
    HarnessError : its header cannot be read.
    """
    asked = parse_reference(reference)
    found = asked.header()
    anatomy, repacked = describe_model(found.header), find_repacked(found.header)
    return Inspection(asked.shown, anatomy, found.fetched, found.is_computed, found.note, repacked)


def find_repacked(header: Header) -> tuple[RepackedType, ...] | None:
    """Say which weights this CPU would repack. The CPU is asked, not llama.cpp, which would have to be started for it."""
    features = predict_features()
    return None if features is None else find_repacked_types(header, features)
