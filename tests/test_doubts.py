"""What a record cannot be: each nonsense is made up once and named; what was measured on a quiet machine is not called nonsense."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib

import pytest

from harness.records.cautions import CautionCause
from harness.records.doubts import Limits, doubt_rounds, doubt_same, gravest, spread
from harness.records.kinds import read_line
from harness.records.memory import MemoryRecord
from harness.records.ollama import Answer, Comparison, DirectText, Round, Task
from harness.records.parity import Parity
from harness.records.plausibility import (
    doubt_comparison,
    doubt_memory,
    doubt_parity,
    doubt_roof,
    doubt_text,
    doubt_tokens,
)
from harness.records.roofline import ARITHMETIC, READING, SECOND_METHOD, Roof
from harness.records.text import Figures, TextRun, TextSettings
from harness.records.time_doubts import find_time_doubts
from harness.records.token_time import TimeRecord

from .test_bandwidth import made
from .test_render_overhead import MIB, READINGS, REPORT, make_measurement
from .test_time_arithmetic import TOKEN_NS, make_raw, make_record

KEPT = sorted((pathlib.Path(__file__).parents[1] / "bench_results").glob("*/*.jsonl"))
DISTURBED = pathlib.Path(__file__).parent / "disturbed" / "time-ledger.jsonl"


def read(path):
    return [read_line(json.loads(line)).content for line in path.read_text(encoding="utf-8").splitlines()]


def causes(doubts, *, distrust=None):
    return {one.cause for one in doubts if distrust is None or one.distrust is distrust}


# How far off is too far.


def test_a_spread_is_the_interval_where_there_are_enough_and_else_the_range():
    assert spread([5.0]) is None
    assert spread([1.0, 1.0, 1.2]) == pytest.approx(0.2)
    assert spread([*[1.0] * 9, 100.0]) == 0, "one round of ten is no disagreement"
    assert spread([8.0, 9.0, 10.0, 10.0, 11.0, 30.0]) == pytest.approx(2.0), "of six the interval is the range"


def test_of_two_times_the_longer_is_named_first():
    (found,) = doubt_same(1.0, 3.0, Limits(2.0, 4.0), part="a", other_part="b")
    assert (found.part, found.other_part, found.times, found.distrust) == ("b", "a", 3.0, False)
    assert found.text == "b took 3.0 times as long as a, which is the same work"
    assert not list(doubt_same(0.0, 3.0, part="a", other_part="b")), "a time of nothing says nothing"


def test_of_each_cause_the_gravest_is_told():
    mild, wide, worse = (next(iter(doubt_rounds([1, 1 + far], part=str(far)))) for far in (0.3, 0.5, 3))
    assert gravest([mild, worse, wide]) == (worse,)
    assert worse.distrust
    assert not mild.distrust


# A time ledger.


@pytest.fixture
def raw():
    """A made-up record without a fault; its application takes as long as its bench."""
    made_up = make_raw()
    for one in made_up["applications"]:
        one["token_ns"] = [ns * 1000 for ns in one["token_ns"]]
        one["parts_ns"] = {name: [ns * 1000 for ns in spent] for name, spent in one.get("parts_ns", {}).items()}
    return made_up


def blocks_of(raw, variant, depth=0, cache="f16"):
    found = [b for b in raw["blocks"] if (b["variant"], b["depth"], b["cache"]) == (variant, depth, cache)]
    assert found
    return found


def stretch(blocks, factor):
    for block in blocks:
        block["token_ns"] = [round(ns * factor) for ns in block["token_ns"]]


def test_a_quiet_ledger_has_no_doubts(raw):
    assert find_time_doubts(make_record(raw)) == []


def slower_rounds(raw):
    stretch(blocks_of(raw, "bare")[:4], 2.0)


def watched_cheaper(raw):
    stretch(blocks_of(raw, "observing"), 0.9)


def watched_dear(raw):
    stretch(blocks_of(raw, "observing"), 2.31)


def unseen(raw):
    for block in blocks_of(raw, "observing"):
        block["node_ns"] = {name: [ns // 2 for ns in spent] for name, spent in block["node_ns"].items()}


def negative_loop(raw):
    texts = next(one for one in raw["applications"] if one["variant"] == "completion")
    texts["parts_ns"]["sampling"] = [6_000_000] * 9


def another_bench(raw):
    for one in raw["applications"]:
        one["token_ns"] = [ns * 3 for ns in one["token_ns"]]


def deeper_cheaper(raw):
    stretch([b for b in raw["blocks"] if b["depth"] == 512], 0.5)


def slow_decode(raw):
    for block in blocks_of(raw, "chain"):
        block["token_ns"] = [ns + 3 * TOKEN_NS for ns in block["token_ns"]]
        block["parts_ns"]["decode"] = [ns + 3 * TOKEN_NS for ns in block["parts_ns"]["decode"]]


def slow_second(raw):
    for load in raw["loads"]:
        load["second_token_ns"] = 40 * TOKEN_NS


def slow_warm(raw):
    for load in raw["loads"]:
        load["load_ns"] *= 3 if load["state"] == "warm" else 1


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (slower_rounds, CautionCause.ROUNDS_DISAGREE),
        (watched_cheaper, CautionCause.WATCHING_CHEAP),
        (watched_dear, CautionCause.WATCHING_DEAR),
        (unseen, CautionCause.PARTS_MISS_WHOLE),
        (negative_loop, CautionCause.BELOW_ZERO),
        (another_bench, CautionCause.SAME_WORK_DIFFERS),
        (deeper_cheaper, CautionCause.DEEPER_IS_CHEAPER),
        (slow_decode, CautionCause.SAME_WORK_DIFFERS),
        (slow_second, CautionCause.SAME_WORK_DIFFERS),
        (slow_warm, CautionCause.WARM_SLOWER),
    ],
)
def test_each_nonsense_is_named(raw, spoil, cause):
    raw["resolved"] = {
        "n_ctx": 1024, "n_batch": 512, "n_ubatch": 512, "n_threads": 1, "flash_attn": True, "load_mode": None,
        "layers_by_device": {"CPU": 3}, "repacked_bytes": 0, "buffers": [],
    }  # fmt: skip
    spoil(raw)
    found = find_time_doubts(make_record(raw))
    assert cause in causes(found, distrust=True), [one.text for one in found]


def test_watching_may_be_dear_on_a_card(raw):
    watched_dear(raw)
    found = find_time_doubts(make_record(raw))
    assert CautionCause.WATCHING_DEAR in causes(found, distrust=False), "nobody says that all layers were on the CPU"


def operations(times, reads_bytes, roof=None):
    """Doubts of a record whose token consists of such matrices: ns by name, bytes that all of them read."""
    raw = copy.deepcopy(make_raw(depths=(0,), caches=("f16",)))
    names = {f"MUL_MAT\t{name}-#\tblk.#.{name}.weight\tx": ns for name, ns in times.items()}
    for block in raw["blocks"]:
        if block["variant"] == "observing":
            whole = len(block["token_ns"])
            block["node_ns"] = {name: [ns] * whole for name, ns in names.items()}
            block["node_count"] = dict.fromkeys(names, 2)
            block["outside_ns"] = [TOKEN_NS - sum(times.values())] * whole
    raw["applications"], raw["loads"] = [], []
    record = make_record(raw, roof=roof)
    weights = {name.replace("_", " "): reads_bytes for name in times}
    return find_time_doubts(dataclasses.replace(record, reads=_reads(weights)))


def _reads(weights):
    from harness.gguf.reads import TokenReads

    return TokenReads(weights, {})


def test_two_matrices_of_one_size_take_the_same_time():
    """As in a ledger that was taken beside other work: ffn up at 4 GB/s, its twin at 12."""
    bad = operations({"ffn_gate": 2_000_000, "ffn_up": 7_000_000}, 10**7)
    assert causes(bad, distrust=True) == {CautionCause.SAME_WORK_DIFFERS}
    assert any("ffn up took 3.5 times as long as ffn gate at depth 0" in one.text for one in bad)
    assert not operations({"ffn_gate": 4_000_000, "ffn_up": 5_000_000}, 10**7)


def test_nothing_large_is_read_faster_than_memory_allows():
    matrices = {"ffn_gate": 4_000_000, "ffn_up": 4_500_000}
    above = operations(matrices, 10**9, roof=5e10)
    assert causes(above, distrust=True) == {CautionCause.ABOVE_ROOF}
    small = operations(matrices, 10**7, roof=5e8)
    assert causes(small) == {CautionCause.ABOVE_ROOF}
    assert not causes(small, distrust=True), "a small model may lie in the caches"
    assert not operations(matrices, 10**9, roof=2.5e11)


def test_a_ledger_taken_beside_busy_loops():
    """Recorded here with two busy loops on two cores."""
    (record,) = read(DISTURBED)
    grave = causes(find_time_doubts(record), distrust=True)
    assert grave >= {
        CautionCause.ROUNDS_DISAGREE, CautionCause.WATCHING_CHEAP, CautionCause.PARTS_MISS_WHOLE, CautionCause.SAME_WORK_DIFFERS,
        CautionCause.BELOW_ZERO,
    }  # fmt: skip


# The other kinds.


@pytest.fixture
def roof(recorded):
    def make(*tests):
        return Roof("2026-01-01T00:00:00Z", recorded[0].machine, "0.1.0", recorded[0].build, tests)

    return make


STEADY = (10**6,) * 10


def test_a_quiet_roofline_has_no_doubts(roof):
    tests = [made(durations_ns=STEADY, n_threads=n) for n in (1, 2)]
    assert not list(doubt_roof(roof(*tests)))


@pytest.mark.parametrize(
    ("tests", "cause"),
    [
        ([{"durations_ns": (10**5, 10**6) * 5}], CautionCause.ROUNDS_DISAGREE),
        ([{"n_threads": 1}, {"n_threads": 2, "durations_ns": (3 * 10**6,) * 10}], CautionCause.THREADS_HINDER),
        ([{"durations_ns": (1,) * 10}], CautionCause.RATE_SENSELESS),
        ([{"n_bytes": 10}], CautionCause.RATE_SENSELESS),
        ([{"max_error": 1.0}], CautionCause.WRONG_RESULT),
    ],
)
def test_each_nonsense_of_a_roofline_is_named(roof, tests, cause):
    found = list(doubt_roof(roof(*(made(**{"durations_ns": STEADY, **one}) for one in tests))))
    assert cause in causes(found, distrust=True), [one.text for one in found]


def test_methods_that_differ_and_tests_that_do_not_speak_are_told_and_not_grave(roof):
    quick, slow = made(durations_ns=STEADY), made(work=SECOND_METHOD, durations_ns=(4 * 10**6,) * 10, n_flops=0)
    assert causes(doubt_roof(roof(quick, slow)), distrust=False) == {CautionCause.SAME_WORK_DIFFERS}
    restless = made(type_name="Q4_0", durations_ns=(2 * 10**6, 5 * 10**6) * 5)
    assert causes(doubt_roof(roof(quick, restless)), distrust=False) == {CautionCause.ROUNDS_DISAGREE}
    assert (READING, ARITHMETIC) == ("read", "multiply")


def text(recorded, **changes):
    figures = Figures(10**9, 10**8, 10, 10**8, 21, 7 * 10**8)
    return TextRun(
        **{
            "command": "run", "time_utc": "2026-11-24T10:59:57Z", "machine": recorded[0].machine, "harness_version": "0",
            "asked": TextSettings(n_ctx=512), "prompt_sha256": "hash", "figures": figures, "finish": "stop",
            "token_ns": (3 * 10**7,) * 20, "sample_ns": 10**7, "decode_ns": 6 * 10**8, **changes,
        }
    )  # fmt: skip


def test_a_text_whose_tokens_were_held_up(recorded):
    assert not list(doubt_text(text(recorded)))
    held = text(recorded, token_ns=(3 * 10**7,) * 19 + (10**9,))
    (found,) = doubt_text(held)
    assert (found.cause, found.distrust, found.n_stalled) == (CautionCause.STALLED, True, 1)
    assert not list(doubt_tokens([10**9, *[10**7] * 20])), "the first token is the prompt's"
    assert not list(doubt_tokens([10**7, 10**9])), "two tokens have no usual one"


def test_parts_that_exceed_the_whole(recorded):
    jumped = text(recorded, decode_ns=8 * 10**8)
    assert causes(doubt_text(jumped), distrust=True) == {CautionCause.PARTS_EXCEED_WHOLE}
    shorter = text(recorded, figures=Figures(5 * 10**8, 10**8, 10, 10**8, 21, 7 * 10**8))
    assert causes(doubt_text(shorter), distrust=True) == {CautionCause.PARTS_EXCEED_WHOLE}


def comparison(recorded, here_ns=(7 * 10**8,) * 6, there_ns=(8 * 10**8,) * 6, wall_ns=2 * 10**9):
    rounds = tuple(
        Round(
            DirectText(Figures(10**9, 10**8, 10, 10**8, 21, here), (3 * 10**7,) * 20),
            Answer(10**9, 10**8, 10, 10**8, 21, there, wall_ns=wall_ns),
        )
        for here, there in zip(here_ns, there_ns, strict=True)
    )
    return Comparison(Task("m"), rounds, recorded[0].machine, "2026-11-24T10:59:57Z")


def test_both_sides_of_a_comparison_are_looked_at(recorded):
    assert not list(doubt_comparison(comparison(recorded)))
    restless = (2 * 10**8, 7 * 10**8, 2 * 10**8, 7 * 10**8, 7 * 10**8, 10**8)
    for side, name in (("here_ns", "harness"), ("there_ns", "Ollama")):
        found = list(doubt_comparison(comparison(recorded, **{side: restless})))
        assert causes(found, distrust=True) == {CautionCause.ROUNDS_DISAGREE}
        assert name in found[0].text
    short = list(doubt_comparison(comparison(recorded, wall_ns=5 * 10**8)))
    assert causes(short, distrust=True) == {CautionCause.PARTS_EXCEED_WHOLE}


def test_pairs_that_disagree(recorded):
    def parity(*ours):
        theirs = ((10**7,),) * len(ours)
        return Parity("2026-11-24T10:59:57Z", recorded[0].machine, "m", "pp8", 8, tuple((ns,) for ns in ours), theirs)

    assert not list(doubt_parity(parity(*[10**7] * 8)))
    (found,) = doubt_parity(parity(*[10**7, 2 * 10**7] * 4))
    assert found.distrust


def memory(change=lambda reading: reading):
    return dataclasses.replace(REPORT, measurement=make_measurement(tuple(map(change, READINGS))))


def test_a_quiet_memory_ledger_has_no_doubts():
    assert not list(doubt_memory(REPORT))
    assert not list(doubt_memory(dataclasses.replace(REPORT, measurement=None)))


def test_memory_that_moved_meanwhile():
    def swap(reading):
        return dataclasses.replace(reading, swap_bytes=100 * MIB) if reading.step == "context" else reading

    def evict(reading):
        lost = 600 * MIB if reading.step == "first token" else 0
        return dataclasses.replace(reading, rss_bytes=reading.rss_bytes - lost)

    assert causes(doubt_memory(memory(swap)), distrust=True) == {CautionCause.SWAPPED_OUT}
    assert causes(doubt_memory(memory(evict)), distrust=True) >= {CautionCause.LEFT_MEMORY, CautionCause.UNEXPLAINED}


# What was kept.


FINDERS = {
    TimeRecord: find_time_doubts, Roof: doubt_roof, MemoryRecord: doubt_memory, Parity: doubt_parity, TextRun: doubt_text,
    Comparison: doubt_comparison,
}  # fmt: skip


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_nothing_kept_from_a_quiet_machine_is_called_nonsense(path):
    for record in read(path):
        finder = FINDERS.get(type(record))
        if finder is not None:
            assert not [one.text for one in finder(record) if one.distrust]


def test_a_record_without_a_number_has_no_doubts():
    record = dataclasses.replace(make_record(), blocks=(), loads=(), applications=())
    assert find_time_doubts(record) == []
