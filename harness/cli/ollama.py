"""`harness ollama`: the same file measured through a running Ollama server and directly, side by side."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.cli import terminal
from harness.cli.options import (
    context_option,
    one_value,
    repetitions_option,
    results_option,
    save_option,
    seed_option,
)
from harness.cli.record_writer import Keeper
from harness.errors import HarnessError, UsageError
from harness.gguf.model_kinds import Question
from harness.host.cpu import choose_threads
from harness.runs.asking import read_for
from harness.spec import DEFAULT_N_CTX, MAX_TOKENS

if TYPE_CHECKING:
    from harness.runs.ollama_task import Task
    from harness.views.document import Document

_EXAMPLES = """
\b
Examples:
  harness ollama                        the model that the server has
  harness ollama llama3.2:1b
  harness ollama llama3.2:1b -ngl 0     both on the CPU
  harness ollama llama3.1:8b --ctx 2048 -n 64 -r 10 -o json
  OLLAMA_HOST=:11500 harness ollama qwen2.5:0.5b
"""


@click.command(
    "ollama",
    epilog=_EXAMPLES,
    short_help="Measure a model of Ollama's through its server and directly.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("name", required=False)
@one_value("n_gpu_layers", default=None)
@one_value("n_threads")
@context_option(least=16)
@click.option(
    "-p", "--n-prompt", type=click.IntRange(1, MAX_TOKENS), default=256, metavar="N", help="Words of each prompt. [256]"
)
@click.option(
    "-n", "--n-gen", type=click.IntRange(2, MAX_TOKENS), default=64, metavar="N", help="Tokens to write. [64]"
)
@repetitions_option("rounds")
@seed_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format. [table]")
@save_option
@results_option
def command(name: str | None, output: str, results: pathlib.Path, save: bool, **options: Any) -> None:
    """Measure a model of Ollama's twice, by turns: through the server at OLLAMA_HOST, and directly from the very file that it
    serves, with the same prompts, context, threads and layers.

    The server gets another prompt each time, so that its prefix cache cannot help, and lets go of the model between turns: do not use
    it meanwhile. Without a server the file in Ollama's store is measured directly, and Ollama's account of its memory is shown.
    """
    from harness.runs.ollama_task import Task
    from harness.sources.ollama_server import NoServerError, OllamaServer

    options["n_ctx"] = options["n_ctx"] or DEFAULT_N_CTX
    if options["n_prompt"] * 2 + options["n_gen"] > options["n_ctx"]:
        raise UsageError(
            f"-p {options['n_prompt']} and -n {options['n_gen']} may not fit into a context of {options['n_ctx']}; "
            "ask for more with --ctx."
        )
    server: OllamaServer | None = None
    try:
        server = OllamaServer()
    except NoServerError as error:
        if name is None:
            raise
        terminal.echo_error(f"{error} Measuring the file alone")
    name, path, blocks = _find(name, server)
    read_for(path, Question.TEXT, name)
    options["n_threads"] = options["n_threads"] or choose_threads().count
    task = Task(name=name, path=path, **options)
    with Keeper("ollama", results, save=save) as keeper:
        comparison, interrupted = _measure(task, server, blocks, keeper)
    if comparison is not None:
        _show(comparison, output, _find_account(task) if server is None else None)
    keeper.say_where()
    distrusted = comparison is not None and any(caution.distrust for caution in comparison.cautions)
    raise click.exceptions.Exit(keeper.exit_code(interrupted=interrupted, distrusted=distrusted))


def _find(name: str | None, server: Any) -> tuple[str, pathlib.Path, int | None]:
    """(name, file, number of blocks where the server says).

    Raises
    ------
    UsageError : no or several models to choose from, none of that name, a server elsewhere, a file that may not be read.
    """
    from harness.sources.model_file import open_model
    from harness.sources.ollama_store import find_ollama

    if server is None:
        assert name is not None
        return name, open_model(find_ollama(name)), None
    if not server.is_local:
        raise UsageError(
            f"The Ollama server {server.address} is another machine; run harness there to compare the two."
        )
    name = name or _only_name(server)
    shown = server.show(name)
    if shown.has_adapter:
        terminal.echo_error(
            f"Ollama lays an adapter over {name}, which harness leaves out: the two do not do the same work"
        )
    path = pathlib.Path(shown.blob) if shown.blob else None
    # Where the server runs as another user or in a container, its path may mean nothing here; the store may be found all the same.
    return name, open_model(path if path and path.is_file() else find_ollama(name)), shown.block_count


def _only_name(server: Any) -> str:
    names = server.list_names()
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise UsageError(f"The Ollama server {server.address} has no models; run `ollama pull llama3.2:1b`.")
    raise UsageError(
        f"The Ollama server has several models; name one: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}."
    )


def _measure(task: Any, server: Any, blocks: int | None, keeper: Keeper) -> tuple[Any, bool]:
    """The comparison as far as it came, and whether Ctrl-C ended it; it is kept in either case."""
    from harness.records.journal import utc_now
    from harness.runs.ollama import compare
    from harness.runs.ollama_task import comparison_to_json

    comparison, interrupted, began = None, False, utc_now()
    try:
        for so_far in compare(task, keeper.machine, server, block_count=blocks, watch=_watch):
            comparison = so_far
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if comparison is not None:
            keeper.keep_line(comparison_to_json(comparison, began, harness.__version__))
    return comparison, interrupted


def _watch(phase: str) -> None:
    terminal.echo_status(f"{phase} …")


def _show(comparison: Any, output: str, account: Document | None) -> None:
    from harness.views.formats import render
    from harness.views.ollama import render_comparison, render_comparison_json

    terminal.echo_status("")
    if output == "json":
        terminal.show(render_comparison_json(comparison, account.data["ollama_2024"] if account else None), nl=False)
    else:
        terminal.show(render_comparison(comparison), nl=False)
        if account:
            terminal.show("\n" + render(account, "table"), nl=False)


def _find_account(task: Task) -> Document | None:
    """What Ollama of October 2024 would have said of the file's memory, as `harness overhead --ollama-2024` has it."""
    from harness.cli.ollama_options import find_account
    from harness.sources.gguf_file import read_file_header
    from harness.views.ollama_2024 import describe_account

    options = {"ollama_2024": True, "num_ctx": task.n_ctx, "num_gpu": task.n_gpu_layers}
    try:
        account = find_account(read_file_header(task.path), options)
    except HarnessError as error:  # the comparison stands without it
        terminal.echo_error(str(error))
        return None
    return describe_account(account, task.name, file_bytes=task.path.stat().st_size) if account else None
