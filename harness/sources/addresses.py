"""Addresses: taken apart, compared, and shown without what may grant access."""

from __future__ import annotations

import re
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
    """Whether two addresses are of one server, to which a token may go: scheme, host and port."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = split_url(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def first_line(error: Exception) -> str:
    """What an error says, without addresses."""
    return re.sub(r"https?://\S+", "the address", str(error).strip().splitlines()[0]) if str(error).strip() else ""
