"""Every combination of what was asked, as cells in the order that reloads least."""

from __future__ import annotations

import dataclasses
import itertools
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.spec import RunSpec, parameters


@dataclass(frozen=True, slots=True)
class Grid:
    """Every combination of what was asked, as cells in the order that reloads least.

    axes maps a field of `RunSpec` to the values that it takes (a missing one keeps its default); n_prompt and n_gen are lengths of
    separate tests, as in llama-bench, and n_pg pairs of (prompt, generation) that are timed together.

    Raises
    ------
    UsageError : what scripts may hand in as it comes is no number, or no pair of lengths.
    """

    models: Sequence[str]
    axes: Mapping[str, Sequence[Any]]
    n_prompt: Sequence[int] = (512,)
    n_gen: Sequence[int] = (128,)
    n_pg: Sequence[tuple[int, int]] = ()
    repetitions: int | None = None
    warmup: bool | None = None
    delay_s: float = 0.0
    seed: int = 0
    precision: float = 0.02
    max_time_s: float = 60.0

    def __post_init__(self) -> None:
        _refuse_others(numbers.Integral, "a whole number", repetitions=self.repetitions, seed=self.seed)
        rest = {name: getattr(self, name) for name in ("delay_s", "precision", "max_time_s")}
        _refuse_others(numbers.Real, "a number", **rest)
        for pair in self.n_pg:
            if not (
                isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(n, int) and n >= 0 for n in pair)
            ):
                raise UsageError(f"n_pg={self.n_pg!r} is no list of pairs of lengths such as [(512, 128)].")

    def tests(self) -> list[tuple[int, int]]:
        """(n_prompt, n_gen) of each test, without the empty ones. Source: get_cmd_params_instances in llama-bench.cpp."""
        tests = [(n, 0) for n in self.n_prompt] + [(0, n) for n in self.n_gen] + [(n, m) for n, m in self.n_pg]
        return list(dict.fromkeys(test for test in tests if test != (0, 0)))

    def cells(self) -> list[RunSpec]:
        """List the cells: models outermost, then what needs a load, then what needs a context, tests innermost.

        Raises
        ------
        UsageError : there is no test, or a combination contradicts itself.
        """
        if not self.tests():
            raise UsageError("Nothing to measure: give -p (prompt tokens), -n (generated tokens) or -pg P,N above 0.")
        return list(dict.fromkeys(cell for asked in self._combinations() for cell in _make_sense(asked)))

    def _combinations(self) -> Iterator[RunSpec]:
        names = sorted(self.axes, key=list(parameters()).index)
        values = [tuple(dict.fromkeys(self.axes[name])) for name in names]
        for model, combination in itertools.product(dict.fromkeys(self.models), itertools.product(*values)):
            for n_prompt, n_gen in self.tests():
                yield RunSpec(
                    model=model, n_prompt=n_prompt, n_gen=n_gen, repetitions=self.repetitions, warmup=self.warmup,
                    delay_s=self.delay_s, seed=self.seed, precision=self.precision, max_time_s=self.max_time_s,
                    **dict(zip(names, combination, strict=True)),
                )  # fmt: skip


def _refuse_others(kind: type, words: str, **values: Any) -> None:
    """The command line has read its numbers; a script hands in what it likes."""
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise UsageError(f"{name}={value!r} is not {words}.")


def _make_sense(cell: RunSpec) -> Iterator[RunSpec]:
    """What several sequences share is a prompt or a depth; a single one has its own. Where a prompt begins as the one before, it is
    read anew as well, to compare with; generation alone has no prompt."""
    if cell.n_parallel == 1 or not cell.n_prompt + cell.n_depth:
        cell = dataclasses.replace(cell, is_prompt_shared=False)
    if cell.n_prefix and not cell.n_prompt:
        cell = dataclasses.replace(cell, n_prefix=0)
    yield cell
    if cell.n_prefix:
        yield dataclasses.replace(cell, n_prompt=cell.n_prefix + cell.n_prompt, n_prefix=0)
