"""Progress bars on stderr, for a terminal only."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from harness.cli import terminal
from harness.runs.cells import Step
from harness.spec import RunSpec
from harness.untrusted import harmless


class Progress:
    """Says what is being measured and how much is left, counted in repetitions; redrawn only between timed regions."""

    def __init__(self, cells: Sequence[RunSpec]) -> None:
        self._ends = [0]
        for cell in cells:
            self._ends.append(self._ends[-1] + cell.repetitions + 1)
        self._cell = 0
        self._bar: Any = None
        if terminal.is_watched():
            from tqdm import tqdm

            # No monitor thread and no redraw by time: nothing may run beside a timed region.
            tqdm.monitor_interval = 0
            form = "{desc} {bar} {n_fmt}/{total_fmt}  {elapsed} + {remaining}"
            self._bar = tqdm(total=self._ends[-1], leave=False, file=sys.stderr, bar_format=form, dynamic_ncols=True)

    def show(self, step: Step) -> None:
        """Draw where the run stands."""
        self._cell = min(step.cell, len(self._ends) - 2)  # a search may measure a cell more than once
        if self._bar is None:
            return
        where = f"{step.spec.test}: {step.phase}"
        if step.phase == "repetition":
            where += f" {step.index + 1}/{step.count}"
        self._bar.set_description_str(harmless.line(where).ljust(28), refresh=False)
        done = self._ends[self._cell] + (1 + step.index if step.phase in ("repetition", "depth") else 0)
        self._bar.n = max(self._bar.n, done)
        self._bar.refresh()

    def finish_cell(self) -> None:
        if self._bar is not None:
            self._bar.n = self._ends[self._cell + 1]
            self._bar.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def byte_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for bytes: gives a function to call with (bytes done, bytes in all)."""
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, disable=None, leave=False, desc=harmless.line(description)) as bar:
        moved_at = time.monotonic()

        def show(done_bytes: int, total_bytes: int) -> None:
            nonlocal moved_at
            still_s = 0.0 if done_bytes != bar.n else time.monotonic() - moved_at
            moved_at = moved_at if still_s else time.monotonic()
            bar.total = total_bytes
            bar.set_postfix_str(f"nothing came for {still_s:.0f} s" if still_s > 3 else "", refresh=still_s > 3)
            bar.update(done_bytes - bar.n)

        yield show
