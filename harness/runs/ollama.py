"""One model measured twice: by an Ollama server and directly, by turns, with the same prompt, context, threads and layers.

Neither side has the other's copy in memory: the server lets go of the model before it is measured here, and the worker ends before the
server loads it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from harness.errors import NativeError
from harness.records.cells import Caution, Machine
from harness.records.failures import describe_end
from harness.records.text import TextRequest, TextRun
from harness.runs.ollama_task import OLLAMA_BATCH, Comparison, Round, Task
from harness.runs.text import Generator
from harness.sources.ollama_server import Answer, Loaded


class Server(Protocol):
    """What is needed of `harness.sources.ollama_server.OllamaServer`."""

    version: str

    def generate(self, name: str, prompt: str, options: Mapping[str, Any]) -> Answer: ...

    def find_loaded(self, name: str) -> Loaded | None: ...

    def unload(self, name: str) -> None: ...


def choose_layers(task: Task, loaded: Loaded | None, block_count: int | None) -> tuple[int, tuple[Caution, ...]]:
    """The layers to put on the GPU here, after where the server has put the model; and what is uncertain about it."""
    if task.n_gpu_layers is not None:
        return task.n_gpu_layers, ()
    if loaded is None:
        text = "Ollama does not say where its layers are (/api/ps); here all went to the GPU if there is one: set -ngl for both"
        return -1, (Caution("layers-unknown", text),)
    if loaded.size_vram_bytes == 0:
        return 0, ()
    if loaded.size_vram_bytes >= loaded.size_bytes:
        return -1, ()
    share = loaded.size_vram_bytes / loaded.size_bytes
    layers = round(share * (block_count or 0))
    text = f"Ollama has {share:.0%} of the model on the GPU, which is taken for {layers} layers here: set -ngl for both to be sure"
    return layers, (Caution("layers-guessed", text),)


def compare(
    task: Task,
    machine: Machine,
    server: Server | None,
    *,
    block_count: int | None = None,
    watch: Callable[[str], None] = lambda _: None,
    worker_command: Sequence[str] | None = None,
) -> Iterator[Comparison]:
    """Measure by turns and yield the comparison as it stands after each turn; without a server only this side.

    Raises
    ------
    NativeError : llama.cpp failed on the file.
    HarnessError : the server failed or is gone.
    """
    loaded: Loaded | None = None
    layers = -1 if task.n_gpu_layers is None else task.n_gpu_layers
    cautions: tuple[Caution, ...] = ()
    if server is not None:
        watch("ollama: load")
        loaded, layers, cautions = _probe(task, server, block_count)
    rounds: list[Round] = []
    for number in range(task.rounds):
        turn = _take_turn(task, number, layers, machine, server, watch, worker_command)
        rounds.append(turn)
        yield Comparison(
            task,
            tuple(rounds),
            server.version if server else None,
            loaded,
            layers,
            (*cautions, *_count_cautions(rounds)),
        )


def _probe(task: Task, server: Server, block_count: int | None) -> tuple[Loaded | None, int, tuple[Caution, ...]]:
    """Have the server load the model once, to see where it puts it."""
    server.unload(task.name)
    server.generate(task.name, task.prompt(-1), task.ollama_options(1))
    loaded = server.find_loaded(task.name)
    layers, cautions = choose_layers(task, loaded, block_count)
    server.unload(task.name)
    return loaded, layers, cautions


def _take_turn(
    task: Task,
    number: int,
    layers: int,
    machine: Machine,
    server: Server | None,
    watch: Callable[[str], None],
    worker_command: Sequence[str] | None,
) -> Round:
    """One round; who goes first changes, so that a machine that warms up or slows down does not favour one side."""

    def direct(n_gen: int) -> TextRun:
        watch(f"round {number + 1}: here")
        return _measure_here(task, number, layers, n_gen, machine, worker_command)

    if server is None:
        return Round(direct(task.n_gen))
    ollama_first = number % 2 == 0
    run = None if ollama_first else direct(task.n_gen)
    watch(f"round {number + 1}: ollama")
    warm = server.generate(task.name, task.prompt(-2 - number), task.ollama_options(1))
    answer = server.generate(task.name, task.prompt(number), task.ollama_options(task.n_gen))
    server.unload(task.name)
    return Round(run or direct(answer.eval_count), answer, warm.load_duration_ns, ollama_first)


def _measure_here(
    task: Task, number: int, layers: int, n_gen: int, machine: Machine, worker_command: Sequence[str] | None
) -> TextRun:
    request = TextRequest(
        model=str(task.path), prompt=task.prompt(number), raw=True, n_ctx=task.n_ctx, n_gpu_layers=layers,
        n_threads=task.n_threads, n_batch=OLLAMA_BATCH, seed=task.seed, max_tokens=n_gen, ignore_eog=True, warmup=True,
    )  # fmt: skip
    with Generator("ollama", machine, worker_command=worker_command) as generator:
        run = generator.write(request, lambda _piece: None)
    if run.finish == "interrupted":
        raise KeyboardInterrupt
    if run.failure:
        raise NativeError(describe_end(run.failure))
    return run


def _count_cautions(rounds: Sequence[Round]) -> tuple[Caution, ...]:
    """Say where both sides did not do the same work, and where this machine was busy."""
    cautions = [caution for turn in rounds for caution in turn.direct.warnings]
    for turn in rounds:
        if turn.answer is not None and turn.answer.prompt_eval_count != turn.direct.figures.prompt_eval_count:
            text = (
                f"Ollama counts {turn.answer.prompt_eval_count} prompt tokens and llama.cpp {turn.direct.figures.prompt_eval_count} "
                "of the same prompt: a prefix cache, or another tokenizer"
            )
            cautions.append(Caution("prompt-counts-differ", text, distrust=True))
            break
    gravest: dict[str, Caution] = {}
    for caution in cautions:
        if caution.code not in gravest or caution.distrust:
            gravest[caution.code] = caution
    return tuple(gravest.values())
