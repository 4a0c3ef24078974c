"""`harness ollama` against a loopback server that speaks Ollama's endpoints and is backed by the real engine (tests/ollama_server.py)."""

from __future__ import annotations

import dataclasses
import json
import socket

import pytest

from harness.errors import HarnessError, UsageError
from harness.records.cells import Buffer
from harness.records.kinds import to_json
from harness.records.ollama import Answer, Comparison, DirectText, Loaded, Round, Task
from harness.records.text import Figures
from harness.runs.ollama import choose_layers, compare_with_ollama, draw_prompt
from harness.runs.session import Session
from harness.sources.ollama_server import (
    NoServerError,
    OllamaServer,
    ServerError,
    default_slots,
    parse_host,
    parse_version,
)
from harness.views.formats import render
from harness.views.ollama import describe_comparison

from .ollama_server import State, serving
from .test_cli import harness, one_sentence

OPTIONS = {
    "num_ctx": 128,
    "num_thread": 1,
    "num_predict": 3,
    "num_batch": 512,
    "temperature": 0,
    "top_k": 1,
    "top_p": 1,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("example.com", "http://example.com:11434"),
        ("example.com:56789", "http://example.com:56789"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:1234/ollama/", "https://example.com:1234/ollama"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::1]:56789", "http://[::1]:56789"),
        ("::1", "http://[::1]:11434"),
        ("[::]:80", "http://[::1]:80"),
        ('"127.0.0.1"', "http://127.0.0.1:11434"),
    ],
)
def test_hosts_as_ollama_reads_them(text, address):
    assert parse_host(text) == address


@pytest.mark.parametrize("text", ["ftp://example.com", "127.0.0.1:port", "two words", "127.0.0.1:99999999"])
def test_what_is_no_host_is_refused(text):
    with pytest.raises(UsageError, match="OLLAMA_HOST is"):
        parse_host(text)


def test_versions_and_their_slots():
    assert parse_version("0.3.14") == (0, 3, 14)
    assert parse_version("0.12.0-rc1") == (0, 12, 0)
    assert parse_version("dev") == ()
    assert [default_slots(version) for version in ("0.3.14", "0.6.6", "0.6.7", "0.9.6", "0.10.0", "0.32.1")] == [
        4,
        4,
        2,
        2,
        1,
        1,
    ]


# --- the client -------------------------------------------------------------------------------------------------------


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_there(free_port):
    with pytest.raises(NoServerError, match="ollama serve"):
        OllamaServer(f"127.0.0.1:{free_port}")


def test_too_old_is_said_with_what_is_needed():
    with (
        serving(State("x", version="0.1.29")) as host,
        pytest.raises(ServerError, match=r"0\.1\.29 .* too old; .* 0\.1\.30"),
    ):
        OllamaServer(host)


@pytest.mark.parametrize("version", ["0.1.30", "0.0.0", "0.32.0-rc2"])
def test_versions_that_will_do(version):
    with serving(State("x", version=version)) as host:
        assert OllamaServer(host).version == version


def test_a_server_that_is_no_ollama():
    with serving(State("x", gone=("/api/version",))) as host, pytest.raises(HarnessError, match="refuses /api/version"):
        OllamaServer(host)


def test_something_that_speaks_no_http():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def mumble():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=mumble, daemon=True).start()
        with pytest.raises(ServerError, match="does not answer as Ollama does"):
            OllamaServer(f"127.0.0.1:{listener.getsockname()[1]}")


def test_a_proxy_is_not_used_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(State("x")) as host:
        assert OllamaServer(host).version == "0.3.14"


def test_another_machine_is_known_as_such():
    from harness.sources.ollama_server import _is_here

    assert _is_here("127.0.0.7")
    assert _is_here("localhost")
    assert not _is_here("192.0.2.7")
    assert not _is_here("example.com")


def test_names_blobs_and_blocks():
    blob = "/models/blobs/sha256-" + "0" * 64
    with serving(State("x", blob=blob)) as host:
        server = OllamaServer(host)
        assert server.list_names() == ["tiny:latest"]
        shown = server.show("tiny")
        assert (shown.blob, shown.has_adapter, shown.block_count) == (blob, False, 30)
        with pytest.raises(UsageError, match="model 'huge' not found"):
            server.show("huge")


def test_a_server_without_ps():
    with serving(State("x", gone=("/api/ps",))) as host:
        assert OllamaServer(host).find_loaded("tiny") is None


@pytest.mark.engine
def test_an_answer_has_the_engines_figures_and_the_clients_wait(model):
    with serving(State(model)) as host:
        server = OllamaServer(host)
        answer = server.generate("tiny", "one two three", OPTIONS)
        assert answer.eval_count == 3
        assert (
            answer.load_duration_ns + answer.prompt_eval_duration_ns + answer.eval_duration_ns
            < answer.total_duration_ns
        )
        assert answer.total_duration_ns < answer.wall_ns
        assert answer.server_ns > 0
        assert server.find_loaded("tiny").size_bytes > 90_000_000
        server.unload("tiny")
        assert server.find_loaded("tiny") is None


