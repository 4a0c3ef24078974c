"""How well models predict a text, and how far each is from a base model: planned, computed in a worker, kept."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import harness
from harness.codec import encode
from harness.errors import HarnessError, UsageError
from harness.events import Measured, OnEvent, Remark
from harness.gguf.model_kinds import Question, refuse_context
from harness.gguf.settings import describe_untrained, read_count
from harness.grid import Grid
from harness.host.cpu import choose_threads
from harness.host.memory import available_memory_bytes
from harness.host.rpc import check_servers
from harness.memory.causes import Part
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Model, Record, Resolved
from harness.records.failures import Cause, Failure
from harness.records.journal import utc_now
from harness.records.quality import Memory, QualityPlan, QualityRecord, Reference, TextFacts, Window
from harness.runs.asking import blame_file, find_file, read_for
from harness.runs.cells import CellsRequest, facts_in, measure_cells, model_of
from harness.runs.memory import find_model, forecast
from harness.runs.needs import estimate_needs, fit_together
from harness.runs.session import Session
from harness.runs.worker import Garbled, understand
from harness.sources.model_file import FileFacts
from harness.sources.texts import TextFile, open_text
from harness.spec import DEFAULT_N_CTX, RunSpec, Settings
from harness.units import format_gb
from harness.untrusted import harmless

#: Tokens of a window where nobody asks for others: llama-perplexity's.
WINDOW_TOKENS = 512

#: (prompt, generated tokens) of the tests of speed: those of ``harness pp-tg``.
SPEED_TESTS = ((512, 0), (0, 128))

#: The smallest window of which anything is scored.
LEAST_WINDOW = 8

#: Settings that the base model has as usual, whatever is asked of the others: what is lost by them is the question.
_QUESTIONED = ("type_k", "type_v", "flash_attn", "swa_full")


@dataclass(frozen=True, slots=True)
class QualityRequest:
    """Cells with contexts of a window each, over one text. base is the cell that the others are compared with, None: nothing is.
    Threads that nobody asked for are left open: they are filled in where a cell's record begins.

    n_chunks bounds the windows. with_memory predicts what each would take. is_rounded has the base's log-probabilities rounded as
    llama-perplexity's file of them is.

    Raises
    ------
    UsageError : there is no cell, or their windows differ.
    """

    cells: tuple[RunSpec, ...]
    text: TextFile = field(default_factory=open_text)
    base: RunSpec | None = None
    n_chunks: int | None = None
    is_rounded: bool = False
    with_memory: bool = True

    def __post_init__(self) -> None:
        if not self.cells:
            raise UsageError("There is no model to ask; name one with -m.")
        if len({cell.n_ctx for cell in (*self.cells, *([self.base] if self.base else []))}) > 1:
            raise UsageError("All models read the same windows; give one --ctx.")
        if self.n_chunks is not None and self.n_chunks < 1:
            raise UsageError(f"--chunks {self.n_chunks} scores nothing; give at least 1.")

    @property
    def ordered(self) -> tuple[RunSpec, ...]:
        """Every cell once, the base first."""
        return tuple(dict.fromkeys((*([self.base] if self.base else []), *self.cells)))


def plan_quality(
    references: Sequence[str],
    axes: Mapping[str, Sequence[Any]],
    on_event: OnEvent,
    *,
    base: str | None = None,
    text: pathlib.Path | None = None,
    n_ctx: int = WINDOW_TOKENS,
    n_chunks: int | None = None,
    is_rounded: bool = False,
) -> QualityRequest:
    """What is asked on the command line or by a script: every combination of models (none: the embedded one) and settings.

    Parameters
    ----------
    axes : values of fields of `RunSpec`
    base : the reference of the model that all are compared with, which then has the usual cache; None: the first of several cells

    Raises
    ------
    UsageError : a model writes no text, or has random weights; the text cannot be read; settings contradict each other.
    """
    if n_ctx < LEAST_WINDOW:
        raise UsageError(f"--ctx {n_ctx} leaves nothing to score; give at least {LEAST_WINDOW}.")
    if any(axes.get("embeddings", ())):
        raise UsageError("Embeddings predict nothing; leave out -embd.")
    files = [str(_find_reader(reference, n_ctx, on_event)) for reference in references or (None,)]

    def make(models: Sequence[str], values: Mapping[str, Sequence[Any]]) -> list[RunSpec]:
        return list(Grid(models, values, n_prompt=(n_ctx,), n_gen=()).cells())

    cells = make(files, axes)
    reference_cell = cells[0] if len(cells) > 1 else None
    if base is not None:
        shared = {name: values[:1] for name, values in axes.items() if name not in _QUESTIONED}
        (reference_cell,) = make([str(_find_reader(base, n_ctx, on_event))], shared)
    read = open_text(text)
    if not read.is_text:
        name = harmless.line(read.path.name)
        on_event(
            Remark(f"note: {name} is no UTF-8 text, so that tokenizers take it for another one; convert it beforehand.")
        )
    return QualityRequest(tuple(dict.fromkeys(cells)), read, reference_cell, n_chunks, is_rounded)


def compare_caches(
    spec: RunSpec, caches: Sequence[Settings], n_ctx: int = WINDOW_TOKENS, **more: Any
) -> QualityRequest:
    """What cache types cost of quality, beside an f16 cache, for a cell that is asked about anyway.

    Parameters
    ----------
    caches : for each what is set instead, as ``{"type_k": "q8_0", "type_v": "q8_0"}``
    more   : the other fields of `QualityRequest`
    """
    usual: Settings = {
        "type_k": "f16",
        "type_v": "f16",
        "n_prompt": n_ctx,
        "n_gen": 0,
        "n_depth": 0,
        "n_parallel": 1,
        "is_prompt_shared": False,
    }
    base = dataclasses.replace(spec, **usual)
    return QualityRequest(
        tuple(dataclasses.replace(base, **one) for one in caches), base=base, with_memory=False, **more
    )


def _find_reader(reference: str | None, n_ctx: int, on_event: OnEvent) -> pathlib.Path:
    """The file of a model that predicts text."""
    path = find_file(reference, on_event)
    header = read_for(path, Question.TEXT)
    if header.is_synthetic:
        raise UsageError(f"{path.name} has random weights, which predict nothing; name a real model.")
    refuse_context(header, n_ctx, path.name, "--ctx")
    if untrained := describe_untrained(read_count(header, "context_length"), [n_ctx]):
        on_event(Remark(f"note: {untrained}"))
    return path


class _Account:
    """What is heard of one cell until it can be filed."""

    def __init__(self, spec: RunSpec, session: Session, text: TextFile, facts: FileFacts) -> None:
        threads = choose_threads()
        self._facts = facts
        self._windows: list[Window] = []
        self._bins: Counter[str] = Counter()
        self._record = QualityRecord(
            session.command, utc_now(), spec.with_threads(threads.count), session.machine, harness.__version__,
            TextFacts(text.path.name, text.sha256, text.size_bytes, text.is_own),
            threads_source=threads.source_of(spec.n_threads),
        )  # fmt: skip

    @property
    def asked(self) -> RunSpec:
        """The cell as the engine is asked for it, with a number of threads."""
        return self._record.asked

    @property
    def model(self) -> Model | None:
        """The model, once it was loaded."""
        return self._record.model

    @property
    def n_done(self) -> int:
        """Windows that are there."""
        return len(self._windows)

    def learn(self, **facts: Any) -> None:
        """Take note of fields of the record."""
        self._record = dataclasses.replace(self._record, **facts)

    def on_event(self, event: Any) -> None:
        """Take note of what a worker says of the cell."""
        if event["event"] == "opened":
            text = dataclasses.replace(self._record.text, n_tokens=event["n_tokens"])
            resolved = understand(Resolved, event["resolved"])
            self.learn(model=model_of(event, self._facts), resolved=resolved, text=text, n_wanted=event["n_chunks"])
        elif event["event"] == "window":
            self._windows.append(understand(Window, event["window"]))
            self._bins.update(event["bins"])
        elif event["event"] == "failed":
            self.fail(Failure("load" if self.model is None else "window", event["message"], Cause.REFUSED,
                              reason=event["reason"], trouble=event["trouble"]))  # fmt: skip

    def fail(self, failure: Failure) -> None:
        """It will have no more windows, for what is not the user's doing."""
        if self._record.failure is None:
            self.learn(failure=blame_file(failure, self.asked.model))

    def interrupt(self) -> None:
        """It will have no more windows, for the user wants none."""
        done = Caution(CautionCause.WINDOWS_LEFT_OUT, n_done=self.n_done, n_wanted=self._record.n_wanted or 0)
        failure = Failure("window", done.text, Cause.INTERRUPTED)
        self.learn(failure=failure, warnings=(*self._record.warnings, done))

    @property
    def is_whole(self) -> bool:
        """Whether it has all its windows."""
        return self._record.n_wanted is not None and self.n_done >= self._record.n_wanted

    def record(self) -> QualityRecord:
        """What was heard."""
        bins = {number: self._bins[number] for number in sorted(self._bins, key=int)}
        return dataclasses.replace(self._record, windows=tuple(self._windows), kld_counts=bins)


