"""`harness ollama`: the same file measured through a running Ollama server and directly, side by side."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import click

from harness.cli.options import (
    WholeNumber,
    context_option,
    one_value,
    repetitions_option,
    results_option,
    save_option,
    seed_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import end, open_session
from harness.cli.terminal import echo_error
from harness.errors import HarnessError, UsageError
from harness.gguf.model_kinds import Question, refuse
from harness.host.cpu import choose_threads
from harness.records.ollama import Task
from harness.sources.gguf_file import read_file_header
from harness.spec import DEFAULT_N_CTX, MAX_TOKENS
from harness.views.document import Document, Section

_EXAMPLES = """
\b
Examples:
  harness ollama                        the model that the server has
  harness ollama llama3.2:1b
  harness ollama llama3.2:1b -ngl 0     both on the CPU
  harness ollama llama3.1:8b --ctx 2048 -n 64 -r 10 -o json
  OLLAMA_HOST=:11500 harness ollama qwen2.5:0.5b
"""


@click.command("ollama", epilog=_EXAMPLES)
@click.argument("name", required=False)
@one_value("n_gpu_layers", default=None)
@one_value("n_threads")
@context_option(least=16)
@click.option(
    "-p", "--n-prompt", type=WholeNumber(1, MAX_TOKENS), default=256, metavar="N", help="Words of each prompt. [256]"
)
@click.option("-n", "--n-gen", type=WholeNumber(2, MAX_TOKENS), default=64, metavar="N", help="Tokens to write. [64]")
@repetitions_option("rounds")
@seed_option
@output_options()
@save_option
@results_option
def command(name: str | None, output: Output, **options: Any) -> None:
    """Measure a model of Ollama's twice, by turns: through the server at OLLAMA_HOST, and directly from the very file that it
    serves, with the same prompts, context, threads and layers.

    The server gets another prompt each time, so that its prefix cache cannot help, and lets go of the model between turns: do not use
    it meanwhile. Without a server the file in Ollama's store is measured directly, and Ollama's account of its memory is shown.
    """
    from harness.runs.ollama import compare_with_ollama
    from harness.sources.ollama_server import NoServerError, OllamaServer
    from harness.views.ollama import describe_comparison

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
        echo_error(f"{error} Measuring the file alone")
    name, path, blocks = _find(name, server)
    refuse(read_file_header(path), Question.TEXT, name)
    options["n_threads"] = options["n_threads"] or choose_threads().count
    task = Task(name, str(path), **{key: options[key] for key in Task.__dataclass_fields__ if key in options})
    with open_session("ollama", options) as session:
        comparison = compare_with_ollama(task, server, session, block_count=blocks)
    if comparison is not None:
        document = describe_comparison(comparison)
        show(document if server else _add_account(document, task, path), output)
    end(session, with_failure=True)


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
        echo_error(f"Ollama lays an adapter over {name}, which harness leaves out: the two do not do the same work")
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


def _add_account(document: Document, task: Task, path: pathlib.Path) -> Document:
    """What Ollama of October 2024 would have said of the file's memory, as `harness overhead --ollama-2024` has it."""
    from harness.cli.ollama_options import find_account
    from harness.views.ollama_2024 import describe_account

    options = {"ollama_2024": True, "num_ctx": task.n_ctx, "num_gpu": task.n_gpu_layers}
    try:
        account = find_account(read_file_header(path), options)
    except HarnessError as error:  # the comparison stands without it
        echo_error(str(error))
        return document
    if account is None:
        return document
    told = describe_account(account, task.name, file_bytes=path.stat().st_size)
    sections = [*document.sections, Section(told.title, []), *told.sections]
    return dataclasses.replace(document, sections=sections, data={**document.data, **told.data})
