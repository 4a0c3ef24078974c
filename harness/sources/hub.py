"""Hugging Face's hub: what it has, and downloads into huggingface_hub's own cache that go on where they stopped.

huggingface_hub 2 writes each download to a file of a random name and deletes it when anything goes wrong (`_download_to_tmp_and_move`;
a killed process leaves it behind, and the next one begins at zero). hf_xet, which it uses where a file is in Xet storage, begins at
zero as well. A model of 40 GB over a home line must not, so huggingface_hub asks the hub what to fetch, and the bytes come over plain
HTTP ranges into ``blobs/<sha256>.incomplete``, are checked, and only then get their name in the cache. The result is the same cache
that every program around huggingface_hub reads.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.sources.remote import (
    TIMEOUT_S,
    Address,
    NoSuchFileError,
    NotThereError,
    Progress,
    RemoteError,
    RemoteSource,
    ask,
    check_space,
    fetch_into,
    session,
)
from harness.theory.split import part_names
from harness.units import MIB

#: What llama.cpp takes for the model of a repository, and what is only an accessory of one.
#: Source: common/download.cpp gguf_filename_is_model, find_best_model.
_ACCESSORIES = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_DEFAULT_QUANTIZATIONS = ("Q4_K_M", "Q8_0")
_PART = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.gguf$")


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
        parts = [*self.name.split("/"), *self.revision.split("/")]
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", self.repository):
            raise UsageError(f"{self.repository!r} is not a repository; write it as hf:owner/repository.")
        if any(part in ("", ".", "..") or set(part) & set('\\:*?"<>|\0') for part in parts):
            raise UsageError(f"{self.name!r} at {self.revision!r} is not a file of a repository; check its name.")

    def __str__(self) -> str:
        return f"{self.repository}/{self.name}"


@dataclass(frozen=True, slots=True)
class HubFacts:
    """What the hub says of a file. digest is its SHA-256, or git's SHA-1 for a small file outside LFS; commit is None in listings."""

    file: HubFile
    size_bytes: int
    digest: str
    commit: str | None = None


def list_parts(file: HubFile) -> tuple[HubFile, ...]:
    """Name all files of a model from its first one.

    Raises
    ------
    HarnessError : this is a later part.
    """
    match = _PART.search(file.name)
    if match is None or int(match[2]) < 2:
        return (file,)
    if int(match[1]) != 1:
        first = _PART.sub(f"-00001-of-{match[2]}.gguf", file.name)
        raise HarnessError(f"{file.name} is a later part of a split model; name its first part, {first}.")
    return tuple(HubFile(file.repository, name, file.revision) for name in part_names(file.name, int(match[2])))


# --- what is on this disk ---------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where huggingface_hub keeps files: HF_HUB_CACHE, or ``hub`` in HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def find_cached(files: Sequence[HubFile]) -> list[Path] | None:
    """Find files in the cache without asking anybody; None unless all are there."""
    from huggingface_hub import try_to_load_from_cache

    found = []
    for file in files:
        path = try_to_load_from_cache(file.repository, file.name, cache_dir=cache_dir(), revision=file.revision)
        if not isinstance(path, str):
            return None
        found.append(Path(path))
    return found


