"""Text of strangers that becomes a path: what servers, manifests, caches and catalogs call commits, digests, revisions and files.

Every path that is made from such text is made here, or from text that passed here. The rules are the hub's own where it has one, and
never wider than what Linux, macOS and Windows all take for one name inside one folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import UsageError

#: Longest file name of the usual file systems, and a path that fits beside a cache's own folders. Source: ext4, APFS and NTFS (255).
MAX_COMPONENT_BYTES = 255
MAX_NAME_BYTES = 1024

#: More files than any published model has; a name that counts further is a slip or a trap (each would cost a request).
MAX_PARTS = 1024

_HEX40 = re.compile(r"[0-9a-f]{40}")
_HEX64 = re.compile(r"[0-9a-f]{64}")

#: Source: huggingface_hub utils/_validators.py validate_repo_id, with an owner; "--" is what its cache writes for "/".
_REPOSITORY = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_MAX_REPOSITORY_CHARS = 96

#: Separators, what Windows forbids, and control characters of both ranges.
_FORBIDDEN = re.compile('[\\\\:*?"<>|/\x00-\x1f\x7f-\x9f]')
#: Source: https://learn.microsoft.com/windows/win32/fileio/naming-a-file (reserved with any ending; superscripts are digits).
_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\..*)?", re.IGNORECASE
)


def find_commit(text: object) -> str | None:
    """Return a git commit, 40 hexadecimal digits, as the hub spells it; None for anything else."""
    said = text.strip().lower() if isinstance(text, str) else ""
    return said if _HEX40.fullmatch(said) else None


def find_digest(text: object) -> str | None:
    """Return a file's SHA-256 (64 hexadecimal digits) or git's SHA-1 of it (40); None for anything else."""
    said = text.strip().lower() if isinstance(text, str) else ""
    return said if _HEX64.fullmatch(said) or _HEX40.fullmatch(said) else None


def is_repository(text: str) -> bool:
    """Whether a text is owner/repository by the hub's rules."""
    ambiguous = "--" in text or ".." in text or text.endswith(".git") or len(text) > _MAX_REPOSITORY_CHARS
    return _REPOSITORY.fullmatch(text) is not None and not ambiguous


def is_component(text: str) -> bool:
    """Whether a text is one name inside a folder on every system: no separator, no way up, no device, no control character."""
    try:
        n_bytes = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return (
        0 < n_bytes <= MAX_COMPONENT_BYTES
        and _FORBIDDEN.search(text) is None
        and not text.endswith((".", " "))
        and _DEVICES.fullmatch(text) is None
    )


def is_relative_name(text: str) -> bool:
    """Whether a text is the name of a file or of a revision below a folder: ``model.gguf``, ``Q4_K_M/model.gguf``, ``refs/pr/3``."""
    return len(text) <= MAX_NAME_BYTES and all(is_component(part) for part in text.split("/"))


def below(folder: Path, *names: str) -> Path:
    """Join names of strangers to a folder of ours.

    Raises
    ------
    UsageError : one of them is no name inside a folder.
    """
    for name in names:
        if not is_relative_name(name):
            raise UsageError(f"{name!r} is not a name inside a folder; nothing was read or written for it.")
    return folder.joinpath(*(part for name in names for part in name.split("/")))
