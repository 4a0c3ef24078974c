"""Text from strangers made harmless wherever it is shown: file names, headers of models, llama.cpp's log, answers of servers, generated
text.

What does harm: control characters (C0 with escape sequences, DEL, C1), bidirectional marks and other invisible format characters, line
and paragraph separators, and halves of surrogate pairs, which no encoder takes. Each becomes ``�``, so that it is seen that something
was there and columns stay where they are. Source: Unicode's general categories Cc, Cf, Cs, Zl, Zp (Unicode Standard, chapter 4.5).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

#: Stands for one character that was taken out.
REPLACEMENT = "\ufffd"

_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}

#: Everything that has to be looked at one by one: what is not printable ASCII, tab or line feed.
_SUSPECT = re.compile(r"[^\t\n -~]")

_LINE_ENDS = re.compile("\r\n|[\t\n\v\f\r\x85\u2028\u2029]")

#: Joiners: invisible, and part of words in Persian and Hindi and of most emoji.
_JOINERS = {"\u200c", "\u200d"}


def line(text: str) -> str:
    """For one line, such as a name or a sentence: line ends and tabs become blanks."""
    return text if text.isascii() and text.isprintable() else lines(_LINE_ENDS.sub(" ", text))


def lines(text: str) -> str:
    """For a page of lines: line feeds and tabs stay."""
    return _SUSPECT.sub(lambda match: REPLACEMENT if _does_harm(match[0]) else match[0], text)


def prose(text: str) -> str:
    """For generated text: as `lines`, and joiners stay; a carriage return, which would overwrite the line, is left out."""
    return _SUSPECT.sub(lambda match: match[0] if match[0] in _JOINERS else lines(match[0]), text.replace("\r", ""))


def json_text(values: Any, *, indent: int | None = 2) -> str:
    """JSON that loses nothing and is harmless to a terminal: what does harm stands as ``\\u202e``.

    Raises
    ------
    TypeError : a value that JSON does not have.
    """
    import json  # where it is used: --help has none

    return escape_json(json.dumps(values, ensure_ascii=False, indent=indent))


def escape_json(text: str) -> str:
    """JSON as `json_text` writes it, from JSON that holds characters as they are."""
    import json

    return _SUSPECT.sub(lambda match: json.dumps(match[0])[1:-1] if _does_harm(match[0]) else match[0], text)


def markdown(text: str) -> str:
    """For a cell or a line of Markdown: nothing in it ends the cell or begins markup, code, a link or a picture."""
    text = re.sub(r"([\\|`])", r"\\\1", line(text))
    return text.replace("<", "&lt;").replace("](", r"]\(")


def csv_cell(text: str) -> str:
    """For a cell of CSV: one that a spreadsheet would take for a formula gets an apostrophe in front.

    Source: OWASP, CSV Injection. Programs that compare runs read numbers and plain names, which stay as they are.
    """
    text = lines(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def sql_text(text: str) -> str:
    """A string as SQL writes it, quotes included."""
    return "'" + lines(text).replace("'", "''") + "'"


def _does_harm(character: str) -> bool:
    return unicodedata.category(character) in _HARMFUL
