"""How far a cell may be believed, on records that are made up: what disturbed its repetitions, and how much they differ."""

import dataclasses
import json

import pytest

from harness.evidence.drift import count_warmups
from harness.records.cautions import Caution, CautionCause
from harness.records.cell_verdict import mark, undisturbed
from harness.records.cells import Conditions, Sample
from harness.records.statistics import summarize
from harness.records.trust import Trust
from harness.records.verdict import judge
from harness.views.verdict import describe_verdict, describe_verdicts

MS = 1_000_000
QUIET = {"n_cpus": 2, "n_cores": 2, "own_s": 2.0, "busy_s": 2.0, "waited_ns": 0, "stolen_s": 0.0, "n_switched": 4}


def sample(duration_ms=1000, wall_ms=None, *, is_warmup=False, **more):
    """A repetition on two threads; conditions are a quiet machine's unless told."""
    seen = Conditions(wall_ns=int((wall_ms or duration_ms + 10) * MS), **{**QUIET, **more})
    return Sample(int(duration_ms * MS), None, (), is_warmup, seen)


@pytest.fixture
def cell(recorded):
    """A record of these repetitions, on two threads, without a caution."""

    def make(samples, **more):
        asked = dataclasses.replace(recorded[0].asked, n_threads=2, repetitions=len(samples))
        return dataclasses.replace(recorded[0], asked=asked, samples=tuple(samples), **{"warnings": (), **more})

    return make


def causes(verdict):
    return [(reason.cause, reason.distrust) for reason in verdict.reasons]


def test_a_quiet_machine_is_quiet_and_says_how_close(cell):
    record = cell([sample(1000 + number % 3) for number in range(10)])
    assert judge(record).trust is Trust.QUIET
    assert describe_verdicts([("pp64", summarize(record))]) == "quiet machine: 10 repetitions, ± 0.1 %"


def test_few_repetitions_are_no_noise(cell):
    record = cell([sample(), sample()])
    assert judge(record).trust is Trust.QUIET
    assert describe_verdicts([("a", summarize(record))]) == "quiet machine: 2 repetitions, too few for an interval"


def test_others_on_every_core_make_it_worthless(cell):
    record = cell([sample(2000, busy_s=4.0, own_s=2.0, waited_ns=1900 * MS)] * 10)
    verdict = judge(record)
    assert (verdict.trust, causes(verdict)) == (Trust.NOT_TRUSTED, [("other-programs", True)])
    assert describe_verdict(verdict) == ("not to be trusted: other programs took 1.0 of 2 CPUs in 10 of 10 repetitions")


@pytest.mark.parametrize("n_samples", [1, 2, 6])
def test_so_do_they_with_few_and_short_repetitions(cell, n_samples):
    """Of 20 ms, of which a tick is half: waits are known to the nanosecond, and the sum of all has the ticks."""
    hit = sample(20, busy_s=0.06, own_s=0.02, waited_ns=19 * MS)
    assert (
        judge(cell([sample(20, busy_s=0.06, own_s=0.02, is_warmup=True), *[hit] * n_samples])).trust
        is Trust.NOT_TRUSTED
    )


def test_where_waits_are_not_known_ticks_suffice(cell):
    record = cell([sample(20, busy_s=0.06, own_s=0.02, waited_ns=None)] * 6)
    assert judge(record).trust is Trust.NOT_TRUSTED


def test_some_disturbed_repetitions_are_noise_and_the_others_have_a_median(cell):
    hit = sample(1500, busy_s=3.0, own_s=2.2, waited_ns=700 * MS)
    record = cell([sample(1000 + number) for number in range(9)] + [hit] * 5)
    verdict, summary = judge(record), summarize(record)
    assert (verdict.trust, causes(verdict)) == (Trust.NOISY, [("other-programs", False)])
    assert (len(undisturbed(mark(record))), summary.n_undisturbed, summary.n_samples) == (9, 9, 14)
    assert summary.undisturbed_rate_tok_per_s is None, "the medians differ by less than what is wanted"
    far = cell([sample(1000 + number) for number in range(6)] + [hit] * 7)
    assert summarize(far).undisturbed_rate_tok_per_s == pytest.approx(record.asked.n_tokens / 1.0025)
    assert [bool(one.disturbances) for one in mark(far)] == [False] * 6 + [True] * 7, "marked, and kept"


