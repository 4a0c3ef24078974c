"""A client of a running Ollama server, as far as comparing with it needs: version, show, ps, tags, generate.

Source: docs/api.md of Ollama; its host variable as envconfig/config.go reads it.
"""

from __future__ import annotations

import http.client
import os
import platform
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from harness.errors import HarnessError, UsageError
from harness.host.rpc import is_loopback
from harness.records.ollama import Answer, Loaded
from harness.sources.addresses import hide_user
from harness.sources.patience import within
from harness.untrusted.harmless import json_text
from harness.untrusted.json import is_count, read_json

DEFAULT_PORT = 11434

#: The first release whose answers have every figure that is compared here.
OLDEST_VERSION = (0, 1, 30)

#: Looking something up, and generating (a large model is loaded from a slow disk first).
LOOKUP_TIMEOUT_S, GENERATE_TIMEOUT_S = 10.0, 1800.0

#: The largest answers hold a model's vocabulary (/api/show) or every token of a context as a number.
MAX_ANSWER_BYTES = 64 * 2**20

#: What is repeated of a server's own words.
MAX_SAID_CHARS = 200

#: Time given to a server to let go of a model.
UNLOAD_TIMEOUT_S = 30.0

_FIGURES = (
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
)  # fmt: skip


class _NoRedirections(urllib.request.HTTPRedirectHandler):
    """Ollama redirects nobody; urllib would go wherever it is told, by FTP too."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class NoServerError(HarnessError):
    """Nobody answers at the address."""


class ServerError(HarnessError):
    """The server answers, but not with what was asked for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What /api/show tells of a model: the file it is served from, whether an adapter lies over it, its number of blocks."""

    blob: str | None
    has_adapter: bool
    block_count: int | None


def parse_host(text: str | None) -> str:
    """The base address that OLLAMA_HOST means: ``host``, ``:port``, ``host:port``, ``[::1]:port`` or an address with scheme and path.

    Raises
    ------
    UsageError : it is no address.

    Source: Host() in Ollama's envconfig/config.go: without a scheme the port is 11434, with one 80 or 443.
    """
    given = (text or "").strip().strip("\"'")
    scheme, separator, rest = given.partition("://")
    if not separator:
        scheme, rest = "http", given
    port = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    address, slash, path = rest.partition("/")
    if address.count(":") > 1 and not address.startswith("["):
        address = f"[{address}]"
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname or "127.0.0.1", parts.port or port
    except ValueError:
        host = ""
    if scheme not in ("http", "https") or not re.fullmatch(r"[\w.:%-]+", host):
        raise UsageError(f"OLLAMA_HOST is {hide_user(given)!r}, which is no address; write it as 127.0.0.1:11434.")
    # A server that listens everywhere is reached here.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{slash}{path}".rstrip("/")


def parse_version(text: str) -> tuple[int, ...]:
    """``0.3.14`` or ``0.12.0-rc1`` as numbers; empty where there are none."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def default_slots(version: str) -> int:
    """Parallel slots of a server that nobody configured: 4 in 2024, 2 from v0.6.7, 1 from v0.10. Source: its release notes."""
    numbers = parse_version(version)
    return 1 if numbers >= (0, 10) else 2 if numbers >= (0, 6, 7) else 4


