"""The page around the sections: one file, no network, sorts by click, light and dark, prints.

Everything that comes from records goes through the template's autoescape. The only exceptions are the pictures, which `picture.to_svg`
has taken apart and put together again. A content security policy with the hash of the one script says the same to the browser a second
time: nothing is fetched, and no other script runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.untrusted import harmless
from harness.views.drawing import to_svg
from harness.views.render_html import _SCRIPT, _STYLE, _policy
from harness.views.report.parts import Chart, Facts, Points, Prose, Section, Table

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
