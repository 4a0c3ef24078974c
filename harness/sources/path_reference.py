"""A file on this disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.events import OnEvent, ignore
from harness.sources.model_file import is_here, open_model
from harness.sources.reference import Reference


@dataclass(frozen=True, slots=True)
class PathReference(Reference):
    """A file on this disk, by its path."""

    path: Path

    @classmethod
    def parse(cls, text: str) -> PathReference | None:
        # Lists show a home as ~, and a shell leaves it in quotes and after =.
        path = Path(os.path.expanduser(text))
        if is_here(path) or path.suffix.lower() == ".gguf" or path.name != text:
            return cls(path, text=text)
        return None

    def label(self) -> str:
        return self.path.name

    def local_path(self) -> Path:
        return self.path

    def find(self, on_event: OnEvent = ignore) -> Path:
        return open_model(self.path)
