"""What `-m` means: a path, a name of the catalog, a file of Hugging Face's hub, an address, a model of Ollama's, a synthetic one."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qs, unquote

from harness.catalog import Catalog, Entry, Files, parse_catalog
from harness.errors import UsageError
from harness.sources.cache_folder import cache_folder
from harness.sources.choice import explain_byte_split, is_byte_split, is_gguf
from harness.sources.model_file import default_model, open_model
from harness.sources.remote import hide_secrets, is_same_origin, split_url

if TYPE_CHECKING:
    from harness.sources.hub import HubFile

SYNTHETIC_PREFIX = "synth:"
HUB_PREFIX = "hf:"
OLLAMA_PREFIX = "ollama:"

#: What a synthetic model is written in unless its name says: the quantization that this project began with.
SYNTHETIC_QUANTIZATION = "Q4_0"

#: The hub's own names, whose pages people copy addresses of.
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
#: A branch, a tag, a commit, or a pull request's own (refs/pr/3), which alone have slashes.
_REVISION = r"refs/[a-z]+/[^:/]+|[^:/]+"

Progress = Callable[[int, int], None]
Remark = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PathReference:
    """A file on this disk."""

    path: pathlib.Path


@dataclass(frozen=True, slots=True)
class CatalogReference:
    """A model of the catalog, in a quantization or in the usual one."""

    entry: Entry
    quantization: str | None


@dataclass(frozen=True, slots=True)
class SyntheticReference:
    """A model of the catalog's shape with random weights."""

    entry: Entry
    quantization: str


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository of the hub, and a file of it or a quantization; neither means the one that llama.cpp would take.

    folder is where in the repository to look, where the address of a folder's page was given.
    """

    repository: str
    file: str | None = None
    quantization: str | None = None
    revision: str = "main"
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class UrlReference:
    """A GGUF file anywhere; the address may hold a signature and is shown without it."""

    url: str


@dataclass(frozen=True, slots=True)
class OllamaReference:
    """A model in Ollama's own store."""

    name: str


Reference: TypeAlias = (
    PathReference | CatalogReference | SyntheticReference | HubReference | UrlReference | OllamaReference
)


# --- reading ----------------------------------------------------------------------------------------------------------


def load_catalog(extra: pathlib.Path | None = None) -> Catalog:
    """Read models.toml, with the user's own entries, those of $HARNESS_CATALOG and then those of `extra` laid over it.

    Raises
    ------
    UsageError : a file cannot be read or is no catalog.
    """
    package = pathlib.Path(__file__).parent.parent
    # The wheel carries the file inside the package, a checkout has it at the top.
    own = next(path for path in (package / "models.toml", package.parent / "models.toml") if path.exists())
    catalog = parse_catalog(own.read_text(encoding="utf-8"), own.name)
    configured = os.environ.get("HARNESS_CATALOG")
    named = [pathlib.Path(configured).expanduser() if configured else None, extra]
    for path in (user_catalog_path(), *named):
        if path is not None and (path in named or path.exists()):
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"The catalog {path} cannot be read ({error}); check the path.") from None
            catalog = catalog.merged(parse_catalog(text, str(path)))
    return catalog


def user_catalog_path() -> pathlib.Path:
    """Where the user's own entries are: ~/.config/harness/models.toml, or where the OS keeps such files."""
    if sys.platform == "win32":
        base = pathlib.Path(os.environ.get("APPDATA") or pathlib.Path.home() / "AppData" / "Roaming")
    else:
        base = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config")
    return base / "harness" / "models.toml"


