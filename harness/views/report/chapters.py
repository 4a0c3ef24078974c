"""The chapters of the report, in their order: one function each, from the material to Documents.

A new kind of record is one function and one line in `CHAPTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.views.document import Document
from harness.views.report import documents, frame
from harness.views.report.material import Material
from harness.views.report.speeds import show_layers, show_speeds, show_users

Make = Callable[[Material], Sequence[Document]]


def _describe_method(material: Material) -> Sequence[Document]:
    return frame.describe_method(material, [kind for _, kinds in CHAPTERS.values() for kind in kinds])


#: Title → (the function that makes the chapter, the kinds of lines that it shows), in the order of the page; empty ones are left out.
CHAPTERS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "Summary": (frame.summarize_page, ()),
    "Machine": (frame.describe_machines, ()),
    "Speeds": (show_speeds, ("result",)),
    "Two settings decided": (documents.show_ab, ("ab",)),
    "Settings found": (documents.show_tuning, ("tuning",)),
    "Quality": (documents.show_quality, ("quality",)),
    "Guessing ahead": (documents.show_speculation, ("speculation",)),
    "Many at once": (show_users, ("result",)),
    "Layers on the GPU": (show_layers, ("result",)),
    "Memory": (documents.show_memory, ("overhead",)),
    "A token's time": (documents.show_token_time, ("time-ledger",)),
    "Under the roof": (documents.show_roofline, ("roofline",)),
    "Texts": (documents.show_texts, ("run",)),
    "Beside Ollama": (documents.show_ollama, ("ollama-comparison",)),
    "Beside llama.cpp's own programs": (frame.show_parity, ("parity",)),
    "Among published machines": (documents.show_published, ()),
    "Predictions": (documents.show_predictions, ()),
    "What this machine can show": (documents.show_noise, ("noise",)),
    "Failures": (frame.list_failures, ("failure",)),
    "Warnings": (frame.list_warnings, ()),
    "How it was measured": (_describe_method, ()),
}
