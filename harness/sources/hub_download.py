"""Downloads from the hub into huggingface_hub's own cache that go on where they stopped.

huggingface_hub 2 writes each download to a file of a random name and deletes it when anything goes wrong (`_download_to_tmp_and_move`;
a killed process leaves it behind, and the next one begins at zero). hf_xet, which it uses where a file is in Xet storage, begins at
zero as well. A model of 40 GB over a home line must not, so huggingface_hub asks the hub what to fetch, and the bytes come over plain
HTTP ranges into ``blobs/<sha256>.incomplete``, are checked, and only then get their name in the cache. The result is the same cache
that every program around huggingface_hub reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError
from harness.sources import Progress, Remark, unsaid
from harness.sources.fetching import check_space, fetch_into, probe
from harness.sources.file_hashes import digest_file
from harness.sources.hub import HubFacts, describe_file, list_files, locate
from harness.sources.hub_cache import HubFile, cache_dir, cached_commit, find_cached, storage_folder
from harness.sources.remote import RemoteError
from harness.untrusted.names import below, find_commit


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
    return storage_folder(facts.file.repository) / "blobs"


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
    lock = cache_dir() / ".locks" / storage_folder(facts.file.repository).name / f"{part.stem}.lock"
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
    address = locate(facts.file, facts.commit or facts.file.revision)
    if facts.digest:
        fetch_into(part, address, facts.size_bytes, progress, is_pinned=True)
        digest = _confirm(part, facts)
    else:
        fetch_into(part, address, facts.size_bytes, progress, validator=probe(address).validator)
        digest = digest_file(part, hashlib.sha256())
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
    found = digest_file(part, hashlib.sha256()) if len(facts.digest) == 64 else _hash_as_git(part, facts.size_bytes)
    if found == facts.digest:
        return found
    sha256 = digest_file(part, hashlib.sha256())
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


def _hash_as_git(part: Path, size_bytes: int) -> str:
    """Git's own name of a file. Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects"""
    return digest_file(part, hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False))


def _commit_for(facts: HubFacts) -> str:
    """The commit whose snapshot a file belongs to. A mirror that names none is taken to have what the cache has of that revision; where
    that is nothing, the snapshot gets a name of its own."""
    file = facts.file
    made_up = hashlib.sha1(f"{file.repository}@{file.revision}".encode(), usedforsecurity=False).hexdigest()
    return facts.commit or cached_commit(file.repository, file.revision) or find_commit(file.revision) or made_up


def _place(facts: HubFacts, blob: Path) -> Path:
    """Give a blob its name in the snapshot of its commit, and note which commit the revision stands for.

    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache (the layout that all its clients read).
    """
    file, commit = facts.file, _commit_for(facts)
    storage = storage_folder(file.repository)
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