def parse_reference(text: str) -> Reference:
    """Read what the user named, without asking any other machine.

    Raises
    ------
    UsageError : it is of no known form, or no model of the catalog, with the nearest names.
    """
    _refuse_no_name(text)
    if is_byte_split(text.partition("?")[0]) and not _is_here(pathlib.Path(text)):
        raise UsageError(f"{explain_byte_split(name_reference(text))}.")
    if text.startswith(SYNTHETIC_PREFIX):
        entry, quantization = load_catalog().split(text.removeprefix(SYNTHETIC_PREFIX))
        return SyntheticReference(entry, quantization or SYNTHETIC_QUANTIZATION)
    if text.startswith(HUB_PREFIX):
        return _parse_hub(text.removeprefix(HUB_PREFIX).removeprefix("//"))
    if text.startswith(OLLAMA_PREFIX):
        return OllamaReference(text.removeprefix(OLLAMA_PREFIX))
    if text.lower().startswith(("https://", "http://")):
        return _parse_url(text)
    if text.lower().startswith(tuple(f"{host}/" for host in _HUB_HOSTS)) and not _is_here(pathlib.Path(text)):
        return _parse_url(f"https://{text}")
    path = pathlib.Path(os.path.expanduser(text))  # lists show a home as ~, and a shell leaves it in quotes and after =
    if _is_here(path) or path.suffix.lower() == ".gguf" or path.name != text:
        return PathReference(path)
    entry, quantization = load_catalog().split(text)
    return CatalogReference(entry, quantization)


def _refuse_no_name(text: str) -> None:
    """Refuse what can be no name of anything: nothing, or an address that is not fetched."""
    if not text.strip():
        raise UsageError("-m names nothing; give a file, or a name that `harness models` lists.")
    scheme = re.match(r"(?!https?:|hf:)([a-z][a-z0-9+.-]*)://", text, re.IGNORECASE)
    if scheme is not None:
        raise UsageError(f"{scheme[0]} is no address that harness fetches; give a path, hf:… or https://….")


def _is_here(path: pathlib.Path) -> bool:
    """Whether there is such a file.

    Raises
    ------
    UsageError : it cannot be looked for: its name is too long, a folder on the way is closed.
    """
    try:
        return path.exists()
    except OSError as error:
        raise UsageError(f"{str(path)[:60]}… cannot be looked for ({error.strerror}); check the name.") from None


def _parse_hub(text: str) -> HubReference:
    """Read ``owner/repo``, ``owner/repo:Q4_0``, ``owner/repo/folder/file.gguf`` and each with ``@revision`` behind repo."""
    match = re.fullmatch(rf"([^/:@]+/[^/:@]+)(?:@({_REVISION}))?(?:/([^:]+)|:([A-Za-z0-9_.-]+))?", text)
    if match is None or (match[3] and not is_gguf(match[3])):
        raise UsageError(
            f"'hf:{text}' is not a model of the hub; write hf:owner/repository/file.gguf or hf:owner/repository:Q4_0."
        )
    return HubReference(match[1], match[3], match[4].upper() if match[4] else None, match[2] or "main")


def _parse_url(text: str) -> Reference:
    """Read an address; one of the hub's own pages means what it shows, which the hub's cache then keeps."""
    parts = split_url(text)
    if (path := _hub_path(text)) is not None:
        return _parse_page(path, parts.query, name_reference(text))
    if not parts.hostname or not is_gguf(parts.path):
        raise UsageError(f"{name_reference(text)} is not the address of a GGUF file; it should end with .gguf.")
    return UrlReference(text)


def _hub_path(text: str) -> str | None:
    """What follows the hub's own address, or that of the mirror in HF_ENDPOINT, whose may have a path; None for other addresses."""
    parts = split_url(text)
    if parts.hostname in _HUB_HOSTS:
        return unquote(parts.path).strip("/")
    endpoint = split_url((os.environ.get("HF_ENDPOINT") or "").rstrip("/"))
    prefix = f"{endpoint.path}/"
    if endpoint.hostname and is_same_origin(text, endpoint.geturl()) and parts.path.startswith(prefix):
        return unquote(parts.path.removeprefix(prefix)).strip("/")
    return None


