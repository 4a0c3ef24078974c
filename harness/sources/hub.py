"""Hugging Face's hub: what it has, and downloads into huggingface_hub's own cache that go on where they stopped.

huggingface_hub 2 writes each download to a file of a random name and deletes it when anything goes wrong (`_download_to_tmp_and_move`;
a killed process leaves it behind, and the next one begins at zero). hf_xet, which it uses where a file is in Xet storage, begins at
zero as well. A model of 40 GB over a home line must not, so huggingface_hub asks the hub what to fetch, and the bytes come over plain
HTTP ranges into ``blobs/<sha256>.incomplete``, are checked, and only then get their name in the cache. The result is the same cache
that every program around huggingface_hub reads.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote

from harness.errors import HarnessError, UsageError
from harness.gguf import split
from harness.sources import Progress, Remark, unsaid
from harness.sources.choice import find_same_name, is_byte_split, is_gguf
from harness.sources.remote import (
    Address,
    NoSuchFileError,
    NotThereError,
    RemoteError,
    RemoteSource,
    ask_head,
    ask_small,
    check_space,
    fetch_into,
    probe,
)
from harness.units import MIB
from harness.untrusted.json import read_json
from harness.untrusted.names import below, find_commit, find_digest, is_relative_name, is_repository


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


@dataclass(frozen=True, slots=True)
class HubFacts:
    """What the hub says of a file.

    digest is its SHA-256, or git's SHA-1 for a small file outside LFS; None where a mirror names none that can be relied on, and then
    hint may be one. commit is None where a mirror names none, and in answers that are not about a commit. expected is the SHA-256 that
    the catalog has of the file, where it has one.
    """

    file: HubFile
    size_bytes: int
    digest: str | None
    commit: str | None = None
    hint: str | None = None
    expected: str | None = None


def list_parts(file: HubFile) -> tuple[HubFile, ...]:
    """Name all files of a model from its first one.

    Raises
    ------
    UsageError : this is a later part.
    """
    return tuple(HubFile(file.repository, name, file.revision) for name in split.list_parts(file.name))


# --- what is on this disk ---------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where huggingface_hub keeps files: HF_HUB_CACHE, or ``hub`` in HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def find_cached(files: Sequence[HubFile]) -> list[Path] | None:
    """Find files in the cache without asking anybody; None unless all are there. A name's case may be another than the hub's."""
    found = []
    for file in files:
        folder = find_snapshot(file.repository, file.revision)
        path = below(folder, file.name) if folder else None
        if folder and path and not path.is_file():
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
        try:
            revisions = [path.relative_to(refs).as_posix() for path in refs.rglob("*") if path.is_file()]
        except OSError:
            revisions = []
        by_commit = {_cached_commit(repository, name, root): name for name in sorted(revisions, key="main".__eq__)}
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
    try:
        found = [
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_gguf(path.name) and path.is_file()
        ]
    except OSError:
        return []
    return sorted(name for name in found if is_relative_name(name))


def find_snapshot(repository: str, revision: str = "main", root: Path | None = None) -> Path | None:
    """The folder of a revision's files; None where the cache (Hugging Face's, or one of its layout) knows no commit for it."""
    commit = _cached_commit(repository, revision, root) or find_commit(revision)
    return _storage(repository, root) / "snapshots" / commit if commit else None


def _cached_commit(repository: str, revision: str, root: Path | None = None) -> str | None:
    try:
        return find_commit(below(_storage(repository, root) / "refs", revision).read_text(encoding="utf-8"))
    except (OSError, ValueError, UsageError):
        return None


def _storage(repository: str, root: Path | None = None) -> Path:
    return below(root or cache_dir(), f"models--{repository.replace('/', '--')}")


# --- what the hub has -------------------------------------------------------------------------------------------------


def list_files(repository: str, revision: str = "main") -> list[HubFacts]:
    """List a repository's GGUF files, and pieces of such, by one request.

    Raises
    ------
    RemoteError : the hub cannot be reached, does not show the repository, or answers as no hub does.
    """
    answer = _ask_api("GET", HubFile(repository, "x.gguf", revision), "revision", "?blobs=true")
    if not isinstance(answer, dict) or not isinstance(answer.get("siblings"), list):
        raise _no_hub(repository)
    commit = _take_commit(answer.get("sha"), repository)
    found = []
    for item in answer["siblings"]:
        name, size_bytes = (item.get("rfilename"), item.get("size")) if isinstance(item, dict) else (None, None)
        if isinstance(name, str) and _is_size(size_bytes) and (is_gguf(name) or is_byte_split(name)):
            digest = _take_digest(item.get("lfs"), "sha256", item.get("blobId"))
            found.append(HubFacts(HubFile(repository, name, revision), size_bytes, digest, commit))
    return sorted(found, key=lambda facts: facts.file.name)


def describe_files(files: Sequence[HubFile]) -> dict[str, HubFacts]:
    """Ask for size and SHA-256 of files of one repository, by name; those that do not exist are left out.

    Raises
    ------
    RemoteError : the hub cannot be reached, does not show the repository, or answers as no hub does.
    """
    first = files[0]
    wanted = {file.name: file for file in files}
    answer = _ask_api("POST", first, "paths-info", data={"paths": list(wanted), "expand": "false"})
    if not isinstance(answer, list):
        raise _no_hub(first.repository)
    found = {}
    for item in answer:
        name, size_bytes = (item.get("path"), item.get("size")) if isinstance(item, dict) else (None, None)
        if isinstance(name, str) and name in wanted and _is_size(size_bytes):  # folders have none
            found[name] = HubFacts(wanted[name], size_bytes, _take_digest(item.get("lfs"), "oid", item.get("oid")))
    return found


def _ask_api(method: str, file: HubFile, what: str, query: str = "", **options: Any) -> Any:
    """Ask the hub's API about a revision. Source: huggingface_hub hf_api.py model_info, get_paths_info.

    Not through huggingface_hub's functions: they read without end, as slowly as the server likes.
    """
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/models/{file.repository}/{what}/{quote(file.revision, safe='')}{query}"
    _, body = ask_small(method, Address(url, file.repository, _token_headers()), **options)
    try:
        return read_json(body)
    except ValueError:
        raise _no_hub(file.repository) from None


def _no_hub(name: str) -> RemoteError:
    return RemoteError(
        f"What answers for {name} does not speak as a Hugging Face hub does; check HF_ENDPOINT and proxies."
    )


def _take_commit(said: object, name: str) -> str | None:
    """A commit that a server names; refused where it is none, for it would become a folder."""
    commit = find_commit(said)
    if said is not None and commit is None:
        raise RemoteError(
            f"What answers for {name} calls {str(said)[:48]!r} a commit, which is none; nothing was written. "
            "Check HF_ENDPOINT and proxies."
        )
    return commit


def _is_size(said: object) -> TypeGuard[int]:
    return isinstance(said, int) and not isinstance(said, bool) and 0 <= said < 2**63


def _take_digest(lfs: object, key: str, blob_id: object) -> str | None:
    return find_digest(lfs.get(key)) if isinstance(lfs, dict) else find_digest(blob_id)


def describe_file(file: HubFile) -> HubFacts:
    """Ask for one file's size, digest and commit; of a mirror that leaves some out, by its listing.

    Raises
    ------
    RemoteError : the hub cannot be reached or refuses; where the file has another name, the nearest ones are named.
    """
    try:
        head = ask_head(_address(file, file.revision)).headers
    except NoSuchFileError:
        return find_other_case(file)
    linked, length = head.get("X-Linked-Etag"), head.get("X-Linked-Size")
    commit, digest = _take_commit(head.get("X-Repo-Commit"), str(file)), find_digest(_plain_etag(linked))
    if linked is not None and digest is None:
        raise RemoteError(f"What answers for {file} does not say its size and SHA-256; check HF_ENDPOINT and proxies.")
    if commit and digest and length and re.fullmatch("[0-9]{1,19}", length):
        return HubFacts(file, int(length), digest, commit)
    return _complete(file, commit, digest, head)


def _plain_etag(text: str | None) -> str | None:
    return text.removeprefix("W/").strip('"') if text else None


def _complete(file: HubFile, commit: str | None, digest: str | None, head: Mapping[str, str]) -> HubFacts:
    """Fill in from a mirror's listing what the file's own head lacks. An ETag alone may be any number that the mirror likes."""
    try:
        listed = {facts.file.name: facts for facts in list_files(file.repository, file.revision)}.get(file.name)
    except RemoteError:
        listed = None
    said = head.get("X-Linked-Size") or (str(listed.size_bytes) if listed else "")
    if not said and not head.get("Location"):
        said = head.get("Content-Length", "")
    if not re.fullmatch("[0-9]{1,19}", said):
        raise RemoteError(f"What answers for {file} does not say its size and SHA-256; check HF_ENDPOINT and proxies.")
    listed_digest, listed_commit = (listed.digest, listed.commit) if listed else (None, None)
    hint = find_digest(_plain_etag(head.get("ETag")))
    return HubFacts(file, int(said), digest or listed_digest, commit or listed_commit, hint)


def find_other_case(file: HubFile) -> HubFacts:
    """Find a file that the hub has under a name of other case.

    Raises
    ------
    NoSuchFileError : there is none; which ones there are is said.
    """
    listed = {facts.file.name: facts for facts in list_files(file.repository, file.revision)}
    same = find_same_name(file.name, listed)
    if same is None:
        raise _suggest_names(file, list(listed))
    return listed[same]


def _suggest_names(file: HubFile, names: Sequence[str]) -> NotThereError:
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.4) or names[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "it has no GGUF file at all."
    return NoSuchFileError(f"{file.repository} has no file {file.name}; {hint}")


def _token_headers() -> dict[str, str]:
    from huggingface_hub import constants, get_token

    # Not build_hf_headers: once a day it asks the hub which programs it should name as the caller.
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {"authorization": f"Bearer {token}"} if token else {}


def _address(file: HubFile, revision: str) -> Address:
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/{file.repository}/resolve/{quote(revision, safe='')}/{quote(file.name)}"
    return Address(url, str(file), _token_headers())


def open_remote(file: HubFile) -> RemoteSource:
    """A file of the hub as a byte source; nothing is asked before it is read."""
    return RemoteSource(_address(file, file.revision))


# --- downloads --------------------------------------------------------------------------------------------------------


def download(
    files: Sequence[HubFile],
    progress: Progress,
    remark: Remark = unsaid,
    expected: Sequence[str] = (),
) -> list[Path]:
    """Bring files into the cache, and say where they are; those that are there cost no request.

    Parameters
    ----------
    progress : called with (bytes there, bytes in all), of all files together
    remark   : told of a file that nothing could be checked against, and of one that is not as expected
    expected : the SHA-256 of each file as somebody else noted it; a publisher may have changed it since

    Raises
    ------
    RemoteError  : the hub cannot be reached, refuses, or sent something else than it promised. What arrived is kept, unless wrong.
    HarnessError : the disk lacks the space or cannot be written.
    """
    if (cached := find_cached(files)) is not None:
        return cached
    noted = expected if len(expected) == len(files) else [None] * len(files)
    facts = [replace(describe_file(file), expected=digest) for file, digest in zip(files, noted, strict=True)]
    total = sum(item.size_bytes for item in facts)
    _check_space(facts)
    paths, done = [], 0
    for item in facts:
        paths.append(_download_one(item, _after(done, total, progress), remark))
        if item.expected and item.digest and len(item.digest) == 64 and item.digest != item.expected:
            remark(
                f"{item.file} is not the file that the catalog knows: its SHA-256 is {item.digest[:12]}… and the catalog has "
                f"{item.expected[:12]}…; its publisher has changed it, or it is another's"
            )
        done += item.size_bytes
        progress(done, total)
    return paths


def _after(done_bytes: int, total_bytes: int, progress: Progress) -> Progress:
    """Count one file's bytes behind those of the files before it."""
    return lambda have, _: progress(done_bytes + have, total_bytes)


