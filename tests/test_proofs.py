"""The scripts that prove docs/trust.md: what they count, on runs that are made up."""

from __future__ import annotations

import pytest

from harness.errors import Outcome
from harness.records.verdict import Trust
from scripts import disturbed
from scripts import time_to_precision as precision


def made_up(program, took_s, **widths):
    return precision.Run(program, took_s, dict.fromkeys(widths, 6), widths)


ROUNDS = [
    run
    for place in range(6)
    for run in (
        made_up("llama_bench", 10 + place, pp512=0.03, tg128=0.01),
        made_up("auto", (10 + place) * 0.8, pp512=0.02, tg128=0.012),
        made_up("fixed", (10 + place) * 2, pp512=None, tg128=0.0201),
    )
]


def test_times_are_compared_within_a_round():
    figures = precision.summarize_runs(ROUNDS)
    assert figures["precision.auto_to_llama_bench"].value == pytest.approx(0.8)
    assert figures["precision.auto_to_llama_bench"].high == pytest.approx(0.8)
    assert figures["precision.auto_to_fixed"].value == pytest.approx(0.4)
    assert figures["precision.llama_bench_s"].value == 12.5
    assert (figures["precision.llama_bench_s"].low, figures["precision.llama_bench_s"].n) == (10, 6)


def test_a_test_without_an_interval_did_not_come_close():
    figures = precision.summarize_runs(ROUNDS)
    reached = {name: figures[f"precision.{name}_reached"].value for name in precision.PROGRAMS}
    assert reached == {"auto": 1.0, "fixed": 0.0, "llama_bench": 0.5}
    assert figures["precision.auto_reached"].n == 12


def test_students_interval_of_a_mean():
    """1, 2, 3, 4, 5: deviation 1.5811, t 2.7764, so 1.9632 of a mean of 3."""
    assert precision.half_width_of_mean([1, 2, 3, 4, 5]) == pytest.approx(1.9632 / 3, abs=1e-4)
    assert precision.half_width_of_mean([1.0]) is None


def test_a_row_says_how_many_repetitions_came_how_close():
    assert precision.write_row(ROUNDS[2]) == [
        "harness pp-tg -r 10 --no-interleave --warmup",
        "20.0",
        "6: —",
        "6: 2.0 %",
    ]


@pytest.mark.parametrize(
    ("exit_code", "trust", "is_caught"),
    [
        (Outcome.NOT_TRUSTED, Trust.NOT_TRUSTED, True), (Outcome.OK, Trust.NOT_TRUSTED, False),
        (Outcome.NOT_TRUSTED, Trust.NOISY, False), (Outcome.NOT_TRUSTED, None, False), (Outcome.OK, Trust.QUIET, False),
    ],
)  # fmt: skip
def test_a_disturbed_command_has_to_say_so_and_end_so(exit_code, trust, is_caught):
    seen = disturbed.Seen("pp-tg", True, exit_code, trust, ("busy machine",), 3.2)
    assert seen.is_caught is is_caught
    assert "    busy machine" in disturbed.write_line(seen).splitlines()


def test_busy_loops_end_with_their_block(monkeypatch):
    started = []

    class Process:
        def __init__(self, command):
            assert disturbed.LOOP in command
            started.append(self)
            self.is_dead = False

        def kill(self):
            self.is_dead = True

        def wait(self):
            assert self.is_dead

    monkeypatch.setattr(disturbed.subprocess, "Popen", Process)
    monkeypatch.setattr(disturbed.time, "sleep", lambda _s: None)
    with pytest.raises(RuntimeError), disturbed.busy_loops(3):
        assert len(started) == 3
        raise RuntimeError("measured no further")
    assert all(one.is_dead for one in started)
