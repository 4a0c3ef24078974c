"""`harness man`: the manual page, made of the help of every command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

import harness
from harness.cli import COMMANDS, cli, terminal
from harness.errors import Outcome

_EXAMPLES = """
\b
Examples:
  harness man | man -l -
  harness man >~/.local/share/man/man1/harness.1
"""

_ENDS = {
    Outcome.OK: "Everything that was asked for was done.",
    Outcome.OTHER: "Something else went wrong.",
    Outcome.QUESTION: "The question was put wrongly: an option, a file.",
    Outcome.NATIVE: "llama.cpp refused, failed or died; what else was asked for was measured.",
    Outcome.STORE: "Records could not be written.",
    Outcome.NOT_TRUSTED: "Measured, but not to be trusted; the verdict says why.",
    Outcome.LIMIT: "What was compared is proved to lie beyond the limit of --fail-if.",
    Outcome.INTERRUPTED: "Ended by Ctrl-C or a signal; what was measured is shown and kept.",
}
_VARIABLES = {
    "HARNESS_RESULTS": "Folder that records are kept in, as --results.",
    "HARNESS_DEBUG": "Set, it shows where an unexpected error came from.",
    "HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE": "As huggingface_hub has them.",
    "OLLAMA_HOST, OLLAMA_MODELS": "As Ollama has them.",
    "COLUMNS": "How wide pages are, from 60 to 200.",
}


@click.command("man", epilog=_EXAMPLES)
def command() -> None:
    """Write the manual page, harness(1), for man."""
    terminal.show("\n".join(write_manual()))


def write_manual() -> Iterator[str]:
    """The lines of the manual page, in the man macros of roff."""
    yield f'.TH HARNESS 1 "" "harness {harness.__version__}" "User Commands"'
    yield from (".SH NAME", r"harness \- measure GGUF language models through llama.cpp, in-process")
    yield from (".SH SYNOPSIS", ".B harness", _escape("COMMAND [ARGS]..."), ".SH DESCRIPTION")
    yield from _paragraphs(cli.help or "")
    yield ".SH COMMANDS"
    root = click.Context(cli, info_name="harness", **cli.context_settings)  # with -h, as the commands have it
    for name in COMMANDS:
        found = cli.get_command(root, name)
        assert found is not None
        yield from _write_command(click.Context(found, root, info_name=name))
    for title, terms in (
        ("EXIT STATUS", {str(int(end)): text for end, text in _ENDS.items()}),
        ("ENVIRONMENT", _VARIABLES),
    ):
        yield f".SH {title}"
        yield from _list(terms.items())


def _write_command(ctx: click.Context) -> Iterator[str]:
    yield f".SS {_escape(ctx.command_path)}"
    yield _escape(" ".join(["harness", ctx.info_name or "", *ctx.command.collect_usage_pieces(ctx)]))
    yield ".PP"
    yield from _paragraphs(ctx.command.help or "")
    records = [param.get_help_record(ctx) for param in ctx.command.get_params(ctx)]
    yield from _list(record for record in records if record)
    yield from _paragraphs(ctx.command.epilog or "")


def _list(terms: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in terms:
        yield from (".TP", f".B {_escape(term)}", _escape(text))


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a help text; one that begins with \\b keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", re.sub(r"\n *(\b\n)", r"\n\n\1", text.strip("\n"))):
        if paragraph.lstrip().startswith("\b"):
            lines = [line for line in paragraph.split("\n") if line.strip(" \b")]
            yield from (".PP", ".nf", *map(_escape, lines), ".fi")
        else:
            yield from (".PP", _escape(" ".join(paragraph.split())))


def _escape(text: str) -> str:
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"[^\x00-\x7f]", lambda match: rf"\[u{ord(match[0]):04X}]", text)
    return rf"\&{text}" if text.startswith((".", "'")) else text
