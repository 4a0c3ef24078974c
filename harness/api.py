"""What a script can ask: each function is the run that the command of its name makes, without printing.

Models are what ``-m`` takes: a path, a name of the catalog, ``hf:owner/repo``, an address, ``ollama:…``, ``synth:…``; None is the
embedded one. Nothing is kept unless `results` names the folder of journals. `on_event` is called with what can be told meanwhile
(`harness.Progress`, `harness.Remark`, `harness.Measured`), in the calling thread and never while something is timed.

All raise `harness.HarnessError` where the question cannot be answered: one sentence that says what to do. Ctrl-C is raised as
KeyboardInterrupt; what was measured until then was told as `Measured`, and kept where records are kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from harness.arguments import Values, read_axes, read_counts, read_single, read_values, refuse_unknown
from harness.errors import HarnessError
from harness.events import OnEvent, ignore, pass_remarks
from harness.grid import Grid
from harness.parsers import whole_numbers
from harness.records.ab import Ab
from harness.records.bench_rows import USUAL_REPETITIONS
from harness.records.cells import Record
from harness.records.failures import describe_end
from harness.records.journal import read_lines
from harness.records.journal_files import find_journals
from harness.records.kinds import Entry, to_json
from harness.records.memory import MemoryRecord
from harness.records.noise import NoiseRecord
from harness.records.roofline import Roof
from harness.records.speculation import Speculation
from harness.records.text import TextRun
from harness.records.token_time import TimeRecord
from harness.runs import ab as duels
from harness.runs import asking, cells, inspection, memory, placements, roofline, search, text, token_time
from harness.runs import compare as comparing
from harness.runs import history as histories
from harness.runs import noise as noises
from harness.runs import predict as prediction
from harness.runs import speculate as guessing
from harness.runs.session import Session
from harness.runs.text import OnText
from harness.sources.model_file import DEFAULT_MODEL
from harness.spec import MAX_TOKENS
from harness.speed import comparison
from harness.speed.prediction import Prediction
from harness.views.llama_bench import flat_rows

Model = str | os.PathLike[str]


def measure(
    model: Model | Sequence[Model] | None = None,
    *,
    n_prompt: Values = 512,
    n_gen: Values = 128,
    n_pg: Sequence[tuple[int, int]] = (),
    repetitions: int | None = None,
    warmup: bool | None = None,
    delay_s: float = 0.0,
    seed: int = 0,
    precision: float = 0.02,
    max_time_s: float = 60.0,
    interleave: bool = True,
    cell_timeout_s: float | None = None,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Values,
) -> list[Record]:
    """Measure prompt processing and text generation as ``harness pp-tg`` does; every combination of values is a cell.

    Parameters
    ----------
    n_prompt, n_gen : tokens of a prompt and of a generation, tests of their own; 0 or () leaves one out
    n_pg            : (prompt, generation) timed together
    repetitions     : timed repetitions, 6 or more for a 95 % interval; None: until that is within ± precision, a share of the median
    warmup          : run each test once untimed before; None: with a number of repetitions, or where a GPU gets ready
    delay_s         : rest before each test
    max_time_s      : after which a cell is not repeated further, where repetitions is None
    interleave      : have cells take turns, in an order drawn by seed
    cell_timeout_s  : bounds one cell with its loads
    settings        : any other field of `harness.RunSpec`: n_gpu_layers, n_threads, n_depth, type_k, flash_attn, …

    Returns
    -------
    One record a cell, in the order of the combinations. A cell that llama.cpp refused or died of has a ``failure``.
    """
    models = [model] if isinstance(model, str | os.PathLike) else model or []
    tests = read_counts("n_prompt", n_prompt) or (), read_counts("n_gen", n_gen) or ()
    grid = Grid(
        [os.fspath(item) for item in models],
        read_axes(settings),
        *tests,
        n_pg,
        repetitions,
        warmup,
        delay_s,
        seed,
        precision,
        max_time_s,
    )
    specs = asking.plan_cells(grid, settings, on_event)
    with open_session("pp-tg", results, on_event) as session:
        return cells.measure_cells(cells.CellsRequest(specs, cell_timeout_s, interleave=interleave), session)


def sweep(
    model: Model | None = None,
    *,
    n_prompt: Values = None,
    n_gen: Values = None,
    goal: str | None = None,
    repetitions: int | None = None,
    seed: int = 0,
    precision: float = 0.02,
    max_time_s: float = 60.0,
    interleave: bool = True,
    try_anyway: bool = False,
    cell_timeout_s: float | None = None,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Values,
) -> placements.Sweep:
    """Measure a model over the number of layers on the GPU and whatever else places it, as ``harness sweep`` does.

    Parameters
    ----------
    n_prompt, n_gen : as in `measure`; 512 and 128 unless told
    goal            : look for the best count for ``tg``, ``pp``, ``chat``, ``rag``, ``coding`` or ``batch``, not all
    repetitions, precision, max_time_s : as in `measure`
    interleave      : have the tests of a placement take turns
    try_anyway      : measure what is predicted not to fit
    settings        : as in `measure`; without n_gpu_layers every count is measured

    Returns
    -------
    `Sweep.results` has a `PlacementResult` for each placement, `Sweep.best` what a search found.
    """
    if goal is not None:
        refuse_unknown([goal], search.GOALS)
    request = placements.SweepRequest(
        str(asking.find_file(refer(model), on_event)), read_axes(settings),
        read_counts("n_prompt", n_prompt), read_counts("n_gen", n_gen), repetitions, seed,
        None if goal is None else search.GOALS[goal], try_anyway, cell_timeout_s=cell_timeout_s,
        precision=precision, max_time_s=max_time_s, interleave=interleave,
    )  # fmt: skip
    with open_session("sweep", results, on_event) as session:
        return placements.sweep_placements(request, session)


def ab(
    a: Mapping[str, Any] | None = None,
    b: Mapping[str, Any] | None = None,
    *,
    n_prompt: Values = None,
    n_gen: Values = None,
    margin: float = 0.01,
    alpha: float = 0.05,
    max_time_s: float = 60.0,
    repetitions: int | None = None,
    seed: int = 0,
    cell_timeout_s: float | None = None,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **shared: Any,
) -> list[Ab]:
    """Decide which of two settings, models or builds is faster, as ``harness ab`` does; `harness.replay` says what was decided.

    Parameters
    ----------
    a, b            : what is an arm's alone: ``model``, ``python`` (another environment's), and fields of `harness.RunSpec`
    shared          : the same for both
    n_prompt, n_gen : as in `measure`; 512 and 128 unless told
    margin          : a difference within it does not count, as a share
    alpha           : how often at most a decision of the call is false; several tests share it
    max_time_s      : for the pairs of each test
    repetitions     : of a block; None: by what a block costs beside them

    Returns
    -------
    One record a test. Where llama.cpp refused or died it has a ``failure``.
    """
    arms = _ask_arm({**shared, **(a or {})}), _ask_arm({**shared, **(b or {})})
    request = duels.plan_ab(
        arms, on_event, n_prompt=read_counts("n_prompt", n_prompt), n_gen=read_counts("n_gen", n_gen), margin=margin, alpha=alpha,
        max_time_s=max_time_s, repetitions=repetitions, seed=seed, cell_timeout_s=cell_timeout_s,
    )  # fmt: skip
    with open_session("ab", results, on_event) as session:
        return duels.measure_ab(request, session)


def _ask_arm(given: Mapping[str, Any]) -> duels.ArmQuestion:
    settings = {name: value for name, value in given.items() if name not in ("model", "python")}
    python = given.get("python")
    return duels.ArmQuestion(
        refer(given.get("model")), read_single(settings), None if python is None else os.fspath(python)
    )


def account_time(
    model: Model | None = None,
    *,
    depths: Values = None,
    rounds: int = 10,
    n_tokens: int = 8,
    with_load: bool = True,
    with_application: bool = True,
    roof_bytes_per_s: float | None = None,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Any,
) -> TimeRecord:
    """Take a generated token apart, as ``harness token-time`` does; `harness.make_time_ledger` says what the raw times come to.

    Parameters
    ----------
    depths           : tokens in the cache; those that the model or memory does not take are left out
    rounds           : blocks of each kind; an interval needs 6
    n_tokens         : timed in one block
    with_load        : time loading too, cold and warm
    with_application : time an application's token too
    roof_bytes_per_s : memory bandwidth to compare with
    settings         : fields of `harness.RunSpec`, one value each
    """
    path = asking.find_file(refer(model), on_event)
    request = token_time.plan_token_time(
        path, read_single(settings), depths=read_counts("depths", depths) or token_time.DEPTHS, rounds=rounds, n_tokens=n_tokens,
        with_load=with_load, with_application=with_application,
    )  # fmt: skip
    with open_session("time-ledger", results, on_event) as session:
        return token_time.measure_token_time(request, session, roof_bytes_per_s=roof_bytes_per_s)


def account_memory(
    model: Model | None = None,
    *,
    n_ctx: Values = (),
    predict_only: bool = False,
    vram_bytes: int | None = None,
    force: bool = False,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Any,
) -> MemoryRecord:
    """Account for every byte that a model takes, as ``harness overhead`` does: predicted by its header, and measured where it is here.

    Parameters
    ----------
    n_ctx        : context in tokens, by default the usual one; several are predicted and not measured
    predict_only : load nothing
    vram_bytes   : a card of this size, of which `MemoryRecord.cards` says how many layers fit
    force        : measure although memory will not do
    settings     : fields of `harness.RunSpec`, one value each
    """
    contexts = read_values("n_ctx", whole_numbers(8, MAX_TOKENS), n_ctx)
    reference = refer(model) or DEFAULT_MODEL
    measured = memory.wants_measuring(predict_only, contexts)
    found = memory.find_model(reference, weights=measured, on_event=on_event)
    request = memory.make_request(
        found, contexts, read_single(settings), predict_only=predict_only, vram_bytes=vram_bytes, force=force
    )
    with open_session("overhead", results if request.is_measured else None, on_event) as session:
        return memory.account_memory(request, session)


def predict(
    model: Model | None = None, *, results: Model = "bench_results", on_event: OnEvent = ignore, **question: Any
) -> Prediction:
    """Predict how fast a model generates and reads prompts and whether it fits, as ``harness predict`` does; nothing is loaded.

    Parameters
    ----------
    results  : journals, in which this machine's own figures are looked for where no other machine is asked about
    question : fields of `harness.PredictRequest`: machine, bandwidth, size_bytes, n_ctx, n_depth, vram_bytes, memory_bytes, …
    """
    refuse_unknown(question, [item.name for item in dataclasses.fields(prediction.PredictRequest)])
    request = prediction.PredictRequest(refer(model), **question)
    return prediction.predict(request, pathlib.Path(results), pass_remarks(on_event))


def write_text(
    prompt: str,
    model: Model | None = None,
    *,
    on_text: OnText = lambda _: None,
    keep_text: bool = False,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Any,
) -> TextRun:
    """Have a model write a text, as ``harness run`` does: `TextRun.text`, with Ollama's figures of it.

    Parameters
    ----------
    on_text   : is given each piece as it comes, and ends the text by returning False
    keep_text : keep prompt and text in the journal too
    settings  : n_ctx, max_tokens, temperature, top_k, top_p, seed, n_gpu_layers, n_threads, system, …
    """
    refuse_unknown(settings, [item.name for item in dataclasses.fields(text.TextRequest)])
    request = text.plan_text(refer(model), prompt, settings, on_event)
    with open_session("run", results, on_event) as session:
        run = text.write_text(request, session, on_text, keep_text=True)
        session.keep(run if keep_text else dataclasses.replace(run, prompt=None, text=None))
    return run


def measure_roofline(
    *,
    size_bytes: int | None = None,
    threads: Sequence[int] = (),
    repetitions: int = 10,
    results: Model | None = None,
    on_event: OnEvent = ignore,
) -> Roof | None:
    """Measure what this machine does at best, as ``harness roofline`` does; None where nothing was finished.

    Parameters
    ----------
    size_bytes : of the matrix, by default one that no cache holds
    threads    : by default 1, 2, 4 … and all cores
    """
    with open_session("roofline", results, on_event) as session:
        return roofline.measure_roofline(roofline.plan_roofline(size_bytes, tuple(threads), repetitions), session)


def measure_noise(
    model: Model | None = None,
    *,
    duration_s: float = 30.0,
    seed: int = 0,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Any,
) -> NoiseRecord | None:
    """Measure how noisy this machine is, as ``harness noise`` does; None where nothing was finished.

    `harness.find_tests` says what its repetitions show, `harness.advise` what would help.

    Parameters
    ----------
    duration_s : how long to look
    settings   : fields of `harness.RunSpec`, one value each
    """
    path = asking.find_file(refer(model), on_event)
    request = noises.NoiseRequest(str(path), read_single(settings), duration_s, seed)
    with open_session("noise", results, on_event) as session:
        noise = noises.measure_noise(request, session)
    return None if noise is None else noise.record


def speculate(
    model: Model | None = None,
    draft: Model | None = None,
    *,
    texts: Sequence[str] = (),
    n_draft: Values = None,
    n_tokens: int = 32,
    rounds: int = 10,
    p_min: float = 0.0,
    n_min: int = 0,
    n_ctx: int | None = None,
    raw: bool = False,
    max_time_s: float = 60.0,
    seed: int = 0,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    draft_settings: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Speculation | None:
    """Measure what a draft model brings, as ``harness speculate`` does; None where no text was written.

    `harness.summarize_speculation` says what the steps come to.

    Parameters
    ----------
    draft          : the small model, ``ngram`` for a lookup in the text so far; None: the model drafts for itself
    texts          : prompts, or files of which pieces are gone on with; three prompts unless told
    n_draft        : tokens of a draft, 1 to 16; None: several, of which the first round leaves the best
    n_tokens       : of each text
    rounds         : how often each is written; an interval needs 6
    p_min, n_min   : llama.cpp's, as `harness.records.speculation.Manner` has them
    raw            : hand prompts over without the chat template
    draft_settings : fields of `harness.RunSpec` for the draft alone
    settings       : the same for both models, one value each
    """
    lengths = read_counts("n_draft", n_draft)
    plan = guessing.plan_speculation(
        refer(model), refer(draft), texts, read_single(settings), on_event, draft_settings=read_single(draft_settings or {}),
        n_ctx=n_ctx, raw=raw, lengths=guessing.LENGTHS if lengths is None else lengths, is_screened=lengths is None, n_tokens=n_tokens,
        rounds=rounds, p_min=p_min, n_min=n_min, max_time_s=max_time_s, seed=seed,
    )  # fmt: skip
    with open_session("speculate", results, on_event) as session:
        record = guessing.measure_speculation(plan, session)
    if record is None and session.failure is not None:
        raise HarnessError(describe_end(session.failure))
    return record


def inspect(model: Model) -> inspection.Inspection:
    """What a model is made of by its header alone, as ``harness inspect`` shows it; of a model elsewhere only the header is fetched."""
    return inspection.inspect_model(os.fspath(model))


def read_records(*paths: Model, on_event: OnEvent = ignore) -> list[Entry]:
    """The records of journals, or of all in a folder, the oldest first; of every kind, and of every edition.

    A damaged line, or one of a later version, is left out and told as a `Remark`.
    """
    journals = find_journals([pathlib.Path(path) for path in paths], pathlib.Path("bench_results"))
    found = [line.content for line in read_lines(journals, pass_remarks(on_event)) if line.content is not None]
    return cast("list[Entry]", found)


def history(
    *paths: Model,
    model: str = "",
    test: str = "",
    since_utc: str = "",
    results: Model = "bench_results",
    on_event: OnEvent = ignore,
) -> list[histories.Named]:
    """Each cell over time, as ``harness history`` shows it: its records in order, and the stretches between which it changed.

    Parameters
    ----------
    paths     : journals or folders; without any, all in `results`
    model     : part of a model's name, or of its file's
    test      : ``tg128``, or ``tg`` for all of a kind
    since_utc : only records that are no older, ``2026-11-24``
    """
    wanted = histories.Wanted(model=model, test=test, since_utc=since_utc)
    files = [pathlib.Path(path) for path in paths]
    return histories.read_history(files, pathlib.Path(results), wanted, pass_remarks(on_event))


def compare(
    *inputs: Model,
    by: Sequence[str] = (),
    base: str | None = None,
    assumed_n: int = USUAL_REPETITIONS,
    results: Model = "bench_results",
    on_event: OnEvent = ignore,
) -> comparison.Comparison:
    """Hold runs against the first one, cell by cell, as ``harness compare`` does; without pairs where they have nothing in common.

    Parameters
    ----------
    inputs    : journals, folders, ``last``, ``last~1``, llama-bench's files, ``name=path``; without any, the last two runs of `results`
    by        : settings, machine, build or model by which all that was measured is divided, instead of by input
    base      : with by, the value that the others are held against
    assumed_n : repetitions behind a mean and deviation of which the file does not say how many there were
    """
    named = [os.fspath(item) for item in inputs] or comparing.USUAL_INPUTS
    request = comparing.CompareRequest(named, pathlib.Path(results), by, base, assumed_n)
    return comparing.compare_files(request, pass_remarks(on_event))


def to_dicts(records: Iterable[Entry]) -> list[dict[str, Any]]:
    """Records as plain values (dict, list, str, int, float, bool, None): what a line of a journal holds (docs/record.md)."""
    return [to_json(record) for record in records]


def to_frame(records: Iterable[Entry]) -> Any:
    """Records as a pandas DataFrame: of cells a row each that was measured, as ``-o csv`` has it; of other kinds a column a field.

    Raises
    ------
    HarnessError : pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise HarnessError("A DataFrame needs pandas; install it with `pip install pandas`, or use to_dicts.") from None
    found = list(records)
    measured = [record for record in found if isinstance(record, Record)]
    return pandas.DataFrame(flat_rows(measured) if len(measured) == len(found) else to_dicts(found))


def refer(model: Model | None) -> str | None:
    """A model as a reference that `harness.sources.references` reads."""
    return None if model is None else os.fspath(model)


@contextlib.contextmanager
def open_session(command: str, results: Model | None, on_event: OnEvent) -> Iterator[Session]:
    """A session of a call; an interrupt of it is raised when it has ended."""
    with Session(command, None if results is None else pathlib.Path(results), on_event=on_event) as session:
        yield session
    if session.is_interrupted:
        raise KeyboardInterrupt