def _blobs(facts: HubFacts) -> Path:
    return _storage(facts.file.repository) / "blobs"


def _incomplete(facts: HubFacts) -> Path:
    """Where a file's beginning is kept, named as huggingface_hub 1 did; by what is known of it where its digest is not."""
    known = f"{facts.file}@{facts.commit or facts.file.revision} {facts.size_bytes} {facts.hint}"
    return _blobs(facts) / f"{facts.digest or hashlib.sha256(known.encode()).hexdigest()}.incomplete"


def _check_space(facts: Sequence[HubFacts]) -> None:
    need = 0
    for item in facts:
        part = _incomplete(item)
        if item.digest is None or not (_blobs(item) / item.digest).exists():
            need += item.size_bytes - (part.stat().st_size if part.exists() else 0)
    check_space(cache_dir(), need, str(facts[0].file), "set HF_HOME to another disk")


def _download_one(facts: HubFacts, progress: Progress, remark: Remark) -> Path:
    part = _incomplete(facts)
    lock = cache_dir() / ".locks" / _storage(facts.file.repository).name / f"{part.stem}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock, facts, progress, remark):
            blob = _blobs(facts) / facts.digest if facts.digest else None
            if blob is None or not blob.exists():
                blob = _fetch(facts, part, progress, remark)
        return _place(facts, blob)
    except OSError as error:
        raise HarnessError(
            f"{cache_dir()} cannot be written ({error.strerror or error}); set HF_HOME to another folder."
        ) from None


