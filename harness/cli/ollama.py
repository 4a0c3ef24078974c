"""`harness ollama`: the same file measured through a running Ollama server and directly, side by side."""

from __future__ import annotations

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
from harness.cli.progress import displayed, end, open_session
from harness.cli.terminal import echo_error
from harness.errors import HarnessError
from harness.records.ollama import Task
from harness.sources.gguf_file import read_file_header
from harness.spec import MAX_TOKENS
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
    from harness.runs.ollama import compare_with_ollama, plan_comparison
    from harness.views.ollama import describe_comparison

    settings = {key: options[key] for key in Task.__dataclass_fields__ if options.get(key) is not None}
    with displayed() as on_event:
        request = plan_comparison(name, settings, on_event)
    with open_session("ollama", options) as session:
        comparison = compare_with_ollama(request.task, request.server, session, block_count=request.block_count)
    if comparison is not None:
        show(describe_comparison(comparison, None if request.server else _find_account(request.task)), output)
    end(session, with_failure=True)


def _find_account(task: Task) -> Document | None:
    """What Ollama of October 2024 would have said of the file's memory, as `harness overhead --ollama-2024` has it."""
    from harness.memory.ollama_2024 import AUTOMATIC, Request, give_account
    from harness.memory.ollama_graph import read_figures
    from harness.views.ollama_2024 import describe_account

    path = pathlib.Path(task.blob)
    num_gpu = AUTOMATIC if task.n_gpu_layers is None else task.n_gpu_layers
    try:
        account = give_account(read_figures(read_file_header(path)), Request(num_ctx=task.n_ctx, num_gpu=num_gpu))
    except HarnessError as error:  # the comparison stands without it
        echo_error(str(error))
        return None
    return describe_account(account, task.name, file_bytes=path.stat().st_size)
