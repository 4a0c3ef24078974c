"""``llama3.2:1b:q4_0``: a model of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.catalog import FALLBACK_QUANTIZATION, Entry, Files
from harness.errors import UsageError
from harness.events import OnEvent, ignore
from harness.gguf.shapes import compute_header
from harness.gguf.types import find_quantization
from harness.sources.headers import Found, read_local
from harness.sources.hub_cache import HubFile, find_cached, list_parts
from harness.sources.hub_reference import read_hub_files
from harness.sources.model_file import default_model, open_model
from harness.sources.ollama_reference import PREFIX as OLLAMA_PREFIX
from harness.sources.reference import Reference, Variant
from harness.sources.sparse import HeaderFile
from harness.sources.user_catalog import load_catalog
from harness.untrusted import harmless

SYNTHETIC_PREFIX = "synth:"


def list_catalog_files(files: Files) -> list[HubFile]:
    """Name the files of a catalog quantization on the hub; where only the first part is listed, all parts."""
    found = [HubFile(files.repository, name) for name in files.files]
    return list(list_parts(found[0])) if len(found) == 1 else found


@dataclass(frozen=True, slots=True)
class CatalogReference(Reference):
    """A model of the catalog, in a quantization or in the usual one."""

    entry: Entry
    quantization: str | None

    @classmethod
    def parse(cls, text: str) -> CatalogReference:
        entry, quantization = load_catalog().split(text)
        return cls(entry, quantization, text=text)

    @property
    def is_embedded(self) -> bool:
        """Whether it is the model that comes with an installed package."""
        return self.entry.embedded is not None and self.quantization in (None, self.entry.embedded)

    def find(self, on_event: OnEvent = ignore) -> Path | None:
        found = self.find_all()
        return open_model(found[0]) if found else None

    def find_all(self) -> list[Path] | None:
        """All files of the model if it is embedded or some program downloaded it; None where one is missing.

        Raises
        ------
        UsageError : the model cannot be run, or has no such quantization.
        """
        from harness.sources.local import find_copies, list_copies

        self.entry.refuse()
        if self.is_embedded:
            return [default_model()]
        files = list_catalog_files(self.entry.find_files(self.quantization))
        return find_cached(files) or find_copies(files, list_copies(files[0].repository))

    def header(self) -> Found:
        """As of any reference; computed where the hub cannot be reached or has no such file, and of a model that cannot be run."""
        from harness.sources.remote_errors import RemoteError

        entry, files = self.entry, _pick_files(self.entry, self.quantization)
        if entry.refused:
            return compute_catalog_header(entry, self.quantization, entry.refused)
        if files is not None or self.is_embedded:
            try:
                path = self.find()
            except UsageError:
                if not self.is_embedded:
                    raise
                path = None  # the package with the embedded model is not installed
            if path is not None:
                return read_local(path)
        if files is None:
            return compute_catalog_header(entry, self.quantization, "the catalog names no file of this quantization")
        try:
            return read_hub_files(list_catalog_files(files))
        except RemoteError as error:
            return compute_catalog_header(entry, files.quantization, str(error).rstrip("."))

    def pull(self, on_event: OnEvent = ignore) -> list[Path]:
        from harness.sources.hub_download import download

        self.entry.refuse()
        if self.is_embedded:
            return [default_model()]
        files = self.entry.find_files(self.quantization)
        return download(list_catalog_files(files), on_event, self.shown, files.sha256)

    def list_variants(self) -> tuple[Variant, ...]:
        entry = self.entry
        others = filter(None, (entry.embedded, entry.default_quantization, self.quantization))
        sizes = {**dict.fromkeys(others), **{files.quantization: files.size_bytes for files in entry.files}}
        return tuple(Variant(kind, f"{entry.name}:{kind.lower()}", size) for kind, size in sizes.items())

    def _open_name(self) -> str | None:
        return self.text if self.quantization is None else None

    def _describe_missing(self) -> str:
        from harness.sources.ollama_store import find_ollama

        entry, files = self.entry, self.entry.find_files(self.quantization)
        name = f"{entry.name}:{files.quantization.lower()}"
        try:
            find_ollama(entry.name)  # perhaps of another quantization
            hint = f"measure Ollama's own with -m {OLLAMA_PREFIX}{entry.name}, "
        except UsageError:
            hint = ""
        return (
            f"{entry.name} {files.quantization} is not on this disk; {hint}run {harmless.command('harness', 'pull', name)} first, "
            f"or time its shape with -m {SYNTHETIC_PREFIX}{name}."
        )


def _pick_files(entry: Entry, quantization: str | None) -> Files | None:
    try:
        return entry.find_files(quantization)
    except UsageError:
        return None


def compute_catalog_header(entry: Entry, quantization: str | None, reason: str, *, vocabulary: bool = True) -> Found:
    """Compute a catalog model's header from its shape, for the reason that is given; nothing is asked of anyone.

    Without a vocabulary, which takes a while to write and to read, llama.cpp plans the same memory for computing.
    """
    kind = find_quantization(quantization or entry.ollama_2024 or entry.embedded or FALLBACK_QUANTIZATION)
    files = _pick_files(entry, kind)

    def make_files() -> tuple[HeaderFile, ...]:
        from harness.sources.synthetic import make_header_bytes

        data, size_bytes = make_header_bytes(entry.shape, kind, name=entry.name, vocabulary=vocabulary)
        return (HeaderFile("model.gguf", data, size_bytes),)

    return Found(
        compute_header(entry.shape, kind, f"{entry.name} {kind}"),
        is_computed=True,
        note=f"{entry.name} {kind} is computed from the catalog's shape, without its vocabulary: {reason}.",
        file_bytes=files.size_bytes if files else None,
        read_files=None if entry.refused else make_files,
    )
