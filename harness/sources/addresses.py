"""Addresses: taken apart, compared, and shown without what may grant access."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class Address:
    """Where bytes are: name is what messages call them, for the URL may hold a signature; headers may hold a token."""

    url: str
    name: str
    headers: Mapping[str, str]


def hide_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may grant access."""
    parts = split_url(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def hide_user(text: str) -> str:
    """Return what should be an address, and need not be one, without the user and the password before its ``@``."""
    hidden, _, shown = text.rpartition("@")
    return f"…@{shown}" if hidden else text


def split_url(url: str) -> SplitResult:
    """Take an address apart.

    Raises
    ------
    UsageError : it is none, with what is wrong and without repeating it, since it may hold a password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is the check
    except ValueError as error:
        raise UsageError(f"The address cannot be understood ({first_line(error)}); correct it.") from None
    return parts


def is_same_origin(url: str, other: str) -> bool:
    """Whether two addresses are of one server: scheme, host and port."""
    return _origin(url) == _origin(other)


def is_same_server(url: str, target: str) -> bool:
    """Whether a redirection stays with the server that was asked, to which a token may go.

    Its origin, or the same host by https instead of http, both at their usual ports. Another port of a host, a sub-domain, and http
    instead of https are others.
    """
    try:
        before, after = _origin(url), _origin(target)
    except UsageError:
        return False
    return before == after or (before == ("http", before[1], 80) and after == ("https", before[1], 443))


def why_not_to(url: str, target: str) -> str | None:
    """Say where a redirection leads that is not to be followed, such as ``to no web address``; None where it may be.

    A server that is not on this machine has nobody here to send us to, nor to a network's own services (169.254.169.254 of clouds).
    """
    try:
        before, after = split_url(url), split_url(target)
        (after.hostname or "").encode("idna")
    except (UsageError, UnicodeError):
        return "to what is no address"
    if after.scheme not in ("http", "https") or not after.hostname:
        return "to what is no web address"
    if (before.scheme, after.scheme) == ("https", "http"):
        return "from https to http"
    near, here = _is_near(after.hostname), _is_near(before.hostname or "")
    return (
        f"to {after.hostname}, an address of this machine or its network's own services" if near and not here else None
    )


def _is_near(host: str) -> bool:
    """Whether a host is this machine itself, or an address that routers do not pass on, however it is written (2130706433, 127.1)."""
    host = host.rstrip(".").partition("%")[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        with contextlib.suppress(OSError):
            host = socket.inet_ntoa(socket.inet_aton(host))
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = split_url(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def first_line(error: Exception) -> str:
    """What an error says, without addresses."""
    return re.sub(r"https?://\S+", "the address", str(error).strip().splitlines()[0]) if str(error).strip() else ""
