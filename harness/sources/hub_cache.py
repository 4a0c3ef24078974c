"""Hugging Face's own cache: which files of repositories are on this disk, and where.

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache (the layout that all its clients read).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.gguf import split
from harness.sources.choice import find_same_name, is_gguf
from harness.sources.hub_client import hub_settings
from harness.sources.looking import find_in, is_file_there
from harness.untrusted.names import below, find_commit, is_relative_name, is_repository


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a model repository.

    Raises
    ------
    UsageError : a part of it is none that the hub can have; names become paths, and a listing is a stranger's word.
    """

    repository: str
    name: str
    revision: str = "main"

    def __post_init__(self) -> None:
        if not is_repository(self.repository):
            raise UsageError(f"{self.repository!r} is not a repository; write it as hf:owner/repository.")
        if not (is_relative_name(self.name) and is_relative_name(self.revision)):
            raise UsageError(f"{self.name!r} at {self.revision!r} is not a file of a repository; check its name.")

    def __str__(self) -> str:
        return f"{self.repository}/{self.name}"


def list_parts(file: HubFile) -> tuple[HubFile, ...]:
    """Name all files of a model from its first one.

    Raises
    ------
    UsageError : this is a later part.
    """
    return tuple(HubFile(file.repository, name, file.revision) for name in split.list_parts(file.name))


def cache_dir() -> Path:
    """Where huggingface_hub keeps files: HF_HUB_CACHE, or ``hub`` in HF_HOME."""
    return Path(hub_settings().HF_HUB_CACHE)


def find_cached(files: Sequence[HubFile]) -> list[Path] | None:
    """Find files in the cache without asking anybody; None unless all are there. A name's case may be another than the hub's."""
    found = []
    for file in files:
        folder = find_snapshot(file.repository, file.revision)
        path = below(folder, file.name) if folder else None
        if folder and path and not is_file_there(path):
            same = find_same_name(file.name, list_names(folder))
            path = below(folder, same) if same else None
        if path is None:
            return None
        found.append(path)
    return found


def list_cached(repository: str, revision: str = "main") -> list[HubFile]:
    """List the GGUF files of a repository that are in the cache at a revision."""
    folder = find_snapshot(repository, revision)
    return [HubFile(repository, name, revision) for name in list_names(folder)] if folder else []


def walk_cache(root: Path) -> Iterator[tuple[str, str, Path, list[str]]]:
    """Every snapshot of a cache of this layout: repository, revision (a commit where no name stands for it), folder, GGUF names."""
    for storage in _entries(root):
        repository = storage.name.removeprefix("models--").replace("--", "/")
        if not storage.name.startswith("models--") or not is_repository(repository):
            continue
        refs = storage / "refs"
        revisions = [path.relative_to(refs).as_posix() for path in find_in(refs, "**/*") if is_file_there(path)]
        by_commit = {cached_commit(repository, name, root): name for name in sorted(revisions, key="main".__eq__)}
        for folder in _entries(storage / "snapshots"):
            if (commit := find_commit(folder.name)) and (names := list_names(folder)):
                yield repository, by_commit.get(commit, commit), folder, names


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def list_names(folder: Path) -> list[str]:
    """The GGUF files below a folder, by their names there; those that no repository could have are left out."""
    return sorted(filter(is_relative_name, _names_below(folder)))


def list_odd(folder: Path) -> list[Path]:
    """Those that `list_names` leaves out."""
    return sorted(folder / name for name in _names_below(folder) if not is_relative_name(name))


def _names_below(folder: Path) -> list[str]:
    found = find_in(folder, "**/*")
    return [path.relative_to(folder).as_posix() for path in found if is_gguf(path.name) and is_file_there(path)]


def find_snapshot(repository: str, revision: str = "main", root: Path | None = None) -> Path | None:
    """The folder of a revision's files; None where the cache (Hugging Face's, or one of its layout) knows no commit for it."""
    commit = cached_commit(repository, revision, root) or find_commit(revision)
    return storage_folder(repository, root) / "snapshots" / commit if commit else None


def cached_commit(repository: str, revision: str, root: Path | None = None) -> str | None:
    """The commit that a revision stands for, as a cache has it."""
    try:
        return find_commit(below(storage_folder(repository, root) / "refs", revision).read_text(encoding="utf-8"))
    except (OSError, ValueError, UsageError):
        return None


def make_place(folder: Path, name: str) -> Path:
    """The place of a file below a folder of ours, whose folders are made; it need not be there.

    Raises
    ------
    UsageError   : its name leaves the folder.
    HarnessError : a link on the way leads out of the folder, or what is there has this name in another case, which this file system
        takes for the same.
    OSError      : a folder cannot be made.
    """
    place = below(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    at = folder
    for part in place.relative_to(folder).parts:
        at, parent = at / part, at
        if not Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(folder)):
            raise HarnessError(f"{parent} is a link that leads out of the cache; remove it, and pull again.")
        if os.path.lexists(at) and part not in os.listdir(parent):
            raise HarnessError(
                f"{parent} has another file that this file system takes for {part}; keep the two in caches of their own (HF_HOME)."
            )
        if at != place:
            at.mkdir(exist_ok=True)
    return place


def storage_folder(repository: str, root: Path | None = None) -> Path:
    """Where a cache keeps everything of a repository."""
    return below(root or cache_dir(), f"models--{repository.replace('/', '--')}")
