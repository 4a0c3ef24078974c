"""`harness compare`: files of harness and of llama-bench are read, whatever they are called, and held against each other."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import Outcome, UsageError
from harness.records.bench_rows import USUAL_REPETITIONS
from harness.records.journal_files import find_journals
from harness.records.measurements import BUILD, MACHINE, MODEL, Measurement
from harness.runs.bench_files import read_measurements
from harness.spec import MANNER, RunSpec, parameters
from harness.speed.comparison import Comparison, Side, compare, split
from harness.speed.limits import Judgement

#: What is compared where nothing is named.
USUAL_INPUTS = ("last~1", "last")


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What is held against what.

    inputs    : files, folders, ``last``, ``last~1``; ``name=path`` gives one a name
    results   : folder that ``last`` is looked for in
    by        : facets that the sides are told apart by, instead of the inputs: fields of `RunSpec`, machine, build, model
    base      : with by, what the first side is
    assumed_n : repetitions behind a mean and deviation of which the file does not say how many there were
    """

    inputs: Sequence[str] = USUAL_INPUTS
    results: pathlib.Path = pathlib.Path("bench_results")
    by: Sequence[str] = ()
    base: str | None = None
    assumed_n: int = USUAL_REPETITIONS


def compare_files(request: CompareRequest, warn: Callable[[str], None]) -> Comparison:
    """Read the inputs and hold each side against the first; no pairs where the sides have nothing in common.

    Raises
    ------
    UsageError : a name means nothing, an input holds nothing that was measured, or there are no two sides.
    """
    by = [read_facet(name) for name in request.by]
    inputs = read_inputs(request.inputs, request.results, warn)
    sides = split(inputs, by, request.base) if by else inputs
    if len(sides) < 2:
        raise UsageError(_describe_alone(sides[0], by))
    return compare(sides, by, request.assumed_n)


def outcome_of(comparison: Comparison, judgement: Judgement) -> Outcome:
    """What became of a comparison: a limit that was proved to be broken, one that is about nothing, else what is not to be trusted."""
    if judgement.broken:
        return Outcome.LIMIT
    if judgement.idle:
        return Outcome.QUESTION
    is_weak = judgement.undecided or any(pair.is_distrusted for pair in comparison.pairs)
    return Outcome.NOT_TRUSTED if is_weak else Outcome.OK


def _describe_alone(side: Side, by: Sequence[str]) -> str:
    if not by:
        return f"There is nothing to hold {side.name} against; name a second file, or compare within it with --by type_k or the like."
    values = ", ".join(f"{name} {value}" for name, value in side.values)
    return f"Everything was measured with {values}; a comparison by that needs two values."


def facet_names() -> list[str]:
    """What a comparison may be by."""
    fields = [item.name for item in dataclasses.fields(RunSpec) if item.name not in MANNER | {"model"}]
    return [MACHINE, BUILD, MODEL, *fields]


def read_facet(text: str) -> str:
    """The facet that a word means: its name, or how the option of the setting or the heading of its column is written (``ngl``).

    Raises
    ------
    UsageError : it means none.
    """
    word = text.strip().lstrip("-").lower().replace("-", "_")
    names = facet_names()
    for name, parameter in parameters().items():
        if word in (parameter.heading.lower(), *(flag.lstrip("-").replace("-", "_") for flag in parameter.flags)):
            return name
    if word not in names:
        raise UsageError(f"There is nothing called {text} to compare by; there are {', '.join(names)}.")
    return word


def read_inputs(names: Sequence[str], results: pathlib.Path, warn: Callable[[str], None]) -> list[Side]:
    """Each input with all that was measured in it.

    Raises
    ------
    UsageError : a name means nothing, an input holds nothing that was measured, or two are the same.
    """
    found: list[Side] = []
    seen: dict[tuple[pathlib.Path, ...], str] = {}
    for text in names:
        name, path = _read_name(text)
        files = find_journals([path], results)
        key = tuple(file.resolve() for file in files)
        if key in seen:
            raise UsageError(f"{seen[key]} and {text} are the same; name two that differ.")
        seen[key] = text
        measurements = [one for file in files for one in read_measurements(file, warn)]
        if not measurements:
            kept = f" ({files[0].name})" if len(files) == 1 and files[0].name != path.name else ""
            raise UsageError(
                f"{text}{kept} holds no test that was measured, as pp-tg, sweep and llama-bench keep them; "
                "`harness list` shows what does."
            )
        found.append(Side(name or _name_input(path, measurements), measurements))
    return _name_apart(found, names)


def _read_name(text: str) -> tuple[str, pathlib.Path]:
    match = re.fullmatch(r"([^=/\\]+)=(.+)", text)
    if match and not pathlib.Path(text).exists():
        return match[1], pathlib.Path(match[2])
    return "", pathlib.Path(text)


def _name_input(path: pathlib.Path, measurements: Sequence[Measurement]) -> str:
    """The label that all of it has, else the name of the file."""
    labels = {one.label for one in measurements}
    if len(labels) == 1 and (label := labels.pop()):
        return label
    return path.stem or path.resolve().name


def _name_apart(sides: Sequence[Side], texts: Sequence[str]) -> list[Side]:
    """No two sides of one name: what was typed stands for those."""
    names = [side.name for side in sides]
    return [
        dataclasses.replace(side, name=text) if names.count(side.name) > 1 else side
        for side, text in zip(sides, texts, strict=True)
    ]