@pytest.mark.engine
def test_a_figure_that_is_missing_is_said(model):
    with (
        serving(State(model, missing=("eval_duration",))) as host,
        pytest.raises(ServerError, match="left eval_duration out"),
    ):
        OllamaServer(host).generate("tiny", "one", OPTIONS)


# --- the comparison ---------------------------------------------------------------------------------------------------


def task(**changes):
    values = {
        "name": "tiny",
        "blob": "m",
        "n_ctx": 2048,
        "n_threads": 2,
        "n_gpu_layers": None,
        "n_prompt": 8,
        "n_gen": 4,
        "rounds": 2,
    }
    return Task(**{**values, **changes})


def test_each_prompt_is_another_one_from_the_first_words_on():
    prompts = [draw_prompt(task(n_prompt=50), number) for number in range(-10, 10)]
    assert len({" ".join(prompt.split()[:4]) for prompt in prompts}) == len(prompts)
    assert draw_prompt(task(), 3) == draw_prompt(task(), 3)


@pytest.mark.parametrize(
    ("asked", "loaded", "layers", "code"),
    [
        (7, Loaded(100, 50, None), 7, None),
        (None, Loaded(100, 0, None), 0, None),
        (None, Loaded(100, 100, None), -1, None),
        (None, Loaded(100, 25, None), 8, "layers-guessed"),
        (None, None, -1, "layers-unknown"),
    ],
)
def test_layers_follow_ollamas(asked, loaded, layers, code):
    chosen, cautions = choose_layers(task(n_gpu_layers=asked), loaded, 32)
    assert chosen == layers
    assert [caution.cause for caution in cautions] == ([code] if code else [])


@pytest.fixture
def comparison(recorded):
    """Six rounds in which Ollama is twice as slow, of known figures."""
    source = next(record for record in recorded if record.resolved)
    figures = Figures(10**9, 50_000_000, 100, 100_000_000, 11, 100_000_000, 1)
    resolved = dataclasses.replace(
        source.resolved, buffers=(Buffer("model", "CPU", 1_000_000_000), Buffer("kv", "CPU", 500_000_000))
    )
    direct = DirectText(figures, sample_ns=1_100_000, decode_ns=50_000_000)
    answer = Answer(10**9, 0, 100, 200_000_000, 11, 200_000_000, wall_ns=402_000_000)
    rounds = tuple(Round(direct, answer, 100_000_000, number % 2 == 0) for number in range(6))
    return Comparison(
        task(rounds=6), rounds, source.machine, "2026-11-24T10:59:57Z", ollama_version="0.3.14", resolved=resolved,
        ollama_loaded=Loaded(3_000_000_000, 0, None), model=source.model, build=source.build,
    )  # fmt: skip


def show(comparison):
    return render(describe_comparison(comparison), "table")


def test_the_table_of_known_figures(comparison):
    text = show(comparison)
    assert max(map(len, text.splitlines())) <= 80
    squeezed = [" ".join(line.split()) for line in text.splitlines()]
    assert "PP 500.00 t/s 1000.00 t/s 2.00 [2.00 – 2.00]" in squeezed
    assert "TG 55.00 t/s 110.00 t/s 2.00 [2.00 – 2.00]" in squeezed
    assert "load 100 ms 50 ms 0.50 [0.50 – 0.50]" in squeezed
    assert "memory 3.0 GB 1.5 GB 0.50" in squeezed
    flat = " ".join(squeezed)
    assert "server: 2 ms a request" in flat
    assert "sampling: 100 µs a token" in flat
    assert "decoding alone runs at 200.00 t/s" in flat, "10 decodes in 50 ms"
    assert "8192 cells where 2048" in flat
    assert "prediction made before loading" in flat


def test_a_recent_server_is_spoken_of_otherwise(comparison):
    recent = dataclasses.replace(comparison, ollama_version="0.32.1", ollama_loaded=Loaded(3_000_000_000, 0, 4096))
    flat = " ".join(show(recent).split())
    assert "/api/ps says 4096" in flat
    assert "up to 1 unless configured; harness has 1" in flat
    assert "prediction made before loading" not in flat


def test_json_has_the_same(comparison):
    values = json.loads(render(describe_comparison(comparison), "json"))
    rows = {row["figure"]: row for row in values["figures"]}
    assert rows["eval"] == {
        "figure": "eval", "title": "TG", "ollama_tok_per_s": 55, "harness_tok_per_s": 110, "ratio": 2, "ratio_low": 2, "ratio_high": 2,
    }  # fmt: skip
    assert (rows["memory"]["ollama_bytes"], rows["memory"]["harness_bytes"]) == (3_000_000_000, 1_500_000_000)


def test_without_a_server_there_is_one_column(comparison):
    alone = dataclasses.replace(
        comparison,
        ollama_version=None,
        ollama_loaded=None,
        rounds=tuple(Round(turn.direct) for turn in comparison.rounds),
    )
    text = show(alone)
    assert "harness alone (no Ollama server)" in text
    assert "harness / Ollama" not in text
    assert "1000.00" in text


