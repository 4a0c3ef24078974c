"""`harness tune` on simulated machines: what is found, what it costs, what becomes of failures, interrupts and the time."""

import dataclasses
import math
import random

import pytest

from harness.errors import UsageError
from harness.evidence.racing import Fate
from harness.evidence.sequential import Decision
from harness.records.cells import Conditions, Device, Machine, Sample
from harness.records.failures import Cause, Failure
from harness.records.kinds import read_line, to_json
from harness.records.trust import Trust
from harness.records.tuning import Part, Quality, Stop, TuneRecord, Why, Work, replay_confirmation, replay_race
from harness.records.verdict import judge
from harness.runs.tune import TuneRequest, plan_work
from harness.runs.tune_races import BlockFailed, Tuner
from harness.runs.tune_space import Room, choose_base, lay_out, least_experts, list_factors, most_layers
from harness.spec import RunSpec
from harness.units import NS_PER_S
from harness.views.formats import render
from harness.views.report import render_report
from harness.views.report.material import Material
from harness.views.tune import describe_tuning

MACHINE = Machine("a CPU", 4, 8, 2**34, "Linux", "x86_64", "3.12")
WORK = Work("chat", 512, 256, 1024, 4096)
CPU = Room(n_threads=4, n_cpus=8, n_layers=25, core_cpus=(0, 1, 2, 3))
CARD = Device("CUDA0", "a card", "gpu", 8 << 30, 8 << 30)


class Simulated:
    """A machine whose tokens take what `token_s` says, on a clock of its own; fails says which specs do."""

    def __init__(self, token_s, *, scatter=0.005, fails=lambda _spec: False, conditions=None, stop_after=10**9):
        self.token_s, self.fails, self.conditions = token_s, fails, conditions
        self.now_s, self.n_blocks, self.stop_after = 0.0, 0, stop_after
        self._chance, self._scatter = random.Random(7), scatter
        self.seen = []

    def clock(self):
        return self.now_s

    def measure_block(self, spec):
        self.n_blocks += 1
        self.seen.append(spec)
        if self.n_blocks > self.stop_after:
            raise KeyboardInterrupt
        if self.fails(spec):
            raise BlockFailed(Failure("load", None, Cause.SEGFAULT))
        samples = []
        for _ in range(spec.repetitions):
            token_s = self.token_s(spec) * math.exp(self._chance.gauss(0, self._scatter))
            self.now_s += token_s * spec.n_tokens + 0.02
            samples.append(
                Sample(round(token_s * spec.n_tokens * NS_PER_S), None, (), is_warmup=False, conditions=self.conditions)
            )
        return samples


def machine_of_threads(spec):
    """Three threads generate fastest, a micro-batch of 256 suits prompts."""
    if spec.n_gen:
        return 0.01 * {1: 2.2, 2: 1.3, 3: 0.8, 4: 1.0, 8: 3.0}[spec.n_threads]
    return 0.001 * (0.9 if spec.n_ubatch == 256 else 1.0)


def spec_of(**settings):
    return RunSpec(
        "x.gguf", n_prompt=WORK.n_prompt, n_gen=WORK.n_gen, n_depth=WORK.n_depth, **{"n_threads": 4, **settings}
    )


def search(machine, room=CPU, *, base=None, **manner):
    """(the tuner after its run, the record of it)."""
    tuner = Tuner(base or spec_of(), WORK, room, machine, machine.clock, list_factors(), **manner)
    try:
        tuner.run()
    except KeyboardInterrupt:
        pass
    return tuner, record_of(tuner)


def record_of(tuner):
    return tuner.fill(TuneRecord("tune", "2026-11-28T16:00:00Z", MACHINE, "0.1", tuner.base, WORK))


def test_what_is_faster_is_found_and_proven():
    machine = Simulated(machine_of_threads)
    tuner, record = search(machine)
    assert tuner.stop is Stop.DONE
    assert (record.found.n_threads, record.found.n_ubatch) == (3, 256)
    assert record.is_proven
    assert record.chosen == record.found
    gain = 1 / replay_confirmation(record).ratio.value
    whole = WORK.n_prompt * 0.001 + WORK.n_gen * 0.01
    assert gain == pytest.approx(whole / (WORK.n_prompt * 0.0009 + WORK.n_gen * 0.008), rel=0.02)
    assert machine.now_s < 300


def test_the_defaults_stay_where_nothing_is_better():
    tuner, record = search(Simulated(lambda spec: 0.01 if spec.n_gen else 0.001))
    assert (tuner.stop, record.found, record.chosen) == (Stop.DONE, record.base, record.base)
    assert not record.is_proven
    assert "the defaults stay" in " ".join(render(describe_tuning(record), "table").split())


