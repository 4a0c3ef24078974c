"""Writing a text through the worker: the real engine, and workers that die or never end."""

from __future__ import annotations

import contextlib
import sys
import time

import pytest

from harness.errors import NativeError, UsageError
from harness.events import Remark
from harness.records.failures import describe_end
from harness.records.text import TextRequest
from harness.runs.session import Session
from harness.runs.text import write_text

pytestmark = pytest.mark.engine


def write(model, prompt="explain quantum entanglement", *, command=None, **options):
    pieces, remarks = [], []

    def hear(event):
        if isinstance(event, Remark):
            remarks.append(event.text)

    request = TextRequest(model, prompt, **{"temperature": 0, "n_ctx": 256, "max_tokens": 12, **options})
    before = time.perf_counter_ns()
    with Session("run", on_event=hear, worker_command=command) as session:
        run = write_text(request, session, pieces.append)
    return run, "".join(pieces), remarks, time.perf_counter_ns() - before


def test_the_figures_agree_with_each_other_and_with_the_clock(model):
    run, text, remarks, wall_ns = write(model)
    figures = run.figures
    assert (run.finish, run.failure, remarks) == ("length", None, [])
    assert figures.eval_count == len(run.token_ns) == 12
    assert sum(run.token_ns) == figures.eval_duration_ns
    parts = figures.load_duration_ns + figures.prompt_eval_duration_ns + figures.eval_duration_ns
    assert parts <= figures.total_duration_ns <= wall_ns
    assert figures.prompt_eval_duration_ns < figures.first_token_ns
    assert run.sample_ns + run.decode_ns <= figures.eval_duration_ns
    assert run.template == "jinja"
    assert "uantum" in text
    assert run.model.description.startswith("llama")
    assert run.resolved.n_ctx == 256
    assert run.rss_bytes > run.model.size_bytes / 2


def test_greedy_text_is_what_llama_cpp_python_writes(model):
    """Its own chat completion shares neither our framing, our sampler chain nor our loop."""
    import llama_cpp

    with contextlib.closing(llama_cpp.Llama(model, n_ctx=256, n_threads=1, verbose=False)) as theirs:
        messages = [{"role": "user", "content": "explain quantum entanglement"}]
        answer = theirs.create_chat_completion(messages, temperature=0, max_tokens=12, repeat_penalty=1.0)
    run, text, _, _ = write(model)
    assert text == answer["choices"][0]["message"]["content"]
    assert run.figures.prompt_eval_count == answer["usage"]["prompt_tokens"]


