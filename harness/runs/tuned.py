"""Settings that `harness tune` found, taken again: for the same file, build and machine, and never in place of what is asked for."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from harness.errors import UsageError
from harness.events import OnEvent, Remark, ignore
from harness.host.machine import describe_machine
from harness.records.cells import Build
from harness.records.tuned import Change
from harness.runs.session import Session
from harness.sources.model_file import hash_file, model_size_bytes
from harness.sources.tuned_settings import find_tuned
from harness.spec import RunSpec, Settings, parameters

_CHANGED = {
    Change.BUILD: "another build of llama.cpp",
    Change.FILE: "another file of that name",
    Change.MACHINE: "another machine",
}


def ask_build() -> Build:
    """The engine that would run: asked of a worker, which takes some tenths of a second.

    Raises
    ------
    NativeError : it cannot be started.
    """
    with Session("build") as session, session.worker():
        assert session.build is not None
        return session.build


def take_settings(
    model: pathlib.Path | None,
    given: Collection[str],
    on_event: OnEvent = ignore,
    *,
    wanted: Collection[str] | None = None,
    find_build: Callable[[], Build] = ask_build,
) -> Settings:
    """The tuned settings of a model's file, as fields of `RunSpec`, but for those that are given; one line tells which they are.

    wanted names the fields that whoever asks has a use for; None: all. Nothing where nothing was tuned, or for something else than what
    is here now, or where the file with it is damaged: a line says why. model is None where a model's file is not on this disk.
    """
    try:
        tuned = find_tuned(model) if model else None
    except UsageError as error:
        on_event(Remark(str(error)))
        return {}
    if model is None or tuned is None:
        what = model.name if model else "a model that is not on this disk"
        on_event(Remark(f"note: nothing is tuned for {what}; `harness tune` does it."))
        return {}
    changes = list(tuned.changes(find_build(), describe_machine(), hash_file(model, on_event), model_size_bytes(model)))
    if changes:
        of = " and of ".join(_CHANGED[change] for change in changes)
        on_event(
            Remark(f"note: what was tuned for {model.name} is of {of}, and is not used; `harness tune` finds it anew.")
        )
        return {}
    taken = {
        name: value
        for name, value in tuned.settings.items()
        if name not in given and (wanted is None or name in wanted)
    }
    words = " ".join(_write_option(name, value) for name, value in taken.items())
    on_event(Remark(f"tuned for {tuned.goal} on {tuned.time_utc[:10]}: {words or 'all as usual'}"))
    return taken


def take_tuned(
    cells: Sequence[RunSpec],
    given: Collection[str],
    on_event: OnEvent = ignore,
    *,
    find_build: Callable[[], Build] = ask_build,
) -> tuple[RunSpec, ...]:
    """Cells with the tuned settings of their models' files where none are given.

    Raises
    ------
    UsageError : what is given contradicts what was tuned.
    """
    find_once = functools.cache(find_build)  # it starts a worker
    found = {
        model: take_settings(pathlib.Path(model), given, on_event, find_build=find_once)
        for model in dict.fromkeys(cell.model for cell in cells)
    }
    return tuple(dataclasses.replace(cell, **found[cell.model]) for cell in cells)


def _write_option(name: str, value: Any) -> str:
    written = ("on" if value else "off") if isinstance(value, bool) else value
    if isinstance(value, tuple):
        joint = {"override_tensors": ";", "rpc": ","}.get(name, "/")
        written = joint.join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"{parameters()[name].flags[0]} {written}"