def _parse_page(path: str, query: str, shown: str) -> HubReference:
    """Read the path of a page: a repository's own, of a file, or of a folder; each of the last two at a revision."""
    path, _, quantization = path.partition(":")
    shown_file = parse_qs(query).get("show_file_info", [None])[0]
    match = re.fullmatch(rf"([^/]+/[^/]+)(?:/(resolve|blob|raw|tree)/({_REVISION})(?:/(.+))?)?", path)
    if match is None or match[1].partition("/")[0] in (
        "datasets",
        "spaces",
        "docs",
        "api",
        "models",
        "collections",
        "papers",
    ):
        raise UsageError(f"{shown} is not the page of a model or of its file; copy the address of either.")
    repository, kind, revision, rest = match[1], match[2], match[3] or "main", match[4]
    if shown_file and is_gguf(shown_file):
        return HubReference(repository, shown_file, None, revision)
    if rest and kind != "tree":
        if not is_gguf(rest):
            raise UsageError(f"{shown} is not a GGUF file; name one that ends with .gguf.")
        return HubReference(repository, rest, None, revision)
    return HubReference(repository, None, quantization.upper() or None, revision, rest)


def with_quantization(text: str, quantization: str | None) -> str:
    """Write ``--quant`` into a name that has no quantization of its own.

    Raises
    ------
    UsageError : this kind of reference has none, or has one already.
    """
    if quantization is None:
        return text
    reference = parse_reference(text)
    if isinstance(reference, SyntheticReference) and text.lower() == f"{SYNTHETIC_PREFIX}{reference.entry.name}":
        return f"{text}:{quantization}"
    open_hub = isinstance(reference, HubReference) and reference.file is None and reference.quantization is None
    if isinstance(reference, HubReference) and open_hub:
        return f"{text.partition('?')[0].rstrip('/')}:{quantization}"
    if isinstance(reference, CatalogReference) and reference.quantization is None:
        return f"{text}:{quantization}"
    raise UsageError(f"--quant goes with a name that has no quantization yet, not with {name_reference(text)}.")


def name_reference(text: str) -> str:
    """How a reference is shown: an address without what may grant access."""
    return hide_secrets(text) if text.lower().startswith(("https://", "http://")) else text


# --- finding ----------------------------------------------------------------------------------------------------------


def resolve(text: str, progress: Progress | None = None, remark: Remark = lambda said: None) -> pathlib.Path:
    """Find the file that a reference means, to measure it; a synthetic one is written first, a file at an address fetched.

    What the catalog and the hub have is not downloaded here: models are large, and `harness pull` is how one asks for them.

    Parameters
    ----------
    progress : called with (bytes there, bytes in all) while a synthetic file is made or an address fetched
    remark   : told where the file is not quite what was asked for

    Raises
    ------
    UsageError   : there is no such file or name, or the model is not on this disk; what to run is said.
    HarnessError : it cannot be written or fetched.
    """
    reference = parse_reference(text)
    if isinstance(reference, PathReference):
        return open_model(reference.path)
    if isinstance(reference, SyntheticReference):
        return _write_synthetic(reference, progress)
    if isinstance(reference, UrlReference):
        return fetch_url(reference.url, progress or (lambda done, total: None))[0]
    if (found := find_local(reference, remark)) is not None:
        return found
    assert isinstance(reference, (CatalogReference, HubReference))
    return _refuse(reference, text)


def find_local(reference: Reference, remark: Remark = lambda said: None) -> pathlib.Path | None:
    """Find a reference's file on this disk, asking and writing nothing; None where it is not here.

    Raises
    ------
    UsageError : it cannot be a model: a wrong file, a quantization that the catalog lacks, a model that llama.cpp cannot run.
    """
    if isinstance(reference, PathReference):
        return open_model(reference.path)
    if isinstance(reference, OllamaReference):
        from harness.sources.ollama_store import find_ollama

        return open_model(find_ollama(reference.name))
    if isinstance(reference, CatalogReference):
        return find_on_disk(reference.entry, reference.quantization)
    if isinstance(reference, HubReference):
        return _find_in_cache(reference, remark)
    if isinstance(reference, UrlReference):
        from harness.sources.downloads import list_part_urls, place_of

        paths = [place_of(part, downloads_dir()) for part in list_part_urls(reference.url)]
        return open_model(paths[0]) if all(path.exists() for path in paths) else None
    from harness.sources.synthetic import default_cache_dir, list_synthetic

    wanted = (reference.entry.name, reference.quantization)
    return next(
        (file.path for file in list_synthetic(default_cache_dir()) if (file.name, file.quantization) == wanted), None
    )


