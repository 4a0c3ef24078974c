"""Ollama's own store: its models are GGUF files that can be measured where they lie."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.sources.looking import find_in, is_file_there
from harness.untrusted import harmless
from harness.untrusted.json import read_json
from harness.untrusted.names import find_digest

_REGISTRY = "registry.ollama.ai"
_NAMESPACE = "library"
_TAG = "latest"
#: Source: ollama server/images.go, the layers of a manifest.
_MODEL_LAYER = "application/vnd.ollama.image.model"
#: One tensor of a model in safetensors, for Ollama's MLX engine. Source: ollama server/internal/manifest, x/imagegen.
_TENSOR_LAYER = "application/vnd.ollama.image.tensor"
_MAX_MANIFEST_BYTES = 2**20

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class OllamaName:
    """A model's name in Ollama's terms. Source: ollama types/model/name.go (host/namespace/model:tag with defaults, of any case)."""

    model: str
    tag: str = _TAG
    namespace: str = _NAMESPACE
    host: str = _REGISTRY

    def __str__(self) -> str:
        """The name as `ollama list` shows it, without what is usual."""
        parts = [self.model]
        if (self.host, self.namespace) != (_REGISTRY, _NAMESPACE):
            parts.insert(0, self.namespace)
        if self.host != _REGISTRY:
            parts.insert(0, self.host)
        return f"{'/'.join(parts)}:{self.tag}"


def parse_ollama_name(text: str) -> OllamaName:
    """Read ``llama3.2:1b``, ``user/model``, ``hf.co/owner/repo:Q4_K_M``, ``localhost:5000/me/model:tag``.

    Raises
    ------
    UsageError : it is no name of that form.
    """
    *folders, last = re.sub("^https?://", "", text).split("/")
    model, colon, tag = last.partition(":")
    namespace = folders[-1] if folders else _NAMESPACE
    host = folders[0] if len(folders) > 1 else _REGISTRY
    parts = (namespace, model, tag if colon else _TAG)
    if len(folders) > 2 or not _HOST.fullmatch(host) or not all(map(_PART.fullmatch, parts)):
        raise UsageError(
            f"{text!r} is not a name of Ollama's; write it as `ollama list` does, such as ollama:llama3.2:1b."
        )
    return OllamaName(parts[1], parts[2], namespace, host)


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
        for path in filter(is_file_there, find_in(folder / "manifests", "*/*/*/*")):
            host, namespace, model, tag = path.parts[-4:]
            if _HOST.fullmatch(host) and all(map(_PART.fullmatch, (namespace, model, tag))):
                found[OllamaName(model, tag, namespace, host)] = None
    return list(found)


def find_ollama(text: str) -> Path:
    """Find the model file of a name in Ollama's store.

    Raises
    ------
    UsageError : there is no store or no such model in it, with the nearest names; its manifest or file is damaged; or it has no file
        that llama.cpp could read.
    """
    name = parse_ollama_name(text)
    forbidden = None
    for folder in store_folders():
        try:
            if (manifest := _find_manifest(folder / "manifests", name)) is not None:
                return _find_blob(manifest, folder, name)
        except PermissionError:
            forbidden = folder
    if forbidden:
        raise UsageError(
            f"Ollama's store {forbidden} may not be read by you; run `sudo usermod -aG ollama $USER` and log in again, "
            f"or pull {name} as yourself."
        )
    raise UsageError(_describe_missing(name))


def _find_manifest(folder: Path, name: OllamaName) -> Path | None:
    """Go down a store's own folders, whatever the case: no path is made from the name."""
    for part in (name.host, name.namespace, name.model, name.tag):
        try:
            entries = {entry.name: entry for entry in folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return None
        folded = {entry.casefold(): path for entry, path in entries.items()}
        found = entries.get(part) or folded.get(part.casefold())
        if found is None:
            return None
        folder = found
    return folder if folder.is_file() else None


def read_small(path: Path) -> Any:
    """Read a manifest or a configuration; ValueError where it is none."""
    with open(path, "rb") as file:
        return read_json(file.read(_MAX_MANIFEST_BYTES))


def _find_blob(manifest: Path, folder: Path, name: OllamaName) -> Path:
    try:
        said = read_small(manifest)
        layers = [(layer["mediaType"], layer["digest"]) for layer in said["layers"] or []]
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"Ollama's manifest {manifest} cannot be understood; run {harmless.command('ollama', 'pull', name)} again."
        ) from None
    digests = [digest for kind, digest in layers if kind == _MODEL_LAYER]
    if not digests:
        raise UsageError(_describe_fileless(said, [kind for kind, _ in layers], manifest, folder, name))
    if (blob := _blob_path(folder, digests[0])) is not None:
        return blob
    raise UsageError(
        f"Ollama's {name} is known but its file {str(digests[0])[:19]}… is gone; run {harmless.command('ollama', 'pull', name)} again."
    )


def _blob_path(folder: Path, said: object) -> Path | None:
    """The file of a digest such as ``sha256:0123…``; None where the text is no digest, or there is no such file.

    Source: ollama server/modelpath.go GetBlobsPath; before 0.1.30 or so the name had a colon, where file systems allow one.
    """
    digest = find_digest(re.sub("^sha256[:-]", "", str(said)))
    names = [f"sha256{separator}{digest}" for separator in ("-", ":")] if digest else []
    return next((path for name in names if (path := folder / "blobs" / name).is_file()), None)


def _describe_fileless(manifest: Any, kinds: list[Any], path: Path, folder: Path, name: OllamaName) -> str:
    """Say why a model has no GGUF file: it runs in Ollama's cloud, or it is made for Ollama's MLX engine.

    Source: ollama server/images.go ConfigV2 (remote_host, remote_model, model_format).
    """
    config: Any = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        path_of_config = _blob_path(folder, manifest["config"]["digest"])
        config = read_small(path_of_config) if path_of_config else {}
    config = config if isinstance(config, dict) else {}
    if config.get("remote_host") or name.tag.endswith("cloud"):
        host = config.get("remote_host") or "Ollama's cloud"
        model = config.get("remote_model") or re.sub(r"[:-]cloud$", "", str(name))
        pull = harmless.command("ollama", "pull", model)
        return f"Ollama's {name} runs at {host} and not here; there is no file of it. See if one runs here: {pull}."
    if config.get("model_format") == "safetensors" or _TENSOR_LAYER in kinds:
        return (
            f"Ollama's {name} is made for its MLX engine, in safetensors, which llama.cpp cannot read; pull another tag of "
            f"{name.model} with `ollama pull`, or a GGUF file with `harness pull`."
        )
    return f"Ollama's {name} has no model file in its manifest {path}; run {harmless.command('ollama', 'pull', name)} again."


def _describe_missing(name: OllamaName) -> str:
    known = [str(item) for item in list_ollama()]
    if not known:
        folders = " or ".join(str(folder) for folder in store_folders())
        pull = harmless.command("ollama", "pull", name)
        return f"There is no Ollama model in {folders}; run {pull}, or set OLLAMA_MODELS to where they are."
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = (
        f"did you mean {' or '.join(f'ollama:{item}' for item in near)}?" if near else f"it has {', '.join(known[:8])}."
    )
    return f"Ollama has no {name} here; {hint}"
