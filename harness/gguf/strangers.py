"""What a file is that is not GGUF, from its first bytes."""

from __future__ import annotations

from harness.gguf.roles import begins_with_name

MAGIC = b"GGUF"

#: How files begin that people take for a model, and what to tell them.
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`, or download the file itself"),
    (b"PK\x03\x04", "a ZIP archive or a PyTorch checkpoint; convert it to GGUF"),
    (b"\x80\x02", "a Python pickle (an old PyTorch checkpoint); convert it to GGUF"),
    (b"\x1f\x8b", "gzip-compressed; unpack it"),
    (b"\x28\xb5\x2f\xfd", "Zstandard-compressed; unpack it"),
    (b"\x89HDF", "HDF5 (a Keras checkpoint); convert it to GGUF"),
    (b"lmgg", "a GGML file from before GGUF, or one of whisper.cpp; convert it, or name a language model"),
    (b"fmgg", "a GGMF file from before GGUF; convert it"),
    (b"tjgg", "a GGJT file from before GGUF; convert it"),
    (b"FUGG", "a GGUF file with reversed magic, which nothing reads"),
)


def describe_stranger(name: str, opening: bytes) -> str:
    """Say what a file is that is not GGUF, from its first bytes."""
    said = next((what for magic, what in _STRANGERS if opening.startswith(magic)), None) or _guess(opening)
    return f"{name} is not a GGUF file: at byte 0 it has {opening[:4]!r} where GGUF has {MAGIC!r}, so it is {said}"


def _guess(opening: bytes) -> str:
    """What a file is that has no magic of its own."""
    if opening.lstrip()[:16].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps an error or a login page saved under its name; download the file itself"
    if opening[8:9] == b"{" and int.from_bytes(opening[:8], "little") < 2**27:
        return "a safetensors file; convert it to GGUF"
    # Imatrix files from before GGUF: a count of entries, a length, a tensor's name. Source: tools/imatrix save_imatrix_legacy.
    if 0 < int.from_bytes(opening[4:8], "little") < 64 and begins_with_name(opening[8:]):
        return "an importance matrix (imatrix.dat), which llama-quantize takes; name a model that was made with it"
    if opening.isascii() and opening.decode("ascii").replace("\n", " ").replace("\t", " ").isprintable():
        return "a text file; download the model itself"
    return "of a kind that harness does not know; name a .gguf file"
