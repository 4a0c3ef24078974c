import gc
import time
import tracemalloc
from array import array

from harness.native.measure import InstantEngine, measure, measure_dispatch, time_generation
from harness.spec import RunSpec

from .fakes import PROMPT_NS_PER_TOKEN, TOKEN_NS, FakeClock, FakeEngine


def run(spec, engine=None):
    clock = FakeClock()
    engine = engine or FakeEngine(clock)
    engine.clock = clock
    reported, phases = [], []
    samples = measure(engine, clock, spec, reported.append, lambda *step: phases.append(step))
    assert samples == reported
    return engine, samples, phases


def test_a_prompt_costs_what_the_engine_takes():
    engine, samples, _ = run(RunSpec("m", n_prompt=10, repetitions=3))
    assert [sample.duration_ns for sample in samples] == [10 * PROMPT_NS_PER_TOKEN] * 4
    assert [sample.is_warmup for sample in samples] == [True, False, False, False]
    # Chunks of n_batch = 4 and one synchronize at the end, after the cache was cleared.
    assert engine.calls[:5] == ["clear", "prompt", "prompt", "prompt", "synchronize"]


def test_generation_is_timed_token_by_token():
    engine, samples, _ = run(RunSpec("m", n_gen=5, repetitions=2))
    assert [len(sample.token_ns) for sample in samples] == [1, 5, 5], "the warm-up generates one token"
    assert samples[1].token_ns == (TOKEN_NS,) * 5
    assert samples[1].prompt_ns is None
    assert engine.calls[-10:] == ["token", "synchronize"] * 5


def test_prompt_and_generation_add_up():
    _, samples, _ = run(RunSpec("m", n_prompt=8, n_gen=2, repetitions=1))
    assert samples[-1].prompt_ns == 8 * PROMPT_NS_PER_TOKEN
    assert samples[-1].duration_ns == 8 * PROMPT_NS_PER_TOKEN + 2 * TOKEN_NS


def test_depth_is_filled_once_and_never_timed():
    engine, samples, phases = run(RunSpec("m", n_gen=1, n_depth=8, repetitions=3))
    assert all(sample.duration_ns == TOKEN_NS for sample in samples)
    assert engine.calls.count("save") == 1
    assert engine.calls.count("restore") == 2
    assert engine.calls.count("prompt") == 2, "8 tokens in two chunks, computed for the first repetition only"
    assert ("depth", 2, 3) in phases


def test_depth_is_computed_again_where_a_state_cannot_be_restored():
    class Forgetful(FakeEngine):
        def restore_state(self, state):
            return False

    engine, _, _ = run(RunSpec("m", n_gen=1, n_depth=4, repetitions=3), Forgetful(FakeClock()))
    assert engine.calls.count("prompt") == 3


def test_no_warmup_means_none():
    engine, samples, _ = run(RunSpec("m", n_gen=1, repetitions=2, warmup=False))
    assert [sample.is_warmup for sample in samples] == [False, False]
    assert engine.calls == ["clear", "token", "synchronize"] * 3, "one untimed token, for memory that was never touched"


def test_the_hot_loop_keeps_nothing():
    engine, n = InstantEngine(), 2000
    batches, stamps = engine.token_batches(n), array("q", bytes(8 * (n + 1)))
    time_generation(engine, batches, time.perf_counter_ns, stamps)
    gc.disable()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    time_generation(engine, batches, time.perf_counter_ns, stamps)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    gc.enable()
    assert grown < 512, "a list that grew by a token would hold at least 8 bytes a token"


def test_dispatch_is_the_time_of_the_loop_alone():
    ticks = iter(range(0, 10**9, 700))
    assert measure_dispatch(lambda: next(ticks), n_tokens=50) == 700


def test_what_is_counted_is_read_before_the_rest_and_right_after_each_run():
    from harness.native.measure import measure
    from harness.records.cells import Conditions

    clock, heard = FakeClock(), []
    engine = FakeEngine(clock)

    class Watch:
        def begin(self):
            heard.append(("begin", clock()))

        def end(self):
            heard.append(("end", clock()))
            return Conditions(wall_ns=5, n_cpus=2, n_cores=2)

    spec = RunSpec("m", n_prompt=0, n_gen=2, repetitions=2)
    samples = measure(
        engine, clock, spec, lambda _: None, lambda phase, *_: heard.append((phase, clock())), watch=Watch()
    )
    took = [sample.duration_ns for sample in samples]
    ends = [sum(took[:count]) for count in range(1, 4)]
    names = [name for name, _ in heard]
    assert names == ["begin", "warm-up", "end", "begin", "repetition", "end", "begin", "repetition", "end"]
    assert [now for name, now in heard if name == "end"] == ends
    assert all(sample.conditions == Conditions(5, 2, 2) for sample in samples)
