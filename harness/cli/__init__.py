"""The command line: options in, one library call, text out. The only place that prints, and the only one that knows exit codes."""

from __future__ import annotations

import importlib
import os
import sys

import click

import harness
from harness.errors import EXIT_INTERRUPTED, HarnessError

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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with:  harness pp-tg      Help on one command:  harness pp-tg --help",
)
@click.version_option(harness.__version__, prog_name="harness")
def cli() -> None:
    """Measure GGUF language models on this machine, in-process through llama.cpp.

    How fast a prompt goes in, how fast tokens come out, and where memory and time go.
    """


def main() -> None:
    """Run the command line and turn whatever happens into one sentence and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted.")
        code = EXIT_INTERRUPTED
    except click.UsageError as error:
        hint = f" Try '{error.ctx.command_path} --help'." if error.ctx else ""
        complain(error.format_message().rstrip(".") + "." + hint)
        code = error.exit_code
    except click.ClickException as error:
        complain(error.format_message())
        code = error.exit_code
    except HarnessError as error:
        complain(str(error))
        code = error.exit_code
    except BrokenPipeError:  # `harness … | head`
        _forget_stdout()
        code = 0
    except Exception as error:
        if os.environ.get("HARNESS_DEBUG"):
            raise
        _forget_stdout()
        complain(f"{type(error).__name__}: {error}. Set HARNESS_DEBUG=1 to see where, and please report it.")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def complain(sentence: str) -> None:
    """Say a sentence on stderr, where results do not go."""
    click.echo(f"harness: {sentence}", err=True)


def _forget_stdout() -> None:
    """Keep the interpreter from complaining a second time when it flushes at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
