"""Models that are on this disk already, whoever downloaded them: Hugging Face's cache, llama.cpp's, LM Studio's, Ollama's store.

Only names of files and folders are read, and two kinds of small JSON. Nothing here asks another machine, and nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.sources.cache_folder import user_cache
from harness.sources.choice import choose, find_same_name, is_gguf, list_models, name_quantization
from harness.sources.hub_cache import HubFile, cache_dir, find_snapshot, list_names, list_odd, walk_cache
from harness.sources.looking import find_in, is_file_there
from harness.sources.model_file import model_files
from harness.sources.ollama_store import find_ollama, list_ollama, read_small
from harness.untrusted.names import below, is_relative_name, is_repository

_HUGGING_FACE, _LLAMA, _LM_STUDIO, _OLLAMA = "Hugging Face's cache", "llama.cpp's cache", "LM Studio", "Ollama's store"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this disk.

    name is what -m takes; path its (first) file, size_bytes of all its files, both None where there is none. note says what keeps it
    from being measured.
    """

    name: str
    place: str
    path: Path | None = None
    size_bytes: int | None = None
    note: str | None = None


def list_local() -> list[LocalModel]:
    """List the models of all programs that this one knows; a file that several name is listed once."""
    found: dict[object, LocalModel] = {}
    for model in (*_list_cache(cache_dir(), _HUGGING_FACE), *_list_llama(), *_list_lm_studio(), *_list_ollama()):
        found.setdefault(model.path or model.name, model)
    return list(found.values())


def list_copies(repository: str) -> dict[str, Path]:
    """The files that programs other than Hugging Face's keep of a repository, by the name that they have there."""
    prefix = f"{repository.replace('/', '_')}_"
    found = {name.removeprefix(prefix): path for name, path in _flat_files().items() if name.startswith(prefix)}
    folders = [below(root, repository) for root in lm_studio_folders()]
    if _llama_cache() != cache_dir() and (snapshot := find_snapshot(repository, root=_llama_cache())):
        folders.append(snapshot)
    for folder in folders:
        found |= {name: below(folder, name) for name in list_names(folder)}
    return found


def find_copies(files: Sequence[HubFile], copies: Mapping[str, Path]) -> list[Path] | None:
    """Find a model's files among those of `list_copies`; None unless all are there.

    llama.cpp's older cache writes folders into the name.
    """
    paths = []
    for file in files:
        spellings = (file.name, file.name.replace("/", "_"))
        same = next((name for text in spellings if (name := find_same_name(text, copies))), None)
        if same is None:
            return None
        paths.append(copies[same])
    return paths


def _list_cache(root: Path, place: str) -> Iterator[LocalModel]:
    for repository, revision, folder, names in walk_cache(root):
        at = "" if revision == "main" else f"@{revision}"
        for name in list_models(names):
            kind = name_quantization(name)
            chosen = choose(names, kind) if kind else None
            is_meant = chosen is not None and chosen.name == name and not chosen.is_near
            yield _describe(f"hf:{repository}{at}{f':{kind}' if is_meant else f'/{name}'}", place, below(folder, name))
        for path in list_odd(folder):  # a name that no repository can have
            yield _describe(_home_path(path), place, path)


def _describe(name: str, place: str, path: Path) -> LocalModel:
    """Size a model whose first file is known."""
    try:
        files = model_files(path)
        sizes = [file.stat().st_size for file in files if file.is_file()]
    except (OSError, UsageError):
        return LocalModel(name, place, path, None, "it cannot be read")
    missing = len(files) - len(sizes)
    return LocalModel(name, place, path, sum(sizes), f"{missing} of its files are missing" if missing else None)


def _llama_cache() -> Path:
    """Source: common/common.cpp fs_get_cache_directory; common/hf-cache.cpp keeps Hugging Face's layout in LLAMA_CACHE."""
    if configured := os.environ.get("LLAMA_CACHE"):
        return Path(configured).expanduser()
    return user_cache() / "llama.cpp"


def _list_llama() -> Iterator[LocalModel]:
    root = _llama_cache()
    if root != cache_dir():
        yield from _list_cache(root, _LLAMA)
    files = _flat_files()
    for path in find_in(root, "manifest=*.json"):  # manifest=owner=repository=tag.json, which names the file
        _, *parts, tag = path.stem.split("=")
        owner = "/".join(parts)
        try:
            name = read_small(path)["ggufFile"]["rfilename"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        flat = f"{owner}_{name}".replace("/", "_")
        if is_repository(owner) and isinstance(name, str) and is_relative_name(name) and flat in files:
            yield _describe(f"hf:{owner}:{tag}", _LLAMA, files.pop(flat))
    for name in list_models(list(files)):
        yield _describe(_home_path(files[name]), _LLAMA, files[name])


def _flat_files() -> dict[str, Path]:
    """The files that llama.cpp before 2026 kept under owner_repository_file.gguf."""
    return {path.name: path for path in find_in(_llama_cache(), "*") if is_gguf(path.name) and is_file_there(path)}


def lm_studio_folders() -> list[Path]:
    """Where LM Studio keeps models, as publisher/repository/file.gguf: since version 0.3, and before."""
    return [Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"]


def _list_lm_studio() -> Iterator[LocalModel]:
    for root in lm_studio_folders():
        by_folder: dict[str, list[str]] = {}
        for name in list_names(root):
            by_folder.setdefault("/".join(name.split("/")[:2]), []).append(name)
        named = [below(root, name) for names in by_folder.values() for name in list_models(names)]
        for path in (*named, *list_odd(root)):
            yield _describe(_home_path(path), _LM_STUDIO, path)


def _home_path(path: Path) -> str:
    """A path as a shell takes it and a page has room for it."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if os.name != "nt" and path.is_relative_to(home) else str(path)


def _list_ollama() -> Iterator[LocalModel]:
    for name in list_ollama():
        try:
            path = find_ollama(str(name))
            yield LocalModel(f"ollama:{name}", _OLLAMA, path, path.stat().st_size)
        except (UsageError, OSError) as error:
            yield LocalModel(f"ollama:{name}", _OLLAMA, note=str(error).rstrip("."))