def test_one_in_ten_is_not_felt_by_a_median(cell):
    hit = sample(1500, waited_ns=700 * MS)
    assert judge(cell([sample()] * 19 + [hit] * 2)).trust is Trust.QUIET
    assert judge(cell([sample()] * 18 + [hit] * 3)).trust is Trust.NOISY
    assert judge(cell([sample()] * 6 + [hit])).trust is Trust.QUIET, "one alone"
    assert judge(cell([sample()] * 4 + [hit])).trust is Trust.NOISY, "one of few"


def test_a_server_of_ours_is_no_other_program(cell):
    hit = sample(2000, busy_s=4.0, own_s=2.0, waited_ns=1900 * MS, is_server_here=True)
    record = cell([hit] * 6)
    assert judge(record).trust is Trust.QUIET
    assert len(undisturbed(mark(record))) == 6


def test_threads_beyond_the_cpus_are_nobody_elses_doing(cell):
    record = cell([sample(waited_ns=5000 * MS)] * 6)
    record = dataclasses.replace(record, asked=dataclasses.replace(record.asked, n_threads=8))
    assert judge(record).trust is Trust.QUIET
    (crowd,) = summarize(record).cautions
    assert crowd.text == "8 threads on 2 CPUs wait for each other"


@pytest.mark.parametrize(
    ("seen", "cause", "is_grave"),
    [
        ({"stolen_s": 0.1}, "time-stolen", False),
        ({"stolen_s": 1.2}, "time-stolen", True),
        ({"n_held": 2, "held_s": 0.1}, "quota-held", False),
        ({"n_held": 9, "held_s": 0.9}, "quota-held", True),
        ({"n_major_faults": 400}, "pages-read", False),
        ({"n_major_faults": 4000}, "pages-read", True),
        ({"n_swapped_pages": 400}, "pages-swapped", False),
        ({"n_thermal": 3}, "heat", False),
    ],
)
def test_each_disturbance_is_a_reason_of_its_own(cell, seen, cause, is_grave):
    assert causes(judge(cell([sample(**seen)] * 8))) == [(cause, is_grave)]


def test_a_clock_that_fell_is_told_with_how_far(cell):
    record = cell([sample(clock_mhz=3000.0)] * 6 + [sample(clock_mhz=2400.0)] * 4)
    verdict = judge(record)
    assert (verdict.trust, causes(verdict)) == (Trust.NOISY, [("clock-fell", False)])
    assert "20 % below its usual one after 4 of 10" in describe_verdict(verdict)


def test_a_wide_interval_says_less_than_its_digits_and_a_wider_one_nothing(cell):
    spread = [sample(1000 + 15 * number) for number in range(12)]
    verdict = judge(cell(spread))
    assert (verdict.trust, causes(verdict)) == (Trust.NOISY, [("wide-interval", False)])
    assert judge(cell([sample(1000 + 90 * number) for number in range(12)])).trust is Trust.NOT_TRUSTED
    assert judge(cell([sample()] * 5 + [sample(1600)])).trust is Trust.NOISY, (
        "one alone of six makes the interval the range"
    )


def test_an_older_record_is_judged_by_its_cautions(cell):
    plain = [Sample(1000 * MS, None, (), is_warmup=False)] * 6
    busy = Caution(CautionCause.BUSY_MACHINE, cpus_lost=0.3, n_cpus=2, n_threads=2)
    assert judge(cell(plain)).trust is Trust.QUIET
    assert judge(cell(plain, warnings=(busy,))).trust is Trust.NOISY
    assert judge(cell(plain, warnings=(dataclasses.replace(busy, distrust=True),))).trust is Trust.NOT_TRUSTED
    hot = Caution(CautionCause.THROTTLED, reasons=("power cap",))
    assert judge(cell(plain, warnings=(hot,))).trust is Trust.QUIET, "a card at its power limit runs as it always will"
    assert summarize(cell(plain)).n_undisturbed is None


