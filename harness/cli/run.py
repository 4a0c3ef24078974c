"""`harness run`: a model writes a text, and Ollama's figures of it."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import one_reference, refuse_contradiction, results_option, save_option
from harness.cli.record_writer import Keeper
from harness.cli.writing import find_model, writing_options
from harness.errors import NativeError, UsageError
from harness.gguf.model_kinds import Question, refuse_context
from harness.host.machine import LOAD_CAUTIONS
from harness.records.text import REFERENCE_PROMPT, TextRequest, TextRun
from harness.runs.asking import read_for

_EXAMPLES = f"""
\b
Examples:
  harness run                             {REFERENCE_PROMPT}
  harness run "Why is the sky blue?" --gpu-layers 0
  harness run --temp 0 --max-tokens 100   the same text each time
  harness run < question.txt              the prompt from a file
  harness run --raw "Once upon a time"    without the chat template
  harness run -o json | jq .response
"""


@click.command(
    "run",
    epilog=_EXAMPLES,
    short_help="Have a model write a text, with Ollama's figures of it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@one_reference()
@writing_options
@click.option("--raw", is_flag=True, help="Hand the prompt over without the chat template.")
@click.option("--system", metavar="TEXT", help="A system message, where the template has one.")
@click.option(
    "--verbose/--no-verbose", default=True, help="End with the figures of ollama run --verbose, on stderr. [on]"
)
@click.option("--verbose-json", is_flag=True, help="The figures as a line of JSON in Ollama's names, on stderr.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text",
    help="json: text and figures as /api/generate gives them. [text]",
)  # fmt: skip
@click.option("--keep-text", is_flag=True, help="Put prompt and text into the record too.")
@save_option
@results_option
def command(words: tuple[str, ...], reference: str | None, **options: Any) -> None:
    """Have a model write a text, streamed as it comes, and end with the figures of `ollama run --verbose` and the time to the first
    token.

    The prompt may be piped in, or be - for stdin. A record holds the figures, the number of the prompt's tokens and a hash of it,
    but neither prompt nor text.
    """
    refuse_contradiction(
        options["verbose_json"] and not options["verbose"],
        "--verbose-json and --no-verbose exclude each other; leave one out.",
    )
    prompt = _read_prompt(words)
    _check_text(options["system"] or "", "system message")
    path = find_model(reference)
    header = read_for(path, Question.TEXT)
    if header is not None and options["n_ctx"]:
        refuse_context(header, options["n_ctx"], path.name, "--ctx")
    request = TextRequest(
        model=str(path),
        prompt=prompt,
        **{name: options[name] for name in TextRequest.__dataclass_fields__ if name in options},
    )
    with Keeper("run", options["results"], save=options["save"]) as keeper:
        run, text = _write(request, path, keeper, options)
        keeper.keep(run)
    _show(run, text, options)
    keeper.say_where()
    interrupted = run.finish == "interrupted" and not terminal.is_output_lost()
    distrusted = any(caution.distrust for caution in run.warnings)
    raise click.exceptions.Exit(keeper.exit_code(interrupted=interrupted, distrusted=distrusted))


def _read_prompt(words: tuple[str, ...]) -> str:
    """The prompt from the command line, from a pipe or a file on stdin, or the article's own."""
    if words and words != ("-",):
        return _check_text(" ".join(words), "prompt")
    if sys.stdin is None or (words != ("-",) and sys.stdin.isatty()):
        return REFERENCE_PROMPT
    try:
        piped = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"The prompt on stdin is not UTF-8 text (byte {error.start}); convert it.") from None
    if words == ("-",) or piped.strip():
        return piped.rstrip("\n")
    return REFERENCE_PROMPT  # started by a script or a timer, with nothing to read


def _check_text(text: str, name: str) -> str:
    """A text from the command line, which is bytes in the end.

    Raises
    ------
    UsageError : they are not UTF-8.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"The {name} is not UTF-8 text; convert it.")
    return text


def _write(request: TextRequest, path: pathlib.Path, keeper: Keeper, options: dict[str, Any]) -> tuple[TextRun, str]:
    """Write the text and show it as it comes; returns it too.

    Raises
    ------
    NativeError : llama.cpp failed before the first piece of text.
    """
    from harness.runs.text import Generator
    from harness.sources.model_file import hash_file

    streams = options["output"] == "text"
    pieces: list[str] = []

    def show(piece: str) -> None:
        pieces.append(piece)
        if streams:
            terminal.show_piece(piece)
            if terminal.is_output_lost():
                raise KeyboardInterrupt  # a text that nobody reads need not be written to its end

    facts = {"file_sha256": hash_file(path)}
    with Generator("run", keeper.machine, model_facts=facts, keep_text=options["keep_text"]) as generator:
        run = generator.write(request, show, terminal.echo_error)
    if streams and pieces:
        terminal.show()
    if run.failure:
        keeper.keep(run)
        raise NativeError(run.failure.sentence)
    return run, "".join(pieces)


def _show(run: TextRun, text: str, options: dict[str, Any]) -> None:
    from harness.views.text_run import render_answer_json, render_verbose, render_verbose_json

    for caution in run.warnings:
        if caution.distrust or (options["verbose"] and caution.code in LOAD_CAUTIONS):
            terminal.echo_error(caution.text)
    if options["output"] == "json":
        terminal.show(render_answer_json(run, text), nl=False)
    elif options["verbose_json"]:
        terminal.echo_note(render_verbose_json(run), nl=False)
    elif options["verbose"]:
        terminal.echo_note("\n" + render_verbose(run.figures), nl=False)
    if options["output"] == "text" and options["verbose"] and not options["verbose_json"]:
        if run.finish == "context":
            terminal.echo_error(
                f"the context of {run.asked['n_ctx']} tokens is full, which ended the text; ask for more with --ctx"
            )