class OllamaServer:
    """A running server.

    Raises
    ------
    NoServerError : nobody answers.
    ServerError : it is no Ollama, or one too old.
    """

    def __init__(self, host: str | None = None) -> None:
        self.address = parse_host(os.environ.get("OLLAMA_HOST") if host is None else host)
        self.is_local = _is_here(urlsplit(self.address).hostname or "")
        # Where a proxy is configured it is for other machines, never for this one.
        handlers = [urllib.request.ProxyHandler({})] if self.is_local else []
        self._opener = urllib.request.build_opener(_NoRedirections, *handlers)
        version = self._ask("/api/version", None, LOOKUP_TIMEOUT_S).get("version")
        if not isinstance(version, str) or not re.fullmatch(r"[\w.+-]{1,64}", version, re.ASCII):
            raise ServerError(f"{self.address} answers, but is no Ollama server; set OLLAMA_HOST.")
        self.version = version
        numbers = parse_version(version)
        if numbers < OLDEST_VERSION and numbers not in ((), (0, 0, 0)):  # builds from source call themselves 0.0.0
            oldest = ".".join(map(str, OLDEST_VERSION))
            raise ServerError(
                f"Ollama {version} at {self.address} is too old; this needs {oldest} or later: update it."
            )

    def list_names(self) -> list[str]:
        """The models that the server has."""
        models = _objects(self._ask("/api/tags", None, LOOKUP_TIMEOUT_S).get("models"))
        return [model["name"] for model in models if isinstance(model.get("name"), str)]

    def show(self, name: str) -> Shown:
        """Ask what a model is made of.

        Raises
        ------
        UsageError : the server has no such model.
        """
        # "name" is what it was called before v0.1.45 or so; both are read.
        values = self._ask("/api/show", {"model": name, "name": name}, LOOKUP_TIMEOUT_S)
        modelfile = str(values.get("modelfile", ""))
        blobs = re.findall(r"^FROM\s+(.*sha256[-:][0-9a-f]{64})\s*$", modelfile, re.MULTILINE)
        info = values.get("model_info")
        info = info if isinstance(info, dict) else {}
        blocks = next((value for key, value in info.items() if key.endswith(".block_count")), None)
        return Shown(
            blob=blobs[0] if blobs else None,
            has_adapter=re.search(r"^ADAPTER\s", modelfile, re.MULTILINE) is not None,
            block_count=blocks if is_count(blocks) else None,
        )

    def find_loaded(self, name: str) -> Loaded | None:
        """What /api/ps says of a model; None where it is not loaded, or the server is older than that endpoint."""
        try:
            models = _objects(self._ask("/api/ps", None, LOOKUP_TIMEOUT_S).get("models"))
        except UsageError:  # 404: /api/ps came with v0.1.38
            return None
        for model in models:
            if any(model.get(key) in (name, f"{name}:latest") for key in ("name", "model")):
                size, in_vram, n_ctx = model.get("size"), model.get("size_vram") or 0, model.get("context_length")
                if not (is_count(size) and is_count(in_vram)):
                    raise ServerError(
                        f"Ollama {self.version} at {self.address} does not say how much memory {name} takes; update it."
                    )
                return Loaded(size, in_vram, n_ctx if is_count(n_ctx) else None)
        return None

    def generate(self, name: str, prompt: str, options: Mapping[str, Any]) -> Answer:
        """Have a text written after a raw prompt, and keep the model loaded.

        Raises
        ------
        ServerError : the answer lacks a figure.
        """
        request = {"model": name, "prompt": prompt, "raw": True, "stream": False, "keep_alive": "5m"}
        start = time.perf_counter_ns()
        values = self._ask("/api/generate", {**request, "options": dict(options)}, GENERATE_TIMEOUT_S)
        wall_ns = time.perf_counter_ns() - start
        missing = [figure for figure in _FIGURES if not is_count(values.get(figure))]
        if missing:
            raise ServerError(
                f"Ollama {self.version} left {', '.join(missing)} out of its answer; it is too old for this, or {name} said nothing."
            )
        return Answer(
            **{f"{figure}_ns" if figure.endswith("duration") else figure: values[figure] for figure in _FIGURES},
            wall_ns=wall_ns,
        )

    def unload(self, name: str) -> None:
        """Have the server let go of a model, and wait until it has."""
        self._ask("/api/generate", {"model": name, "keep_alive": 0, "stream": False}, UNLOAD_TIMEOUT_S)
        deadline = time.monotonic() + UNLOAD_TIMEOUT_S
        while self.find_loaded(name) is not None and time.monotonic() < deadline:
            time.sleep(0.05)

    def _ask(self, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """GET, or POST where there is a body; the answer is one JSON object."""
        data = None if body is None else json_text(body, indent=None).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            values = read_json(within(timeout_s, lambda: self._send(request, timeout_s)))
        except _Refusal as refusal:
            said = " ".join(refusal.said.split())[:MAX_SAID_CHARS].rstrip(".")
            kind_of = UsageError if refusal.code in (400, 404) else ServerError
            raise kind_of(
                f"Ollama at {self.address} refuses {path} ({refusal.code}): {said or 'it says no more'}."
            ) from None
        except (TimeoutError, ValueError, http.client.HTTPException) as error:
            kind = "does not answer in time" if isinstance(error, TimeoutError) else "does not answer as Ollama does"
            raise ServerError(f"The server at {self.address} {kind} ({path}); look at its log.") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise NoServerError(
                f"No Ollama server answers at {self.address} ({getattr(reason, 'strerror', None) or reason}); "
                "start it with `ollama serve`, or set OLLAMA_HOST."
            ) from None
        if not isinstance(values, dict):
            raise ServerError(f"The server at {self.address} does not answer as Ollama does ({path}); set OLLAMA_HOST.")
        return values

    def _send(self, request: urllib.request.Request, timeout_s: float) -> bytes:
        """Send a request and receive the answer, in a thread of its own."""
        end = time.monotonic() + timeout_s
        try:
            with self._opener.open(request, timeout=timeout_s) as response:
                return _receive(response, end)
        except urllib.error.HTTPError as error:
            try:
                said = str(read_json(_receive(error, end))["error"])
            except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
                said = str(error.reason)
            raise _Refusal(error.code, said) from None


class _Refusal(Exception):
    """A server's answer that is none of success: its code, and what it says."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code, self.said = code, said


def _objects(said: object) -> list[dict[str, Any]]:
    """The JSON objects of a list; none where it is no list."""
    return [item for item in said if isinstance(item, dict)] if isinstance(said, list) else []


def _receive(response: Any, end: float) -> bytes:
    """Read an answer whole; TimeoutError at a moment of the monotonic clock, for a socket's own timeout begins anew with each byte, and
    ValueError where it is larger than any answer of Ollama's."""
    body = bytearray()
    while piece := response.read1(1 << 16):
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError("too large")
        if time.monotonic() > end:
            raise TimeoutError
    return bytes(body)


def _is_here(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    import psutil

    own = {address.address.split("%")[0] for entries in psutil.net_if_addrs().values() for address in entries}
    return is_loopback(host) or host in own or host.lower() == platform.node().lower()
