"""``synth:llama3.1:8b:q4_0``: a model of the catalog's shape with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.catalog import FALLBACK_QUANTIZATION, Entry
from harness.errors import UsageError
from harness.events import OnEvent, count_bytes, ignore
from harness.sources.catalog_reference import SYNTHETIC_PREFIX, compute_catalog_header
from harness.sources.headers import Found
from harness.sources.reference import Reference, Variant
from harness.sources.user_catalog import load_catalog
from harness.untrusted import harmless

#: The quantizations that people choose among, the largest first.
USUAL_QUANTIZATIONS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")


@dataclass(frozen=True, slots=True)
class SyntheticReference(Reference):
    """A model of the catalog's shape with random weights, Q4_0 unless the name says otherwise."""

    entry: Entry
    quantization: str
    is_synthetic = True
    is_free = True

    @classmethod
    def parse(cls, text: str) -> SyntheticReference | None:
        if not text.startswith(SYNTHETIC_PREFIX):
            return None
        entry, quantization = load_catalog().split(text.removeprefix(SYNTHETIC_PREFIX))
        return cls(entry, quantization or FALLBACK_QUANTIZATION, text=text)

    def find(self, on_event: OnEvent = ignore) -> Path | None:
        from harness.sources.synthetic import default_cache_dir, list_synthetic

        wanted = (self.entry.name, self.quantization)
        files = list_synthetic(default_cache_dir())
        return next((file.path for file in files if (file.name, file.quantization) == wanted), None)

    def open(self, on_event: OnEvent = ignore) -> Path:
        from harness.sources.synthetic import default_cache_dir, ensure_synthetic

        self.entry.refuse()
        name, shape = self.entry.name, self.entry.shape
        progress = count_bytes(on_event, self.shown)
        return ensure_synthetic(shape, self.quantization, default_cache_dir(), name=name, progress=progress)

    def pull(self, on_event: OnEvent = ignore) -> list[Path]:
        name = self.text.removeprefix(SYNTHETIC_PREFIX)
        raise UsageError(
            f"{self.text} is made here and not downloaded; run {harmless.command('harness', 'synth', name)}."
        )

    def list_variants(self) -> tuple[Variant, ...]:
        kinds = dict.fromkeys((*USUAL_QUANTIZATIONS, self.quantization))
        return tuple(Variant(kind, f"{SYNTHETIC_PREFIX}{self.entry.name}:{kind.lower()}") for kind in kinds)

    def _open_name(self) -> str | None:
        return self.text if self.text.lower() == f"{SYNTHETIC_PREFIX}{self.entry.name}" else None

    def _read_afar(self, on_event: OnEvent) -> Found:
        return compute_catalog_header(self.entry, self.quantization, "no such file is written yet")
