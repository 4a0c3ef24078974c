"""Every way to write a Document. A format is one module, ``render_NAME.py``, with a function ``render(document) -> str``; nothing else
knows its name."""

from __future__ import annotations

import importlib
import pkgutil

import harness.views
from harness.views.document import Document

_PREFIX = "render_"

#: Shown first, and used where nobody asks for another.
USUAL = "table"


def format_names() -> list[str]:
    """Names of all formats, the usual one first."""
    modules = [module.name for module in pkgutil.iter_modules(harness.views.__path__)]
    names = [name.removeprefix(_PREFIX) for name in modules if name.startswith(_PREFIX)]
    return sorted(names, key=lambda name: (name != USUAL, name))


def render(document: Document, form: str) -> str:
    """Write a document in a format of `format_names`."""
    text: str = importlib.import_module(f"harness.views.{_PREFIX}{form}").render(document)
    return text
