"""``hf:owner/repository:Q4_0``, and addresses of the hub's pages: a model of Hugging Face's hub, kept in its own cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote

from harness.errors import UsageError
from harness.events import OnEvent, Remark, ignore
from harness.gguf import split
from harness.gguf.header import Fetched
from harness.sources.addresses import is_same_origin, split_url
from harness.sources.choice import (
    byte_split_of,
    choose,
    explain_byte_split,
    is_gguf,
    list_models,
    name_quantization,
    name_quantizations,
)
from harness.sources.headers import Found, read_remote
from harness.sources.hub_cache import HubFile, find_cached, list_cached, list_parts
from harness.sources.model_file import is_here, open_model
from harness.sources.reference import Reference, Variant, show_reference

PREFIX = "hf:"

#: The hub's own names, whose pages people copy addresses of.
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
#: What else has pages there, under addresses as a repository's.
_OTHER_PAGES = ("datasets", "spaces", "docs", "api", "models", "collections", "papers")
#: A branch, a tag, a commit, or a pull request's own (refs/pr/3), which alone have slashes.
_REVISION = r"refs/[a-z]+/[^:/]+|[^:/]+"


@dataclass(frozen=True, slots=True)
class HubReference(Reference):
    """A repository of the hub, and a file of it or a quantization; neither means the one that llama.cpp would take.

    folder is where in the repository to look, where the address of a folder's page was given.
    """

    repository: str
    file: str | None = None
    quantization: str | None = None
    revision: str = "main"
    folder: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubReference | None:
        if text.startswith(PREFIX):
            return replace(_parse_name(text.removeprefix(PREFIX).removeprefix("//")), text=text)
        url = text
        if text.lower().startswith(tuple(f"{host}/" for host in _HOSTS)) and not is_here(Path(text)):
            url = f"https://{text}"
        if not url.lower().startswith(("https://", "http://")) or (path := _find_path(url)) is None:
            return None
        return replace(_parse_page(path, split_url(url).query, show_reference(url)), text=text)

    def find(self, on_event: OnEvent = ignore) -> Path | None:
        from harness.sources.local import find_copies, list_copies

        file = self._choose_here(list_cached(self.repository, self.revision), on_event)
        found = find_cached(list_parts(file)) if file else None
        if found is None and self.revision == "main":  # of what another program downloaded only names can be compared
            copies = list_copies(self.repository)
            files = [HubFile(self.repository, name) for name in copies]
            file = self._choose_here(files, on_event) if files else None
            found = find_copies(list_parts(file), copies) if file else None
        return open_model(found[0]) if found else None

    def pull(self, on_event: OnEvent = ignore) -> list[Path]:
        from harness.sources.hub_download import download

        file = None
        if self.file is not None or self.quantization is not None:
            file = self._choose_here(list_cached(self.repository, self.revision), on_event)
        return download(list_parts(file or self._find_file(on_event)), on_event, self.shown)

    def list_variants(self) -> tuple[Variant, ...]:
        """As of any reference; the files of a repository, at one request, each under its own name."""
        from harness.sources.hub import list_files

        sizes = {facts.file.name: facts.size_bytes for facts in list_files(self.repository, self.revision)}
        names = [name for name in sizes if self.folder is None or name.startswith(f"{self.folder}/")]
        at = "" if self.revision == "main" else f"@{self.revision}"
        found: dict[str, Variant] = {}
        for name in list_models(names):
            if (kind := name_quantization(name) or name) in found:
                continue
            parts = [sizes.get(part) for part in split.list_parts(name)]
            size = None if None in parts else sum(size or 0 for size in parts)
            found[kind] = Variant(kind, f"{PREFIX}{self.repository}{at}/{name}", size)
        return tuple(found.values())

    def _open_name(self) -> str | None:
        is_open = self.file is None and self.quantization is None
        return self.text.partition("?")[0].rstrip("/") if is_open else None

    def _choose_here(self, files: Sequence[HubFile], on_event: OnEvent) -> HubFile | None:
        """The file that is meant among those that are here."""
        from harness.sources.remote_errors import NotThereError

        try:
            return self._choose(files, on_event)
        except NotThereError:
            return None

    def _choose(self, files: Sequence[HubFile], on_event: OnEvent) -> HubFile:
        if self.file is not None:
            return HubFile(self.repository, self.file, self.revision)
        inside = [file for file in files if self.folder is None or file.name.startswith(f"{self.folder}/")]
        return choose_file(inside, self.repository, self.quantization, on_event)

    def _find_file(self, on_event: OnEvent) -> HubFile:
        """The file that is meant; without a file's name the repository is listed, at one request."""
        from harness.sources.hub import list_files

        listed = [] if self.file else [facts.file for facts in list_files(self.repository, self.revision)]
        return self._choose(listed, on_event)

    def _read_afar(self, on_event: OnEvent) -> Found:
        found = read_hub_files(list_parts(self._find_file(on_event)))
        if self.file is None and found.fetched is not None:  # the repository was listed first
            found = replace(found, fetched=Fetched(found.fetched.size_bytes, found.fetched.n_requests + 1))
        return found


