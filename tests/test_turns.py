"""A run of cells by turns, on a bench that only pretends: what becomes of each cell, of a death, a limit and Ctrl-C."""

from __future__ import annotations

import dataclasses

import pytest

from harness.host.machine import describe_machine
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Sample
from harness.records.failures import Cause, Failure
from harness.records.statistics import summarize
from harness.runs.bench import Plan
from harness.runs.cells import run_in_turns
from harness.spec import RunSpec

RESOLVED = {
    "n_ctx": 256, "n_batch": 1, "n_ubatch": 1, "n_threads": 1, "flash_attn": None, "load_mode": None, "layers_by_device": {},
    "repacked_bytes": 0, "buffers": [],
}  # fmt: skip
MODEL = {"file_name": "m", "description": "", "size_bytes": 1, "n_params": 1, "file_size_bytes": 1}


class FakeBench:
    """Takes ns(cell's n_gen, its n-th repetition) for each; dies where that is None, and is pressed Ctrl-C where it is an exception."""

    build = None

    def __init__(self, ns):
        self.ns, self.blocks, self.limits, self.is_killed = ns, [], [], False
        self._done = {}

    def start(self, spec):
        return None

    def kill(self):
        self.is_killed = True

    def run(self, spec, command, _needs, timeout_s):
        self.blocks.append((spec.n_gen, command["repetitions"], command["is_first"]))
        self.limits.append(timeout_s)
        yield {"event": "loaded", "model": MODEL}
        for index in range(command["repetitions"]):
            yield {"event": "phase", "phase": "repetition", "index": index, "count": command["repetitions"]}
            n = self._done.setdefault(spec.n_gen, 0)
            self._done[spec.n_gen] += 1
            ns = self.ns(spec.n_gen, n)
            if ns is None:
                yield Failure("repetition", None, Cause.ABORT, signal=6)
                return
            if isinstance(ns, BaseException):
                raise ns
            yield {"event": "sample", "duration_ns": ns, "prompt_ns": None, "token_ns": [ns], "is_warmup": False}
        lost = 0.2 + 0.01 * len(self.blocks)
        caution = Caution(CautionCause.BUSY_MACHINE, cpus_lost=lost, n_cpus=2, n_threads=2)
        cautions = [{"cause": caution.cause.value, "cpus_lost": lost, "n_cpus": 2, "n_threads": 2}]
        load = {
            "load_duration_ns": len(self.blocks),
            "context_duration_ns": 1,
            "rss_before_bytes": 1,
            "rss_loaded_bytes": 1,
            "rss_after_bytes": 1,
        }
        yield {"event": "done", "resolved": RESOLVED, "load": load, "dispatch_ns_per_token": 1, "cautions": cautions}


def cells_of(*n_gen, **manner):
    return [RunSpec("m", n_gen=n, n_threads=1, warmup=False, **manner) for n in n_gen]


def measure(cells, ns, *, on_step=lambda _step: None, **plan):
    """(records by place, the bench), and whether Ctrl-C went on."""
    bench, records, interrupted = FakeBench(ns), {}, False
    try:
        for place, record in run_in_turns(
            cells, Plan("test", describe_machine(), **plan), on_step=on_step, bench=bench
        ):
            records[place] = record
    except KeyboardInterrupt:
        interrupted = True
    return records, bench, interrupted


def test_every_cell_is_one_record_whose_samples_know_their_turn():
    records, bench, _ = measure(cells_of(1, 2, 3, repetitions=12), lambda n_gen, _n: 1000 * n_gen)
    assert sorted(records) == [0, 1, 2]
    for place, record in records.items():
        assert [sample.duration_ns for sample in record.timed] == [1000 * (place + 1)] * 12
        turns = [sample.turn for sample in record.timed]
        assert turns == sorted(turns)
        assert [bench.blocks[turn][0] for turn in turns] == [place + 1] * 12
    assert len({sample.turn for record in records.values() for sample in record.timed}) == len(bench.blocks) == 12
    assert [is_first for n_gen, _, is_first in bench.blocks if n_gen == 1] == [True, False, False, False]


def test_what_blocks_say_is_said_once_and_the_load_is_the_first_ones():
    records, bench, _ = measure(cells_of(1, 2, repetitions=12), lambda _n_gen, _n: 1000)
    for place, record in records.items():
        own = [turn for turn, (n_gen, *_) in enumerate(bench.blocks) if n_gen == place + 1]
        (caution,) = record.warnings
        assert caution.cpus_lost == pytest.approx(0.2 + 0.01 * (own[-1] + 1)), "the worst of them"
        assert record.load.load_duration_ns == own[0] + 1


