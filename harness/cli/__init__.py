"""The command line: options in, one library call, text out. The only place that prints, and the only one that knows exit codes."""

from __future__ import annotations

import errno
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

#: Every command: the module that holds it (as `command`), and its line in `harness --help`. Modules are imported only when used, so
#: that help and completion stay as quick as click itself.
COMMANDS = {
    "pp-tg": ("harness.cli.pp_tg", "Measure prompt processing and text generation."),
    "run": ("harness.cli.run", "Have a model write a text, with Ollama's figures of it."),
    "overhead": ("harness.cli.overhead", "Account for every byte that a model takes."),
    "sweep": ("harness.cli.sweep", "Measure over layers on the GPU, or find the best number."),
    "roofline": ("harness.cli.roofline", "Measure bandwidth and arithmetic, and hold speeds against them."),
    "predict": ("harness.cli.predict", "Say how fast a model would be, and whether it fits."),
    "table": ("harness.cli.table", "Set this machine's speeds beside published ones."),
    "plot": ("harness.cli.plot", "Draw speeds, sizes, bandwidths, accuracy."),
    "report": ("harness.cli.report", "Put everything that was kept into one HTML page."),
    "ollama": ("harness.cli.ollama", "Measure a model of Ollama's through its server and directly."),
    "reference": ("harness.cli.reference", "Run the article's task over the catalog models that are here."),
    "models": ("harness.cli.models", "List the catalog: names, sizes, what is on disk, what fits."),
    "pull": ("harness.cli.pull", "Download models, going on where it stopped."),
    "inspect": ("harness.cli.inspect", "Show what a model is made of, from its header alone."),
    "synth": ("harness.cli.synth", "Write a model of a catalog shape with random weights."),
    "devices": ("harness.cli.devices", "List what llama.cpp can compute on, and why not."),
    "rpc-server": ("harness.cli.rpc_server", "Lend this machine's devices to another one."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and knows its help line without."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, ...]:
        """Import the command; from then on an interrupt lets it keep what it has."""
        found = super().resolve_command(ctx, args)
        interrupt.raise_in_command()
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  harness pp-tg      Help on one command:  harness pp-tg --help",
)
@click.version_option(harness.__version__, prog_name="harness")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Measure GGUF language models on this machine, in-process through llama.cpp.

    How fast a prompt goes in, how fast tokens come out, and where memory and time go.
    """
    ctx.with_resource(page.of_width(terminal.columns()))


def main() -> None:
    """Run the command line and turn whatever happens into one sentence and an exit code."""
    if sys.stderr is None:  # closed from the start: nobody is to be told anything
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a console cannot show does not end the program
    try:
        code = _run()
    except (KeyboardInterrupt, click.Abort):
        interrupt.end_quietly()
        # CPython remembers an interrupt that came out of text it was executing (as dataclasses do) and would end by SIGINT in spite
        # of the exit code; the next text makes it forget. Source: run_eval_code_obj in Python/pythonrun.c.
        eval("None")
        code = Outcome.INTERRUPTED
    interrupt.end_quietly()
    if (
        code == Outcome.INTERRUPTED
    ):  # whatever a command shows of what it has done: that this is not all is said by each
        echo_error("interrupted.")
    sys.exit(terminal.account_for_output(code))


def _run() -> int:
    """Run the command line; everything but an interrupt becomes an exit code."""
    try:
        code = cli.main(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit:  # click itself ends so where it finds the reader of its help gone
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
        echo_error(f"{type(error).__name__}: {error}. Set HARNESS_DEBUG=1 to see where, and please report it.")
        return Outcome.OTHER


def _is_of_stdout(error: OSError) -> bool:
    """Whether an error came of writing help to stdout: it names no file, and nothing else writes there unwatched."""
    return error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO)
