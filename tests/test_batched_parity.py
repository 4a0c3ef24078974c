"""harness beside llama-batched-bench: the same is asked of both, what each prints is read, and a record says what was compared."""

from __future__ import annotations

import json

import pytest
from parity import Found

from harness.records.kinds import read_line, to_json
from harness.spec import RunSpec
from harness.views.formats import render
from harness.views.parity import describe_parity, name_test
from scripts import batched_parity as script

CELL = RunSpec("m.gguf", n_prompt=64, n_gen=8, n_parallel=4, n_threads=2)
OURS = json.dumps([
    {"model_type": "llama", "build_commit": "abc", "samples_prompt_ns": [300, 310], "samples_token_ns": [[10, 11], [10, 12]]}
])  # fmt: skip
THEIRS = "\n".join(["main: n_kv_max = 512", *(json.dumps({"t_pp": t, "t_tg": t / 2}) for t in (9.0, 1e-6, 2e-6))])


def test_both_are_asked_the_same():
    ours, theirs = script.Tools("bench", CELL, 2).commands
    joined = " ".join(ours), " ".join(theirs)
    assert "-pg 64,8 -np 4 -r 2" in joined[0]
    assert "-npp 64,64,64 -ntg 8 -npl 4 -c 288" in joined[1], "one more, which warms up; the context that harness has"
    assert all("-t 2 -b 2048 -ub 512" in words for words in joined)
    shared = script.plan("m.gguf", "2,4", 64, 8, 2)[-1]
    assert (shared.n_parallel, shared.is_prompt_shared) == (2, True)
    assert all("-pps" in words for words in script.Tools("bench", shared, 2).commands)


def test_prompts_and_generation_are_read_apart():
    assert script.read_harness(OURS)["pp"]["samples_ns"] == [300, 310]
    assert script.read_harness(OURS)["tg"]["samples_ns"] == [21, 22]
    found = script.read_batched_bench(THEIRS)
    assert (found["pp"]["samples_ns"], found["tg"]["samples_ns"]) == ([1000, 2000], [500, 1000])


@pytest.mark.parametrize(("shared", "n_tokens"), [(False, 256), (True, 64)])
def test_a_record_says_what_was_compared(shared, n_tokens, recorded):
    import dataclasses

    cell = dataclasses.replace(CELL, is_prompt_shared=shared)
    pairs = [(script.read_harness(OURS)[test], script.read_batched_bench(THEIRS)[test]) for test in ("pp", "tg")]
    prompts = script.compare(cell, "pp", Found([pairs[0]] * 6, [True] * 6), recorded[0].machine, 0.03)
    tokens = script.compare(cell, "tg", Found([pairs[1]] * 6, [True] * 6), recorded[0].machine, 0.03)
    assert (prompts.n_tokens, tokens.n_tokens) == (n_tokens, 32)
    ending = " shared" if shared else ""
    assert [name_test(one) for one in (prompts, tokens)] == [f"pp64 x4{ending}", f"tg8 x4 @ d64{ending}"]
    assert read_line(json.loads(json.dumps(to_json(prompts)))).content == prompts
    shown = render(describe_parity([prompts, tokens]), "table")
    assert "harness and llama-batched-bench, from the same source" in " ".join(shown.split())


def test_both_programs_may_stand_in_one_table(recorded):
    import dataclasses

    pair = script.read_harness(OURS)["pp"], script.read_batched_bench(THEIRS)["pp"]
    one = script.compare(CELL, "pp", Found([pair] * 6, [True] * 6), recorded[0].machine, 0.03)
    shown = render(describe_parity([one, dataclasses.replace(one, reference="llama-bench", n_parallel=1)]), "csv")
    assert "llama-batched-bench" in shown
    assert "llama-bench" in shown
