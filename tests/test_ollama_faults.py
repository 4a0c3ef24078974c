"""Everything that a server can do wrong, at every request that is made to Ollama: one sentence in time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from harness.errors import HarnessError, Outcome, UsageError
from harness.records.ollama import Answer, Loaded
from harness.sources import ollama_server
from harness.sources.ollama_server import OllamaServer, ServerError, Shown

from .hub import faults
from .hub.server import Act

LIMIT_S = 0.4
LONGEST_S = 20.0
FIGURES = dict.fromkeys(ollama_server._FIGURES, 7)
ANSWERS = {
    "/api/version": {"version": "0.3.14"},
    "/api/tags": {"models": [{"name": "tiny:latest"}]},
    "/api/show": {"modelfile": "FROM /x/sha256-" + "0" * 64 + "\n", "model_info": {"llama.block_count": 30}},
    "/api/ps": {"models": [{"name": "tiny:latest", "size": 5, "size_vram": 3, "context_length": 9}]},
    "/api/generate": FIGURES,
}
STAGES: dict[str, tuple[str, Callable[[OllamaServer], Any], Any]] = {
    "version": ("/api/version", lambda server: server.version, "0.3.14"),
    "names": ("/api/tags", lambda server: server.list_names(), ["tiny:latest"]),
    "show": ("/api/show", lambda server: server.show("tiny"), Shown("/x/sha256-" + "0" * 64, False, 30)),
    "loaded": ("/api/ps", lambda server: server.find_loaded("tiny"), Loaded(5, 3, 9)),
    "generate": ("/api/generate", lambda server: server.generate("tiny", "one", {}).eval_count, 7),
    "unload": ("/api/generate", lambda server: server.unload("tiny"), None),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    path_of_fault: str
    act: Act | None

    def do_GET(self) -> None:
        status, body = 200, json.dumps(ANSWERS[self.path]).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self.close_connection = True
        try:
            if self.act is not None and self.path == self.path_of_fault:
                self.act(self, status, told, body)
            else:
                faults.write(self, faults.head(status, told) + body)
        except OSError:
            pass

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def serve(path: str, act: Act | None) -> ThreadingHTTPServer:
    handler = type("Spoilt", (Handler,), {"path_of_fault": path, "act": staticmethod(act) if act else None})
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def try_once(stage: str, fault: str | None, act: Act | None = None) -> tuple[Any, Exception | None, float]:
    path, do, _ = STAGES[stage]
    server = serve(path, faults.FAULTS[fault] if fault else act)
    began = time.monotonic()
    try:
        result, error = do(OllamaServer(f"127.0.0.1:{server.server_address[1]}")), None
    except Exception as caught:  # a test looks at it
        result, error = None, caught
    took_s = time.monotonic() - began
    server.shutdown()
    server.server_close()
    return result, error, took_s


CASES = [(stage, fault) for stage in STAGES for fault in faults.FAULTS]


@pytest.fixture
def quick(monkeypatch):
    for name in ("LOOKUP_TIMEOUT_S", "GENERATE_TIMEOUT_S", "UNLOAD_TIMEOUT_S"):
        monkeypatch.setattr(ollama_server, name, LIMIT_S)


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, str], tuple[Any, Exception | None, float]]:
    faults.enough.clear()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(32) as pool:
        patch.setattr(ollama_server, "MAX_ANSWER_BYTES", 200_000)
        for name in ("LOOKUP_TIMEOUT_S", "GENERATE_TIMEOUT_S", "UNLOAD_TIMEOUT_S"):
            patch.setattr(ollama_server, name, LIMIT_S)
        found = dict(zip(CASES, pool.map(lambda case: try_once(*case), CASES), strict=True))
        faults.enough.set()
    return found


@pytest.mark.parametrize(("stage", "fault"), CASES)
def test_a_fault_is_one_sentence_in_time(cases, stage, fault):
    result, error, took_s = cases[stage, fault]
    assert took_s < LONGEST_S
    if error is None:
        if fault not in ("sends one wrong byte", "changed the file", "sends JSON of another kind", "sends nothing"):
            nothing = [[], Shown(None, False, None), *([None] if stage == "loaded" else [])]
            assert result in (STAGES[stage][2], *nothing)
        return
    assert isinstance(error, HarnessError), repr(error)
    said = str(error)
    assert "\n" not in said
    assert len(said) < 500
    assert error.outcome in (Outcome.OTHER, Outcome.QUESTION)


@pytest.mark.parametrize(
    "version", [3, None, [], "", "x" * 65, "0.3\n14", "\x1b[2J", "9" * 5000, {"a": 1}, "0.3.14 <script>"]
)
def test_a_version_that_is_none_is_said(quick, version):
    act = faults.sends(json.dumps({"version": version}).encode())
    _, error, _ = try_once("version", None, act)
    assert isinstance(error, ServerError)
    assert "is no Ollama server" in str(error)


@pytest.mark.parametrize(
    "models", [3, "abc", [3], [None], [{}], [{"name": 3}], {"name": "x"}, [[]], [{"name": ["x"], "model": {}}], None]
)
def test_lists_of_models_may_hold_anything(quick, models):
    act = faults.sends(json.dumps({"models": models}).encode())
    assert try_once("names", None, act)[:2] == ([], None)
    assert try_once("loaded", None, act)[:2] == (None, None)


@pytest.mark.parametrize("size", [None, "5", -1, 1.5, True, [], 2**63, 10**400])
def test_a_size_that_is_none_is_said(quick, size):
    for values in ({"size": size}, {"size": 5, "size_vram": size or "x"}):
        act = faults.sends(json.dumps({"models": [{"name": "tiny:latest", **values}]}).encode())
        _, error, _ = try_once("loaded", None, act)
        assert isinstance(error, ServerError)
        assert "does not say how much memory tiny takes" in str(error)


@pytest.mark.parametrize(
    "info", [3, [], "x", {"a.block_count": True}, {"a.block_count": "3"}, {"a.block_count": -1}, None]
)
def test_what_a_model_is_made_of_may_be_anything(quick, info):
    act = faults.sends(json.dumps({"model_info": info, "modelfile": [info]}).encode())
    assert try_once("show", None, act)[:2] == (Shown(None, False, None), None)


@pytest.mark.parametrize("value", [None, "7", -7, 1.5, True, 2**63])
def test_a_figure_that_is_none_is_missing(quick, value):
    act = faults.sends(json.dumps({**FIGURES, "eval_duration": value}).encode())
    _, error, _ = try_once("generate", None, act)
    assert isinstance(error, ServerError)
    assert "left eval_duration out" in str(error)


def test_what_a_server_says_is_repeated_in_bounds(quick):
    act = faults.refuses(404, json.dumps({"error": "no\nsuch \x1b[31mmodel " * 10_000}).encode())
    _, error, _ = try_once("show", None, act)
    assert isinstance(error, UsageError)
    assert str(error).startswith("Ollama at http://127.0.0.1:")
    assert len(str(error)) < 400
    assert "\n" not in str(error)


def test_nothing_is_asked_of_whom_a_server_redirects_to(quick):
    asked: list[str] = []

    def note(to: Any, status: int, headers: dict[str, str], body: bytes) -> None:
        asked.append(to.path)
        faults.write(to, faults.head(status, headers) + body)

    other = serve("/api/version", note)
    host = f"127.0.0.1:{other.server_address[1]}"
    _, error, _ = try_once("version", None, faults.redirects(f"http://{host}/api/version"))
    assert isinstance(error, ServerError)
    assert "refuses /api/version (302)" in str(error)
    assert asked == []
    assert OllamaServer(host).version == "0.3.14"
    assert asked == ["/api/version"]
    other.shutdown()
    other.server_close()


def test_an_answer_has_every_figure():
    result, error, _ = try_once("generate", None)
    assert (result, error) == (7, None)
    assert (
        Answer(**{f"{name}_ns" if name.endswith("duration") else name: 7 for name in FIGURES}, wall_ns=9).eval_count
        == 7
    )
