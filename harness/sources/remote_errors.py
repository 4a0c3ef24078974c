"""What may go wrong with another machine, each in one sentence that says what to do."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from harness.errors import HarnessError, Outcome
from harness.sources.addresses import first_line

#: What errors of libraries repeat of a server's words, at most.
MAX_REASON_CHARS = 160


class RemoteError(HarnessError):
    """A server could not be reached, or would not give what was asked."""


class NotThereError(RemoteError):
    """The server was reached and has no such thing, or not for this user."""

    outcome = Outcome.QUESTION


class NoSuchFileError(NotThereError):
    """The hub has the repository and not the file."""


class SettingsError(RemoteError):
    """Nobody was asked: a variable of huggingface_hub, a proxy or the token cannot be meant."""

    outcome = Outcome.QUESTION


class SlowError(OSError):
    """A server answers too slowly to be waited for; the text says how slowly."""


class HopelessError(OSError):
    """A request that will fail again however often it is made."""


def short_reason(error: Exception) -> str:
    """What an error of a library says, in one line of bounded length, without addresses; its kind where it says nothing."""
    text = first_line(error) or type(error).__name__
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}…"


def explain(error: Exception, name: str) -> RemoteError:
    """Turn an error of huggingface_hub or its client into a sentence about `name` that says what to do."""
    if (response := getattr(error, "response", None)) is not None:
        return explain_status(response, name)
    kind = type(error).__name__
    if kind == "OfflineModeIsEnabled":
        return RemoteError(
            f"{name} is not on this disk, and HF_HUB_OFFLINE forbids to ask for it; unset that variable, or copy the cache of a "
            "machine that has it."
        )
    if isinstance(error, SlowError):
        return RemoteError(f"The server of {name} is too slow ({error}); check the network, or try again later.")
    if kind == "ProxyError":
        return RemoteError(
            f"The proxy on the way to {name} refuses ({short_reason(error)}); check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY."
        )
    reason = "no answer in time" if "Timeout" in kind else short_reason(error).rstrip(".")
    return RemoteError(
        f"{name} cannot be reached ({reason}); check the network, HF_ENDPOINT and proxies, and run the same command again."
    )


def explain_status(response: Any, name: str) -> RemoteError:
    """Turn a refusing answer into a sentence. Source of the codes: huggingface_hub utils/_http.py hf_raise_for_status."""
    status = response.status_code
    code = response.headers.get("X-Error-Code", "")
    host = urlsplit(str(response.url)).netloc.rpartition("@")[2]
    if code == "GatedRepo":
        return NotThereError(
            f"{name} is gated: accept its terms on its page at {host}, then set HF_TOKEN or run `hf auth login`, and pull again."
        )
    if code == "EntryNotFound":
        return NoSuchFileError(f"{name} does not exist: the repository is there, this file is not; check its name.")
    if code == "RevisionNotFound":
        return NotThereError(f"{name} does not exist at this revision; leave the revision out for the newest.")
    if "credentials" in response.headers.get("X-Error-Message", "").lower():
        return NotThereError(f"{host} does not accept the token; correct HF_TOKEN, or run `hf auth login`.")
    if code == "RepoNotFound" or status == 401:
        return NotThereError(
            f"{host} shows no repository for {name}; check its name, and set HF_TOKEN or run `hf auth login` if it is private."
        )
    if status == 403:
        return NotThereError(f"{host} forbids {name} (403); set HF_TOKEN to a token that may read it.")
    if status in (404, 410):
        return NotThereError(f"{host} has no {name} ({status}); check the address.")
    if status == 407:
        return RemoteError(f"A proxy on the way to {name} wants a password (407); write it into HTTPS_PROXY.")
    if status == 416:
        return NotThereError(f"{host} has not a byte of {name} (416), which is empty; ask who put it there.")
    if status == 429:
        wait_s = find_wait_s(response)
        when = "later" if wait_s is None else f"in {wait_s:.0f} s"
        return RemoteError(
            f"{host} limits how often it answers (429); run the same command again {when}, or set HF_TOKEN, which has a higher limit."
        )
    if status >= 500:
        return RemoteError(f"{host} has trouble of its own ({status}) with {name}; run the same command again later.")
    return RemoteError(f"{host} answers {status} to the request for {name}; check the address.")


def find_wait_s(response: Any) -> float | None:
    """Read how long a server wants to be left alone. Source: RFC 9110 Retry-After; the ratelimit header's t."""
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,9})", response.headers.get("ratelimit", ""))
    text = limit[1] if limit else response.headers.get("Retry-After", "").strip()
    return float(text) if re.fullmatch("[0-9]{1,9}", text) else None
