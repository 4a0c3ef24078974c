"""A Document as Markdown, for an issue."""

from __future__ import annotations

from collections.abc import Sequence

from harness.untrusted import harmless
from harness.views import page
from harness.views.document import Bars, Block, Code, Document, KeyFigures, Picture, Prose, Section, Table
from harness.views.grid import write_figures, write_table

#: Keeps its width where Markdown drops blanks.
_INDENT = "\u2003"


def render(document: Document) -> str:
    """Title, sections and warnings; nothing in them begins markup of its own."""
    parts = [f"**{harmless.markdown(document.title)}**"] if document.title else []
    parts += [text for section in document.sections if (text := _section(section))]
    parts += ["\n".join(f"- {harmless.markdown_sentence(text)}" for text in document.warnings)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(section: Section) -> str:
    texts = [text for block in section.blocks if (text := _block(block))]
    heading = [f"### {harmless.markdown(section.heading)}"] if section.heading and texts else []
    return "\n\n".join([*heading, *texts])


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, KeyFigures):
        found, footnotes = write_figures(block)
        if block.in_line:
            body = " · ".join(harmless.markdown(text) for _, text in found)
        else:
            body = "\n".join(f"- {harmless.markdown(f'{title}: {text}')}" for title, text in found)
        return _with_notes(body, (), footnotes)
    if isinstance(block, Prose):
        mark, gap = ("- ", "\n") if block.is_list else ("", "\n\n")
        return gap.join(f"{mark}{harmless.markdown_sentence(text)}" for text in block.paragraphs)
    if isinstance(block, Code):
        return "\n".join(harmless.fence(block.lines))
    assert isinstance(block, Picture | Bars)
    return ""


def _table(table: Table) -> str:
    grid = write_table(table, share=False)
    if not grid.rows or not grid.heads:
        return ""
    rows = [[" ".join(text.split("\n")) for text in texts] for texts in grid.texts()]
    for (row, _), texts in zip(grid.rows, rows, strict=True):
        texts[0] = _INDENT * row.depth + ("= " if row.is_total else "") + texts[0]
    heads = [" ".join(head.split("\n")) for head in grid.heads]
    return _with_notes(page.markdown(heads, rows, grid.sides), grid.notes, grid.footnotes)


def _with_notes(body: str, notes: Sequence[str], footnotes: Sequence[str]) -> str:
    below = [*notes, *(f"[{number}]  {text}" for number, text in enumerate(footnotes, start=1))]
    return "\n\n".join(filter(None, [body, "  \n".join(harmless.markdown_sentence(text) for text in below)]))
