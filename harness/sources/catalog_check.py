"""The catalog held against the hub: whether each file exists, with the size and the SHA-256 that the catalog states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.catalog import Catalog, Files
from harness.sources.catalog_reference import list_catalog_files
from harness.sources.choice import find_same_name
from harness.sources.hub import HubFacts, list_files
from harness.sources.remote_errors import NotThereError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the hub says of one quantization; problems is empty where all is as the catalog has it.

    size_bytes and sha256 (one a file) are the hub's own; None and empty where a file is missing. verified is the catalog's word.
    """

    name: str
    quantization: str
    repository: str
    problems: tuple[str, ...]
    size_bytes: int | None
    sha256: tuple[str, ...]
    verified: bool


def check_catalog(catalog: Catalog) -> Iterator[Verdict]:
    """Ask the hub for every file of the catalog, one request a repository.

    Raises
    ------
    RemoteError : the hub cannot be reached, or limits requests; a repository that it does not show is a verdict.
    """
    listings: dict[str, dict[str, HubFacts] | str] = {}
    for entry in catalog.entries.values():
        for files in entry.files:
            if files.repository not in listings:
                try:
                    listings[files.repository] = {facts.file.name: facts for facts in list_files(files.repository)}
                except NotThereError as error:
                    listings[files.repository] = str(error).rstrip(".")
            yield _check(entry.name, files, listings[files.repository])


def _check(name: str, files: Files, listed: dict[str, HubFacts] | str) -> Verdict:
    size_bytes, facts = None, list[HubFacts]()
    if isinstance(listed, str):
        problems = [listed]
    else:
        wanted = [file.name for file in list_catalog_files(files)]
        others = {file: find_same_name(file, listed) for file in wanted if file not in listed}
        problems = [
            f"{files.repository} has no {file}" + (f" but {other}" if other else "") for file, other in others.items()
        ]
        if not others:
            facts = [listed[file] for file in wanted]
            size_bytes = sum(item.size_bytes for item in facts)
            problems = list(_compare(files, facts, size_bytes))
    digests = tuple(item.digest or "" for item in facts)
    return Verdict(name, files.quantization, files.repository, tuple(problems), size_bytes, digests, files.verified)


def _compare(files: Files, facts: list[HubFacts], size_bytes: int) -> Iterator[str]:
    if files.size_bytes is not None and files.size_bytes != size_bytes:
        yield f"size_bytes is {files.size_bytes} in the catalog and {size_bytes} at the hub"
    if files.sha256 and len(files.sha256) != len(facts):
        yield f"sha256 has {len(files.sha256)} digests for {len(facts)} files"
    for stated, item in zip(files.sha256, facts, strict=False):
        if stated != item.digest:
            yield f"{item.file.name} has the SHA-256 {item.digest} at the hub and {stated} in the catalog"
    if files.verified and not (files.sha256 and files.size_bytes):
        yield "it says verified without size_bytes and sha256; add them"
