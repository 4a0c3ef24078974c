"""One model measured twice: by an Ollama server and directly, by turns, with the same prompt, context, threads and layers.

Neither side has the other's copy in memory: the server lets go of the model before it is measured here, and the worker ends before the
server loads it again.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import harness
from harness.errors import UsageError
from harness.events import OnEvent, Remark, ignore
from harness.gguf.model_kinds import Question
from harness.host.cpu import choose_threads
from harness.records.cautions import Caution, CautionCause
from harness.records.journal import utc_now
from harness.records.ollama import Answer, Comparison, DirectText, Loaded, Round, Task
from harness.records.text import TextRequest, TextRun
from harness.runs.asking import read_for
from harness.runs.session import Session
from harness.runs.text import write_text
from harness.sources.model_file import open_model
from harness.sources.ollama_server import NoServerError, OllamaServer
from harness.sources.ollama_store import find_ollama

#: num_batch of a server that nobody configured. Source: DefaultOptions in Ollama's api/types.go.
OLLAMA_BATCH = 512

#: Common words, most of them one token in every vocabulary; their order is drawn anew for each prompt.
_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand part place case "
    "week company system program question work government number night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father power hour game line end member law car "
    "city name president team minute idea body back parent face level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education"
)


class Server(Protocol):
    """What is needed of `harness.sources.ollama_server.OllamaServer`."""

    version: str

    def generate(self, name: str, prompt: str, options: Mapping[str, Any]) -> Answer: ...

    def find_loaded(self, name: str) -> Loaded | None: ...

    def unload(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """What is compared; server is None where none answers, block_count the model's where the server says."""

    task: Task
    server: OllamaServer | None
    block_count: int | None


def plan_comparison(name: str | None, settings: Mapping[str, int], on_event: OnEvent = ignore) -> ComparisonRequest:
    """Find the server, the model (the only one where none is named) and the file that it serves.

    Parameters
    ----------
    settings : fields of `Task` that are not the usual

    Raises
    ------
    UsageError   : no or several models to choose from, none of that name, a server elsewhere, a prompt that may not fit, or a file that
                   may not be read or does not write.
    HarnessError : there is neither a server nor a name.
    """
    task = dataclasses.replace(Task(name or ""), **settings)  # type: ignore[arg-type]
    if task.n_prompt * 2 + task.n_gen > task.n_ctx:
        raise UsageError(
            f"-p {task.n_prompt} and -n {task.n_gen} may not fit into a context of {task.n_ctx}; ask for more with --ctx."
        )
    server, blocks = None, None
    try:
        server = OllamaServer()
        name, path, blocks = _find_served(name, server, on_event)
    except NoServerError as error:
        if name is None:
            raise
        on_event(Remark(f"{error} Measuring the file alone"))
        path = open_model(find_ollama(name))
    read_for(path, Question.TEXT, name)
    n_threads = task.n_threads or choose_threads().count
    return ComparisonRequest(dataclasses.replace(task, name=name, blob=str(path), n_threads=n_threads), server, blocks)


def _find_served(name: str | None, server: OllamaServer, on_event: OnEvent) -> tuple[str, pathlib.Path, int | None]:
    """(name, file, number of blocks)."""
    if not server.is_local:
        raise UsageError(
            f"The Ollama server {server.address} is another machine; run harness there to compare the two."
        )
    names = [name] if name else server.list_names()
    if not names:
        raise UsageError(f"The Ollama server {server.address} has no models; run `ollama pull llama3.2:1b`.")
    if len(names) > 1:
        shown = f"{', '.join(one[:80] for one in names[:12])}{' …' if len(names) > 12 else ''}"
        raise UsageError(f"The Ollama server has several models; name one: {shown}.")
    found = server.show(names[0])
    if found.has_adapter:
        on_event(
            Remark(f"Ollama lays an adapter over {names[0]}, which harness leaves out: the two do not do the same work")
        )
    path = pathlib.Path(found.blob) if found.blob else None
    # Where the server runs as another user or in a container, its path may mean nothing here; the store may be found all the same.
    return names[0], open_model(path if path and path.is_file() else find_ollama(names[0])), found.block_count


def draw_prompt(task: Task, number: int) -> str:
    """The prompt of a round: another one each time, from the first word on, so that no prefix cache knows it."""
    return " ".join(random.Random(f"{task.seed}/{number}").choices(_WORDS.split(), k=task.n_prompt))


def server_options(task: Task, n_gen: int) -> dict[str, Any]:
    """Options of /api/generate; the penalty is off because `harness` has none."""
    options: dict[str, Any] = {
        "num_ctx": task.n_ctx, "num_thread": task.n_threads, "num_predict": n_gen, "num_batch": OLLAMA_BATCH,
        "temperature": 0.8, "top_k": 40, "top_p": 0.9, "repeat_penalty": 1.0, "seed": task.seed,
    }  # fmt: skip
    return options if task.n_gpu_layers is None else {**options, "num_gpu": task.n_gpu_layers}


