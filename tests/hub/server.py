"""Two servers as the hub has them: the hub itself, which knows files and redirects, and the store behind it, which has the bytes.

The hub speaks the endpoints that huggingface_hub calls for models: ``/api/models/…`` (model info with siblings, tree, paths-info) and
``/owner/repo/resolve/revision/file`` with HEAD and GET, whose answer carries X-Repo-Commit, X-Linked-Etag and X-Linked-Size and
redirects to the store, another origin, under a signed address. The store serves ranges. Both keep a log of what they were asked, and
both are bounded: so many requests at a time, small bodies, a time limit on every connection.

Source: huggingface_hub file_download.py get_hf_file_metadata, hf_api.py, utils/_http.py hf_raise_for_status.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

MAX_CONNECTIONS = 16

#: Given the handler of a request, whose socket is its `connection`, and the right answer's status, headers and body.
Act = Callable[[BaseHTTPRequestHandler, int, dict[str, str], bytes], None]
MAX_BODY_BYTES = 1 << 16
CHUNK_BYTES = 1 << 16
IDLE_S = 30
SIGNATURE = "X-Amz-Signature=seventhseal"


@dataclass
class Fault:
    """Something that goes wrong for requests whose path contains `where`, so many `times` (None: always).

    status answers with an error code and headers; cut_at ends the connection after so many bytes of the body; flip_at changes one byte
    of the file; announce adds to the length that is told, extra sends more than was told; slow_s rests before each 64 KiB;
    no_ranges ignores ranges; no_etag tells none; gate is waited for after cut_at bytes instead of cutting. say replaces headers of the
    answer, or leaves those out that it maps to None; body replaces a small answer. drip_s rests before every single byte: of the
    body, or with drip_head of everything behind the status line. act sends whatever it likes instead of the answer that would be right,
    which it is given (`tests/hub/faults.py`).
    """

    where: str
    method: str | None = None
    times: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    flip_at: int | None = None
    announce: int = 0
    extra: int = 0
    slow_s: float = 0.0
    no_ranges: bool = False
    wrong_range: bool = False
    no_etag: bool = False
    gate: threading.Event | None = None
    say: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    drip_s: float = 0.0
    drip_head: bool = False
    no_if_range: bool = False
    act: Act | None = None


@dataclass
class Asked:
    """One request: what was asked, by whom, and how many bytes of the body were sent."""

    server: str
    method: str
    path: str
    range: str | None
    authorization: str | None
    connection: int
    status: int = 0
    sent_bytes: int = 0


class Hub:
    """The hub and its store; files are bytes or paths (sparse ones may be larger than the disk)."""

    def __init__(self, max_connections: int = MAX_CONNECTIONS) -> None:
        self.max_connections = max_connections
        self.repos: dict[str, dict[str, bytes | Path]] = {}
        self.digests: dict[tuple[str, str], str] = {}
        self.tokens: dict[str, str] = {}  # repository → the token that may read it
        self.gated: set[str] = set()
        self.revisions: dict[str, set[str]] = {}  # names beside main and the commit
        self.prefix = ""  # what stands before every path, as at a mirror
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._servers = [self._start("hub"), self._start("store")]
        self.url, self.store_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def _start(self, name: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "name": name})
        server = _BoundedServer(("127.0.0.1", 0), handler, self.max_connections)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def close(self) -> None:
        for fault in self.faults:
            if fault.gate:
                fault.gate.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # --- contents ---

    def add(self, repository: str, name: str, content: bytes | Path, digest: str | None = None) -> str:
        """Add a file and return its SHA-256, computed unless given."""
        self.repos.setdefault(repository, {})[name] = content
        if digest is None:
            digest = hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()
        self.digests[repository, name] = digest
        return digest

    def commit(self, repository: str) -> str:
        names = "".join(f"{name}{self.digests[repository, name]}" for name in sorted(self.repos[repository]))
        return hashlib.sha1(f"{repository}{names}".encode()).hexdigest()

    def size(self, repository: str, name: str) -> int:
        content = self.repos[repository][name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def read(self, repository: str, name: str, start: int, size: int) -> bytes:
        content = self.repos[repository][name]
        if isinstance(content, bytes):
            return content[start : start + size]
        with content.open("rb") as file:
            file.seek(start)
            return file.read(size)

    # --- faults and log ---

    def find_fault(self, method: str, path: str) -> Fault:
        with self._lock:
            for fault in self.faults:
                if fault.where in path and fault.method in (None, method) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault("")

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def forget(self) -> None:
        """Begin the log anew."""
        with self._lock:
            self.asked.clear()

    def sent_bytes(self, server: str = "store") -> int:
        return sum(asked.sent_bytes for asked in self.asked if asked.server == server and asked.method == "GET")


class _BoundedServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], max_connections: int) -> None:
        self._room = threading.BoundedSemaphore(max_connections)
        super().__init__(address, handler)

    def process_request(self, request: socket.socket, client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            request.close()
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    hub: Hub
    name: str

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            return
        self.body = self.rfile.read(length).decode() if length else ""
        self.asked = Asked(
            self.name,
            self.command,
            self.path,
            self.headers.get("Range"),
            self.headers.get("Authorization"),
            self.client_address[1],
        )
        self.hub.note(self.asked)
        self.fault = self.hub.find_fault(self.command, self.path)
        if self.fault.status:
            self._say(self.fault.status, {"error": "a fault"}, self.fault.headers)
            return
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix(self.hub.prefix)
        if self.name == "store":
            self._serve_store(path, parse_qs(parts.query))
        elif path == "/api/agent-harnesses":
            self._say(200, {"standardEnvVars": [], "harnesses": {}})  # asked once a day, for the user agent
        elif match := re.fullmatch(
            r"/api/models/([^/]+/[^/]+)/(revision|tree|paths-info)/(refs/pr/[0-9]+|[^/]+)", path
        ):
            self._serve_api(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/[0-9]+|[^/]+)/(.+)", path):
            self._serve_resolve(*match.groups())
        elif match := re.fullmatch(r"/plain/([^/]+/[^/]+)/(.+)", path):
            self._send_file(*match.groups())  # any other server: no redirection, no digests
        else:
            self._say(404, {"error": "no such page"})

    # --- the hub ---

    def _refuse_reader(self, repository: str, revision: str) -> bool:
        hub = self.hub
        if repository not in hub.repos:
            # The real hub does not tell strangers whether a repository exists.
            self._say(
                401, {"error": "Invalid username or password."}, {"X-Error-Message": "Invalid username or password."}
            )
            return True
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given and given not in hub.tokens.values():
            self._say(401, {}, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return True
        if repository in hub.gated and given != hub.tokens.get(repository):
            status = 403 if given else 401
            self._say(
                status, {}, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {repository} is restricted."}
            )
            return True
        if revision not in ("main", hub.commit(repository), *hub.revisions.get(repository, ())):
            self._say(404, {}, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
            return True
        return False

    def _serve_api(self, repository: str, what: str, revision: str) -> None:
        if self._refuse_reader(repository, revision):
            return
        hub = self.hub
        names = sorted(hub.repos[repository])
        if what == "revision":
            siblings = []
            for name in names:
                lfs = {"sha256": hub.digests[repository, name], "size": hub.size(repository, name), "pointerSize": 134}
                siblings.append({"rfilename": name, "size": lfs["size"], "blobId": "0" * 40, "lfs": lfs})
            self._say(
                200, {"id": repository, "modelId": repository, "sha": hub.commit(repository), "siblings": siblings}
            )
            return
        wanted = parse_qs(self.body).get("paths", []) if what == "paths-info" else names
        entries = []
        for name in names:
            if name in wanted:
                size = hub.size(repository, name)
                lfs = {"oid": hub.digests[repository, name], "size": size, "pointerSize": 134}
                entries.append({"type": "file", "path": name, "size": size, "oid": "0" * 40, "lfs": lfs})
        self._say(200, entries)

    def _serve_resolve(self, repository: str, revision: str, name: str) -> None:
        if self._refuse_reader(repository, revision):
            return
        hub = self.hub
        commit = {"X-Repo-Commit": hub.commit(repository)}
        if name not in hub.repos[repository]:
            self._say(404, {}, {**commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        self._say(
            302,
            {},
            {
                **commit,
                "X-Linked-Etag": f'"{hub.digests[repository, name]}"',
                "X-Linked-Size": str(
                    hub.size(repository, name) + (self.fault.announce if self.command == "HEAD" else 0)
                ),
                "ETag": '"0"',
                "Location": f"{hub.store_url}/store/{quote(repository)}/{quote(name)}?{SIGNATURE}",
            },
        )

    # --- the store ---

    def _serve_store(self, path: str, query: dict[str, list[str]]) -> None:
        match = re.fullmatch(r"/store/([^/]+/[^/]+)/(.+)", path)
        if match is None or not query or self.headers.get("Authorization"):
            self._say(400, {"error": "signed addresses take no tokens"})  # as S3 answers
            return
        self._send_file(*match.groups())

    def _send_file(self, repository: str, name: str) -> None:
        hub, fault = self.hub, self.fault
        if name not in hub.repos.get(repository, {}):
            self._say(404, {"error": "no such file"})
            return
        size = hub.size(repository, name)
        match = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range") or "")
        etag = f'"{hub.digests[repository, name]}"'
        if fault.no_ranges or (not fault.no_if_range and (self.headers.get("If-Range") or etag) != etag):
            match = None
        start, stop = (int(match[1]), min(int(match[2] or size), size - 1) + 1) if match else (0, size)
        if start >= size and match:
            self._say(416, {}, {"Content-Range": f"bytes */{size}"})
            return
        total = size + fault.announce
        headers = {"Accept-Ranges": "none" if fault.no_ranges else "bytes"}
        if not fault.no_etag:
            headers["ETag"] = etag
        if match:
            told = start + (1 if fault.wrong_range else 0)
            headers["Content-Range"] = f"bytes {told}-{stop - 1}/{total}"
        length = stop - start + (fault.announce if stop == size else 0)
        headers["Content-Length"] = str(length + fault.extra)
        if fault.act:
            self._act(206 if match else 200, headers, hub.read(repository, name, start, stop - start))
            return
        self._send_head(206 if match else 200, headers)
        self._send_body(repository, name, start, stop)

    def _send_body(self, repository: str, name: str, start: int, stop: int) -> None:
        fault = self.fault
        at, end = start, stop if fault.cut_at is None else min(start + fault.cut_at, stop)
        while at < end:
            piece = self.hub.read(repository, name, at, min(CHUNK_BYTES, end - at))
            if fault.flip_at is not None and at <= fault.flip_at < at + len(piece):
                index = fault.flip_at - at
                piece = piece[:index] + bytes([piece[index] ^ 1]) + piece[index + 1 :]
            time.sleep(fault.slow_s)
            if not self._write(piece):
                return
            at += len(piece)
        if fault.gate is not None and at < stop:
            fault.gate.wait(IDLE_S)
        if at < stop or fault.announce:
            self._hang_up()
        elif fault.extra:
            self._write(b"x" * fault.extra)

    def _write(self, piece: bytes) -> bool:
        try:
            if self.fault.drip_s and not self.fault.drip_head:
                self._drip(piece)
            else:
                self.wfile.write(piece)
        except OSError:
            self.close_connection = True
            return False
        self.asked.sent_bytes += len(piece)
        return True

    def _drip(self, data: bytes) -> None:
        """Send byte after byte with rests, for a bounded time."""
        end = time.monotonic() + IDLE_S
        for index in range(len(data)):
            self.wfile.write(data[index : index + 1])
            self.wfile.flush()
            time.sleep(self.fault.drip_s)
            if time.monotonic() > end:
                raise OSError("enough")

    def _act(self, status: int, headers: dict[str, str], body: bytes) -> None:
        assert self.fault.act is not None
        self.asked.status, self.close_connection = status, True
        with contextlib.suppress(OSError):
            self.fault.act(self, status, headers, body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _say(self, status: int, data: object, headers: dict[str, str] | None = None) -> None:
        body = self.fault.body if self.fault.body is not None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        if self.fault.act:
            self._act(status, headers, b"" if self.command == "HEAD" else body)
            return
        self._send_head(status, headers)
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                (self._drip if self.fault.drip_s else self.wfile.write)(body)

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.asked.status = status
        self.send_response(status)
        said = {key.lower(): value for key, value in self.fault.say.items()}
        for key, value in headers.items():
            if key.lower() not in said:
                self.send_header(key, value)
        for key, replaced in said.items():
            if replaced is not None:
                self.send_header(key, replaced)
        with contextlib.suppress(OSError):
            if self.fault.drip_s and self.fault.drip_head:
                self.flush_headers()
                self._drip(b"X-Slow: " + b"x" * 60_000)
            self.end_headers()