def test_a_win_in_the_races_that_is_none_at_the_end_changes_nothing(monkeypatch):
    """The result's speed was luck of the races: from the confirmation on it is the defaults'."""
    machine, confirm = Simulated(machine_of_threads), Tuner._confirm

    def lose_luck(tuner, found):
        machine.token_s = lambda spec: 0.01
        confirm(tuner, found)

    monkeypatch.setattr(Tuner, "_confirm", lose_luck)
    _, record = search(machine)
    assert record.found != record.base
    assert record.chosen == record.base


def test_a_candidate_that_crashes_is_a_row_and_not_the_end():
    tuner, record = search(Simulated(machine_of_threads, fails=lambda spec: spec.n_threads == 2))
    assert tuner.stop is Stop.DONE
    assert record.found.n_threads == 3
    [race] = [race for race in record.races if race.settings[0] == "n_threads"]
    [failed] = [place for place, candidate in enumerate(race.candidates) if candidate.failure]
    assert replay_race(race, record).dropped[failed].fate is Fate.FAILED
    assert "failed [1]" in render(describe_tuning(record), "table")


def test_defaults_that_crash_are_the_end_with_a_reason():
    tuner, record = search(Simulated(machine_of_threads, fails=lambda _spec: True))
    assert (tuner.stop, record.failure.cause, record.chosen) == (Stop.FAILED, Cause.SEGFAULT, record.base)
    assert describe_tuning(record)


@pytest.mark.parametrize("after", [1, 3, 12, 40, 80])
def test_an_interrupt_leaves_the_best_so_far(after):
    _, record = search(Simulated(machine_of_threads, stop_after=after))
    assert record.stop is Stop.INTERRUPTED
    assert read_line(to_json(record)).content.found == dataclasses.replace(record.found, model="x.gguf")
    assert describe_tuning(record)


@pytest.mark.parametrize("max_time_s", [5.0, 20.0, 60.0])
def test_the_time_is_kept(max_time_s):
    machine = Simulated(machine_of_threads)
    _, record = search(machine, max_time_s=max_time_s)
    assert machine.now_s < 1.3 * max_time_s + 1
    assert record.chosen in (record.base, record.found)


def test_what_the_time_does_not_allow_is_said():
    _, record = search(Simulated(lambda spec: 100 * machine_of_threads(spec)), max_time_s=60.0)
    assert Why.NO_TIME in {one.why for one in record.left_out}


def test_a_machine_that_is_too_noisy_ends_it_after_the_defaults():
    tuner, record = search(Simulated(machine_of_threads), is_noisy=lambda tuner: len(tuner.baseline) == 6)
    assert (tuner.stop, record.races, record.chosen) == (Stop.NOISY, (), record.base)
    text = render(describe_tuning(record), "table")
    assert "too noisy" in text
    assert "llama-server" in text, "the safe settings"


def test_a_moment_of_noise_costs_the_baseline_and_not_the_search():
    answers = iter([True, False])
    tuner, record = search(Simulated(machine_of_threads), is_noisy=lambda _tuner: next(answers))
    assert (tuner.stop, len(record.baseline), record.is_proven) == (Stop.DONE, 6, True)


def test_others_work_while_it_is_tuned_is_seen():
    crowded = Conditions(10**9, n_cpus=4, n_cores=4, busy_s=4.0, own_s=1.0, waited_ns=3 * 10**9)
    _, record = search(Simulated(machine_of_threads, conditions=crowded))
    assert judge(record).trust is Trust.NOT_TRUSTED
    assert "safe settings" in " ".join(render(describe_tuning(record), "table").split())
    quiet = Conditions(10**9, n_cpus=8, n_cores=4, busy_s=1.0, own_s=1.0, waited_ns=0)
    _, record = search(Simulated(machine_of_threads, conditions=quiet))
    assert judge(record).trust is Trust.QUIET


def test_the_record_is_read_as_it_was_written_and_comes_to_the_same():
    _, record = search(Simulated(machine_of_threads))
    back = read_line(to_json(record)).content
    assert back == record
    assert (back.found, back.is_proven) == (record.found, True)
    assert replay_confirmation(back).decision is Decision.FASTER


def test_what_is_given_is_not_searched():
    machine = Simulated(machine_of_threads)
    _, record = search(machine, given=frozenset({"n_threads", "n_threads_batch", "n_ubatch", "n_batch"}))
    assert {spec.n_threads for spec in machine.seen} == {4}
    assert ("n_threads", Why.GIVEN) in {(one.settings[0], one.why) for one in record.left_out}


def test_a_quantized_cache_only_where_it_may_be():
    def token_s(spec):
        return 0.5 * machine_of_threads(spec) if spec.type_k == "q8_0" else machine_of_threads(spec)

    machine = Simulated(token_s)
    _, record = search(machine)
    assert {spec.type_k for spec in machine.seen} == {"f16"}
    assert Why.QUALITY in {one.why for one in record.left_out}
    _, record = search(Simulated(token_s), quality=Quality.ALLOW)
    assert record.chosen.type_k == "q8_0"