def test_a_death_in_a_block_is_one_cells_failure_with_its_samples_so_far():
    records, bench, _ = measure(
        cells_of(1, 2, 3, repetitions=12), lambda n_gen, n: None if (n_gen, n) == (2, 3) else 1000
    )
    assert records[1].failure.cause == Cause.ABORT
    assert len(records[1].timed) == 3
    assert [len(records[place].timed) for place in (0, 2)] == [12, 12]
    assert all(records[place].failure is None for place in (0, 2))
    assert sum(n_gen == 2 for n_gen, *_ in bench.blocks) == 2


def test_ctrl_c_keeps_what_every_open_cell_has():
    def press(n_gen, n):
        return KeyboardInterrupt() if (n_gen, n) == (1, 5) else 1000

    records, bench, interrupted = measure(cells_of(1, 2, 3, repetitions=12), press)
    assert interrupted
    assert bench.is_killed
    assert sorted(records) == [0, 1, 2]
    for record in records.values():
        assert record.failure.cause == Cause.INTERRUPTED
        assert 0 < len(record.timed) < 12
        assert record.warnings[-1].n_wanted == 12
        assert record.warnings[-1].n_done == len(record.timed)


def test_a_cell_that_has_nothing_yet_is_no_record():
    records, _, interrupted = measure(cells_of(1, 2, repetitions=12), lambda _n_gen, _n: KeyboardInterrupt())
    assert interrupted
    assert records == {}


def test_the_limit_of_a_cell_is_shared_by_its_blocks():
    _, bench, _ = measure(cells_of(1, 2, repetitions=12), lambda _n_gen, _n: 1000, cell_timeout_s=100.0)
    own = [limit for limit, (n_gen, *_) in zip(bench.limits, bench.blocks, strict=True) if n_gen == 1]
    assert own[0] == 100.0
    assert own == sorted(own, reverse=True)
    assert own[-1] < own[0]


def test_auto_says_when_its_precision_was_not_reached():
    steady, _, _ = measure(cells_of(1), lambda _n_gen, _n: 1000)
    assert len(steady[0].timed) == 6
    assert CautionCause.PRECISION_MISSED not in {caution.cause for caution in summarize(steady[0]).cautions}
    missed = Sample(1000, None, (1000,), False), Sample(1500, None, (1500,), False)
    record = dataclasses.replace(steady[0], samples=missed * 6, warnings=())
    (caution,) = [one for one in summarize(record).cautions if one.cause is CautionCause.PRECISION_MISSED]
    assert caution.text == "± 20 % after 12 repetitions and 0 s; ± 2 % within 60 s was wanted"
    fixed = dataclasses.replace(record, asked=dataclasses.replace(record.asked, repetitions=12))
    assert CautionCause.PRECISION_MISSED not in {one.cause for one in summarize(fixed).cautions}


def test_what_is_told_goes_forward_and_ends_at_the_end():
    steps = []
    cells = cells_of(1, 2, 3)
    measure(cells, lambda n_gen, n: 1000 + 100 * (n_gen == 2) * (n % 3), on_step=steps.append)
    assert all(0 <= step.n_done <= 3 for step in steps)
    assert all(step.index < step.count for step in steps)
    assert steps[-1].n_done > 2.5


def test_a_precision_that_was_missed_is_why_the_interval_is_wide_and_both_are_one_figure():
    record = measure(cells_of(1, repetitions=12), lambda _n_gen, _n: 1000)[0][0]
    record = dataclasses.replace(
        record, asked=dataclasses.replace(record.asked, repetitions=None), warnings=(),
        samples=(Sample(1000, None, (1000,), False), Sample(2500, None, (2500,), False)) * 6,
    )  # fmt: skip
    summary, widths = summarize(record), (CautionCause.PRECISION_MISSED, CautionCause.WIDE_INTERVAL)
    (caution,) = [one for one in summary.cautions if one.cause in widths]
    assert caution.cause is CautionCause.PRECISION_MISSED
    assert caution.lost_share == summary.half_width == pytest.approx(0.43, abs=0.01)
    assert summary.is_distrusted