def measure_quality(request: QualityRequest, session: Session) -> list[QualityRecord]:
    """Have every cell predict the text, side by side with the base, and keep a record of each; the base's is the first.

    After Ctrl-C the records have the windows that were finished until then. A cell that llama.cpp refused is a record with a failure.

    Raises
    ------
    UsageError : the text is shorter than two windows; a model makes other tokens of it than its base. Where windows of others were
                 computed already, that is the record of those that cannot be asked, and the others are kept.
    NativeError : a worker cannot be started; an RPC server does not answer as one.
    """
    check_servers(list(dict.fromkeys(endpoint for cell in request.ordered for endpoint in cell.rpc)))
    describe, text = facts_in(session), request.text
    accounts = {cell: _Account(cell, session, text, describe(pathlib.Path(cell.model))) for cell in request.ordered}
    if request.with_memory:
        session.show("dry run")
        needs = predict_needs([account.asked for account in accounts.values()])
        for account in accounts.values():
            account.learn(memory=needs.get(account.asked))
    records: list[QualityRecord] = []
    with session.until_interrupted():
        for group in group_cells(request):
            _remark_on_room(group, session)
            _read_together(group, request, session, accounts)
    for cell, account in accounts.items():
        if session.is_interrupted and not account.is_whole:
            account.interrupt()
            if not account.n_done:
                continue
        account.learn(build=session.build)
        if request.base is not None and cell != request.base:
            base = accounts[request.base]
            account.learn(base=Reference(base.asked, base.model, request.is_rounded))
        records.append(record := account.record())
        session.keep(record)
        session.on_event(Measured(record))
    return records


