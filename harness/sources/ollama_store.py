"""Ollama's own store: its models are GGUF files that can be measured where they lie."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

_HOST = "registry.ollama.ai"
_NAMESPACE = "library"
_TAG = "latest"
#: Source: ollama server/images.go, the layers of a manifest.
_MODEL_LAYER = "application/vnd.ollama.image.model"
_MAX_MANIFEST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class OllamaName:
    """A model's name in Ollama's terms. Source: ollama types/model/name.go (host/namespace/model:tag with defaults)."""

    model: str
    tag: str = _TAG
    namespace: str = _NAMESPACE
    host: str = _HOST

    def __str__(self) -> str:
        """The name as `ollama list` shows it, without what is usual."""
        parts = [self.model]
        if (self.host, self.namespace) != (_HOST, _NAMESPACE):
            parts.insert(0, self.namespace)
        if self.host != _HOST:
            parts.insert(0, self.host)
        return f"{'/'.join(parts)}:{self.tag}"

    @property
    def relative_path(self) -> Path:
        return Path(self.host, self.namespace, self.model, self.tag)


def parse_ollama_name(text: str) -> OllamaName:
    """Read ``llama3.2:1b``, ``user/model``, ``hf.co/owner/repo:Q4_K_M``.

    Raises
    ------
    UsageError : it is no name of that form.
    """
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        path, tag = text, _TAG
    parts = path.split("/")
    if not 1 <= len(parts) <= 3 or not all(
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", part) for part in (*parts, tag)
    ):
        raise UsageError(
            f"{text!r} is not a name of Ollama's; write it as `ollama list` does, such as ollama:llama3.2:1b."
        )
    if len(parts) == 3:
        return OllamaName(parts[2], tag, parts[1], parts[0])
    return OllamaName(parts[1], tag, parts[0]) if len(parts) == 2 else OllamaName(parts[0], tag)


def store_folders() -> list[Path]:
    """Where Ollama keeps models: OLLAMA_MODELS alone, where it is set; else the user's folder, and on Linux the service's."""
    if configured := os.environ.get("OLLAMA_MODELS"):
        return [Path(configured).expanduser()]
    folders = [Path.home() / ".ollama" / "models"]
    if sys.platform == "linux":
        # Source: ollama scripts/install.sh, which makes the user of the service with this home.
        folders.append(Path("/usr/share/ollama/.ollama/models"))
    return folders


def list_ollama() -> list[OllamaName]:
    """List the models in all stores that can be read."""
    found: dict[OllamaName, None] = {}
    for folder in store_folders():
        for path in _manifests(folder):
            host, namespace, model, tag = path.relative_to(folder / "manifests").parts
            found[OllamaName(model, tag, namespace, host)] = None
    return list(found)


def _manifests(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in (folder / "manifests").glob("*/*/*/*") if path.is_file())
    except OSError:
        return []


def find_ollama(text: str) -> Path:
    """Find the model file of a name in Ollama's store.

    Raises
    ------
    UsageError : there is no store or no such model in it, with the nearest names, or its manifest or file is damaged.
    """
    name = parse_ollama_name(text)
    forbidden = None
    for folder in store_folders():
        manifest = folder / "manifests" / name.relative_path
        try:
            if manifest.is_file():
                return _read_manifest(manifest, folder, name)
        except PermissionError:
            forbidden = folder
    if forbidden:
        raise UsageError(
            f"Ollama's store {forbidden} may not be read by you; run `sudo usermod -aG ollama $USER` and log in again, "
            f"or pull {name} as yourself."
        )
    raise UsageError(_tell_missing(name))


def _read_manifest(manifest: Path, folder: Path, name: OllamaName) -> Path:
    with open(manifest, "rb") as file:
        text = file.read(_MAX_MANIFEST_BYTES)
    try:
        layers = json.loads(text)["layers"]
        digests = [layer["digest"] for layer in layers if layer["mediaType"] == _MODEL_LAYER]
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"Ollama's manifest {manifest} cannot be understood; run `ollama pull {name}` again."
        ) from None
    digest = re.fullmatch(r"sha256[:-]([0-9a-f]{64})", str(digests[0])) if digests else None
    if digest is None:
        raise UsageError(
            f"Ollama's {name} has no model file in its manifest {manifest}; run `ollama pull {name}` again."
        )
    # Source: ollama server/modelpath.go GetBlobsPath; before 0.1.30 or so the name had a colon, where file systems allow one.
    for separator in ("-", ":"):
        blob = folder / "blobs" / f"sha256{separator}{digest[1]}"
        if blob.is_file():
            return blob
    raise UsageError(
        f"Ollama's {name} is known but its file {digest[1][:12]}… is gone; run `ollama pull {name}` again."
    )


def _tell_missing(name: OllamaName) -> str:
    known = [str(item) for item in list_ollama()]
    if not known:
        folders = " or ".join(str(folder) for folder in store_folders())
        return (
            f"There is no Ollama model in {folders}; run `ollama pull {name}`, or set OLLAMA_MODELS to where they are."
        )
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = (
        f"did you mean {' or '.join(f'ollama:{item}' for item in near)}?" if near else f"it has {', '.join(known[:8])}."
    )
    return f"Ollama has no {name} here; {hint}"
