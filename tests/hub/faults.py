"""What servers do wrong, each a function that is given the right answer and sends another, or none, over the bare socket."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

from tests.hub.server import Act

#: Servers that wait, drip or send without end stop after this, or as soon as a test says `enough`.
PATIENCE_S = 8.0
enough = threading.Event()

_HTML = b"<!DOCTYPE html><html><title>Log in</title>\x1b[2J\xe2\x80\xae</html>"


def write(to: BaseHTTPRequestHandler, data: bytes) -> None:
    to.connection.sendall(data)


def head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} So\r\nConnection: close\r\n{lines}\r\n".encode("latin-1")


def reset(to: BaseHTTPRequestHandler) -> None:
    """End the connection with RST and no FIN."""
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(to.connection.detach())


def _wait() -> None:
    enough.wait(PATIENCE_S)


def _until_enough(pause_s: float = 0.0) -> Iterator[None]:
    """Moments to send in, until a test says `enough`, or the server has no more patience."""
    end = time.monotonic() + PATIENCE_S
    while not enough.wait(pause_s) and time.monotonic() < end:
        yield


def _drip(to: BaseHTTPRequestHandler, data: bytes) -> None:
    for index, _ in zip(range(len(data)), _until_enough(0.05), strict=False):
        write(to, data[index : index + 1])


def _without(headers: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


def _part(of: bytes) -> bytes:
    return of[: len(of) // 2]


# --- connections ------------------------------------------------------------------------------------------------------


def cut(where: str, how: str) -> Act:
    """End the connection `where`: before the answer, in its head, or in its body; by a reset, by closing it, or never (stalls)."""

    def act(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        whole = head(status, headers)
        write(to, {"answer": b"", "head": _part(whole), "body": whole + _part(body)}[where])
        if how == "reset":
            reset(to)
        elif how == "stalls":
            _wait()

    return act


def drips_head(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    _drip(to, head(status, {"X-Slow": "x" * 10_000, **headers}))


def drips_body(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    write(to, head(status, headers))
    _drip(to, body)


def early_hints_without_end(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    for _ in _until_enough(0.01):
        write(to, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")


# --- what is no HTTP --------------------------------------------------------------------------------------------------


def says(data: bytes) -> Act:
    """Send these bytes and nothing else."""
    return lambda to, status, headers, body: write(to, data)


# --- lengths, chunks, encodings ---------------------------------------------------------------------------------------


def tells(**changed: str | None) -> Act:
    """The right answer with other headers (``Content_Length="7"``), or without those that are None."""

    def act(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        new = {name.replace("_", "-"): value for name, value in changed.items()}
        told = {name: value for name, value in new.items() if value is not None}
        write(to, head(status, {**_without(headers, *new), **told}) + body)

    return act


def length(by: int) -> Act:
    """The right answer, its length told wrong by so much."""

    def act(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        told = {**headers, "Content-Length": str(max(len(body) + by, 0))}
        write(to, head(status, told) + body)

    return act


def two_lengths(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    write(to, head(status, {**headers, "content-length": "3"}) + body)


def without_length(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    write(to, head(status, _without(headers, "Content-Length")) + _part(body))


def chunked(chunks: str) -> Act:
    """The right answer in chunks that are right, garbled, or go on without end."""

    def act(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        write(to, head(status, {**_without(headers, "Content-Length"), "Transfer-Encoding": "chunked"}))
        if chunks == "right":
            write(to, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n")
        elif chunks == "garbled":
            write(to, b"xyz\r\nwhat?\r\n")
        else:
            for _ in _until_enough():
                write(to, b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    return act


def more_than_told(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    write(
        to,
        head(status, headers).replace(b"Connection: close", b"Connection: keep-alive")
        + body
        + b"HTTP/1.1 200 OK\r\n\r\n" * 50,
    )


def packed(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    data = gzip.compress(body)
    write(to, head(status, {**headers, "Content-Encoding": "gzip", "Content-Length": str(len(data))}) + data)


# --- ranges -----------------------------------------------------------------------------------------------------------


def other_range(by: int) -> Act:
    """Bytes that begin elsewhere, and the answer says so."""

    def act(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        total = headers.get("Content-Range", "/77").rpartition("/")[2]
        start = int(headers.get("Content-Range", "bytes 0-").split()[1].partition("-")[0]) + by
        new = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{total}"}
        write(to, head(206 if status == 200 else status, {**headers, **new}) + body)

    return act


def another_file(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    """The file was changed: other bytes, another ETag, another size."""
    total = headers.get("Content-Range", "").rpartition("/")
    new = {"Content-Range": f"{total[0]}/{int(total[2]) + 5}"} if total[0] else {}
    if "ETag" in headers:
        new["ETag"] = '"another"'
    write(to, head(status, {**headers, **new}) + bytes(byte ^ 0x55 for byte in body[:100]) + body[100:])


def parts_of_ranges(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    data = b"--x\r\nContent-Range: bytes 0-5/6\r\n\r\n" + body + b"\r\n--x--\r\n"
    told = {"Content-Type": "multipart/byteranges; boundary=x", "Content-Length": str(len(data))}
    write(to, head(206, {**_without(headers, "Content-Range"), **told}) + data)


# --- statuses and redirections ----------------------------------------------------------------------------------------


def refuses(status: int, body: bytes = _HTML, **headers: str) -> Act:
    """Another status, with a body that should not be shown."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}

    def act(to: BaseHTTPRequestHandler, _: int, headers: dict[str, str], right: bytes) -> None:
        write(to, head(status, {"Content-Type": "text/html", "Content-Length": str(len(body)), **told}) + body)

    return act


