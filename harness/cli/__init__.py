"""The command line: options in, one library call, text out. The only place that prints, and the only one that knows exit codes."""

from __future__ import annotations

import errno
import gc
import importlib
import io
import os
import sys
from typing import Any

import click

import harness
from harness.cli import terminal
from harness.cli.terminal import echo_error
from harness.errors import HarnessError, Outcome
from harness.host import interrupt
from harness.views import page

#: Every command with its line in `harness --help`, by what it is for. The module that holds it (as `command`) has its name; it is
#: imported only when used, so that help and completion stay as quick as click itself.
GROUPS = {
    "Measure": {
        "pp-tg": "Measure prompt processing and text generation.",
        "ab": "Decide which of two settings, models or builds is faster.",
        "tune": "Find the settings that are fast here, and the lines to paste.",
        "sweep": "Measure over layers on the GPU, or find the best number.",
        "run": "Have a model write a text, with Ollama's figures of it.",
        "score": "Run LocalScore's tests and show its figure, for comparison.",
        "ollama": "Measure a model of Ollama's through its server and directly.",
        "speculate": "Measure what a draft model that guesses ahead brings.",
        "quality": "Say how well models predict a text, and what quantizing loses.",
        "noise": "Say which difference this machine can show, and what would help.",
        "reference": "Run the article's task over the catalog models that are here.",
    },
    "Explain": {
        "overhead": "Account for every byte that a model takes.",
        "token-time": "Account for every microsecond that a generated token takes.",
        "roofline": "Measure bandwidth and arithmetic, and hold speeds against them.",
        "plot": "Draw speeds, sizes, bandwidths, accuracy.",
        "report": "Put everything that was kept into one HTML page.",
    },
    "Predict": {
        "predict": "Say how fast a model would be, and whether it fits.",
        "fit": "Find the largest context that fits, and where layers go.",
    },
    "Models": {
        "models": "List the catalog: names, sizes, what is on disk, what fits.",
        "pull": "Download models, going on where it stopped.",
        "inspect": "Show what a model is made of, from its header alone.",
        "synth": "Write a model of a catalog shape with random weights.",
    },
    "Machines": {
        "table": "Set this machine's speeds beside published ones.",
        "devices": "List what llama.cpp can compute on, and why not.",
        "doctor": "Say which versions run here, for a report of a fault.",
        "rpc-server": "Lend this machine's devices to another one.",
    },
    "Records": {
        "compare": "Hold runs against each other: faster, slower, or noise.",
        "list": "List what was kept, and find it by label, model or machine.",
        "history": "Show how a cell's speed went over time and builds.",
        "label": "Label what was kept.",
        "delete": "Delete what was kept, after asking.",
    },
}
#: Commands that are elsewhere than in `command` of the module of their name; man is not listed.
_PLACES = {"man": "manual.command", **{name: f"kept.{name}_command" for name in ("list", "label", "delete")}}
COMMANDS = {name: line for group in GROUPS.values() for name, line in group.items()}


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and knows its help line without."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS and cmd_name not in _PLACES:
            return None
        module, name = _PLACES.get(cmd_name, f"{cmd_name.replace('-', '_')}.command").split(".")
        command: click.Command = getattr(importlib.import_module(f"harness.cli.{module}"), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, ...]:
        """Import the command; from then on an interrupt lets it keep what it has."""
        if not (ctx.resilient_parsing or args[0] in COMMANDS or args[0] in _PLACES or args[0].startswith("-")):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"There is no command {args[0]!r}" + (f"; did you mean {close[0]}?" if close else "."))
        found = super().resolve_command(ctx, args)
        if found[1] is not None and not ctx.resilient_parsing:
            from harness.cli.options import refuse_unknown

            refuse_unknown(found[1], args[1:])
        interrupt.raise_in_command()
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """What Tab offers, without importing every command."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, lines in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in lines.items()])


_HELP_WIDTH = 100

_START = """
\b
Three things to type first:
  harness pp-tg                         measures speed
  harness predict -m llama3.1:8b:q4_0   predicts it
  harness overhead -m llama3.1:8b:q4_0  explains memory

