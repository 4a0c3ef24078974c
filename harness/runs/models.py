"""What the catalog has, what of it is here and fits; and what can be made again."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from harness.catalog import FALLBACK_QUANTIZATION, Catalog, Entry
from harness.errors import UsageError
from harness.gguf.layout import tensor_table
from harness.host.memory import total_memory_bytes
from harness.sources.catalog_reference import CatalogReference
from harness.sources.downloads import downloads_dir, list_downloads
from harness.sources.synthetic import default_cache_dir, list_synthetic


@dataclass(frozen=True, slots=True)
class Row:
    """One quantization of one model.

    size_bytes is the file's, known or computed from the shape (then is_computed). place is embedded, downloaded, synthetic or empty;
    has_file says that the catalog knows a file to pull. fits is None where a size is not known. is_usual marks what Ollama's bare name
    stood for in autumn 2024; verified is None where there is no file.
    """

    name: str
    parameters: int | None
    quantization: str
    size_bytes: int | None
    is_computed: bool
    place: str
    fits: bool | None
    refused: str | None = None
    has_file: bool = True
    is_usual: bool = False
    verified: bool | None = None


def list_catalog(catalog: Catalog) -> list[Row]:
    """Every quantization that has a file, is here, or is what Ollama's name stood for (of which there still is a size)."""
    memory_bytes = total_memory_bytes()
    synthetic = {(item.name, item.quantization): item.size_bytes for item in list_synthetic(default_cache_dir())}
    rows = []
    for entry in catalog.entries.values():
        made = [kind for name, kind in synthetic if name == entry.name]
        known = [entry.embedded, *(files.quantization for files in entry.files), *made, entry.ollama_2024]
        for quantization in dict.fromkeys(filter(None, known)) or [FALLBACK_QUANTIZATION]:
            rows.append(_row(entry, quantization, synthetic.get((entry.name, quantization)), memory_bytes))
    return rows


def _row(entry: Entry, quantization: str, synthetic_bytes: int | None, memory_bytes: int) -> Row:
    files = next((files for files in entry.files if files.quantization == quantization), None)
    try:
        found = CatalogReference(entry, quantization).find_all()
    except UsageError:
        found = None
    known = sum(path.stat().st_size for path in found) if found else None
    known = known or (files.size_bytes if files else None) or synthetic_bytes
    size_bytes = known or _compute_size(entry, quantization)
    place = "embedded" if quantization == entry.embedded else "downloaded"
    return Row(
        entry.name, entry.parameters, quantization, size_bytes, is_computed=known is None, refused=entry.refused,
        place=place if found else "synthetic" if synthetic_bytes else "",
        fits=None if size_bytes is None else size_bytes < memory_bytes,
        has_file=files is not None or quantization == entry.embedded,
        is_usual=quantization == entry.ollama_2024, verified=files.verified if files else None,
    )  # fmt: skip


def _compute_size(entry: Entry, quantization: str) -> int | None:
    """The size of all tensors, from the shape; None where the layout of the architecture is not known."""
    try:
        return sum(tensor.size_bytes for tensor in tensor_table(entry.shape, quantization))
    except UsageError:
        return None


def list_remakable() -> dict[pathlib.Path, str]:
    """Files that can be made or fetched again, and what each is: synthetic ones, and those from addresses."""
    synthetic = list_synthetic(default_cache_dir())
    found = {file.path: f"{file.name} {file.quantization}" for file in synthetic}
    return found | dict.fromkeys(list_downloads(downloads_dir()), "from an address")
