"""The chapters of the report, in their order: one function each, from the material to Documents.

A new kind of record is one function and one line in `CHAPTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.views.document import Document
from harness.views.report.documents import (
    show_memory,
    show_ollama,
    show_predictions,
    show_published,
    show_roofline,
    show_texts,
    show_token_time,
)
from harness.views.report.frame import (
    describe_machines,
    describe_method,
    list_failures,
    list_warnings,
    show_parity,
    summarize_page,
)
from harness.views.report.material import Material
from harness.views.report.speeds import show_layers, show_speeds

Make = Callable[[Material], Sequence[Document]]


def _describe_method(material: Material) -> Sequence[Document]:
    return describe_method(material, [kind for _, kinds in CHAPTERS.values() for kind in kinds])


#: Title → (the function that makes the chapter, the kinds of lines that it shows), in the order of the page; empty ones are left out.
CHAPTERS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "Summary": (summarize_page, ()),
    "Machine": (describe_machines, ()),
    "Speeds": (show_speeds, ("result",)),
    "Layers on the GPU": (show_layers, ("result",)),
    "Memory": (show_memory, ("overhead",)),
    "A token's time": (show_token_time, ("time-ledger",)),
    "Under the roof": (show_roofline, ("roofline",)),
    "Texts": (show_texts, ("run",)),
    "Beside Ollama": (show_ollama, ("ollama-comparison",)),
    "Beside llama-bench": (show_parity, ("parity",)),
    "Among published machines": (show_published, ()),
    "Predictions": (show_predictions, ()),
    "Failures": (list_failures, ("failure",)),
    "Warnings": (list_warnings, ()),
    "How it was measured": (_describe_method, ()),
}
