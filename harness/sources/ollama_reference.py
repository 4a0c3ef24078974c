"""``ollama:llama3.2:1b``: a model in Ollama's own store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.events import OnEvent, ignore
from harness.sources.model_file import open_model
from harness.sources.reference import Reference
from harness.untrusted import harmless

PREFIX = "ollama:"


@dataclass(frozen=True, slots=True)
class OllamaReference(Reference):
    """A model in Ollama's own store, by its name there."""

    name: str

    @classmethod
    def parse(cls, text: str) -> OllamaReference | None:
        return cls(text.removeprefix(PREFIX), text=text) if text.startswith(PREFIX) else None

    def find(self, on_event: OnEvent = ignore) -> Path:
        from harness.sources.ollama_store import find_ollama

        return open_model(find_ollama(self.name))

    def pull(self, on_event: OnEvent = ignore) -> list[Path]:
        raise UsageError(
            f"{self.text} is Ollama's own; run {harmless.command('ollama', 'pull', self.name)}, and measure it with -m {self.text}."
        )
