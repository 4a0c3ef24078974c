"""Texts that models are asked to predict: the one that comes with harness, or any file."""

from __future__ import annotations

import errno
import hashlib
import pathlib
import re
import stat
from dataclasses import dataclass

from harness.errors import UsageError

#: The text where nobody names another: Lewis Carroll's Alice's Adventures in Wonderland, 1865, in the public domain (data/SOURCES.md).
OWN_TEXT = pathlib.Path(__file__).parent / "data" / "alice.txt"

#: The largest file that is taken: its tokens would be computed for weeks.
MOST_BYTES = 256 * 1024**2

#: Four bytes that look like UTF-8 and stand for a character beyond the last one: llama.cpp's tokenizers abort at them. Whatever else is
#: no UTF-8 they take for U+FFFD. Source: unicode_cpt_from_utf8 and unicode_cpt_to_utf8 in src/unicode.cpp.
_BEYOND_UNICODE = re.compile(rb"(?:\xf4[\x90-\xbf]|[\xf5-\xf7][\x80-\xbf])[\x80-\xbf]{2}")


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text on this disk, known by its hash (SHA-256 in hex); is_own says that it is the one that comes with harness.

    Where is_text is False (no UTF-8, or zeros in it), tokenizers take bytes for something else than what stands there.
    """

    path: pathlib.Path
    sha256: str
    size_bytes: int
    is_text: bool = True

    @property
    def is_own(self) -> bool:
        """Whether it comes with harness."""
        return self.path == OWN_TEXT


def open_text(path: pathlib.Path | None = None) -> TextFile:
    """A text to be predicted: a file of any encoding, since a tokenizer takes bytes; without one the text of our own.

    Raises
    ------
    UsageError : there is no such file, it cannot be read, it is empty or far too large, or no tokenizer takes it.
    """
    path = path or OWN_TEXT
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # a pipe gives its text once, and it is read twice
            raise OSError(errno.EINVAL, "it is no file")
        size = facts.st_size
        if size > MOST_BYTES:
            raise UsageError(
                f"{path.name} has {size / 1e6:.0f} MB; give a text of no more than {MOST_BYTES / 1e6:.0f} MB."
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its name is none"
        raise UsageError(f"The text {path.name} cannot be read ({why}); name another file with --text.") from None
    if not data.strip():
        raise UsageError(f"The text {path.name} is empty; name another file with --text.")
    if found := _BEYOND_UNICODE.search(data):
        raise UsageError(
            f"{path.name} is no text: the bytes from {found.start():,} on are a character that does not exist; name another file "
            "with --text."
        )
    return TextFile(path, hashlib.sha256(data).hexdigest(), len(data), _is_text(data))


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in data