# --- what is free ------------------------------------------------------------------------------------------------------


def fits_in(n_bytes, *, layer=100, experts=80, n_layers=25):
    """A model of equal layers, experts most of each, and a card of so many bytes."""

    def fits(spec):
        on_card = n_layers if spec.n_gpu_layers < 0 else min(spec.n_gpu_layers, n_layers)
        first = n_layers - on_card
        kept = max(min(spec.n_cpu_moe, n_layers) - first, 0)
        return on_card * layer - kept * experts <= n_bytes

    return fits


def test_what_does_not_fit_is_never_measured():
    room = dataclasses.replace(CPU, devices=(CARD,), has_experts=True, fits=fits_in(1000))

    def token_s(spec):
        """A layer on the card is ten times as fast, and one whose experts are not there three times."""
        assert room.fits(spec), "it was not to be loaded"
        n_card = 25 if spec.n_gpu_layers < 0 else spec.n_gpu_layers
        kept = min(spec.n_cpu_moe, n_card)
        share = (25 - n_card) + kept / 3 + (n_card - kept) / 10
        return share * (0.0004 if spec.n_gen else 0.00004)

    base = choose_base(spec_of(), room)
    assert base.n_gpu_layers == most_layers(base, room) == 10
    assert least_experts(base, room) == 19
    machine = Simulated(token_s)
    _, record = search(machine, room, base=base)
    assert (record.chosen.n_gpu_layers, record.chosen.n_cpu_moe) == (-1, 19)


def test_a_model_that_fits_nowhere_has_no_base():
    assert choose_base(spec_of(), dataclasses.replace(CPU, fits=lambda _spec: False)) is None
    room = dataclasses.replace(CPU, devices=(CARD,), fits=lambda _spec: False)
    assert (choose_base(spec_of(), room), most_layers(spec_of(), room), least_experts(spec_of(), room)) == (None,) * 3


def test_what_cannot_matter_is_said_to():
    found = {}
    for factor in list_factors():
        for one in lay_out(factor, CPU, spec_of(), Quality.KEEP).left_out:
            found[one.settings[0]] = one.why
    assert found["n_gpu_layers"] is Why.NO_DEVICE
    assert found["type_k"] is Why.QUALITY
    assert found["n_batch"] is Why.SHORT_PROMPT
    alone = dataclasses.replace(CPU, n_cpus=1, n_threads=1, has_repacked=False)
    found = {
        one.settings[0]: one.why
        for factor in list_factors()
        for one in lay_out(factor, alone, spec_of(n_threads=1), Quality.KEEP).left_out
    }
    assert (found["n_threads"], found["repack"]) == (Why.ONE_CPU, Why.NOTHING_REPACKED)


def test_the_incumbent_comes_first_and_nobody_twice():
    for factor in list_factors():
        candidates = lay_out(
            factor, dataclasses.replace(CPU, devices=(CARD, CARD)), spec_of(), Quality.ALLOW
        ).candidates
        assert candidates[0] == spec_of()
        assert len(set(candidates)) == len(candidates)


@pytest.mark.parametrize(
    ("purpose", "n_ctx", "n_ctx_train", "expected"),
    [
        ("chat", None, None, Work("chat", 512, 256, 1024, 4096)),
        ("chat", None, 2048, Work("chat", 512, 256, 1024, 2048)),
        ("coding", None, None, Work("coding", 2048, 512, 4096, 6656)),
        ("coding", None, 2048, Work("coding", 1536, 512, 0, 2048)),
        ("rag", None, 131072, Work("rag", 4096, 256, 0, 4352)),
        ("rag", 32768, 2048, Work("rag", 4096, 256, 0, 32768)),
        ("batch", 1, None, Work("batch", 1, 1, 0, 2)),
    ],
)
def test_the_work_is_cut_to_the_context(purpose, n_ctx, n_ctx_train, expected):
    assert plan_work(purpose, n_ctx, n_ctx_train) == expected


def test_a_purpose_is_one_that_is_known():
    with pytest.raises(UsageError, match="it is one of chat, rag, batch, coding"):
        TuneRequest("x.gguf", purpose="fun")


def test_both_parts_are_measured():
    machine = Simulated(machine_of_threads)
    _, record = search(machine)
    assert {block.part for block in record.baseline} == set(Part)
    assert {spec.kind for spec in machine.seen} == {"pp", "tg"}


def test_a_search_is_on_the_page_of_everything_kept():
    _, record = search(Simulated(machine_of_threads))
    line = read_line(to_json(record), 1)
    page = render_report(Material([line], (), ["a.jsonl"], "2026-11-28T16:00:00Z", "0.1"))
    assert "Settings found" in page
    assert "threads 3" in page
