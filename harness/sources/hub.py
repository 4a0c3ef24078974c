"""What Hugging Face's hub has, by its API and by the heads of its files."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass
from urllib.parse import quote

from harness.sources.addresses import Address
from harness.sources.choice import find_same_name, is_byte_split, is_gguf
from harness.sources.hub_cache import HubFile
from harness.sources.hub_client import hub_endpoint, token_headers
from harness.sources.remote import ask_head, ask_small, read_number
from harness.sources.remote_errors import NoSuchFileError, RemoteError
from harness.sources.remote_source import RemoteSource
from harness.untrusted.json import is_count, read_json
from harness.untrusted.names import find_commit, find_digest, is_relative_name

#: More GGUF files than any repository has; comparing names takes its time.
MAX_LISTED = 2000


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


def list_files(repository: str, revision: str = "main") -> list[HubFacts]:
    """List a repository's GGUF files, and pieces of such, by one request.

    Raises
    ------
    RemoteError : the hub cannot be reached, does not show the repository, or answers as no hub does.

    Source: huggingface_hub hf_api.py model_info.
    """
    HubFile(repository, "x.gguf", revision)  # refuses what is no repository or revision
    url = f"{hub_endpoint()}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    # Not through huggingface_hub's functions, which read without end, as slowly as the server likes.
    _, body = ask_small("GET", Address(url, repository, token_headers()))
    try:
        answer = read_json(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("siblings"), list):
        raise RemoteError(
            f"What answers for {repository} does not speak as a Hugging Face hub does; check HF_ENDPOINT and proxies."
        )
    commit = _take_commit(answer.get("sha"), repository)
    found: list[HubFacts] = []
    for item in answer["siblings"]:
        if len(found) >= MAX_LISTED:
            break
        name, size_bytes = (item.get("rfilename"), item.get("size")) if isinstance(item, dict) else (None, None)
        if not is_count(size_bytes):
            continue
        # A name that no file can have is nobody's: who names it itself is told so, and the others are still there.
        if isinstance(name, str) and is_relative_name(name) and (is_gguf(name) or is_byte_split(name)):
            lfs = item.get("lfs")
            digest = find_digest(lfs.get("sha256") if isinstance(lfs, dict) else item.get("blobId"))
            found.append(HubFacts(HubFile(repository, name, revision), size_bytes, digest, commit))
    return sorted(found, key=lambda facts: facts.file.name)


def _take_commit(said: object, name: str) -> str | None:
    """A commit that a server names; refused where it is none, for it would become a folder."""
    commit = find_commit(said)
    if said is not None and commit is None:
        raise RemoteError(
            f"What answers for {name} calls {str(said)[:48]!r} a commit, which is none; nothing was written. "
            "Check HF_ENDPOINT and proxies."
        )
    return commit


def describe_file(file: HubFile) -> HubFacts:
    """Ask for one file's size, digest and commit; of a mirror that leaves some out, by its listing.

    Raises
    ------
    RemoteError : the hub cannot be reached or refuses; where the file has another name, the nearest ones are named.
    """
    try:
        head = ask_head(locate(file, file.revision)).headers
    except NoSuchFileError:
        return find_other_case(file)
    linked, said = head.get("X-Linked-Etag"), head.get("X-Linked-Size")
    commit, digest = _take_commit(head.get("X-Repo-Commit"), str(file)), find_digest(_plain_etag(linked))
    hint = None
    if not (commit and digest and said) and (linked is None or digest):
        # What a mirror's head lacks its listing may have. An ETag alone may be any number that the mirror likes.
        listed = None
        with contextlib.suppress(RemoteError):
            listed = {facts.file.name: facts for facts in list_files(file.repository, file.revision)}.get(file.name)
        if listed is not None:
            said, digest, commit = said or str(listed.size_bytes), digest or listed.digest, commit or listed.commit
        if not said and not head.get("Location"):
            said = head.get("Content-Length")
        hint = find_digest(_plain_etag(head.get("ETag")))
    if (size_bytes := read_number(said)) is None or (linked is not None and digest is None):
        raise RemoteError(f"What answers for {file} does not say its size and SHA-256; check HF_ENDPOINT and proxies.")
    return HubFacts(file, size_bytes, digest, commit, hint)


def _plain_etag(text: str | None) -> str | None:
    return text.removeprefix("W/").strip('"') if text else None


def find_other_case(file: HubFile) -> HubFacts:
    """Find a file that the hub has under a name of other case.

    Raises
    ------
    NoSuchFileError : there is none; which ones there are is said.
    """
    listed = {facts.file.name: facts for facts in list_files(file.repository, file.revision)}
    same = find_same_name(file.name, listed)
    if same is None:
        names = list(listed)
        near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.4) or names[:3]
        hint = f"did you mean {' or '.join(name[:160] for name in near)}?" if near else "it has no GGUF file at all."
        raise NoSuchFileError(f"{file.repository} has no file {file.name}; {hint}")
    return listed[same]


def locate(file: HubFile, revision: str) -> Address:
    """Where a file of the hub, or of the mirror in HF_ENDPOINT, is; with the user's token, where there is one."""
    url = f"{hub_endpoint()}/{file.repository}/resolve/{quote(revision, safe='')}/{quote(file.name)}"
    return Address(url, str(file), token_headers())


def open_remote(file: HubFile) -> RemoteSource:
    """A file of the hub as a byte source; nothing is asked before it is read."""
    return RemoteSource(locate(file, file.revision))
