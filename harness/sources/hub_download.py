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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError
from harness.events import OnEvent, Progress, Remark
from harness.sources.fetching import check_space, fetch_into, held, probe, size_of
from harness.sources.file_hashes import digest_file
from harness.sources.hub import HubFacts, describe_file, list_files, locate
from harness.sources.hub_cache import HubFile, cache_dir, cached_commit, find_cached, make_place, storage_folder
from harness.sources.looking import is_there
from harness.sources.remote_errors import NotThereError, RemoteError
from harness.sources.whole_files import put_file
from harness.untrusted.names import find_commit


def download(files: Sequence[HubFile], on_event: OnEvent, task: str, expected: Sequence[str] = ()) -> list[Path]:
    """Bring files into the cache, and say where they are; those that are there cost no request.

    Parameters
    ----------
    on_event : told how much is there of all files together, as a task of this name; and by remarks of a file that nothing could be
               checked against, of one that is not as expected, and of another process that fetches the same
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
    for item in facts:
        if not item.size_bytes:
            raise NotThereError(f"{item.file} is empty at its server; ask who put it there.")
    total, done, downloads = sum(item.size_bytes for item in facts), 0, []
    for item in facts:
        downloads.append(_Download(item, on_event, Progress(task, done, total, "B")))
        done += item.size_bytes
    need_bytes = sum(item.need_bytes() for item in downloads)
    check_space(cache_dir(), need_bytes, str(facts[0].file), "set HF_HOME to another disk")
    return [item.run() for item in downloads]


class _Download:
    """One file's way into the cache: fetched, checked, and given its name.

    Its beginning is kept as huggingface_hub 1 named it, by its digest; by what is known of it where that is not.
    """

    def __init__(self, facts: HubFacts, on_event: OnEvent, begin: Progress) -> None:
        self.facts, self.file, self.on_event, self.begin = facts, facts.file, on_event, begin
        self.storage = storage_folder(facts.file.repository)
        self.blobs = self.storage / "blobs"
        known = f"{facts.file}@{facts.commit or facts.file.revision} {facts.size_bytes} {facts.hint}"
        self.part = self.blobs / f"{facts.digest or hashlib.sha256(known.encode()).hexdigest()}.incomplete"

    @property
    def have_bytes(self) -> int:
        return size_of(self.part)

    def need_bytes(self) -> int:
        """What is still to come."""
        is_whole = self.facts.digest is not None and is_there(self.blobs / self.facts.digest)
        return 0 if is_whole else self.facts.size_bytes - self.have_bytes

    def run(self) -> Path:
        """Fetch the file unless it is there, and say where it is."""
        facts = self.facts
        try:
            with self._locked():
                blob = self.blobs / facts.digest if facts.digest else None
                if blob is None or not blob.is_file():
                    blob = self._fetch()
                path = self._place(blob)
        except OSError as error:
            raise HarnessError(
                f"{cache_dir()} cannot be written ({error.strerror or error}); set HF_HOME to another folder."
            ) from None
        if facts.expected and facts.digest and len(facts.digest) == 64 and facts.digest != facts.expected:
            self._remark(
                f"{self.file} is not the file that the catalog knows: its SHA-256 is {facts.digest[:12]}… and the catalog has "
                f"{facts.expected[:12]}…; its publisher has changed it, or it is another's"
            )
        self._show(facts.size_bytes, facts.size_bytes)
        return path

    def _show(self, have_bytes: int, _: int) -> None:
        self.on_event(replace(self.begin, done=self.begin.done + have_bytes))

    def _remark(self, text: str) -> None:
        self.on_event(Remark(text))

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock that huggingface_hub itself takes for a blob."""
        lock = cache_dir() / ".locks" / self.storage.name / f"{self.part.stem}.lock"
        return held(lock, str(self.file), self._remark, lambda: self._show(self.have_bytes, self.facts.size_bytes))

    def _fetch(self) -> Path:
        """Fetch a blob and name it by its digest, which is the hub's or, where that names none, the one that it turns out to have."""
        facts, part = self.facts, self.part
        address = locate(self.file, facts.commit or self.file.revision)
        if facts.digest:
            had_bytes = self.have_bytes
            fetch_into(part, address, facts.size_bytes, self._show, is_pinned=True)
            try:
                digest = self._confirm(facts.digest)
            except RemoteError:
                if not had_bytes:
                    raise
                self._remark(f"what was here of {self.file} was not its beginning; it is fetched anew")
                fetch_into(part, address, facts.size_bytes, self._show, is_pinned=True)
                digest = self._confirm(facts.digest)
        else:
            fetch_into(part, address, facts.size_bytes, self._show, validator=probe(address).validator)
            digest = digest_file(part, hashlib.sha256())
            if digest not in (facts.hint, facts.expected):
                self._remark(f"{self.file} was not checked, for its server names no SHA-256; it has {digest}")
        return part.replace(self.blobs / digest)

    def _confirm(self, expected: str) -> str:
        """Return the digest of a file that is what the hub says that it is; remove any other, and raise RemoteError.

        A mirror's headers may be wrong where the hub's listing, which it passes on, is right: that is asked before anything is removed.

        Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects (git's own names of files outside LFS).
        """
        sha256 = digest_file(self.part, hashlib.sha256())
        found = sha256
        if len(expected) != 64:
            start = f"blob {self.facts.size_bytes}\0".encode()
            found = digest_file(self.part, hashlib.sha1(start, usedforsecurity=False))
        if found == expected:
            return found
        with contextlib.suppress(RemoteError):  # then the first word stands
            listed = list_files(self.file.repository, self.file.revision)
            if any(item.file == self.file and item.digest == sha256 for item in listed):
                return sha256
        self.part.unlink(missing_ok=True)
        raise RemoteError(
            f"{self.file} arrived with the digest {found[:12]}… where the hub has {expected[:12]}…, so it was removed; "
            "pull it again, and if that repeats, look for a proxy that changes downloads."
        )

    def _place(self, blob: Path) -> Path:
        """Give a blob its name in the snapshot of its commit, and note which commit the revision stands for.

        A mirror that names no commit is taken to have what the cache has of that revision; where that is nothing, the snapshot gets a
        name of its own.
        """
        file, revision = self.file, self.file.revision
        made_up = hashlib.sha1(f"{file.repository}@{revision}".encode(), usedforsecurity=False).hexdigest()
        known = cached_commit(file.repository, revision) or find_commit(revision)
        commit = self.facts.commit or known or made_up
        pointer = make_place(self.storage / "snapshots" / commit, file.name)
        if not (pointer.exists() and pointer.samefile(blob)):
            pointer.unlink(missing_ok=True)  # a link to a blob that somebody deleted, or of what a mirror had before
            try:
                pointer.symlink_to(os.path.relpath(os.path.realpath(blob), os.path.realpath(pointer.parent)))
            except OSError:  # Windows permits links only to developers; huggingface_hub moves the blob there too
                blob.replace(pointer)
        if revision != commit:
            put_file(make_place(self.storage / "refs", revision), commit)  # whole, for whoever reads it meanwhile
        if find_cached([file]) is None:
            raise HarnessError(
                f"huggingface_hub does not find {file} in its cache after the download; please report this."
            )
        return pointer
