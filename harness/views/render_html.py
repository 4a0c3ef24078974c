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
from harness.views.document import Bars, Block, Code, Document, Footnotes, KeyFigures, Picture, Prose, Section, Table
from harness.views.drawing import to_svg
from harness.views.figures.bars import describe_bars
from harness.views.grid import phrase, write_figures, write_table
from harness.views.values import format_value

#: Sorts a table by the column that was clicked: numbers by data-key, text by the locale; what has no value stays last. Again: reversed.
_SCRIPT = """
"use strict";
for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, row = head.parentElement, body = row.closest("table").tBodies[0];
    const column = Array.prototype.indexOf.call(row.children, head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = line => {
      const cell = line.cells[column];
      return cell.dataset.key === undefined ? cell.textContent.trim() : Number(cell.dataset.key);
    };
    const empty = v => v === "" || v === "\\u2014";
    const order = (a, b) => {
      const x = value(a), y = value(b);
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      const sign = up ? 1 : -1;
      if (typeof x === "number" && typeof y === "number") return sign * (x - y);
      return sign * String(x).localeCompare(String(y), undefined, {numeric: true});
    };
    body.append(...Array.from(body.rows).sort(order));
  });
}
"""

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --stripe: #f6f8fa; --link: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --back: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --stripe: #151b23; --link: #4493f8; }
}
body { background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { border-bottom: 1px solid var(--line); font-size: 1.25rem; margin: 2.2rem 0 .8rem; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.made, .notes, nav, figcaption { color: var(--faint); font-size: .875rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1em; }
nav a { color: var(--link); text-decoration: none; white-space: nowrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .55rem; text-align: left; vertical-align: top; }
td { max-width: 24em; min-width: 9em; overflow-wrap: break-word; }
td.number, td.short { min-width: 0; }
td.number { text-align: right; }
td.number, td.short { white-space: nowrap; }
th.number { text-align: right; }
tbody tr:nth-child(even) { background: var(--stripe); }
th > button { background: none; border: 0; color: inherit; cursor: pointer; font: inherit; font-weight: 600; padding: 0; }
th > button { white-space: nowrap; }
th > button::after { content: " \\2195"; color: var(--line); }
th[aria-sort=ascending] > button::after { content: " \\2191"; color: inherit; }
th[aria-sort=descending] > button::after { content: " \\2193"; color: inherit; }
tr.total td { border-top: 1px solid var(--faint); font-weight: 600; }
td.part { padding-left: 1.8em; }
.warning::before { content: "! "; font-weight: 600; }
dl { display: grid; gap: .15rem 1.2rem; grid-template-columns: max-content 1fr; margin: .5rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
ol.notes { padding-left: 2.2em; }
figure { margin: 1rem 0; }
figure > div { overflow-x: auto; }
figure svg { height: auto; max-width: 62rem; min-width: 34rem; width: 100%; }
.bars { align-items: center; display: grid; gap: .3rem .8rem; grid-template-columns: fit-content(45%) 1fr max-content; }
.bars figcaption { grid-column: 1 / -1; }
.bars .name, .bars .value { font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.bars .value { text-align: right; }
.bar { position: relative; }
.bar > div { background: #0072b2; height: 1.1rem; print-color-adjust: exact; }
.bar > .between { background: #e69f00; height: .3rem; min-width: 2px; position: absolute; top: .4rem; }
@media (max-width: 40rem) {
  body { padding: .8rem; }
  table { font-size: .8rem; }
  th, td { padding: .25rem .35rem; }
  td { min-width: 6em; }
  th:first-child, td:first-child { background: var(--back); left: 0; max-width: 9em; position: sticky; }
  td:first-child:not(.number) { min-width: 7em; }
  td:first-child { overflow-wrap: anywhere; white-space: normal; }
  .bars { grid-template-columns: 1fr max-content; }
  .bars .name { grid-column: 1 / -1; }
}
@media print {
  :root { color-scheme: light; --back: #fff; --ink: #000; --faint: #444; --line: #bbb; --stripe: #fff; --link: #000; }
  body { font-size: 10.5pt; max-width: none; padding: 0; }
  nav, th > button::after { display: none; }
  tr, figure, dl { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide, figure > div { overflow: visible; }
  figure svg { min-width: 0; width: 13cm; }
  dl, h2 + p { break-after: avoid; }
}
"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="harness">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="made">{{ about }}</p>
{% if chapters | length > 1 %}<nav>\
{% for chapter, _ in chapters %}<a href="#s{{ loop.index }}">{{ chapter }}</a>{% endfor %}</nav>{% endif %}
{% for chapter, parts in chapters %}
<section id="s{{ loop.index }}">
{% if chapter %}<h2>{{ chapter }}</h2>{% endif %}
{% for part in parts %}{{ part }}{% endfor %}
</section>
{% endfor %}
<script>{{ script }}</script>
</body>
</html>
"""

_NOTES = """\
{% for text in notes %}<p class="notes">{{ text }}</p>
{% endfor %}{% if footnotes %}<ol class="notes">{% for text in footnotes %}<li>{{ text }}</li>{% endfor %}</ol>
{% endif %}"""

_BLOCKS: dict[Any, str] = {
    "heading": "<h{{ level }}>{{ text }}</h{{ level }}>\n",
    "warnings": '{% for text in texts %}<p class="warning">{{ text }}</p>\n{% endfor %}',
    Prose: """\
{% if block.is_list %}<ul>{% for text in block.paragraphs %}<li>{{ text }}</li>
{% endfor %}</ul>
{% else %}{% for text in block.paragraphs %}<p>{{ text }}</p>
{% endfor %}{% endif %}""",
    Code: "<pre>{% for line in block.lines %}{{ line }}\n{% endfor %}</pre>\n",
    KeyFigures: """\
{% if block.in_line %}<p class="facts">{{ found | join(" · ") }}</p>
{% else %}<dl>{% for name, value in found %}<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl>
{% endif %}"""
    + _NOTES,
    Table: """\
{% if grid.shared %}<p class="facts">{{ grid.shared | join(" · ") }}</p>
{% endif %}<div class="wide"><table>
<thead><tr>{% for head in grid.heads %}<th scope="col"{% if grid.sides[loop.index0] == "r" %} class="number"{% endif %}>\
<button type="button">{{ head }}</button></th>{% endfor %}</tr></thead>
<tbody>
{% for row, cells in grid.rows %}<tr{% if row.is_total %} class="total"{% endif %}>{% for cell in cells %}\
<td class="{{ classes(cell, loop.index0) }}{% if row.depth and loop.first %} part{% endif %}"\
{% if cell.key is not none %} data-key="{{ cell.key }}"{% endif %}>{{ cell.text }}</td>\
{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
"""
    + _NOTES,
    Picture: """\
<figure aria-label="{{ block.alt }}"><div>{{ drawing }}</div>\
{% if block.caption %}<figcaption>{{ block.caption }}</figcaption>{% endif %}</figure>
""",
    Bars: """\
<figure class="bars" aria-label="{{ alt }}"><figcaption>{{ block.title }}</figcaption>
{% for bar in bars %}<div class="name">{{ bar.label }}</div><div class="bar"><div style="width:{{ bar.width }}%"></div>\
{% if bar.right %}<div class="between" style="left:{{ bar.left }}%;width:{{ bar.right - bar.left }}%"></div>{% endif %}</div>\
<div class="value">{{ bar.text }}</div>
{% endfor %}{% if block.caption %}<figcaption>{{ block.caption }}</figcaption>{% endif %}</figure>
""",
}

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
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    writer = _Writer(Environment(autoescape=True, undefined=StrictUndefined), Markup)
    shown = [(chapter.title, writer.write(chapter)) for chapter in chapters]
    text = writer.environment.from_string(_PAGE).render(
        title=title, chapters=shown, about=about, policy=_policy(), style=Markup(_STYLE), script=Markup(_SCRIPT)
    )
    return harmless.lines(text)


class _Writer:
    """Writes blocks; counts pictures, so that their ids stay apart."""

    def __init__(self, environment: Any, markup: Any) -> None:
        self.environment, self._markup = environment, markup
        self._templates = {kind: environment.from_string(text) for kind, text in _BLOCKS.items()}
        self._n_pictures = 0

    def write(self, chapter: Chapter) -> list[Any]:
        parts = []
        for document in chapter.documents:
            level = 2
            if chapter.title:
                level = 3
                if document.title:
                    parts.append(self._fill("heading", level=level, text=document.title))
                    level = 4
            # A picture of the whole is looked at first.
            for section in sorted(document.sections, key=lambda section: not _is_drawn(section)):
                parts += self._section(section, level)
            parts.append(self._fill("warnings", texts=document.warnings))
        return parts

    def _section(self, section: Section, level: int) -> list[Any]:
        heading = [self._fill("heading", level=level, text=section.heading)] if section.heading else []
        return [*heading, *map(self._block, section.blocks)]

    def _fill(self, template: Any, **values: Any) -> Any:
        return self._markup(self._templates[template].render(**values))

    def _block(self, block: Block) -> Any:
        values: dict[str, Any] = {"block": block, "notes": (), "footnotes": ()}
        if isinstance(block, KeyFigures):
            notes = Footnotes()
            found = write_figures(block, notes)
            lines = [phrase(figure, text) for figure, text in found]
            values |= {
                "found": lines if block.in_line else [(figure.title, text) for figure, text in found],
                "footnotes": notes.texts(),
            }
        elif isinstance(block, Table):
            grid = write_table(block, share=True)

            def classes(cell: Any, at: int) -> str:
                return "number" if grid.sides[at] == "r" else "short" if len(cell.text) <= _SHORT else ""

            values |= {"grid": grid, "notes": grid.notes, "footnotes": grid.footnotes, "classes": classes}
        elif isinstance(block, Picture):
            self._n_pictures += 1
            # Safe: to_svg lets nothing through that is no drawing, and writes its text escaped.
            values["drawing"] = self._markup(to_svg(block.draw("page"), f"c{self._n_pictures}-"))
        elif isinstance(block, Bars):
            values |= {"alt": describe_bars(block), "bars": _measure_bars(block)}
        return self._fill(type(block), **values)


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


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
