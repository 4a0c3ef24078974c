"""The page around the sections: one file, no network, sorts by click, light and dark, prints.

Everything that comes from records goes through the template's autoescape. The only exceptions are the pictures, which `picture.to_svg`
has taken apart and put together again. A content security policy with the hash of the one script says the same to the browser a second
time: nothing is fetched, and no other script runs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from harness.untrusted import harmless
from harness.views.report.parts import Chart, Facts, Points, Prose, Section, Table
from harness.views.report.picture import to_svg

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
dl { display: grid; gap: .15rem 1.2rem; grid-template-columns: max-content 1fr; margin: .5rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
ol.notes { padding-left: 2.2em; }
figure { margin: 1rem 0; }
figure > div { overflow-x: auto; }
figure svg { height: auto; max-width: 48rem; min-width: 34rem; width: 100%; }
.dark { display: none; }
@media (prefers-color-scheme: dark) { .dark { display: block; } .light { display: none; } }
@media print {
  :root { color-scheme: light; --back: #fff; --ink: #000; --faint: #444; --line: #bbb; --stripe: #fff; --link: #000; }
  body { font-size: 10.5pt; max-width: none; padding: 0; }
  .dark { display: none; } .light { display: block; }
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
<meta name="generator" content="harness {{ version }}">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="made">Made by harness {{ version }} on {{ made }}. A column sorts when its heading is clicked.</p>
<nav>{% for section in sections %}<a href="#s{{ loop.index }}">{{ section.title }}</a>{% endfor %}</nav>
{% for section in sections %}
<section id="s{{ loop.index }}">
<h2>{{ section.title }}</h2>
{% for part in section.parts %}{{ part }}{% endfor %}
</section>
{% endfor %}
<script>{{ script }}</script>
</body>
</html>
"""

_PARTS = {
    Prose: "{% for text in part.paragraphs %}<p>{{ text }}</p>\n{% endfor %}",
    Points: "<ul>{% for text in part.items %}<li>{{ text }}</li>\n{% endfor %}</ul>\n",
    Facts: """\
{% if part.title %}<h3>{{ part.title }}</h3>{% endif %}
<dl>{% for name, value in part.pairs %}<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl>
""",
    Table: """\
<div class="wide"><table>
<thead><tr>{% for head in part.headers %}<th scope="col"{% if numeric[loop.index0] %} class="number"{% endif %}>\
<button type="button">{{ head }}</button></th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.cells() %}<tr>{% for cell in row %}\
<td{% if numeric[loop.index0] %} class="number"{% elif cell.is_short %} class="short"{% endif %}\
{% if cell.is_number %} data-key="{{ cell.key }}"{% endif %}>\
{{ cell.text }}</td>\
{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% for text in part.remarks %}<p class="notes">{{ text }}</p>{% endfor %}
{% if part.notes %}<ol class="notes">{% for text in part.notes %}<li>{{ text }}</li>{% endfor %}</ol>{% endif %}
""",
    Chart: """\
<figure aria-label="{{ part.alt }}"><div class="light">{{ light }}</div><div class="dark">{{ dark }}</div>\
{% if part.caption %}<figcaption>{{ part.caption }}</figcaption>{% endif %}</figure>
""",
}


def render_page(title: str, sections: Sequence[Section], *, made_utc: str, version: str) -> str:
    """Put sections into one HTML page."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    templates = {kind: environment.from_string(text) for kind, text in _PARTS.items()}
    number = iter(range(10_000))

    def show(part: Any) -> Markup:
        extra: dict[str, Any] = {}
        if isinstance(part, Table):
            extra["numeric"] = _numeric_columns(part)
        if isinstance(part, Chart):
            at = next(number)
            # Safe: to_svg lets nothing through that is no drawing, and writes its text escaped.
            extra = {theme: Markup(to_svg(part.draw(theme), f"c{at}{theme}-")) for theme in ("light", "dark")}
        return Markup(templates[type(part)].render(part=part, **extra))

    shown = [{"title": section.title, "parts": [show(part) for part in section.parts]} for section in sections]
    text = environment.from_string(_PAGE).render(
        title=title, sections=shown, made=made_utc, version=version, policy=_policy(),
        style=Markup(_STYLE), script=Markup(_SCRIPT),
    )  # fmt: skip
    return harmless.lines(text)


def _numeric_columns(table: Table) -> list[bool]:
    """Columns that hold numbers are aligned to the right, whatever is missing in them."""
    rows = table.cells()
    return [any(row[at].is_number for row in rows) for at in range(len(table.headers))]


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