def redirects(location: str, status: int = 302, endless: bool = False) -> Act:
    """Redirect elsewhere; {self} stands for what was asked, {host} for who was."""

    def act(to: BaseHTTPRequestHandler, _: int, headers: dict[str, str], right: bytes) -> None:
        host = to.headers["Host"]
        target = location.replace("{self}", f"http://{host}{to.path}").replace("{host}", host)
        if not endless:
            write(to, head(status, {"Location": target, "Content-Length": "2"}) + b"{}")
            return
        write(to, head(status, {"Location": target, "Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}))
        bomb = gzip.compress(bytes(1 << 22))
        for _ in _until_enough():
            write(to, b"%x\r\n%s\r\n" % (len(bomb), bomb))

    return act


# --- contents ---------------------------------------------------------------------------------------------------------


def sends(data: bytes, content_type: str = "application/json") -> Act:
    """Another body under the right head."""

    def act(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        write(to, head(status, {**headers, "Content-Type": content_type, "Content-Length": str(len(data))}) + data)

    return act


def flips(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    """One byte in the middle is another."""
    at = len(body) // 2
    write(to, head(status, headers) + body[:at] + bytes(byte ^ 1 for byte in body[at : at + 1]) + body[at + 1 :])


#: Every fault by what the server does.
FAULTS: dict[str, Act] = {
    **{f"{how} the connection before the answer": cut("answer", how) for how in ("reset", "closes")},
    **{f"{how} the connection in the head": cut("head", how) for how in ("reset", "closes")},
    **{f"{how} the connection in the body": cut("body", how) for how in ("reset", "closes")},
    "never answers": cut("answer", "stalls"),
    "stalls in the head": cut("head", "stalls"),
    "stalls in the body": cut("body", "stalls"),
    "drips its head": drips_head,
    "drips its body": drips_body,
    "hints without end": early_hints_without_end,
    "speaks SSH": says(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "speaks TLS": says(b"\x15\x03\x01\x00\x02\x02\x46"),
    "speaks HTTP/0.9": says(b"<html>what?</html>"),
    "has a status line of 1 MB": says(b"HTTP/1.1 200 " + b"O" * 1_000_000 + b"\r\n\r\n"),
    "has no status": says(b"HTTP/1.1 abc Fine\r\n\r\n"),
    "has a header of 1 MB": tells(X_Large="x" * 1_000_000),
    "has 20,000 headers": tells(**{f"X_{index}": "x" for index in range(20_000)}),
    "has a header without a name": tells(**{"": "x"}),
    "has control characters in a header": tells(ETag='"\x01\x1b[2J"', X_Repo_Commit="\x07"),
    "tells too long a length": length(100),
    "tells too short a length": length(-30),
    "tells a negative length": tells(Content_Length="-5"),
    "tells no number as length": tells(Content_Length="1e3"),
    "tells a length of 10^18": tells(Content_Length=str(10**18)),
    "tells two lengths": two_lengths,
    "tells no length and sends half": without_length,
    "sends chunks": chunked("right"),
    "sends garbled chunks": chunked("garbled"),
    "sends chunks without end": chunked("endless"),
    "goes on behind the end": more_than_told,
    "packs its answer": packed,
    "says that it packed its answer": tells(Content_Encoding="gzip"),
    "ignores ranges": lambda to, status, headers, body: write(
        to, head(200, _without(headers, "Content-Range")) + body
    ),
    "sends a later range": other_range(7),
    "sends an overlapping range": other_range(-7),
    "sends a range and does not say which": tells(Content_Range=None),
    "sends a range of garbage": tells(Content_Range="bytes x-y/z"),
    "sends parts of ranges": parts_of_ranges,
    "has no such range": refuses(416, b"", Content_Range="bytes */7"),
    "changed the file": another_file,
    **{f"answers {code}": refuses(code) for code in (204, 304, 400, 401, 403, 404, 405, 407, 408, 410, 418, 451, 500, 501, 503, 599)},
    "answers 403 with its own code": refuses(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="\x1b[2Jno"),
    "answers 404 with an unknown code": refuses(404, b"[" * 5000, X_Error_Code="\x1b[31mOdd"),
    "limits and says 120 s": refuses(429, Retry_After="120"),
    "limits and says 10^12 s": refuses(429, Retry_After=str(10**12)),
    "limits and says -5 s": refuses(429, Retry_After="-5"),
    "limits until a date": refuses(429, Retry_After="Wed, 21 Oct 2065 07:28:00 GMT"),
    "redirects in a circle": redirects("{self}"),
    "redirects to the same path by HTTPS": redirects("https://{host}/x", 307),
    "redirects to a file": redirects("file:///etc/passwd", 301),
    "redirects to FTP": redirects("ftp://{host}/x"),
    "redirects to a script": redirects("javascript:alert(1)", 303),
    "redirects to data": redirects("data:text/html,hello"),
    "redirects to no address": redirects("http://[::1", 308),
    "redirects to no name": redirects(f"http://{'x' * 70}.example/"),
    "redirects to nobody": redirects("http://127.0.0.1:9/x"),
    "redirects without saying where": refuses(302),
    "redirects in a circle with a packed body without end": redirects("{self}", endless=True),
    "sends a page": sends(_HTML, "text/html"),
    "sends nothing": sends(b""),
    "sends half of its JSON": sends(b'{"siblings": [{"rfilename": "'),
    "sends deep JSON": sends(b"[" * 50_000 + b"]" * 50_000),
    "sends huge JSON": sends(b'{"x": "' + b"x" * 600_000 + b'"}'),
    "sends JSON of another kind": sends(b'{"siblings": {"rfilename": 3}, "sha": [], "models": 3, "version": {}, "error": []}'),
    "sends JSON with numbers that are none": sends(b'{"siblings": [{"rfilename": "m.gguf", "size": 1e999}], "version": NaN}'),
    "sends no UTF-8": sends(b'{"version": "\xff\xfe", "siblings": []}'),
    "sends bytes that begin as a model": sends(b"GGUF\x03\x00\x00\x00" + b"\xff" * 400, "application/octet-stream"),
    "says that it is a page": tells(Content_Type="text/html; charset=\x1b"),
    "sends one wrong byte": flips,
}  # fmt: skip