def test_a_record_has_every_round_and_no_path(comparison):
    hidden = dataclasses.replace(comparison, task=task(blob="/home/ada/blobs/sha256-00"))
    line = json.dumps(to_json(hidden))
    values = json.loads(line)
    assert values["kind"] == "ollama-comparison"
    assert values["task"]["blob"] == "sha256-00"
    assert "ada" not in line
    assert len(values["rounds"]) == 6
    assert values["rounds"][1]["ollama_first"] is False
    assert values["rounds"][0]["ollama"]["eval_duration_ns"] == 200_000_000


@pytest.mark.engine
def test_both_sides_do_the_same_work_by_turns(model):
    state = State(model)
    with serving(state) as host, Session("ollama") as session:
        last = compare_with_ollama(task(blob=model, n_ctx=128), OllamaServer(host), session, block_count=30)
    assert [turn.ollama_first for turn in last.rounds] == [True, False]
    for turn in last.rounds:
        assert turn.ollama.prompt_eval_count == turn.direct.figures.prompt_eval_count
        assert turn.ollama.eval_count == turn.direct.figures.eval_count
    assert last.resolved.n_ctx == 256, "llama.cpp rounds a context up; 128 was asked of both"
    assert last.n_gpu_layers == 0, "the server has everything in RAM"
    assert len(set(state.prompts)) == len(state.prompts) == 5, "one to look, and two for each round"
    timed = [
        body
        for path, body in state.asked
        if path == "/api/generate" and body.get("options", {}).get("num_predict") == 4
    ]
    assert all(body["raw"] and body["options"]["num_ctx"] == 128 for body in timed)
    assert state.loaded is None, "the server is left without the model"


# --- the command ------------------------------------------------------------------------------------------------------

QUICK = ("-p", "8", "-n", "4", "-r", "1", "--ctx", "128")


@pytest.fixture
def blob(model, tmp_path):
    """The model as a blob of a store, with its manifest as `small:1b`."""
    path = tmp_path / "models" / "blobs" / ("sha256-" + "b" * 64)
    path.parent.mkdir(parents=True)
    path.symlink_to(model)
    manifest = tmp_path / "models" / "manifests" / "registry.ollama.ai" / "library" / "small" / "1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "b" * 64}
    manifest.write_text(
        json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.license", "digest": "x"}, layer]})
    )
    return path


@pytest.mark.engine
def test_the_command_finds_the_blob_and_compares(results, blob, monkeypatch):
    with serving(State(str(blob))) as host:
        monkeypatch.setenv("OLLAMA_HOST", host)
        code, out, err = harness("ollama", *QUICK)
    assert code in (0, 5), err
    assert "Ollama 0.3.14 and harness on tiny:latest" in out
    assert "harness / Ollama" in out
    assert "the gap is made of:" in out
    (journal,) = results.rglob("*-ollama.jsonl")
    assert json.loads(journal.read_text(encoding="utf-8"))["kind"] == "ollama-comparison"


@pytest.mark.engine
def test_a_blob_that_only_the_server_can_see_is_looked_for_in_the_store(results, blob, tmp_path, monkeypatch):
    state = State(str(blob), name="small:1b", blob="/root/.ollama/elsewhere/blobs/sha256-" + "b" * 64)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    with serving(state) as host:
        monkeypatch.setenv("OLLAMA_HOST", host)
        code, out, _ = harness("ollama", "small:1b", *QUICK, "-o", "json")
    assert code in (0, 5)
    assert json.loads(out)["n_rounds"] == 1


@pytest.mark.engine
def test_without_a_server_the_file_in_the_store_is_measured(results, blob, tmp_path, free_port, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port}")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    code, out, err = harness("ollama", "small:1b", *QUICK)
    assert code in (0, 5)
    assert "No Ollama server answers" in err
    assert "harness alone" in out
    assert "Ollama's account of small:1b" in out


@pytest.mark.parametrize(
    ("state", "arguments", "words"),
    [
        (State("x", version="0.1.5"), ["tiny"], "too old"),
        (State("x", name=""), [], "has no models"),
        (State("x"), ["huge"], "model 'huge' not found"),
        (State("x"), ["tiny"], "There is no Ollama model in"),
        (State("x"), ["tiny", "--ctx", "64"], "may not fit"),
    ],
)
def test_trouble_is_one_sentence(results, tmp_path, monkeypatch, state, arguments, words):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    with serving(state) as host:
        monkeypatch.setenv("OLLAMA_HOST", host)
        code, out, err = harness("ollama", *arguments)
    assert code in (1, 2)
    assert out == ""
    assert words in one_sentence(err)


def test_nobody_there_and_no_name_is_one_sentence(results, free_port, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port}")
    code, _, err = harness("ollama")
    assert code == 1
    assert "ollama serve" in one_sentence(err)
