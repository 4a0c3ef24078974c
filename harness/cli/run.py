"""`harness run`: a model writes a text, and Ollama's figures of it."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.core import ParameterSource

from harness.cli import terminal
from harness.cli.options import one_reference, results_option, save_option, tuned_option
from harness.cli.output import Output, output_options, show, write_pictures
from harness.cli.progress import displayed, end, open_session
from harness.cli.terminal import echo_error
from harness.cli.text_options import text_options
from harness.errors import UsageError
from harness.events import OnEvent
from harness.records.text import REFERENCE_PROMPT, TextRequest, TextRun
from harness.records.verdict import judge
from harness.spec import Settings

#: Formats in which the text streams.
_STREAMED = ("table", "text")

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


@click.command("run", epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@one_reference()
@text_options
@tuned_option
@click.option("--raw", is_flag=True, help="Hand the prompt over without the chat template.")
@click.option("--system", metavar="TEXT", help="A system message, where the template has one.")
@click.option(
    "--verbose/--no-verbose", default=True, help="End with the figures of ollama run --verbose, on stderr. [on]"
)
@click.option("--verbose-json", is_flag=True, help="The figures as a line of JSON in Ollama's names, on stderr.")
@output_options("text")
@click.option("--keep-text", is_flag=True, help="Put prompt and text into the record too.")
@save_option
@results_option
def command(words: tuple[str, ...], reference: str | None, output: Output, **options: Any) -> None:
    """Have a model write a text, streamed as it comes, and end with the figures of `ollama run --verbose` and the time to the first
    token.

    The prompt may be piped in, or be - for stdin. A record holds the figures, the number of the prompt's tokens and a hash of it,
    but neither prompt nor text. -o json gives text and figures as Ollama's /api/generate does.
    """
    from harness.runs.text import plan_text, write_text

    if options["verbose_json"] and not options["verbose"]:
        raise UsageError("--verbose-json and --no-verbose exclude each other; leave one out.")
    prompt = _read_prompt(words)
    _check_text(options["system"] or "", "system message")
    settings = {name: options[name] for name in TextRequest.__dataclass_fields__ if name in options}
    with displayed() as on_event:
        if options["takes_tuned"]:
            settings |= _take_tuned(reference, settings, on_event)
        request = plan_text(reference, prompt, settings, on_event)
    pieces: list[str] = []

    def take(piece: str) -> bool:
        pieces.append(piece)
        if output.form in _STREAMED:
            terminal.show_piece(piece)
        return not terminal.is_output_lost()  # a text that nobody reads need not be written to its end

    with open_session("run", options) as session:
        run = write_text(request, session, take, keep_text=options["keep_text"])
        session.keep(run)
    if output.form in _STREAMED and pieces:
        terminal.show()
    if not run.failure:
        _show(run, "".join(pieces), output, options)
    end(session, with_failure=True)


def _take_tuned(reference: str | None, settings: Settings, on_event: OnEvent) -> Settings:
    """What was tuned of the settings that a text has, where they are not given."""
    from harness.runs.text import find_writer
    from harness.runs.tuned import take_settings

    source = click.get_current_context().get_parameter_source
    given = {name for name in settings if source(name) is ParameterSource.COMMANDLINE}
    return take_settings(find_writer(reference, on_event), given, on_event, wanted=settings)


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


def _show(run: TextRun, text: str, output: Output, options: dict[str, Any]) -> None:
    """Everything beside the streamed text."""
    from harness.views.text import describe_text, render_answer_json, render_verbose, render_verbose_json

    verdict = judge(run)
    for reason in verdict.reasons if verdict else ():
        if reason.distrust or options["verbose"]:
            echo_error(reason.text)
    if output.form not in _STREAMED:
        show(describe_text(run, text), output, {"json": lambda: render_answer_json(run, text)})
    elif output.plot:
        write_pictures(describe_text(run, text), output.plot, output.theme)
    if options["verbose_json"]:
        terminal.echo_note(render_verbose_json(run), nl=False)
    elif options["verbose"] and output.form in _STREAMED:
        terminal.echo_note("\n" + render_verbose(run.figures), nl=False)
        if run.finish == "context":
            echo_error(
                f"the context of {run.asked.n_ctx} tokens is full, which ended the text; ask for more with --ctx"
            )