@contextlib.contextmanager
def _locked(lock: Path, facts: HubFacts, progress: Progress, remark: Remark) -> Iterator[None]:
    """Hold the lock that huggingface_hub itself takes for a blob; while another process has it, say so and show how far that is."""
    from huggingface_hub.utils import WeakFileLock

    part, is_said = _incomplete(facts), False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(WeakFileLock(lock, timeout=1.0))
                break
            except TimeoutError:
                if not is_said:
                    remark(f"another process is fetching {facts.file}; this one waits for it")
                is_said = True
                progress(part.stat().st_size if part.exists() else 0, facts.size_bytes)
        yield


def _fetch(facts: HubFacts, part: Path, progress: Progress, remark: Remark) -> Path:
    """Fetch a blob and name it by its digest, which is the hub's or, where that names none, the one that it turns out to have."""
    address = _address(facts.file, facts.commit or facts.file.revision)
    if facts.digest:
        fetch_into(part, address, facts.size_bytes, progress, is_pinned=True)
        digest = _confirm(part, facts)
    else:
        fetch_into(part, address, facts.size_bytes, progress, validator=probe(address).validator)
        digest = _hash(part)
        if digest not in (facts.hint, facts.expected):
            remark(f"{facts.file} was not checked, for its server names no SHA-256; it has {digest}")
    blob = _blobs(facts) / digest
    part.replace(blob)
    return blob