def choose_layers(task: Task, loaded: Loaded | None, block_count: int | None) -> tuple[int, tuple[Caution, ...]]:
    """The layers to put on the GPU here, after where the server has put the model; and what is uncertain about it."""
    if task.n_gpu_layers is not None:
        return task.n_gpu_layers, ()
    if loaded is None:
        return -1, (Caution(CautionCause.LAYERS_UNKNOWN),)
    if loaded.size_vram_bytes == 0:
        return 0, ()
    if loaded.size_vram_bytes >= loaded.size_bytes:
        return -1, ()
    share = loaded.size_vram_bytes / loaded.size_bytes
    layers = round(share * (block_count or 0))
    return layers, (Caution(CautionCause.LAYERS_GUESSED, gpu_share=share, n_layers=layers),)


def compare_with_ollama(
    task: Task, server: Server | None, session: Session, *, block_count: int | None = None
) -> Comparison | None:
    """Measure by turns, without a server only this side, and keep what came of it, however it ended; None where that is nothing.

    Parameters
    ----------
    block_count : the model's, as the server says

    Raises
    ------
    HarnessError : the server failed or is gone.
    """
    began = utc_now()
    loaded, layers, cautions = None, -1 if task.n_gpu_layers is None else task.n_gpu_layers, tuple[Caution, ...]()
    rounds: list[Round] = []
    first: TextRun | None = None
    comparison = None
    try:
        with session.until_interrupted():
            if server is not None:
                session.show("ollama: load", 0, task.rounds)
                loaded, layers, cautions = _probe(task, server, block_count)
            for number in range(task.rounds):
                found = _take_turn(task, number, layers, server, session)
                if found is None:
                    break
                run, turn = found
                first = first or run
                rounds.append(turn)
    finally:
        if first is not None:
            comparison = Comparison(
                task, tuple(rounds), session.machine, began, harness.__version__,
                ollama_version=server.version if server else None, ollama_loaded=loaded, n_gpu_layers=layers, model=first.model,
                build=first.build, resolved=first.resolved, failure=session.failure, warnings=(*cautions, *_judge(rounds)),
            )  # fmt: skip
            session.keep(comparison)
    return comparison


def _probe(task: Task, server: Server, block_count: int | None) -> tuple[Loaded | None, int, tuple[Caution, ...]]:
    """Have the server load the model once, to see where it puts it."""
    server.unload(task.name)
    server.generate(task.name, draw_prompt(task, -1), server_options(task, 1))
    loaded = server.find_loaded(task.name)
    layers, cautions = choose_layers(task, loaded, block_count)
    server.unload(task.name)
    return loaded, layers, cautions


def _take_turn(
    task: Task, number: int, layers: int, server: Server | None, session: Session
) -> tuple[TextRun, Round] | None:
    """One round; who goes first changes, so that a machine that warms up or slows down does not favour one side.

    None where nothing was written here: a failure, or Ctrl-C, which the session knows of.
    """

    def write(n_gen: int) -> TextRun | None:
        session.show(f"round {number + 1}: here", number, task.rounds)
        run = write_text(_ask_here(task, number, layers, n_gen), session)
        return None if run.failure or run.finish == "interrupted" else run

    if server is None:
        run = write(task.n_gen)
        return (run, Round(_keep_direct(run))) if run else None
    ollama_first = number % 2 == 0
    run = None
    if not ollama_first and (run := write(task.n_gen)) is None:
        return None
    session.show(f"round {number + 1}: ollama", number, task.rounds)
    warm = server.generate(task.name, draw_prompt(task, -2 - number), server_options(task, 1))
    answer = server.generate(task.name, draw_prompt(task, number), server_options(task, task.n_gen))
    server.unload(task.name)
    run = run or write(answer.eval_count or task.n_gen)
    return (run, Round(_keep_direct(run), answer, warm.load_duration_ns, ollama_first)) if run else None


def _ask_here(task: Task, number: int, layers: int, n_gen: int) -> TextRequest:
    return TextRequest(
        task.blob, draw_prompt(task, number), raw=True, n_ctx=task.n_ctx, n_gpu_layers=layers, n_threads=task.n_threads,
        n_batch=OLLAMA_BATCH, seed=task.seed, max_tokens=n_gen, ignore_eog=True, warmup=True,
    )  # fmt: skip


def _keep_direct(run: TextRun) -> DirectText:
    return DirectText(
        run.figures, run.token_ns, run.sample_ns, run.decode_ns, run.rss_bytes, run.warnings, run.conditions
    )


def _judge(rounds: Sequence[Round]) -> tuple[Caution, ...]:
    """Say where both sides did not do the same work, and where this machine was busy; of the same cause the gravest."""
    cautions = [caution for turn in rounds for caution in turn.direct.warnings]
    for turn in rounds:
        here = turn.direct.figures.prompt_eval_count
        if here is not None and turn.ollama is not None and turn.ollama.prompt_eval_count != here:
            theirs, cause = turn.ollama.prompt_eval_count, CautionCause.PROMPT_COUNTS_DIFFER
            cautions.append(Caution(cause, distrust=True, ollama_tokens=theirs, prompt_tokens=here))
            break
    gravest: dict[CautionCause, Caution] = {}
    for caution in cautions:
        if caution.cause not in gravest or caution.distrust:
            gravest[caution.cause] = caution
    return tuple(gravest.values())