Help on one command: harness COMMAND --help; on all: harness man
"""


def _show_version(ctx: click.Context, parameter: click.Parameter, is_asked: bool) -> None:
    """The versions that a report of a fault needs first; `harness doctor` has the rest."""
    if not is_asked or ctx.resilient_parsing:
        return
    from importlib import metadata
    from platform import python_version

    try:
        engine = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        engine = "not installed"
    terminal.show(f"harness {harness.__version__}, llama-cpp-python {engine}, Python {python_version()}")
    ctx.exit()


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _HELP_WIDTH},
    epilog=_START,
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show versions and exit."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Measure GGUF language models on this machine, in-process through llama.cpp.

    How fast a prompt goes in, how fast tokens come out, and where memory and time go.
    """
    if ctx.invoked_subcommand is None:
        terminal.show(ctx.get_help())
    ctx.with_resource(page.of_width(terminal.columns()))


def main() -> None:
    """Run the command line and turn whatever happens into one sentence and an exit code."""
    if sys.stderr is None:  # closed from the start: nobody is to be told anything
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a console cannot show does not end the program
    gc.set_threshold(
        50_000
    )  # records and documents are trees: looking for circles in thousands of them takes a third of the time
    try:
        code = _run()
    except (KeyboardInterrupt, click.Abort):
        interrupt.end_quietly()
        # CPython remembers an interrupt that came out of text it was executing (as dataclasses do) and would end by SIGINT in spite
        # of the exit code; the next text makes it forget. Source: run_eval_code_obj in Python/pythonrun.c.
        eval("None")
        code = Outcome.INTERRUPTED
    interrupt.end_quietly()
    terminal.echo_kept()  # of a command that did not come to its end
    if (
        code == Outcome.INTERRUPTED
    ):  # whatever a command shows of what it has done: that this is not all is said by each
        echo_error("interrupted.")
    code = terminal.account_for_output(code)
    if code == Outcome.INTERRUPTED:
        interrupt.leave_interrupted()
    sys.exit(code)


def _run() -> int:
    """Run the command line; everything but an interrupt becomes an exit code."""
    try:
        if "_HARNESS_COMPLETE" in os.environ:
            importlib.import_module("harness.cli.completion")
            sys.stderr = open(os.devnull, "w")  # somebody is typing there
        width = min(max(terminal.columns(), page.NARROWEST), _HELP_WIDTH) - 2
        code = cli.main(standalone_mode=False, terminal_width=width, complete_var="_HARNESS_COMPLETE")
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (
        SystemExit
    ) as end:  # click itself ends so behind a completion, and where it finds the reader of its help gone
        if "_HARNESS_COMPLETE" in os.environ:
            return int(end.code or 0)
        terminal.lose_output(BrokenPipeError(errno.EPIPE, "its reader has gone"))
        return 0
    except click.Abort:
        raise
    except click.UsageError as error:
        hint = f" Try '{error.ctx.command_path} --help'." if error.ctx else ""
        said = error.format_message().rstrip(".")
        echo_error(said + ("" if said.endswith("?") else ".") + hint)
        return error.exit_code
    except click.ClickException as error:
        echo_error(error.format_message())
        return error.exit_code
    except HarnessError as error:
        echo_error(str(error))
        return error.outcome
    except Exception as error:
        if isinstance(error, OSError) and _is_of_stdout(error):
            terminal.lose_output(error)  # click writes help by itself
            return 0
        if os.environ.get("HARNESS_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            echo_error(f"{os.fsdecode(error.filename)} cannot be used ({(error.strerror or str(error)).lower()})")
            return Outcome.OTHER
        echo_error(
            f"{type(error).__name__}: {error}. HARNESS_DEBUG=1 shows where; please report it with what `harness doctor` prints."
        )
        return Outcome.OTHER


def _is_of_stdout(error: OSError) -> bool:
    """Whether an error came of writing help to stdout: it names no file, and nothing else writes there unwatched."""
    return error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO)
