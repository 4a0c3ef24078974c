"""What a model is called: one name a file, wherever records of it are shown.

A file of which the catalog has the hash, or whose name says which model of the catalog it holds, has that name and its quantization
(``llama3.1:8b Q4_0``), any other its own name without ``.gguf``. Where two files would be called the same, each has its file's name
behind it, or the beginning of its hash where even that is the same. Weights that were made up are marked.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.catalog import Catalog, Entry
from harness.gguf.types import FILE_TYPES
from harness.records.cells import Model, Record
from harness.records.quality import QualityRecord
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


def file_of(found: Record | TextRun | QualityRecord) -> ModelFile | None:
    """The file that a record is of; None where a text's model was never loaded."""
    return None if isinstance(found, TextRun) and found.model is None else file_of_parts(found.model, found.asked)


def file_of_parts(model: Model | None, asked: Any) -> ModelFile:
    """The same of a record's model and, where that was never loaded, of what was asked for."""
    if model is None:
        return ModelFile(asked.file_name)
    return ModelFile(model.file_name, model.file_sha256, read_quantization(model.description), model.is_synthetic)


class ModelNames:
    """The names of some files, so that no two of them are called the same."""

    def __init__(self, files: Iterable[ModelFile], catalog: Catalog | None = None) -> None:
        self._catalog = catalog
        by_key: dict[str, ModelFile] = {}
        for file in files:
            if file.key not in by_key or (by_key[file.key].quantization is None and file.quantization is not None):
                by_key[file.key] = file
        # What knows no hash has a file's name, or the one that was asked for: it is of the file that is called so, if of one.
        called: dict[str, set[str]] = {}
        for key, file in by_key.items():
            for name in (file.file_name, self._base(file)) if file.file_sha256 else ():
                called.setdefault(name, set()).add(key)
        self._called = {name: next(iter(keys)) for name, keys in called.items() if len(keys) == 1}
        self._names = self._name_apart({key: by_key[key] for key in map(self._key, by_key.values())})

    def _key(self, file: ModelFile) -> str:
        if file.file_sha256:
            return file.key
        names = [file.file_name] if file.file_name.lower().endswith(".gguf") else [file.file_name, self._base(file)]
        return next((self._called[name] for name in names if name in self._called), file.key)

    def _name_apart(self, files: dict[str, ModelFile]) -> dict[str, str]:
        names = {key: self._base(file) for key, file in files.items()}
        for longer in (lambda file: file.file_name, lambda file: (file.file_sha256 or "?")[:_HASH_DIGITS]):
            same: dict[str, list[str]] = {}
            for key, name in names.items():
                same.setdefault(name, []).append(key)
            for name, keys in same.items():
                is_told = len({longer(files[key]) for key in keys}) > 1  # what all of them have tells nothing
                for key in keys if is_told else ():
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
        return self._names.get(self._key(file)) or self._base(file)


def name_stem(file_name: str) -> str:
    """A file's name without ``.gguf``."""
    return re.sub(r"\.gguf$", "", file_name, flags=re.IGNORECASE) or file_name


def find_file_entry(file_name: str, file_sha256: str | None, catalog: Catalog) -> Entry | None:
    """The model of the catalog that a file is: by the hash, where the catalog has it, however the file is called; else by the name that
    is in its own (``Meta-Llama-3.1-8B-Instruct`` is llama3.1:8b)."""
    for entry in catalog.entries.values() if file_sha256 else ():
        if any(file_sha256 in files.sha256 for files in entry.files):
            return entry
    name = squeeze(file_name)
    named = [entry for entry in catalog.entries.values() if squeeze(entry.name) in name]
    return max(named, key=lambda entry: len(entry.name), default=None)


def squeeze(text: str) -> str:
    """A name without what people write differently: capitals, blanks and marks."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


@functools.lru_cache(maxsize=1024)
def read_quantization(description: str) -> str | None:
    """The quantization in llama.cpp's description of a model: ``llama 3B Q4_K - Medium`` is Q4_K_M. Source: llama_model::desc."""
    text = description.replace("(guessed) ", "")
    named = [kind for kind in FILE_TYPES.values() if text.endswith(f" {kind.title}")]
    return max(named, key=lambda kind: len(kind.title)).quantization if named else None
