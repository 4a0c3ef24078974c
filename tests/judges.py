"""What text of strangers must not be in each output: a judge a format, which says what it found wrong."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import unicodedata
from xml.etree import ElementTree

import wcwidth

#: What no output holds, in any format. Variation selectors and fillers are invisible, too.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff\ufffe\uffff]"
)


def judge_characters(text: str) -> list[str]:
    """Characters that a terminal obeys, that turn text around, that nobody sees, and heaps of marks."""
    found = [
        f"U+{ord(c):04X}"
        for c in set(text)
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"
    ]
    found += [f"U+{ord(c):04X}" for c in set(_INVISIBLE.findall(text))]
    marks = "".join("m" if unicodedata.category(c) in ("Mn", "Me") else "." for c in text) if not text.isascii() else ""
    return sorted(found) + (["a heap of marks"] if "m" * 5 in marks else [])


def judge_table(text: str, columns: int = 80) -> list[str]:
    """A page for a terminal: no line wider than it is, but those that are there to be copied, which are indented."""
    wide = [
        line
        for line in text.split("\n")
        if sum(max(wcwidth.wcwidth(c), 0) for c in line) > columns and line[:2] != "  "
    ]
    return judge_characters(text) + [f"too wide: {line[:40]!r}" for line in wide]


_ESCAPED = re.compile(r"\\[!-/:-@\[-`{-~]")
_MARKUP = {
    "a tag": re.compile(r"<(?!!-- -->)"), "a link or a picture": re.compile(r"\]\(|!\["), "a definition or a reference": re.compile(r"\][\[:]"),
    "code": re.compile("`"), "a formula": re.compile(r"\$"), "an address": re.compile(r"(?i)://|www\."),
    "an entity": re.compile(r"&(?!(?:lt|amp);)#?\w+;"), "a mention": re.compile(r"@\w"), "emphasis": re.compile(r"\*(?!\*)(?<!\*\*)"),
    "struck-out text": re.compile(r"~\S|\S~"),
    "a heading": re.compile(r"(?m)^ {0,3}(?:- )?#{1,6} EVIL"), "a quotation": re.compile(r"(?m)^ {0,3}(?:- )?>"),
    "a rule or a heading below": re.compile(r"(?m)^ {0,3}(?:=+|-{3,})$"), "a list of strangers": re.compile(r"(?m)^ {0,3}(?:[+*]|\d+[.)]) EVIL"),
}  # fmt: skip


def judge_md(text: str) -> list[str]:
    """Markdown without its blocks of code and its escapes: markup that is left is somebody's, for our own is titles, lists,
    tables and commands of harness."""
    bare = "".join(re.split(r"(?ms)^(```+)\n.*?^\1$", text)[::2])
    bare = re.sub(r"(?<![\\`$])`harness(?: [\w.:/=+,-]+)*`(?![`$])", "¤", _ESCAPED.sub("¤", bare))
    bare = "\n".join(line for line in bare.split("\n") if not re.fullmatch(r"[|:\- ]+", line))
    bare = re.sub(r"(?m)^\*\*(.*)\*\*$", r"\1", bare)
    found = judge_characters(text) + [what for what, pattern in _MARKUP.items() if pattern.search(bare)]
    for rows in re.findall(r"(?m)(?:^\|.*\n?)+", text):
        if len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows.splitlines()}) != 1:
            found.append("a cell too many")
    return found


def judge_csv(text: str) -> list[str]:
    """No cell that a spreadsheet calculates, however it parts cells; as many cells in each row as there are names."""
    found = judge_characters(text)
    csv.field_size_limit(10**9)
    rows = list(csv.reader(io.StringIO(text)))
    if len({len(row) for row in rows}) > 1:
        found.append("a cell too many")
    cells = [cell for row in rows for cell in row]
    for separator in ";\t":
        cells += [cell for row in csv.reader(io.StringIO(text), delimiter=separator) for cell in row[1:]]
    formulas = [
        cell
        for cell in cells
        if cell.strip(" \t\"'")[:1] in tuple("=+-@\uff1d\uff0b\uff0d\uff20") and not cell.startswith("'")
    ]
    return found + [f"a formula: {cell[:20]!r}" for cell in formulas if cell and not _is_number(cell)]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text) is not None


def judge_json(text: str) -> list[str]:
    json.loads(text)
    return judge_characters(text)


def judge_jsonl(text: str) -> list[str]:
    for line in text.splitlines():
        json.loads(line)
    return judge_characters(text)


#: What pages of ours are made of; svg elements are those of views/drawing.
_TAGS = {
    "html", "head", "meta", "link", "title", "style", "body", "h1", "h2", "h3", "h4", "h5", "h6", "p", "nav", "a", "section", "script", "table",
    "thead", "tbody", "tr", "th", "td", "button", "ul", "ol", "li", "dl", "dt", "dd", "pre", "div", "figure", "figcaption",
    "svg", "defs", "g", "path", "clippath", "rect", "use", "text", "tspan", "image", "lineargradient", "stop", "circle",
}  # fmt: skip
_FOLLOWED = ("href", "src", "action", "srcset", "xlink:href", "formaction", "data")


class _Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._n_scripts, self._inside = 0, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self._n_scripts += tag == "script"
        if tag not in _TAGS or self._n_scripts > 1:
            self.found.append(f"a tag {tag}")
        for name, value in attrs:
            if name.startswith("on") or (
                name in _FOLLOWED and not (value or "").startswith(("#", "data:,", "data:image/png;"))
            ):
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, data):
        if self._inside in ("script", "style") and "EVIL" in data:
            self.found.append(f"in a {self._inside}")

    def handle_endtag(self, tag):
        self._inside = ""


def judge_html(text: str) -> list[str]:
    """A page of our own tags, without links elsewhere and handlers, with one script."""
    return judge_characters(text) + _Page(text).found


def judge_svg(data: bytes) -> list[str]:
    """A drawing that XML takes, of elements that draw."""
    tags = {element.tag.rpartition("}")[2].lower() for element in ElementTree.fromstring(data).iter()}
    extra = tags - _TAGS - {"metadata", "rdf", "work", "type", "format", "creator", "agent", "title"}
    return judge_characters(data.decode("utf-8")) + sorted(f"a tag {tag}" for tag in extra)


JUDGES = {
    "table": judge_table,
    "md": judge_md,
    "csv": judge_csv,
    "json": judge_json,
    "jsonl": judge_jsonl,
    "html": judge_html,
}
