"""A Document as text of the page's width (`page`)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.views import page
from harness.views.document import Bars, Block, Code, Column, Document, KeyFigures, Picture, Prose, Section, Table
from harness.views.grid import Grid, write_figures, write_table


def render(document: Document) -> str:
    """Title, sections and warnings, one below the other, at most as wide as the page."""
    parts = [page.fill(document.title)] if document.title else []
    parts += [text for section in document.sections if (text := _section(section))]
    parts += ["\n".join(page.fill(f"! {text.rstrip('.')}.") for text in document.warnings)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(section: Section) -> str:
    """The heading, then the blocks; what rows of the only table share stands above them all, with other facts of one line."""
    tables = [block for block in section.blocks if isinstance(block, Table)]
    grids = {id(table): _fit(table) for table in tables}
    lines = [page.heading(grids[id(tables[0])][0].shared)] if len(tables) == 1 else []
    texts = []
    for block in section.blocks:
        if isinstance(block, KeyFigures) and block.in_line:
            lines.append(_block(block))
            continue
        text = _table(block, *grids[id(block)], len(tables) > 1) if isinstance(block, Table) else _block(block)
        if text:
            texts += ["\n".join(filter(None, lines)), text]
            lines = []
    body = "\n\n".join(filter(None, [*texts, "\n".join(filter(None, lines))]))
    return f"{page.fill(section.heading)}\n{body}" if section.heading and body else body


def _block(block: Block) -> str:
    if isinstance(block, KeyFigures):
        return _figures(block)
    if isinstance(block, Prose):
        first, rest = ("- ", "  ") if block.is_list else ("", "")
        return "\n".join(page.fill(text, first=first, rest=rest) for text in block.paragraphs)
    if isinstance(block, Code):
        return "\n".join(f"  {line}" for line in block.lines)
    assert isinstance(block, Picture | Bars | Table)
    return ""


def _figures(block: KeyFigures) -> str:
    found, footnotes = write_figures(block)
    if block.in_line:
        lines = [page.heading([text for _, text in found])]
    else:
        titles = [page.cut_middle(title, page.width() // 2) for title, _ in found]
        widest = max(map(page.columns_of, titles), default=0) + 2
        firsts = [title + " " * (widest - page.columns_of(title)) for title in titles]
        lines = [
            page.fill(text, first=first, rest=" " * widest) for first, (_, text) in zip(firsts, found, strict=True)
        ]
    return "\n".join([*lines, *_footnotes(footnotes)])


def _table(table: Table, grid: Grid, left_out: Sequence[str], is_headed: bool) -> str:
    if not grid.rows or not grid.heads:
        return ""
    rows = [list(cells) for cells in grid.texts()]
    for (row, _), texts in zip(grid.rows, rows, strict=True):
        texts[0] = "  " * row.depth + ("= " if row.is_total else "") + texts[0]
    body = page.table(grid.heads, rows, grid.sides, [column.wraps for column in grid.columns])
    below = [page.fill(text) for text in (*grid.notes, *left_out)] + _footnotes(grid.footnotes)
    above = [page.heading(grid.shared), ""] if grid.shared and is_headed else []
    return "\n".join([*above, body, *([""] if below else []), *below])


def _footnotes(texts: Sequence[str]) -> list[str]:
    return [page.fill(f"[{number}] {text}", rest="    ") for number, text in enumerate(texts, start=1)]


def _fit(table: Table) -> tuple[Grid, list[str]]:
    """The table with as many of its columns as fit the page, and what is said of those that do not."""
    without: list[Column] = []
    while True:
        grid = write_table(table, share=True, without=without)
        droppable = [column for column in grid.columns if column.left_out]
        if page.least_width(grid.heads, grid.texts(), grid.sides) <= page.width() or not droppable:
            break
        without.append(max(droppable, key=lambda column: column.left_out))
    names = [" ".join((column.title or column.name).split("\n")) for column in table.columns if column in without]
    return grid, [f"left out for width: {', '.join(names)} (-o csv and -o json have them)"] if names else []