def find_on_disk(entry: Entry, quantization: str | None) -> pathlib.Path | None:
    """The first file of a catalog model if it is embedded or in Hugging Face's cache; nothing is downloaded.

    Raises
    ------
    UsageError : the model cannot be run, or has no such quantization, or what is there is no GGUF file.
    """
    found = find_files(entry, quantization)
    return open_model(found[0]) if found else None


def find_files(entry: Entry, quantization: str | None) -> list[pathlib.Path] | None:
    """All files of a catalog model that is embedded or in Hugging Face's cache; None where one is missing.

    Raises
    ------
    UsageError : the model cannot be run, or has no such quantization.
    """
    from harness.sources.hub import find_cached
    from harness.sources.local import find_copies

    if entry.refused:
        raise UsageError(entry.refused + ".")
    if entry.embedded and quantization in (None, entry.embedded):
        return [default_model()]
    files = list_catalog_files(entry.find_files(quantization))
    return find_cached(files) or find_copies(files)


def _find_in_cache(reference: HubReference, remark: Remark) -> pathlib.Path | None:
    from harness.sources.hub import find_cached, list_parts

    file = _choose_cached(reference, remark)
    found = find_cached(list_parts(file)) if file else None
    if found is None and reference.revision == "main":
        found = _find_copies(reference, remark)
    return open_model(found[0]) if found else None


def _find_copies(reference: HubReference, remark: Remark) -> list[pathlib.Path] | None:
    """Find what another program downloaded of a repository; only names can be compared there."""
    from harness.sources.hub import HubFile, choose_file, list_parts
    from harness.sources.local import find_copies, list_copies
    from harness.sources.remote import NotThereError

    names = list_copies(reference.repository)
    if not names:
        return None
    files = _in_folder(reference, [HubFile(reference.repository, name) for name in names])
    try:
        file = (
            HubFile(reference.repository, reference.file)
            if reference.file
            else choose_file(files, reference.repository, reference.quantization, remark)
        )
    except NotThereError:
        return None
    return find_copies(list_parts(file))


def _choose_cached(reference: HubReference, remark: Remark) -> HubFile | None:
    """Find the file that a reference means among those in the cache."""
    from harness.sources.hub import HubFile, choose_file, list_cached
    from harness.sources.remote import NotThereError

    if reference.file is not None:
        return HubFile(reference.repository, reference.file, reference.revision)
    cached = _in_folder(reference, list_cached(reference.repository, reference.revision))
    try:
        return choose_file(cached, reference.repository, reference.quantization, remark)
    except NotThereError:
        return None


def _refuse(reference: CatalogReference | HubReference, text: str) -> pathlib.Path:
    if isinstance(reference, HubReference):
        raise UsageError(f"{text} is not on this disk; run `harness pull {text}` first.")
    entry = reference.entry
    files = entry.find_files(reference.quantization)
    name = f"{entry.name}:{files.quantization.lower()}"
    raise UsageError(
        f"{entry.name} {files.quantization} is not on this disk; {_tell_ollamas(entry)}run `harness pull {name}` first, or time its "
        f"shape with -m {SYNTHETIC_PREFIX}{name}."
    )


def _tell_ollamas(entry: Entry) -> str:
    """A hint where Ollama has a model of this name, which may be of another quantization."""
    from harness.sources.ollama_store import find_ollama

    try:
        find_ollama(entry.name)
    except UsageError:
        return ""
    return f"measure Ollama's own with -m {OLLAMA_PREFIX}{entry.name}, "


