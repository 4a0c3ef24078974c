"""Ollama's own store: its models are GGUF files that can be measured where they lie."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys

from harness.errors import UsageError

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_MODEL_LAYER = "application/vnd.ollama.image.model"


def store_folders() -> list[pathlib.Path]:
    """Where Ollama keeps models: OLLAMA_MODELS, else the user's folder, and on Linux the service's."""
    if configured := os.environ.get("OLLAMA_MODELS"):
        return [pathlib.Path(configured).expanduser()]
    folders = [pathlib.Path.home() / ".ollama" / "models"]
    if sys.platform == "linux":
        folders.append(pathlib.Path("/usr/share/ollama/.ollama/models"))
    return folders


def find_ollama(text: str) -> pathlib.Path:
    """Find the model file of a name (``llama3.2:1b``, ``user/model:tag``) in Ollama's store.

    Raises
    ------
    UsageError : there is no such model in any store, or its manifest or file is damaged.

    Source: ollama's server/modelpath.go and types/model/name.go.
    """
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        path, tag = text, _TAG
    parts = path.split("/")
    if not 1 <= len(parts) <= 3 or not all(
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", part) for part in (*parts, tag)
    ):
        raise UsageError(f"{text!r} is not a name of Ollama's; write it as `ollama list` does, such as llama3.2:1b.")
    full = (*(_HOST, _NAMESPACE)[: 3 - len(parts)], *parts)
    for folder in store_folders():
        manifest = folder.joinpath("manifests", *full, tag)
        try:
            if manifest.is_file():
                return _find_layer(manifest, folder, text)
        except PermissionError:
            raise UsageError(
                f"Ollama's store {folder} may not be read by you; ask for the right to, or run as its user."
            ) from None
    folders = " or ".join(str(folder) for folder in store_folders())
    raise UsageError(f"Ollama has no {text} in {folders}; run `ollama pull {text}`, or set OLLAMA_MODELS.")


def _find_layer(manifest: pathlib.Path, folder: pathlib.Path, name: str) -> pathlib.Path:
    try:
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"] == _MODEL_LAYER)
    except (ValueError, KeyError, TypeError, StopIteration):
        raise UsageError(
            f"Ollama's manifest {manifest} cannot be understood; run `ollama pull {name}` again."
        ) from None
    blob = folder / "blobs" / str(digest).replace(":", "-")
    if not blob.is_file():
        raise UsageError(f"Ollama's {name} is known but its file is gone; run `ollama pull {name}` again.")
    return blob
