"""A prompt whose beginning is in the cache: what is taken back and read, what a cache that lost it costs, and what is said of both."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.grid import Grid
from harness.native.measure import measure
from harness.records.cautions import CautionCause
from harness.records.cells import Sample
from harness.records.statistics import digest, summarize
from harness.spec import RunSpec
from harness.views.reuse import describe_reuse
from tests.fakes import PROMPT_NS_PER_TOKEN, FakeClock, FakeEngine
from tests.measured import with_durations


def run(*, can_go_back=True, forgets=False, **changes):
    clock = FakeClock()
    engine = FakeEngine(clock)
    engine.can_go_back, engine.forgets_in_state = can_go_back, forgets
    cell = RunSpec("m", **{"n_prompt": 8, "n_prefix": 16, "repetitions": 2, "warmup": False, **changes})
    return engine, measure(engine, clock, cell, lambda _: None, lambda *_: None)


def test_what_the_cache_has_is_not_read_again():
    engine, samples = run()
    assert [sample.prompt_ns for sample in samples] == [8 * PROMPT_NS_PER_TOKEN] * 2
    assert [sample.n_reused for sample in samples] == [16, 16]
    at = engine.calls.index("back to 16")
    assert engine.calls[at + 1 : at + 4] == ["prompt", "prompt", "synchronize"]
    assert engine.calls.count("restore") == 1, "the prompt before is computed once"


def test_what_it_has_lost_is_read_whole():
    _, samples = run(can_go_back=False, n_depth=4)
    assert [sample.prompt_ns for sample in samples] == [(4 + 16 + 8) * PROMPT_NS_PER_TOKEN] * 2
    assert [sample.n_reused for sample in samples] == [0, 0]


def test_a_state_that_lacks_what_the_cache_has_is_not_put_back():
    engine, _ = run(forgets=True)
    assert {"save", "restore"} & set(engine.calls) == set()
    engine, _ = run(forgets=True, n_prefix=0, n_depth=4)
    assert "restore" in engine.calls, "of a depth it has all that is looked back on"


def test_the_whole_prompt_is_measured_beside_and_generation_alone_has_none():
    cells = Grid(["m"], {"n_prefix": (64,)}, (16,), (8,)).cells()
    assert [cell.test for cell in cells] == ["pp16 after 64", "pp80", "tg8"]
    assert (cells[0].n_ctx, cells[0].n_filled, cells[0].n_tokens) == (80, 80, 16)
    assert not cells[0].serves_one_afresh
    with pytest.raises(UsageError, match="leave out --n-parallel"):
        RunSpec("m", n_prompt=8, n_prefix=8, n_parallel=2)


@pytest.mark.parametrize(
    ("n_reused", "took_s", "said"),
    [
        (
            64,
            1,
            "pp16 after 64: 1 s where the cache has the first 64 tokens, 5 s where all is read anew (pp80): 80 % saved.",
        ),
        (0, 5, "pp16 after 64: 5 s, and 5 s for pp80 from an empty cache: nothing was reused"),
    ],
)
def test_both_costs_are_said(recorded, n_reused, took_s, said):
    import dataclasses

    part = with_durations(recorded[0], [took_s * 10**9] * 6, n_prompt=16, n_gen=0, n_prefix=64)
    samples = [Sample(took_s * 10**9, None, (), is_warmup=False, n_reused=n_reused)] * 6
    part = dataclasses.replace(part, samples=tuple(samples))
    whole = with_durations(recorded[0], [5 * 10**9] * 6, n_prompt=80, n_gen=0)
    [sentence] = describe_reuse([digest(part), digest(whole)])
    assert said.split(":")[0] in sentence
    assert said.rpartition(":")[2].strip(" .") in sentence
    causes = {caution.cause for caution in summarize(part).cautions}
    assert (CautionCause.PREFIX_LOST in causes) == (n_reused == 0)
    assert not list(describe_reuse([digest(part)])), "nothing to compare with"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "n_back", "swa_full", "can"),
    [
        ("llama", 300, False, True),
        ("gemma3", 300, False, None),
        ("gemma3", 300, True, True),
        ("mamba", 300, False, False),
        ("qwen3next", 300, False, False),
    ],
)
def test_each_kind_of_memory_says_itself_whether_it_can_go_back(name, n_back, swa_full, can, tmp_path):
    """Plain caches can, states cannot, and windows can where they still have what is looked back on."""
    import llama_cpp

    from harness.native.engine import Runtime
    from tests.test_architectures import load_architectures, write_model

    cell = RunSpec(
        write_model(load_architectures()[name], tmp_path), n_prompt=600, n_threads=1, n_ubatch=64, swa_full=swa_full
    )
    model = Runtime(log_to_stderr=False).load(cell)
    session = model.open(cell)
    for batch in session.prompt_batches(600):
        session.decode(batch)
    session.synchronize()
    memory = llama_cpp.llama_get_memory(session.context)
    if can is None:
        window = llama_cpp.llama_model_n_swa(model.pointer)
        can = llama_cpp.llama_memory_seq_pos_min(memory, 0) <= max(0, n_back - window)
    assert session.go_back(n_back) is can
    assert llama_cpp.llama_memory_seq_pos_max(memory, 0) == (n_back - 1 if can else -1)
    session.close()
    model.close()