def _parse_name(text: str) -> HubReference:
    """Read ``owner/repo``, ``owner/repo:Q4_0``, ``owner/repo/folder/file.gguf`` and each with ``@revision`` behind repo."""
    match = re.fullmatch(rf"([^/:@]+/[^/:@]+)(?:@({_REVISION}))?(?:/([^:]+)|:([A-Za-z0-9_.-]+))?", text)
    if match is None or (match[3] and not is_gguf(match[3])):
        raise UsageError(
            f"'hf:{text}' is not a model of the hub; write hf:owner/repository/file.gguf or hf:owner/repository:Q4_0."
        )
    return HubReference(match[1], match[3], match[4].upper() if match[4] else None, match[2] or "main")


def _find_path(url: str) -> str | None:
    """What follows the hub's own address, or that of the mirror in HF_ENDPOINT, whose may have a path; None for other addresses."""
    parts = split_url(url)
    if parts.hostname in _HOSTS:
        return unquote(parts.path).strip("/")
    endpoint = split_url((os.environ.get("HF_ENDPOINT") or "").rstrip("/"))
    prefix = f"{endpoint.path}/"
    if endpoint.hostname and is_same_origin(url, endpoint.geturl()) and parts.path.startswith(prefix):
        return unquote(parts.path.removeprefix(prefix)).strip("/")
    return None


def _parse_page(path: str, query: str, shown: str) -> HubReference:
    """Read the path of a page: a repository's own, of a file, or of a folder; each of the last two at a revision."""
    path, _, quantization = path.partition(":")
    shown_file = parse_qs(query).get("show_file_info", [None])[0]
    match = re.fullmatch(rf"([^/]+/[^/]+)(?:/(resolve|blob|raw|tree)/({_REVISION})(?:/(.+))?)?", path)
    if match is None or match[1].partition("/")[0] in _OTHER_PAGES:
        raise UsageError(f"{shown} is not the page of a model or of its file; copy the address of either.")
    repository, kind, revision, rest = match[1], match[2], match[3] or "main", match[4]
    if shown_file and is_gguf(shown_file):
        return HubReference(repository, shown_file, None, revision)
    if rest and kind != "tree":
        if not is_gguf(rest):
            raise UsageError(f"{shown} is not a GGUF file; name one that ends with .gguf.")
        return HubReference(repository, rest, None, revision)
    return HubReference(repository, None, quantization.upper() or None, revision, rest)


def choose_file(files: Sequence[HubFile], repository: str, quantization: str | None, on_event: OnEvent) -> HubFile:
    """Choose the model of a repository as llama.cpp does for ``-hf owner/repo:Q4_0``.

    Raises
    ------
    NotThereError : there is none of this quantization; the ones that are there are named.
    """
    from harness.sources.remote_errors import NotThereError

    by_name = {file.name: file for file in files}
    names = list(by_name)
    chosen = choose(names, quantization)
    if chosen is not None:
        if chosen.is_near:
            plain = quantization or (name_quantization(chosen.name) or "").removeprefix("UD-")
            on_event(Remark(f"{repository} has no plain {plain}; {chosen.name} is another mixture of that name"))
        return by_name[chosen.name]
    if (piece := byte_split_of(names, quantization)) is not None:
        raise NotThereError(f"{repository}: {explain_byte_split(piece)}.")
    kinds = name_quantizations(names)
    known = ", ".join(kind[:24] for kind in kinds[:24]) or ", ".join(name[:80] for name in names[:8])
    raise NotThereError(
        f"{repository} has no GGUF file of {quantization or 'any kind'}; it has {known or 'none at all'}."
    )


def read_hub_files(files: Sequence[HubFile]) -> Found:
    """Read the headers of a model's files; where the hub has not the first, perhaps it has it in another case."""
    from harness.sources.hub import find_other_case, open_remote
    from harness.sources.remote_errors import NoSuchFileError

    try:
        return read_remote([str(file) for file in files], [open_remote(file) for file in files])
    except NoSuchFileError:
        files = list_parts(find_other_case(files[0]).file)
        return read_remote([str(file) for file in files], [open_remote(file) for file in files])