def _confirm(part: Path, facts: HubFacts) -> str:
    """Return the digest of a file that is what the hub says that it is; remove any other.

    A mirror's headers may be wrong where the hub's listing, which it passes on, is right: that is asked before anything is removed.
    """
    assert facts.digest is not None
    found = _hash(part) if len(facts.digest) == 64 else _hash_as_git(part, facts.size_bytes)
    if found == facts.digest:
        return found
    sha256 = _hash(part)
    try:
        if any(
            item.file == facts.file and item.digest == sha256
            for item in list_files(facts.file.repository, facts.file.revision)
        ):
            return sha256
    except RemoteError:
        pass  # then the first word stands
    part.unlink(missing_ok=True)
    raise RemoteError(
        f"{facts.file} arrived with the digest {found[:12]}… where the hub has {facts.digest[:12]}…, so it was removed; "
        "pull it again, and if that repeats, look for a proxy that changes downloads."
    )


def _hash(part: Path) -> str:
    return _digest_of(part, hashlib.sha256())


def _hash_as_git(part: Path, size_bytes: int) -> str:
    """Git's own name of a file. Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects"""
    return _digest_of(part, hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False))


def _digest_of(part: Path, digest: Any) -> str:
    with open(part, "rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return str(digest.hexdigest())


def _commit_for(facts: HubFacts) -> str:
    """The commit whose snapshot a file belongs to. A mirror that names none is taken to have what the cache has of that revision; where
    that is nothing, the snapshot gets a name of its own."""
    file = facts.file
    made_up = hashlib.sha1(f"{file.repository}@{file.revision}".encode(), usedforsecurity=False).hexdigest()
    return facts.commit or _cached_commit(file.repository, file.revision) or find_commit(file.revision) or made_up


def _place(facts: HubFacts, blob: Path) -> Path:
    """Give a blob its name in the snapshot of its commit, and note which commit the revision stands for.

    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache (the layout that all its clients read).
    """
    file, commit = facts.file, _commit_for(facts)
    storage = _storage(file.repository)
    pointer = below(storage / "snapshots" / commit, file.name)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if not pointer.exists():
        try:
            pointer.unlink(missing_ok=True)  # a link to a blob that somebody deleted
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # Windows permits links only to developers; huggingface_hub moves the blob there too
            blob.replace(pointer)
    if file.revision != commit:
        reference = below(storage / "refs", file.revision)
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="utf-8")
    if find_cached([file]) is None:
        raise HarnessError(f"huggingface_hub does not find {file} in its cache after the download; please report this.")
    return pointer
