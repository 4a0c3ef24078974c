"""Text from strangers made harmless wherever it is shown: file names, headers of models, llama.cpp's log, answers of servers, generated
text.

What does harm: control characters (C0 with escape sequences, DEL, C1), bidirectional marks and other invisible format characters, line
and paragraph separators, halves of surrogate pairs, which no encoder takes, and what is no character at all, which XML refuses. Each
becomes ``�``, so that it is seen that something was there and columns stay where they are. So does each mark that is heaped on one
letter beyond what languages need, and which would run over the lines above and below.
Source: Unicode's general categories Cc, Cf, Cs, Zl, Zp (Unicode Standard, chapter 4.5), noncharacters (chapter 23.7), and
Default_Ignorable_Code_Point (DerivedCoreProperties.txt).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable, Iterator
from typing import Any

#: Stands in a command for a name that shells would take for more than a name.
WITHHELD = "NAME"

#: Stands for one character that was taken out.
REPLACEMENT = "\ufffd"

#: Characters of a line at the most: twice the longest sentence of ours, and what a terminal shows at once.
LONGEST_LINE = 4000

_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}

#: Invisible characters of other categories: joiners and fillers of scripts, variation selectors, and what is reserved for more of them.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)

#: Marks that one letter may carry: Vietnamese takes two, pointed Hebrew and Arabic four.
_MOST_MARKS = 4

#: Everything that has to be looked at one by one: what is not printable ASCII, tab or line feed.
_SUSPECT = re.compile(r"[^\t\n -~]+")

_LINE_ENDS = re.compile("\r\n|[\t\n\v\f\r\x85\u2028\u2029]")

#: Joiners and selectors: invisible, and part of words in Persian and Hindi and of most emoji.
_JOINERS = {"\u200c", "\u200d", "\ufe0e", "\ufe0f"}


def line(text: str) -> str:
    """For one line, such as a name or a sentence: line ends and tabs become blanks, and nothing is put upon what stands before it.

    What is longer than `LONGEST_LINE` is no name and no sentence, and is cut off.
    """
    if len(text) > LONGEST_LINE:
        text = text[: LONGEST_LINE - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    text = _LINE_ENDS.sub(" ", text)
    return lines(REPLACEMENT + text[1:] if text and _is_mark(text[0]) else text)


def lines(text: str) -> str:
    """For a page of lines: line feeds and tabs stay."""
    return _SUSPECT.sub(lambda match: _replace(match[0]), text)


def prose(text: str) -> str:
    """For generated text: as `lines`, and joiners stay; a carriage return, which would overwrite the line, is left out."""
    return _SUSPECT.sub(lambda match: _replace(match[0], _JOINERS), text.replace("\r", ""))


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

    def escape(match: re.Match[str]) -> str:
        return "".join(json.dumps(c)[1:-1] if is_harmful else c for c, is_harmful in _judge(match[0]))

    return _SUSPECT.sub(escape, text)


def markdown(text: str) -> str:
    """For a cell or a line of Markdown: nothing in it ends the cell or begins markup, code, a link, a picture, a formula or a mention.

    Source: CommonMark 0.31 and GitHub Flavored Markdown (strikethrough, autolinks, footnotes), GitHub's mentions and mathematics.
    """
    text = _MARKUP.sub(r"\\\g<0>", line(text).lstrip(" "))
    text = _ENTITY.sub("&amp;", text).replace("<", "&lt;")
    text = _BEGINNING.sub(r"\1\\\2", text)
    return _MENTION.sub("@<!-- -->", text)  # GitHub looks for them when all escapes are gone


def markdown_sentence(text: str) -> str:
    """The same for a sentence of ours that names a command, as `harness ab`: that is code.

    Strangers' text in it begins none. Were it to imitate such a command, nothing but plain words would stand in another type.
    """
    return _OWN_COMMAND.sub(r"`\1`", markdown(text))


def fence(text: Iterable[str]) -> list[str]:
    """Lines of code for Markdown, between fences that none of them ends."""
    inside = [line(one) for one in text]
    longest = max((len(run) for one in inside for run in re.findall("`+", one)), default=0)
    mark = "`" * max(3, longest + 1)
    return [mark, *inside, mark]


def csv_cell(text: str) -> str:
    """For a cell of CSV: what a spreadsheet would take for a formula gets an apostrophe in front.

    So does what begins behind a semicolon, a tab or a line end: where the decimal sign is a comma, a spreadsheet parts cells by others,
    and quotes do not hold them together. Source: OWASP, CSV Injection. Numbers and plain names stay as they are.
    """
    return _FORMULA.sub(r"\1'", lines(text))


def sql_text(text: str) -> str:
    """A string as SQL writes it, quotes included."""
    return "'" + lines(text).replace("'", "''") + "'"


def shell_word(text: str) -> str | None:
    """A word of a command line that is one word to a POSIX shell, to PowerShell and to cmd; None for what no quotes can make one.

    Bare where nothing in it means anything to any of them, else between double quotes, inside of which all three leave it alone; else,
    as for a pattern with a ``$``, between single ones, which cmd does not know but which hold nothing then that it would act upon.
    Source: POSIX.1-2024, Shell Command Language, 2.2; about_Quoting_Rules of PowerShell, which takes typographic quotes for quotes.
    """
    if _BARE_WORD.fullmatch(text):
        return text
    if line(text) != text:
        return None
    escapes = text.endswith("\\") or "\\\\" in text  # the quote, and itself
    if not escapes and not _DOUBLE_UNSAFE.search(text):
        return f'"{text}"'
    return None if _SINGLE_UNSAFE.search(text) else f"'{text}'"


def shell_line(words: Iterable[str]) -> str:
    """Words as one command line; `WITHHELD` stands for each that `shell_word` cannot write."""
    return " ".join(WITHHELD if (word := shell_word(text)) is None else word for text in words)


def command(*words: object) -> str:
    """A command in a sentence, between backticks."""
    return f"`{shell_line(map(str, words))}`"


#: What begins markup anywhere, as it is escaped: emphasis (of underscores that of whole words), code, cells, formulas, links and notes
#: (by what follows the bracket), struck-out text, addresses.
_MARKUP = re.compile(
    r"[\\|`*$]|(?<![^\W_])_|_(?![^\W_])|~(?=\S)|(?<=\S)~|(?<=\])[(\[:]|(?<=:)//|(?<=www)\.|!(?=\[)", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?=#?\w+;)")
_BEGINNING = re.compile(r"^([0-9]{0,9})(#|>|=(?==*$)|[-+](?= |$|-)|(?<=[0-9])[.)](?= |$))")
_MENTION = re.compile(r"@(?=\w)")
#: As `markdown` has escaped it; alone, since GitHub takes a dollar sign before a backtick for a formula.
_OWN_COMMAND = re.compile(r"(?<![\\`$])\\`(harness(?: [A-Za-z0-9_.:/=+,-]+)*)\\`(?![\\`$])")

#: What spreadsheets calculate; those of East Asian input methods count as the narrow ones.
_FORMULA = re.compile("(^|[;\t\n|])(?=[\\s\"']*[=+@\uff1d\uff0b\uff0d\uff20-])")

_BARE_WORD = re.compile(r"[A-Za-z0-9_./:+][A-Za-z0-9_./:=+,@-]*|-{1,2}[A-Za-z0-9][A-Za-z0-9_.,:=/-]*")
_DOUBLE_UNSAFE = re.compile('[$`"%!\u201c-\u201f]')
_SINGLE_UNSAFE = re.compile("['&|<>^%\"\u2018-\u201b]")


def _replace(run: str, but: Container[str] = ()) -> str:
    return "".join(REPLACEMENT if is_harmful and c not in but else c for c, is_harmful in _judge(run))


def _judge(run: str) -> Iterator[tuple[str, bool]]:
    """Each character of a run without printable ASCII, and whether it does harm."""
    n_marks = 0
    for character in run:
        n_marks = n_marks + 1 if _is_mark(character) else 0
        yield character, n_marks > _MOST_MARKS or _does_harm(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me")


def _does_harm(character: str) -> bool:
    if unicodedata.category(character) in _HARMFUL or _INVISIBLE.match(character):
        return True
    code = ord(character)
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
