"""What a model is called: one name a file, wherever records of it are shown.

A file of which the catalog has the hash, or whose name says which model of the catalog it holds, has that name and its quantization
(``llama3.1:8b Q4_0``), any other its own name without ``.gguf``. Where two files would be called the same, each has its file's name
behind it, and the beginning of its hash where even that is the same. Weights that were made up are marked.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.catalog import Catalog, Entry
from harness.gguf.types import FILE_TYPES
from harness.records.cells import Record
from harness.records.text import TextRun

#: Digits of a hash that tell files apart.
_HASH_DIGITS = 8


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file as records know it; quantization and file_sha256 are None where they do not say."""

    file_name: str
    file_sha256: str | None = None
    quantization: str | None = None
    is_synthetic: bool = False

    @property
    def key(self) -> str:
        """What makes it the same file."""
        return self.file_sha256 or self.file_name


def file_of(found: Record | TextRun) -> ModelFile | None:
    """The file that a record is of; None where a text's model was never loaded."""
    model = found.model
    if model is not None:
        return ModelFile(model.file_name, model.file_sha256, read_quantization(model.description), model.is_synthetic)
    return ModelFile(found.asked.file_name) if isinstance(found, Record) else None


class ModelNames:
    """The names of some files, so that no two of them are called the same."""

    def __init__(self, files: Iterable[ModelFile], catalog: Catalog | None = None) -> None:
        self._catalog = catalog
        by_key: dict[str, ModelFile] = {}
        for file in files:
            if file.key not in by_key or (by_key[file.key].quantization is None and file.quantization is not None):
                by_key[file.key] = file
        # A record that knows no hash is of the file of that name, if there is but one.
        of_name: dict[str, list[ModelFile]] = {}
        for file in by_key.values():
            of_name.setdefault(file.file_name, []).append(file)
        hashed = {name: [file for file in found if file.file_sha256] for name, found in of_name.items()}
        self._alias = {name: found[0].key for name, found in hashed.items() if len(found) == 1}
        # A ledger knows a model by the name that was asked for; it is of the file that is called so, if there is but one.
        called: dict[str, list[ModelFile]] = {}
        for file in by_key.values():
            if file.file_sha256:
                called.setdefault(self._base(file), []).append(file)
        for file in by_key.values():
            found = called.get(self._base(file), ())
            if not file.file_sha256 and not file.file_name.endswith(".gguf") and len(found) == 1:
                self._alias[file.key] = found[0].key
        distinct = {self._alias.get(key, key): by_key[self._alias.get(key, key)] for key in by_key}
        self._names = self._tell_apart(distinct)

    def _tell_apart(self, files: dict[str, ModelFile]) -> dict[str, str]:
        names = {key: self._base(file) for key, file in files.items()}
        for longer in (lambda file: file.file_name, lambda file: (file.file_sha256 or "?")[:_HASH_DIGITS]):
            same: dict[str, list[str]] = {}
            for key, name in names.items():
                same.setdefault(name, []).append(key)
            for name, keys in same.items():
                for key in keys if len(keys) > 1 else ():
                    names[key] = f"{name} ({longer(files[key])})"
        return names

    def _base(self, file: ModelFile) -> str:
        entry = find_file_entry(file.file_name, file.file_sha256, self._catalog) if self._catalog else None
        name = f"{entry.name} {file.quantization}" if entry and file.quantization else name_stem(file.file_name)
        return f"{name} (synthetic)" if file.is_synthetic else name

    def of(self, file: ModelFile | None) -> str:
        """What a file is called; a dash where there is none."""
        if file is None:
            return "—"
        return self._names.get(self._alias.get(file.key, file.key)) or self._base(file)


def name_stem(file_name: str) -> str:
    """A file's name without ``.gguf``."""
    return re.sub(r"\.gguf$", "", file_name, flags=re.IGNORECASE) or file_name


def find_file_entry(file_name: str, file_sha256: str | None, catalog: Catalog) -> Entry | None:
    """The model of the catalog that a file is: by the hash, where the catalog has it, however the file is called; else by its name."""
    for entry in catalog.entries.values() if file_sha256 else ():
        if any(file_sha256 in files.sha256 for files in entry.files):
            return entry
    return find_named_entry(file_name, catalog)


def find_named_entry(file_name: str, catalog: Catalog) -> Entry | None:
    """The model of the catalog whose name is in a file's name: ``Meta-Llama-3.1-8B-Instruct`` is llama3.1:8b."""
    name = _squeeze(file_name)
    named = [entry for entry in catalog.entries.values() if _squeeze(entry.name) in name]
    return max(named, key=lambda entry: len(entry.name), default=None)


def _squeeze(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@functools.lru_cache(maxsize=1024)
def read_quantization(description: str) -> str | None:
    """The quantization in llama.cpp's description of a model: ``llama 3B Q4_K - Medium`` is Q4_K_M. Source: llama_model::desc."""
    text = description.replace("(guessed) ", "")
    named = [kind for kind in FILE_TYPES.values() if text.endswith(f" {kind.title}")]
    return max(named, key=lambda kind: len(kind.title)).quantization if named else None
