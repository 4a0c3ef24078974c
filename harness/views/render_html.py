"""A Document as one HTML page: one file, no network, tables sort by click, light and dark, prints.

Everything that comes from records goes through the template's autoescape. The only exceptions are the pictures, which `drawing.to_svg`
has taken apart and put together again. A content security policy with the hash of the one script says the same to the browser a second
time: nothing is fetched, and no other script runs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.untrusted import harmless
from harness.views.document import Bars, Block, Document, KeyFigures, Picture, Section, Table
from harness.views.drawing import to_svg
from harness.views.figures.bars import describe_bars
from harness.views.grid import write_figures, write_table
from harness.views.values import format_value

#: Longer texts are broken into lines.
_SHORT = 28


@dataclass(frozen=True, slots=True)
class Chapter:
    """Documents under one heading of a page."""

    title: str
    documents: Sequence[Document]


def render(document: Document) -> str:
    """The page of one document."""
    return render_page(document.title or document.kind, [Chapter("", [document])], "Made by harness.")


def render_page(title: str, chapters: Sequence[Chapter], about: str) -> str:
    """One page of chapters; `about` says below its title what it is."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("harness.views"), autoescape=True, undefined=StrictUndefined)
    script, style = (PackageLoader("harness.views").get_source(environment, f"page.{end}")[0] for end in ("js", "css"))
    writer = _Writer(environment.get_template("blocks.html").module, Markup)
    shown = [(chapter.title, writer.write(chapter)) for chapter in chapters]
    text = environment.get_template("page.html").render(
        title=title, chapters=shown, about=about, policy=_policy(script), style=Markup(style), script=Markup(script)
    )
    return harmless.lines(text)


class _Writer:
    """Writes blocks by the template's macros; counts pictures, so that their ids stay apart."""

    def __init__(self, macros: Any, markup: Any) -> None:
        self._macros, self._markup = macros, markup
        self._n_pictures = 0

    def write(self, chapter: Chapter) -> list[Any]:
        parts = []
        for document in chapter.documents:
            level = 3 if chapter.title else 2
            if chapter.title and document.title:
                parts.append(self._macros.heading(level=level, text=document.title))
                level += 1
            # A picture of the whole is looked at first.
            for section in sorted(document.sections, key=lambda section: not _is_drawn(section)):
                blocks = [block for block in section.blocks if not isinstance(block, Table) or block.rows]
                if section.heading and blocks:
                    parts.append(self._macros.heading(level=level, text=section.heading))
                parts += map(self._block, blocks)
            parts.append(self._macros.warnings(texts=document.warnings))
        return parts

    def _block(self, block: Block) -> Any:
        values: dict[str, Any] = {}
        if isinstance(block, KeyFigures):
            found, footnotes = write_figures(block)
            values = {"found": [text for _, text in found] if block.in_line else found, "footnotes": footnotes}
        elif isinstance(block, Table):
            grid = write_table(block, share=True)

            def classes(cell: Any, at: int) -> str:
                return "number" if grid.sides[at] == "r" else "short" if len(cell.text) <= _SHORT else ""

            values = {"grid": grid, "classes": classes}
        elif isinstance(block, Picture):
            self._n_pictures += 1
            # Safe: to_svg lets nothing through that is no drawing, and writes its text escaped.
            values = {"drawing": self._markup(to_svg(block.draw("page"), f"c{self._n_pictures}-"))}
        elif isinstance(block, Bars):
            values = {"alt": describe_bars(block), "bars": _measure_bars(block)}
        return getattr(self._macros, type(block).__name__)(block, **values)


def _is_drawn(section: Section) -> bool:
    return bool(section.blocks) and all(isinstance(block, Picture | Bars) for block in section.blocks)


def _measure_bars(block: Bars) -> list[dict[str, Any]]:
    """Lengths in percent of the longest."""
    longest = max((max(bar.value, *(bar.interval or (0,))) for bar in block.bars), default=0) or 1
    found = []
    for bar in block.bars:
        ends = [round(100 * max(end, 0) / longest, 2) for end in (bar.value, *(bar.interval or ()))]
        low, high = ends[1:] or (0, 0)
        text = format_value(bar.value, block.unit)
        found.append({"label": bar.label, "text": text, "width": ends[0], "left": low, "right": high})
    return found


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