def test_a_seed_gives_the_same_text_and_another_one_another(model):
    texts = [write(model, temperature=1.0, top_k=0, top_p=1.0, seed=seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_system_message_is_part_of_the_prompt(model):
    plain, with_system = (write(model, system=system)[0] for system in (None, "You are terse. " * 5))
    assert with_system.figures.prompt_eval_count > plain.figures.prompt_eval_count


def test_raw_leaves_the_template_out(model):
    run, _, remarks, _ = write(model, raw=True)
    assert run.template == "raw"
    assert run.figures.prompt_eval_count < 10
    assert remarks == []


def test_the_end_of_generation_ends_it(model):
    run, text, _, _ = write(model, "Answer with one word: what colour is snow?", max_tokens=None)
    assert run.finish == "stop"
    assert "<|im_end|>" not in text


def test_a_prompt_that_fills_the_context_is_one_sentence_with_a_way_out(model):
    with pytest.raises(UsageError, match=r"leaves no room in a context of 64; ask for more with --ctx 2048"):
        write(model, "word " * 500, n_ctx=64)


def test_a_context_beyond_the_training_is_remarked(model):
    run, _, remarks, _ = write(model, n_ctx=8200, max_tokens=1)
    assert "longer than the 8192" in remarks[0]
    assert any(caution.cause == "context-beyond-training" for caution in run.warnings)


@pytest.fixture
def rewritten(model, tmp_path):
    """Makes a copy of the model in which bytes are replaced by as many others."""

    def rewrite(*changes: tuple[bytes, bytes]) -> str:
        with open(model, "rb") as file:
            data = file.read()
        for old, new in changes:
            assert len(old) == len(new)
            assert data.count(old) == 1
            data = data.replace(old, new)
        path = tmp_path / "rewritten.gguf"
        path.write_bytes(data)
        return str(path)

    yield rewrite
    (tmp_path / "rewritten.gguf").unlink(missing_ok=True)


def test_a_model_without_a_template_gets_the_prompt_raw_and_says_so(rewritten):
    path = rewritten((b"tokenizer.chat_template", b"tokenizer.chat_template"[::-1]))
    run, _, remarks, _ = write(path)
    assert run.template == "missing"
    assert remarks == ["the model has no chat template; the prompt is used raw"]
    assert run.warnings[0].cause == "no-chat-template"


def test_a_template_that_jinja_refuses_is_given_to_llama_cpps_function(rewritten, model):
    path = rewritten((b"{% for message in messages %}", b"{% for message on messages %}"))
    run, text, remarks, _ = write(path)
    assert run.template == "llama.cpp"
    assert remarks == []
    assert len(text) > 10


@pytest.fixture(scope="module")
def template(model):
    """The model's own chat template."""
    from gguf import GGUFReader

    return GGUFReader(model).fields["tokenizer.chat_template"].contents().encode()


def test_a_template_that_nobody_understands_is_said(rewritten, template):
    run, _, remarks, _ = write(rewritten((template, b"{% nonsense ".ljust(len(template), b"x"))))
    assert run.template == "failed"
    assert "cannot be applied (TemplateSyntaxError" in remarks[0]


def test_a_bos_that_the_template_writes_is_not_doubled(rewritten, template):
    """Where the tokenizer adds BOS, a template with one and a template without come to the same tokens."""
    adds_bos = b"tokenizer.ggml.add_bos_token" + bytes([7, 0, 0, 0])
    counts = []
    for bos in (b"{{ bos_token }}", b""):
        own = bos + b"{{ messages[-1]['content'] }}{#"
        own = own.ljust(len(template) - 2, b" ") + b"#}"
        run, _, _, _ = write(rewritten((template, own), (adds_bos + b"\0", adds_bos + b"\1")), "one two three")
        assert run.template == "jinja"
        counts.append(run.figures.prompt_eval_count)
    assert counts == [4, 4]


def test_a_file_that_llama_cpp_refuses_is_a_failure(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    run, *_ = write(str(broken))
    assert (run.finish, run.model) == ("failed", None)
    assert "llama.cpp cannot load broken.gguf" in describe_end(run.failure)


def scripted(lines):
    """A worker that says some lines and then waits to be ended, or dies of a signal."""
    hello = {
        "event": "hello",
        "build": {
            "llama_cpp_python": "0",
            "ggml_version": "0",
            "ggml_commit": "0",
            "system_info": "",
            "backends": ["CPU"],
            "devices": [],
        },
    }
    code = f"import json, sys, os, time\nprint(json.dumps({hello!r}), flush=True)\nsys.stdin.readline()\n" + "\n".join(
        lines
    )
    return (sys.executable, "-c", code)


TEXT = {
    "event": "text", "text": "so far", "prompt_eval_count": 3, "prompt_eval_duration_ns": 30, "eval_count": 2, "eval_duration_ns": 20,
    "first_token_ns": 31, "sample_ns": 1, "decode_ns": 18, "finish": "",
}  # fmt: skip


def test_a_death_amid_the_text_keeps_what_there_was():
    command = scripted([f"print(json.dumps({TEXT!r}), flush=True)", "os.abort()"])
    run, text, _, _ = write("m", command=command)
    assert text == "so far"
    assert run.finish == "failed"
    assert run.failure.cause == "abort"
    assert run.figures.eval_count == 2


def test_ctrl_c_ends_the_text_and_keeps_the_figures():
    command = scripted([f"print(json.dumps({TEXT!r}), flush=True)", "time.sleep(600)"])

    def interrupt(_piece):
        raise KeyboardInterrupt

    with Session("run", worker_command=command) as session:
        run = write_text(TextRequest("m", "p"), session, interrupt, keep_text=True)
    assert session.is_interrupted
    assert run.finish == "interrupted"
    assert run.failure is None
    assert run.figures.eval_rate_tok_per_s == pytest.approx(2 / 20e-9)
    assert run.text == "so far"


def test_a_worker_that_cannot_start_is_one_sentence():
    with pytest.raises(NativeError, match="ended by itself with exit code 7"):
        write("m", command=(sys.executable, "-c", "raise SystemExit(7)"))


def test_a_text_that_nobody_reads_is_not_written_to_its_end():
    command = scripted([f"print(json.dumps({TEXT!r}), flush=True)", "time.sleep(600)"])
    with Session("run", worker_command=command) as session:
        run = write_text(TextRequest("m", "p"), session, lambda _piece: False)
    assert run.finish == "interrupted"
    assert not session.is_interrupted, "nobody pressed Ctrl-C"
