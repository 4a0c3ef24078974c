"""What every kind of model source can do: say its name, be looked for here, show its header, be brought here."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from harness.errors import UsageError
from harness.events import Event, OnEvent, Remark, ignore
from harness.sources.addresses import hide_secrets
from harness.sources.headers import Found, read_local
from harness.untrusted import harmless


def show_reference(text: str) -> str:
    """What was typed, without what may grant access: an address's user, password, query and fragment."""
    return hide_secrets(text) if text.lower().startswith(("https://", "http://")) else text


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantization of a model that has several: its own name for `-m`, and its files' size where that is known."""

    quantization: str
    text: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(abc.ABC):
    """A model that somebody named; text is what was typed.

    is_synthetic says that its weights are made up; is_free that `open` brings it by itself. Other models are large, and `harness pull`
    is how one asks for them.
    """

    text: str = field(default="", compare=False)
    is_synthetic: ClassVar[bool] = False
    is_free: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def parse(cls, text: str) -> Reference | None:
        """Read what was typed, asking no other machine; None where it is of another kind.

        Raises
        ------
        UsageError : it is of this kind and names nothing.
        """

    @property
    def shown(self) -> str:
        """What was typed, fit for a screen."""
        return show_reference(self.text)

    def label(self) -> str:
        """How the model is called in pages, pictures and records, which tell nobody's folders."""
        return self.shown

    def local_path(self) -> Path | None:
        """The file on this disk that was named itself."""
        return None

    @abc.abstractmethod
    def find(self, on_event: OnEvent = ignore) -> Path | None:
        """Find the (first) file on this disk, asking and writing nothing; None where it is not here.

        Raises
        ------
        UsageError : it cannot be a model: a wrong file, a quantization that the catalog lacks, a model that llama.cpp cannot run.
        """

    def open(self, on_event: OnEvent = ignore) -> Path:
        """Find the file to measure; a synthetic one is written first, a file at an address fetched.

        Raises
        ------
        UsageError   : there is no such file or name, or the model is not on this disk; what to run is said.
        HarnessError : it cannot be written or fetched.
        """
        if (path := self.find(on_event)) is None:
            raise UsageError(self._describe_missing())
        return path

    def header(self) -> Found:
        """Find the header, from this disk, else from afar without the weights, else computed from the catalog's shape.

        Raises
        ------
        UsageError   : there is no such model or quantization.
        HarnessError : the file is no whole GGUF file, or (other than for catalog models) its server cannot be reached.
        """
        events: list[Event] = []
        if (path := self.find(events.append)) is not None:
            found = read_local(path)
        else:
            events.clear()
            found = self._read_afar(events.append)
        note = next((event.text for event in events if isinstance(event, Remark)), None)
        return replace(found, note=f"{note}.") if note else found

    def pull(self, on_event: OnEvent = ignore) -> list[Path]:
        """Bring the model to this disk, all files of a split one, and say where they are; what is here already costs no request.

        Raises
        ------
        UsageError   : it is nothing that can be pulled.
        HarnessError : the hub or a server has it not or cannot be reached, or the disk is full.
        """
        raise UsageError(
            f"{self.text} is a file's name; pull takes a name of the catalog, hf:owner/repository:Q4_0 or an address."
        )

    def with_quantization(self, quantization: str) -> str:
        """Write ``--quant`` into the name.

        Raises
        ------
        UsageError : this kind of reference has none, or has one already.
        """
        if (name := self._open_name()) is None:
            raise UsageError(f"--quant goes with a name that has no quantization yet, not with {self.shown}.")
        return f"{name}:{quantization}"

    @property
    def is_open(self) -> bool:
        """Whether it leaves open which quantization is meant."""
        return self._open_name() is not None

    def list_variants(self) -> tuple[Variant, ...]:
        """The quantizations that there are of the model, each with its name; () where it is one file.

        Raises
        ------
        HarnessError : the hub cannot be reached.
        """
        return ()

    def _open_name(self) -> str | None:
        """What was typed, where a quantization may stand behind it."""
        return None

    def _read_afar(self, on_event: OnEvent) -> Found:
        raise UsageError(self._describe_missing())

    def _describe_missing(self) -> str:
        return f"{self.shown} is not on this disk; run {harmless.command('harness', 'pull', self.text)} first."
