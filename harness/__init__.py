"""Measure GGUF language models in-process through llama.cpp: speed, memory, time and layers.

`harness.measure("llama3.2:1b:q4_0")` and the other functions are those of `harness.api`; docs/python.md shows them. Each is loaded when
it is first used.
"""

import importlib

__version__ = "1.0.0"

#: What a script may use, by the module that has it; `__init__.pyi` says the same to type checkers.
_PUBLIC: dict[str, tuple[str, ...]] = {
    "harness.api": (
        "ab",
        "account_memory",
        "account_time",
        "compare",
        "history",
        "inspect",
        "measure",
        "measure_noise",
        "measure_roofline",
        "predict",
        "read_records",
        "speculate",
        "sweep",
        "to_dicts",
        "to_frame",
        "write_text",
    ),
    "harness.api_quality": ("measure_quality",),
    "harness.api_fit": ("fit",),
    "harness.api_share": ("measure_score", "read_shared", "share_records"),
    "harness.api_tune": ("take_tuned", "tune", "write_lines"),
    "harness.errors": ("HarnessError", "NativeError", "StoreError", "UsageError"),
    "harness.events": ("Event", "Measured", "Progress", "Remark", "Unkept"),
    "harness.records.advice": ("advise", "find_tests"),
    "harness.records.ab": ("Ab", "replay"),
    "harness.records.cells": ("Failure", "Machine", "Record", "Sample"),
    "harness.records.kinds": ("Entry",),
    "harness.records.memory": ("MemoryRecord",),
    "harness.records.noise": ("NoiseRecord",),
    "harness.records.parity": ("Parity",),
    "harness.records.quality": ("QualityRecord",),
    "harness.records.quality_figures": ("QualityFigures", "find_figures"),
    "harness.records.roofline": ("Roof",),
    "harness.records.speculation": ("Speculation",),
    "harness.evidence.medians": ("Interval",),
    "harness.records.score": ("Score", "score_cells"),
    "harness.records.share": ("Share", "write_share"),
    "harness.records.statistics": ("Summary", "summarize", "token_times"),
    "harness.records.text": ("TextRun",),
    "harness.records.placements": ("PlacementResult",),
    "harness.records.token_time": ("TimeRecord",),
    "harness.records.ollama": ("Comparison",),
    "harness.runs.fit": ("Fitting",),
    "harness.runs.inspection": ("Inspection",),
    "harness.runs.placements": ("Sweep",),
    "harness.runs.predict": ("PredictRequest",),
    "harness.spec": ("RunSpec",),
    "harness.speed.prediction": ("Prediction",),
    "harness.speed.speculation": ("SpeculationResult", "summarize_speculation"),
    "harness.records.tuning": ("TuneRecord",),
    "harness.records.time_ledger": ("TimeLedger", "make_time_ledger"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
