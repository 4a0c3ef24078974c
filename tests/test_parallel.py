"""Many sequences at once: what a cell of them asks for, how it is timed, which batches it is, and the real engine's memory of it."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.gguf.model_kinds import suit_cells
from harness.grid import Grid
from harness.native import batches
from harness.native.measure import measure
from harness.records.cells import record_key
from harness.records.statistics import summarize
from harness.spec import RunSpec, name_test
from tests.fakes import PROMPT_NS_PER_TOKEN, TOKEN_NS, FakeClock, FakeEngine
from tests.measured import with_durations
from tests.test_anatomy import LLAMA, header_of


def spec(**changes):
    return RunSpec("m", **{"n_prompt": 64, "n_gen": 16, "n_parallel": 4, **changes})


@pytest.mark.parametrize(
    ("changes", "n_ctx", "n_tokens"),
    [
        ({}, 4 * 80, 4 * 80),
        ({"n_depth": 32}, 4 * 112, 4 * 80),
        ({"is_prompt_shared": True}, 4 * 80, 64 + 4 * 16),
        ({"is_prompt_shared": True, "kv_unified": True, "n_depth": 32}, 96 + 4 * 16, 64 + 4 * 16),
        ({"kv_unified": True}, 4 * 80, 4 * 80),
        ({"n_parallel": 1}, 80, 80),
    ],
)
def test_context_and_tokens_are_batched_benchs(changes, n_ctx, n_tokens):
    cell = spec(**changes)
    assert (cell.n_ctx, cell.n_tokens) == (n_ctx, n_tokens)
    assert cell.n_tokens_seq == 80
    assert cell.n_ctx_seq == 80 + cell.n_depth


def test_its_name_says_how_many_and_what_they_share():
    assert spec(n_depth=8).test == "pp64+tg16 x4 @ d8"
    assert spec(n_prompt=0).test == "tg16 x4"
    assert spec(is_prompt_shared=True).test == "pp64+tg16 x4 shared"
    assert spec(n_depth=8).test_without_depth == "pp64+tg16 x4"
    assert spec(n_depth=8).name_test_without("n_parallel", "n_depth") == "pp64+tg16"
    assert name_test(512, 0, 4096) == "pp512 @ d4096", "llama-bench's own where there is one sequence"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_parallel": 257}, "1 to 256 sequences"),
        ({"n_parallel": 0}, "1 to 256 sequences"),
        ({"n_ubatch": 3}, "-ub 3 holds no token of each of 4 sequences; give at least -ub 4"),
        ({"n_batch": 2, "n_ubatch": 2}, "-b 2 holds no token of each of 4 sequences; give at least -b 4"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changes, said):
    with pytest.raises(UsageError, match=said):
        spec(**changes)


def test_an_encoder_has_no_sequences_to_go_on_with():
    header = header_of("bert", **LLAMA)
    with pytest.raises(UsageError, match="leave out --n-parallel"):
        suit_cells(header, [spec(n_gen=0)], {"n_parallel"}, "x.gguf")


def test_a_prompt_is_shared_by_several():
    cells = Grid(["m"], {"n_parallel": (1, 2), "is_prompt_shared": (False, True)}, (64,), (0,)).cells()
    assert [(cell.n_parallel, cell.is_prompt_shared) for cell in cells] == [(1, False), (2, False), (2, True)]
    shared = {"n_parallel": (2,), "is_prompt_shared": (True,), "n_depth": (0, 16)}
    generations = Grid(["m"], shared, (0,), (8,)).cells()
    assert [cell.test for cell in generations] == ["tg8 x2", "tg8 x2 @ d16 shared"], "without either nothing is shared"


def run(cell):
    clock = FakeClock()
    engine = FakeEngine(clock, n_parallel=cell.n_parallel)
    return engine, measure(engine, clock, cell, lambda _: None, lambda *_: None)


def test_all_prompts_are_read_and_each_step_has_a_stamp():
    engine, samples = run(spec(n_prompt=8, n_gen=3, n_parallel=2, repetitions=1))
    assert samples[-1].prompt_ns == 2 * 8 * PROMPT_NS_PER_TOKEN
    assert samples[-1].token_ns == (TOKEN_NS,) * 3, "a step, however many sequences there are"
    assert "share" not in engine.calls


def test_a_shared_prompt_is_copied_before_generation_and_untimed():
    engine, samples = run(spec(n_prompt=8, n_gen=1, n_parallel=2, is_prompt_shared=True, repetitions=2))
    assert engine.calls.count("share") == 3, "the warm-up generates too"
    at = engine.calls.index("share")
    assert engine.calls[at - 1 : at + 3] == ["synchronize", "share", "token", "synchronize"]
    assert samples[-1].duration_ns == samples[-1].prompt_ns + TOKEN_NS
    engine, _ = run(spec(n_gen=0, is_prompt_shared=True, repetitions=1))
    assert "share" not in engine.calls, "nobody goes on with it"


def test_prompts_lie_one_after_the_other_and_each_ends_in_an_output():
    found = batches.join_prompts(range(12), 3, 5)
    assert [batch.n_tokens for batch in found] == [5, 5, 2]
    assert [at for batch in found for at in batches.list_sequences(batch)] == [0] * 4 + [1] * 4 + [2] * 4
    assert [batch.token[i] for batch in found for i in range(batch.n_tokens)] == list(range(12))
    assert [batch.logits[i] for batch in found for i in range(batch.n_tokens)] == [0, 0, 0, 1] * 3
    assert not found[0].pos, "llama.cpp continues each sequence"


def test_a_step_has_a_token_of_each_sequence():
    found = batches.join_steps(range(6), 3)
    assert [batches.list_sequences(batch) for batch in found] == [[0, 1, 2]] * 2
    assert [[batch.logits[i] for i in range(3)] for batch in found] == [[1, 1, 1]] * 2
    assert batches.list_sequences(batches.cut((batches.llama_cpp.llama_token * 3)(7, 8, 9), 2)[0]) == [0, 0]


def test_rates_are_of_all_and_of_one(recorded):
    alone = with_durations(recorded[0], [10**9] * 6, n_prompt=0, n_gen=100)
    together = with_durations(recorded[0], [10**9] * 6, n_prompt=0, n_gen=100, n_parallel=4)
    assert (summarize(alone).rate_tok_per_s, summarize(alone).sequence_rate_tok_per_s) == (100, 100)
    assert (summarize(together).rate_tok_per_s, summarize(together).sequence_rate_tok_per_s) == (400, 100)
    assert record_key(alone) != record_key(together)


# --- with the engine --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(model):
    from harness.native.engine import Runtime

    loaded = Runtime(log_to_stderr=False).load(RunSpec(model, n_gen=1))
    yield loaded
    loaded.close()


@pytest.mark.engine
@pytest.mark.parametrize("kv_unified", [False, True])
@pytest.mark.parametrize("is_prompt_shared", [False, True])
def test_every_sequence_has_its_prompt_and_its_tokens(loaded, model, kv_unified, is_prompt_shared):
    import llama_cpp

    cell = RunSpec(
        model, n_prompt=20, n_gen=2, n_parallel=3, n_threads=1, n_batch=16, n_ubatch=16, kv_unified=kv_unified,
        is_prompt_shared=is_prompt_shared,
    )  # fmt: skip
    session = loaded.open(cell)
    memory = llama_cpp.llama_get_memory(session.context)

    def ends():
        return [llama_cpp.llama_memory_seq_pos_max(memory, sequence) for sequence in range(3)]

    def decode(found):
        for batch in found:
            session.decode(batch)
        session.synchronize()

    assert llama_cpp.llama_n_seq_max(session.context) == 3
    decode(session.prompt_batches(20))
    assert ends() == ([19, -1, -1] if is_prompt_shared else [19] * 3)
    state = session.save_state()
    session.clear()
    assert ends() == [-1] * 3
    assert session.restore_state(state)
    if is_prompt_shared:
        session.share()
    assert ends() == [19] * 3
    decode(session.token_batches(2))
    assert ends() == [21] * 3
    session.close()


@pytest.mark.engine
@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba", "qwen3next", "lfm2"])
def test_what_several_sequences_keep_is_what_llama_plans(name, tmp_path):
    """A plain cache, windows, states, and both: each sequence's own, and one for all."""
    from harness.memory.causes import CACHE_CAUSES, Remark
    from harness.runs.memory import find_model, forecast, make_spec
    from tests.test_architectures import load_architectures, write_model

    header = find_model(write_model(load_architectures()[name], tmp_path), weights=False)
    options = [
        {"n_parallel": n, "kv_unified": unified} for n, unified in ((1, False), (2, False), (4, False), (4, True))
    ]
    specs = [make_spec(header, 1000, {"n_threads": 1, **one}) for one in options]
    assert [spec.n_ctx for spec in specs] == [1000, 2000, 4000, 4000]
    forecasts, _ = forecast(header, specs)
    for found in forecasts:
        assert found.is_whole, found.notes
        assert Remark.PLAN_DIFFERS not in {note.remark for note in found.notes}
    kept = [sum(one.of(cause) for cause in CACHE_CAUSES.values()) for one in forecasts]
    assert kept[1] == 2 * kept[0]
    assert kept[2] == 4 * kept[0]
    assert kept[3] <= kept[2]


def test_one_more_user_has_a_price(recorded):
    from harness.memory.causes import HOST, Cause
    from harness.memory.forecast import Forecast, Line
    from harness.records.memory import MemoryRecord, Subject
    from harness.runs.memory import _with_one_more
    from harness.units import MIB
    from harness.views.formats import render
    from harness.views.memory import describe_memory

    def plan(n):
        sizes = {Cause.MAPPED: 90, Cause.KV: 45 * n, Cause.COMPUTE: 100, Cause.OUTPUT: n}
        return Forecast(2048 * n, tuple(Line(cause, HOST, HOST, size * MIB) for cause, size in sizes.items()))

    asked = spec(n_prompt=2047, n_gen=1)
    record = MemoryRecord(asked, Subject("x"), recorded[0].machine, (plan(4),), one_more=plan(5))
    shown = " ".join(render(describe_memory(record), "table").split())
    assert "4 sequences · context 2048 each" in shown
    assert "One more sequence of 2048 tokens takes 46.00 MiB: KV cache 45.00 MiB, output buffer 1.00 MiB." in shown
    assert [one.n_parallel for one in _with_one_more(asked)] == [5]
    assert _with_one_more(spec(n_parallel=1)) == _with_one_more(spec(n_parallel=256)) == ()