def _write_synthetic(reference: SyntheticReference, progress: Progress | None) -> pathlib.Path:
    from harness.sources.synthetic import default_cache_dir, ensure_synthetic

    entry = reference.entry
    if entry.refused:
        raise UsageError(entry.refused + ".")
    return ensure_synthetic(
        entry.shape, reference.quantization, default_cache_dir(), name=entry.name, progress=progress
    )


# --- downloading ------------------------------------------------------------------------------------------------------


def pull(text: str, progress: Progress, remark: Remark = lambda said: None) -> list[pathlib.Path]:
    """Bring a model to this disk, all files of a split one, and say where they are; what is here already costs no request.

    Raises
    ------
    UsageError   : it is nothing that can be pulled.
    HarnessError : the hub or a server has it not or cannot be reached, or the disk is full.
    """
    reference = parse_reference(text)
    if isinstance(reference, UrlReference):
        return fetch_url(reference.url, progress)
    if isinstance(reference, CatalogReference):
        entry = reference.entry
        if entry.refused:
            raise UsageError(entry.refused + ".")
        if entry.embedded and reference.quantization in (None, entry.embedded):
            return [default_model()]
        from harness.sources.hub import download

        files = entry.find_files(reference.quantization)
        return download(list_catalog_files(files), progress, remark, files.sha256)
    if isinstance(reference, HubReference):
        from harness.sources.hub import download, list_parts

        named = reference.file is not None or reference.quantization is not None
        file = (_choose_cached(reference, remark) if named else None) or find_hub_file(reference, remark)
        return download(list_parts(file), progress, remark)
    if isinstance(reference, OllamaReference):
        raise UsageError(f"{text} is Ollama's own; run `ollama pull {reference.name}`, and measure it with -m {text}.")
    if isinstance(reference, SyntheticReference):
        raise UsageError(
            f"{text} is made here and not downloaded; run `harness synth {text.removeprefix(SYNTHETIC_PREFIX)}`."
        )
    raise UsageError(
        f"{text} is a file's name; pull takes a name of the catalog, hf:owner/repository:Q4_0 or an address."
    )


def list_catalog_files(files: Files) -> list[HubFile]:
    """Name the files of a catalog quantization on the hub; where only the first part is listed, all parts."""
    from harness.sources.hub import HubFile, list_parts

    found = [HubFile(files.repository, name) for name in files.files]
    return list(list_parts(found[0])) if len(found) == 1 else found


def _in_folder(reference: HubReference, files: Sequence[HubFile]) -> list[HubFile]:
    return [file for file in files if reference.folder is None or file.name.startswith(f"{reference.folder}/")]


def find_hub_file(reference: HubReference, remark: Remark = lambda said: None) -> HubFile:
    """Find the file that a reference to the hub means; without a file's name the repository is listed, at one request.

    Parameters
    ----------
    remark : told where the file is not quite what was asked for

    Raises
    ------
    RemoteError : the hub cannot be reached, or has no such repository or quantization.
    """
    from harness.sources.hub import HubFile, choose_file, list_files

    if reference.file is not None:
        return HubFile(reference.repository, reference.file, reference.revision)
    files = [facts.file for facts in list_files(reference.repository, reference.revision)]
    return choose_file(_in_folder(reference, files), reference.repository, reference.quantization, remark)


def downloads_dir() -> pathlib.Path:
    """Where files from addresses are kept: ``downloads`` beside the synthetic ones."""
    return cache_folder("downloads")


def fetch_url(url: str, progress: Progress) -> list[pathlib.Path]:
    """Bring the file at an address to this disk, all parts of a split one; a complete one is not asked for again.

    Raises
    ------
    HarnessError : the server cannot be reached or refuses, or what it sends is no whole GGUF file.
    """
    from harness.sources.downloads import fetch, list_part_urls

    return [fetch(part, downloads_dir(), progress, _check_whole) for part in list_part_urls(url)]


def _check_whole(path: pathlib.Path, name: str) -> None:
    from harness.gguf.header import check_complete, read_header
    from harness.sources.gguf_file import FileSource

    with FileSource(path) as source:
        check_complete(read_header(source, name=name), source.size_bytes, name)