def list_cached(repository: str, revision: str = "main") -> list[HubFile]:
    """List the GGUF files of a repository that are in the cache at a revision."""
    storage = _storage(repository)
    try:
        commit = (storage / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    folder = storage / "snapshots" / commit
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf") if path.is_file())
    return [HubFile(repository, name, revision) for name in names]


def _storage(repository: str) -> Path:
    return cache_dir() / f"models--{repository.replace('/', '--')}"


# --- what the hub has -------------------------------------------------------------------------------------------------


def choose_file(files: Sequence[HubFile], repository: str, quantization: str | None) -> HubFile:
    """Choose the model of a repository as llama.cpp does for ``-hf owner/repo:Q4_0``.

    Raises
    ------
    NotThereError : there is none of this quantization; the ones that are there are named.

    Source: common/download.cpp find_best_model.
    """
    models = [file for file in files if _is_model(file.name)]
    for wanted in [quantization] if quantization else _DEFAULT_QUANTIZATIONS:
        pattern = re.compile(re.escape(wanted) + "[.-]", re.IGNORECASE)
        for file in models:
            if pattern.search(file.name):
                return file
    if quantization is None and models:
        return models[0]
    names = [_guess_quantization(file.name) for file in models]
    known = ", ".join(sorted({name for name in names if name})) or ", ".join(file.name for file in models[:8])
    raise NotThereError(
        f"{repository} has no GGUF file of {quantization or 'any kind'}; it has {known or 'none at all'}."
    )


def _is_model(name: str) -> bool:
    part = _PART.search(name)
    inner = name.rpartition("/")[2]
    return (
        name.lower().endswith(".gguf")
        and not any(word in inner for word in _ACCESSORIES)
        and (part is None or int(part[1]) == 1)
    )


def _guess_quantization(name: str) -> str | None:
    match = re.search(r"[-.]([A-Za-z0-9_]+)\.gguf$", _PART.sub(".gguf", name))
    return match[1].upper() if match else None


def list_files(repository: str, revision: str = "main") -> list[HubFacts]:
    """List a repository's GGUF files, by one request.

    Raises
    ------
    RemoteError : the hub cannot be reached or does not show the repository.
    """
    session()  # gives the client its time limit
    # Not list_repo_tree: its own retries wait half a minute, or as long as the server likes.
    info = ask(
        repository, lambda: _api().model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    )
    return [
        HubFacts(
            HubFile(repository, item.rfilename, revision),
            item.size,
            item.lfs.sha256 if item.lfs else item.blob_id,
            info.sha,
        )
        for item in sorted(info.siblings or [], key=lambda item: str(item.rfilename))
        if str(item.rfilename).lower().endswith(".gguf") and item.size is not None
    ]


def describe_files(files: Sequence[HubFile]) -> dict[str, HubFacts]:
    """Ask for size and SHA-256 of files of one repository, by name; those that do not exist are left out.

    Raises
    ------
    RemoteError : the hub cannot be reached or does not show the repository.
    """
    first = files[0]
    session()
    entries = ask(
        first.repository,
        lambda: _api().get_paths_info(first.repository, [file.name for file in files], revision=first.revision),
    )
    return {
        entry.path: HubFacts(
            HubFile(first.repository, entry.path, first.revision),
            entry.size,
            entry.lfs.sha256 if entry.lfs else entry.blob_id,
        )
        for entry in entries
        if hasattr(entry, "size")  # folders have none
    }


def describe_file(file: HubFile) -> HubFacts:
    """Ask for one file's size, digest and commit.

    Raises
    ------
    RemoteError : the hub cannot be reached or refuses; where the file has another name, the nearest ones are named.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(file.repository, file.name, revision=file.revision, endpoint=constants.ENDPOINT)
    session()
    try:
        metadata = ask(str(file), lambda: get_hf_file_metadata(url, endpoint=constants.ENDPOINT))
    except NoSuchFileError:
        raise suggest_names(file) from None
    digest = metadata.etag or ""
    if not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", digest) or metadata.size is None or not metadata.commit_hash:
        raise RemoteError(f"What answers for {file} does not say its size and SHA-256; check HF_ENDPOINT and proxies.")
    return HubFacts(file, metadata.size, digest, metadata.commit_hash)


def suggest_names(file: HubFile) -> NotThereError:
    """Say that a repository has no such file, and which ones it has, at one request more."""
    names = [facts.file.name for facts in list_files(file.repository, file.revision)]
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.4) or names[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "it has no GGUF file at all."
    return NoSuchFileError(f"{file.repository} has no file {file.name}; {hint}")


def _api() -> Any:
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT)


def _address(file: HubFile, revision: str) -> Address:
    from huggingface_hub import constants, get_token, hf_hub_url

    url = hf_hub_url(file.repository, file.name, revision=revision, endpoint=constants.ENDPOINT)
    # Not build_hf_headers: once a day it asks the hub which programs it should name as the caller.
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return Address(url, str(file), {"authorization": f"Bearer {token}"} if token else {})


def open_remote(file: HubFile) -> RemoteSource:
    """A file of the hub as a byte source; nothing is asked before it is read."""
    return RemoteSource(_address(file, file.revision))


# --- downloads --------------------------------------------------------------------------------------------------------


def download(files: Sequence[HubFile], progress: Progress) -> list[Path]:
    """Bring files into the cache, and say where they are; those that are there cost no request.

    Parameters
    ----------
    progress : called with (bytes there, bytes in all), of all files together

    Raises
    ------
    RemoteError  : the hub cannot be reached, refuses, or sent something else than it promised. What arrived is kept, unless wrong.
    HarnessError : the disk lacks the space or cannot be written.
    """
    if (cached := find_cached(files)) is not None:
        return cached
    facts = [describe_file(file) for file in files]
    total = sum(item.size_bytes for item in facts)
    _check_space(facts)
    paths, done = [], 0
    for item in facts:
        paths.append(_download_one(item, _after(done, total, progress)))
        done += item.size_bytes
        progress(done, total)
    return paths


def _after(done_bytes: int, total_bytes: int, progress: Progress) -> Progress:
    """Count one file's bytes behind those of the files before it."""
    return lambda have, _: progress(done_bytes + have, total_bytes)


def _blob(facts: HubFacts) -> Path:
    return _storage(facts.file.repository) / "blobs" / facts.digest


def _incomplete(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _check_space(facts: Sequence[HubFacts]) -> None:
    need = 0
    for item in facts:
        blob = _blob(item)
        part = _incomplete(blob)
        if not blob.exists():
            need += item.size_bytes - (part.stat().st_size if part.exists() else 0)
    check_space(cache_dir(), need, str(facts[0].file), "set HF_HOME to another disk")


def _download_one(facts: HubFacts, progress: Progress) -> Path:
    from huggingface_hub.utils import WeakFileLock

    blob = _blob(facts)
    lock = cache_dir() / ".locks" / _storage(facts.file.repository).name / f"{facts.digest}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):  # the one that huggingface_hub itself takes for this blob
            if not blob.exists():
                assert facts.commit is not None
                fetch_into(_incomplete(blob), _address(facts.file, facts.commit), facts.size_bytes, progress)
                _confirm(_incomplete(blob), facts)
                _incomplete(blob).replace(blob)
        return _place(facts, blob)
    except OSError as error:
        raise HarnessError(
            f"{cache_dir()} cannot be written ({error.strerror or error}); set HF_HOME to another folder."
        ) from None


def _confirm(part: Path, facts: HubFacts) -> None:
    """Remove a file that is not what the hub says that it is."""
    found = _hash(part, facts)
    if found != facts.digest:
        part.unlink(missing_ok=True)
        raise RemoteError(
            f"{facts.file} arrived with the digest {found[:12]}… where the hub has {facts.digest[:12]}…, so it was removed; "
            "pull it again, and if that repeats, look for a proxy that changes downloads."
        )


def _hash(part: Path, facts: HubFacts) -> str:
    if len(facts.digest) == 64:
        digest = hashlib.sha256()
    else:  # git's own name of a file: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        digest = hashlib.sha1(f"blob {facts.size_bytes}\0".encode(), usedforsecurity=False)
    with open(part, "rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def _place(facts: HubFacts, blob: Path) -> Path:
    """Give a blob its name in the snapshot of its commit, and note which commit the revision stands for.

    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache (the layout that all its clients read).
    """
    file = facts.file
    assert facts.commit is not None
    storage = _storage(file.repository)
    pointer = storage / "snapshots" / facts.commit / file.name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if not pointer.exists():
        try:
            pointer.unlink(missing_ok=True)  # a link to a blob that somebody deleted
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # Windows permits links only to developers; huggingface_hub moves the blob there too
            blob.replace(pointer)
    if file.revision != facts.commit:
        reference = storage / "refs" / file.revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(facts.commit, encoding="utf-8")
    if find_cached([file]) is None:
        raise HarnessError(f"huggingface_hub does not find {file} in its cache after the download; please report this.")
    return pointer