def _remark_on_room(group: Sequence[RunSpec], session: Session) -> None:
    """Tell where a base and a model have no room in memory together: they are read side by side all the same."""
    free = available_memory_bytes()
    if len(group) > 1 and not fit_together([(cell, estimate_needs(cell)) for cell in group], free):
        names = " and ".join(dict.fromkeys(cell.file_name for cell in group))
        session.remark(
            f"warning: {names} take more than the {format_gb(free)} of memory that are free; they may be read from disk again and "
            "again, or be killed. A smaller --base would do."
        )


def _read_together(
    group: Sequence[RunSpec], request: QualityRequest, session: Session, accounts: Mapping[RunSpec, _Account]
) -> None:
    """One worker's work. What the base was heard to say before is not heard again."""
    known = {cell for cell in group if accounts[cell].n_done}
    cells = tuple(accounts[cell].asked for cell in group)
    plan = QualityPlan(cells, str(request.text.path), 0 if request.base else None, request.n_chunks, request.is_rounded)
    with session.until_garbled():
        for event in session.ask("quality", encode(plan, keep_paths=True)):
            if event["event"] == "phase":
                session.show(event["phase"], event["index"], event["count"])
            elif "cell" in event and (cell := _cell_of(event, group)) not in known:
                accounts[cell].on_event(event)
    failure = session.failure
    if failure is None:
        return
    if failure.cause is Cause.QUESTION and not any(account.n_done for account in accounts.values()):
        raise UsageError(failure.message or "The text cannot be asked of these models.")
    for cell in group:
        if not accounts[cell].is_whole:
            accounts[cell].fail(failure)


def _cell_of(event: Mapping[str, Any], group: Sequence[RunSpec]) -> RunSpec:
    """The cell that a worker speaks of, of those that it was given.

    Raises
    ------
    Garbled : there is none.
    """
    number = event["cell"]
    if not isinstance(number, int) or not 0 <= number < len(group):
        raise Garbled("no such cell")
    return group[number]


def measure_speeds(records: Sequence[QualityRecord], request: QualityRequest, session: Session) -> list[Record]:
    """Time prompts and generation of every cell that could be read with, as ``harness pp-tg`` does; their records are kept too."""
    failed, threads = {record.asked for record in records if not record.is_scored}, choose_threads()
    cells = [
        dataclasses.replace(cell, n_prompt=n_prompt, n_gen=n_gen)
        for cell in request.ordered
        if cell.with_threads(threads.count) not in failed
        for n_prompt, n_gen in SPEED_TESTS
    ]
    return measure_cells(CellsRequest(tuple(cells)), session) if cells else []


def predict_needs(cells: Sequence[RunSpec]) -> dict[RunSpec, Memory]:
    """What cells would take of memory in the usual context, by their headers and llama.cpp's own plan; nothing of what is not known."""
    found: dict[RunSpec, Memory] = {}
    by_load: dict[Any, list[RunSpec]] = {}
    for cell in cells:
        by_load.setdefault(cell.load_key(), []).append(cell)
    for same in by_load.values():
        try:
            model = find_model(same[0].model, weights=False)
            n_ctx = min(DEFAULT_N_CTX, model.subject.n_ctx_train or DEFAULT_N_CTX)
            specs = [dataclasses.replace(cell, n_prompt=n_ctx - 1, n_gen=1) for cell in same]
            forecasts, _ = forecast(model, specs)
        except HarnessError:
            continue
        for cell, one in zip(same, forecasts, strict=True):
            parts: Counter[Part] = Counter()
            for line in one.lines:
                parts[line.cause.part] += line.size_bytes
            weights = parts[Part.WEIGHTS] + parts[Part.REPACKED]
            found[cell] = Memory(n_ctx, weights, parts[Part.CACHE], parts[Part.COMPUTE])
    return found


def group_cells(request: QualityRequest) -> Iterator[list[RunSpec]]:
    """The cells that have room in memory at once, the base with each group; a base and one other always go together."""
    own = [request.base] if request.base else []
    waiting = [cell for cell in request.ordered if cell not in own]
    while waiting or own:
        group = [*own, *waiting[:1]]
        free = available_memory_bytes()
        rest = waiting[1:]
        while rest and fit_together([(cell, estimate_needs(cell)) for cell in (*group, rest[0])], free):
            group.append(rest.pop(0))
        yield group
        waiting = rest
        if not waiting:
            return