def test_a_cell_without_a_number_is_not_judged(recorded):
    assert judge(recorded[2]) is None


def test_several_cells_are_told_by_the_gravest(cell):
    quiet = summarize(cell([sample()] * 6))
    noisy = summarize(cell([sample(stolen_s=0.1)] * 6))
    line = describe_verdicts([("pp64", quiet), ("tg16", noisy)])
    assert line == "noisy: tg16 (the hypervisor took 0.1 of 2 CPUs in 6 of 6 repetitions)"
    assert describe_verdicts([("a", noisy)] * 4) == "noisy: 4 of 4 cells, for the reasons above"


def test_a_warm_up_that_is_seen_is_left_out(cell):
    record = cell([sample(2000), sample(1500), *[sample(1000 + number) for number in (3, 0, 6, 2, 7, 1, 5, 4)]])
    seen = dataclasses.replace(record, asked=dataclasses.replace(record.asked, warmup=None, repetitions=None))
    n_seen = count_warmups([one.duration_ns for one in record.samples])
    assert n_seen >= 2
    assert (len(record.timed), len(seen.timed), seen.n_seen_warmups) == (10, 10 - n_seen, n_seen)
    assert summarize(seen).n_seen_warmups == n_seen
    assert len(dataclasses.replace(seen, asked=dataclasses.replace(seen.asked, warmup=False)).timed) == 10


def test_two_speeds_and_a_low_clock_are_reasons(cell):
    record = cell([sample(1000 + number) for number in range(8)] + [sample(1100 + number) for number in range(8)])
    assert causes(judge(record))[-1] == ("two-speeds", False)
    assert judge(record).reasons[-1].text == "repetitions have two speeds, 10.0 % apart"
    slow = judge(cell([sample(clock_mhz=1400.0, clock_limit_mhz=4700.0)] * 6))
    assert describe_verdict(slow) == "noisy: the processor ran at 1400 of 4700 MHz"
    assert judge(cell([sample(clock_mhz=2400.0, clock_limit_mhz=4700.0)] * 6)).trust is Trust.QUIET


def test_a_disturbed_cell_is_shown_with_both_medians(cell):
    from harness.views.cells import write_cells

    hit = sample(1500, busy_s=3.0, own_s=2.2, waited_ns=300 * MS)
    record = cell([sample(1000 + number) for number in range(6)] + [hit] * 7)
    text = " ".join(write_cells([record], "table").split())
    assert "[1] 63.84 t/s over 6 undisturbed of 13" in text
    assert text.endswith("noisy: other programs took 0.5 of 2 CPUs in 7 of 13 repetitions")
    (values,) = json.loads(write_cells([record], "json"))
    found = [values[name] for name in ("repetitions", "undisturbed", "verdict", "seen_warmups")]
    assert found == [13, 6, "noisy", 0]
    assert values["undisturbed_ts"] == pytest.approx(63.84, abs=0.01)
    assert values["median_ts"] == pytest.approx(42.67, abs=0.01), "of all, as before"
    for form in ("md", "html"):
        assert "noisy: other programs" in write_cells([record], form), form


def test_of_a_number_that_was_asked_for_all_count(cell):
    """A whole repetition warmed them up; leaving some out would leave fewer than whoever asked wanted."""
    falling = cell([sample(1100 - 10 * number) for number in range(8)])
    auto = dataclasses.replace(falling, asked=dataclasses.replace(falling.asked, warmup=None, repetitions=None))
    fixed = dataclasses.replace(auto, asked=dataclasses.replace(auto.asked, repetitions=8))
    assert (auto.n_seen_warmups, fixed.n_seen_warmups, len(fixed.timed)) == (4, 0, 8)
