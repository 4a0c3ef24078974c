"""Where a model's memory goes: forecast from its header, measured in a fresh process, and set against each other."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness import __version__
from harness.errors import HarnessError, NativeError, UsageError
from harness.events import OnEvent, ignore
from harness.gguf.anatomy import name_file_type
from harness.gguf.attention import describe_attention
from harness.gguf.blocks import count_layers
from harness.gguf.cost import cost_of_header
from harness.gguf.header import BytesSource, Header, read_header
from harness.gguf.model_kinds import Question, find_kind, may_be_asked, refuse, refuse_context, suit_batches
from harness.gguf.settings import read_count
from harness.host.cpu import choose_threads
from harness.host.machine import predict_features
from harness.host.memory import available_memory_bytes, total_memory_bytes
from harness.host.rpc import check_servers
from harness.memory.causes import CACHE_CAUSES, HOST, Cause, Note, Part, Remark
from harness.memory.fit import (
    CUDA_CONTEXT_BYTES,
    CardFit,
    Fit,
    estimate_compute_bytes,
    fit_layers,
    left_to_host,
    needed_in_host_memory,
    price_layers,
)
from harness.memory.forecast import (
    Forecast,
    Host,
    Line,
    Share,
    device_rules,
    list_rules,
    predict_memory,
    work_bytes,
)
from harness.memory.ledger import Measurement
from harness.memory.repack import read_features
from harness.memory.resident import MemoryReading, NativeBuffer, cause_of_log, explain_growth
from harness.records.cells import Conditions, Failure, Resolved
from harness.records.journal import utc_now
from harness.records.memory import MemoryRecord, Subject
from harness.runs.dry_run import WORKER, DryRun, run_dry
from harness.runs.session import Session
from harness.runs.worker import understand
from harness.sources.catalog_reference import CatalogReference
from harness.sources.model_file import hash_file
from harness.sources.references import parse_reference
from harness.sources.sparse import HeaderFile
from harness.spec import DEFAULT_N_CTX, MAX_SEQUENCES, RunSpec, Settings
from harness.speed.prediction import cost_of_entry
from harness.units import MIB, format_gib

#: Tokens of the first prompt that is measured, as in pp512.
PROMPT_TOKENS = 512

#: The log rounds each size to 0.01 MiB, and what it adds up was rounded before.
LOG_STEP_BYTES = 0.011 * MIB


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its header: files holds the headers' bytes for a dry run (none where llama.cpp could not read such a file).

    path is None where there are no weights here; file_bytes is the real file's size where it is known; notes say where the header
    is from, and origin in one word (see `Subject`).
    """

    label: str
    header: Header
    files: tuple[HeaderFile, ...]
    path: pathlib.Path | None
    file_bytes: int | None = None
    notes: tuple[Note, ...] = ()
    origin: str = "shape"

    @property
    def subject(self) -> Subject:
        header = self.header
        return Subject(
            label=self.label,
            origin=self.origin,
            architecture=header.architecture,
            file_bytes=self.file_bytes or header.size_bytes,
            n_layers=count_layers(header),
            n_ctx_train=read_count(header, "context_length"),
            is_synthetic=header.metadata.get("harness.synthetic") is True and self.path is not None,
            file_type=name_file_type(header),
        )


def find_model(reference: str, *, weights: bool, on_event: OnEvent = ignore) -> Model:
    """Find a model's header, and its weights where they are wanted and can be had without a download.

    Parameters
    ----------
    weights : whether something is to be measured; a synthetic model is then written, and a file at an address fetched

    Raises
    ------
    UsageError   : there is no such model.
    HarnessError : its header cannot be read.
    """
    asked = parse_reference(reference)
    if weights and asked.is_free:
        asked.open(on_event)
    found = asked.header()
    files = found.read_files() if found.read_files else ()
    header, label = found.header, asked.label()
    if found.is_computed and files:  # the made-up file has a vocabulary, which takes memory too
        header = read_header(BytesSource(files[0].data), name=reference)
    notes = [Note(Remark.SOURCE, detail=found.note.rstrip("."))] if found.note else []
    if not may_be_asked(header, Question.MEASURE):
        notes.append(Note(Remark.SOURCE, detail=find_kind(header).describe(label)))
    if isinstance(asked, CatalogReference):
        _, encoder = cost_of_entry(asked.entry, asked.quantization or asked.entry.default_quantization)
        notes += [Note(Remark.ENCODER, size_bytes=encoder.size_bytes)] if encoder else []
    if found.fetched:
        notes.append(Note(Remark.HEADER_FETCHED, size_bytes=found.fetched.size_bytes))
    origin = "file" if found.path else "shape" if found.is_computed else "server"
    return Model(label, header, files, found.path, found.file_bytes, tuple(notes), origin)


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """A model in one or several contexts; only a single one is measured, and only if its weights are here.

    vram_bytes is the size of a card that is not here; force measures although memory will not do.
    """

    model: Model
    specs: tuple[RunSpec, ...]
    predict_only: bool = False
    vram_bytes: int | None = None
    force: bool = False

    @property
    def is_measured(self) -> bool:
        """Whether it is to be measured, and can be."""
        wanted = wants_measuring(self.predict_only, [spec.n_ctx for spec in self.specs])
        return wanted and self.model.path is not None and may_be_asked(self.model.header, Question.MEASURE)


def wants_measuring(predict_only: bool, contexts: Iterable[int]) -> bool:
    """Whether a model is to be loaded: not where only a prediction is asked for, or where several contexts are compared."""
    return not predict_only and len(set(contexts)) < 2


def make_request(model: Model, contexts: Sequence[int], options: Settings, **more: Any) -> MemoryRequest:
    """Ask for contexts, by default the usual one or the model's own where that is smaller; options are `RunSpec`'s.

    Raises
    ------
    UsageError : the options contradict each other, the file is no model, or it has fewer positions than are asked for.
    """
    refuse(model.header, Question.MEMORY, model.label)
    trained = model.subject.n_ctx_train
    contexts = sorted(set(contexts)) or [max(min(DEFAULT_N_CTX, trained or DEFAULT_N_CTX), 8)]
    refuse_context(model.header, contexts[-1], model.label, "--ctx")
    return MemoryRequest(model, tuple(make_spec(model, n_ctx, options) for n_ctx in contexts), **more)


def make_spec(model: Model, n_ctx: int, options: Settings) -> RunSpec:
    """Describe a run in a context of n_ctx tokens, of each sequence: a prompt and one token, the rest of the context left free; the
    whole context as a prompt where a model reads it at once.

    Raises
    ------
    UsageError : the options contradict each other.
    """
    kind = find_kind(model.header)
    n_prompt = n_ctx if kind.reads_at_once else max(min(PROMPT_TOKENS, n_ctx - 1), 1)
    n_gen = 0 if kind.reads_at_once else 1
    n_depth = max(n_ctx - n_prompt - n_gen, 0)
    spec = RunSpec(str(model.path or model.label), n_prompt=n_prompt, n_gen=n_gen, n_depth=n_depth, **options)
    return suit_batches(kind, spec, dict(options), model.label)[0].with_threads(choose_threads().count)


# --- predicted --------------------------------------------------------------------------------------------------------


def forecast(model: Model, specs: Sequence[RunSpec]) -> tuple[tuple[Forecast, ...], Host]:
    """Predict each spec's memory from the model's header alone.

    A dry run that dies or is refused takes only its own lines along.
    """
    dry = run_dry(model.files, specs)
    if not model.files and dry.trouble is None:
        dry.trouble = f"llama.cpp does not know the architecture {model.header.architecture}"
    # Without an engine the CPU's own word has to do.
    host = Host(predict_features())
    if dry.build is not None:
        host = Host(read_features(dry.build.system_info), list_rules(dry.build.devices))
    host.chosen(specs[0])  # a -mg that names nothing is refused before anything is said
    return tuple(_forecast_one(model, spec, host, dry, index) for index, spec in enumerate(specs)), host


def _forecast_one(model: Model, spec: RunSpec, host: Host, dry: DryRun, index: int) -> Forecast:
    try:
        prediction = predict_memory(model.header, spec, host)
    except HarnessError as error:
        prediction = Forecast(spec.n_ctx, (), notes=(Note(Remark.HEADER_REFUSED, Cause.COPIED, str(error)),))
    plan, planned = dry.plan(index), dry.lines(index)
    lines, notes = list(prediction.lines), list(prediction.notes)
    if plan.refused:
        notes.append(Note(Remark.NOT_PLANNED, detail=plan.refused))
    lines += [line for line in planned if line.cause.part is Part.COMPUTE]
    if len({line.device for line in lines if line.cause is Cause.COMPUTE and line.device != HOST}) > 1:
        notes.append(Note(Remark.SEVERAL_DEVICES))
    # How large the caches are is planned, and not where they lie.
    planned += [Line(cause_of_log(item.cause, ""), HOST, HOST, item.size_bytes) for item in plan.caches]
    for cause in CACHE_CAUSES.values():
        _check_plan(cause, lines, notes, [line for line in planned if line.cause is cause])
    n_cells = spec.n_prompt if _has_scores(plan.flash_attn, lines) else None
    runtime, interpreter = _forecast_runtime(model, spec, dry, lines, n_cells=n_cells)
    return Forecast(spec.n_ctx, tuple(lines), runtime, interpreter, plan.flash_attn, tuple(notes))


def _has_scores(flash_attn: bool | None, lines: Sequence[Line]) -> bool:
    """Whether the CPU makes whole matrices of attention scores: layers with their cache here, and no flash attention."""
    return flash_attn is False and any(line.cause is Cause.KV and line.device == HOST for line in lines)


def _check_plan(cause: Cause, lines: list[Line], notes: list[Note], planned: Sequence[Line]) -> None:
    """Set the arithmetic of a cache or a state against llama.cpp's own plan, which wins: it knows every architecture.

    Where both agree to the log's rounding, the arithmetic's shares of the devices are kept.
    """
    if not planned:
        return
    found = sum(line.size_bytes for line in lines if line.cause is cause)
    total = sum(line.size_bytes for line in planned)
    if abs(found - total) <= max(LOG_STEP_BYTES * len(planned), 1e-4 * total):
        return
    notes[:] = [note for note in notes if not (note.remark.is_gap and note.cause is cause)]
    lines[:] = [line for line in lines if line.cause is not cause] + list(planned)
    if found:
        notes.append(Note(Remark.PLAN_DIFFERS, cause, size_bytes=found, planned_bytes=total))


def _forecast_runtime(
    model: Model, spec: RunSpec, dry: DryRun, lines: Sequence[Line], *, n_cells: int | None
) -> tuple[tuple[Share, ...], int | None]:
    """Take libraries, objects and tables from the dry run's own process, which has all of a real one's but its buffers."""
    if len(dry.readings) < 2 or dry.readings[-1].step != "context":
        return (), None
    # A plan's output buffer and recurrent state are real; nothing has touched the first, and the second is cleared.
    real = [
        NativeBuffer(line.cause, line.device, line.buffer, line.size_bytes, 0 if line.cause is Cause.OUTPUT else None)
        for line in lines
        if line.device == HOST and line.cause in (Cause.OUTPUT, Cause.RECURRENT)
    ]
    shares, _ = explain_growth(dry.readings, real, ())
    if shares:
        work = Share(Cause.WORK, work_bytes(model.header, spec, n_cells=n_cells))
        shares = (*(share for share in shares if share.cause is not Cause.WORK), work)
    return shares, dry.readings[0].rss_bytes


def plan_compute(model: Model, spec: RunSpec) -> tuple[dict[str, int], str | None]:
    """(bytes of the compute buffers by device as llama.cpp plans them, why there are none to tell)."""
    dry = run_dry(model.files, [spec])
    sizes = dry.compute_bytes(0)
    return sizes, None if sizes else dry.plan(0).refused or "llama.cpp planned none"


# --- does it fit ------------------------------------------------------------------------------------------------------


def find_fits(model: Model, spec: RunSpec, forecast: Forecast, host: Host) -> tuple[Fit, ...]:
    """Say of this machine's memory and of each device whether the forecast fits; devices that share the host's memory take of it."""
    devices = host.chosen(spec).devices
    needed = needed_in_host_memory(forecast.lines, devices, model.header) + forecast.runtime_bytes
    fits = [Fit(HOST, needed, available_memory_bytes(), total_memory_bytes())]
    for device in devices:
        total = device.memory_bytes if device.total_bytes is None else device.total_bytes
        fits.append(Fit(device.name, forecast.on(device.name), device.memory_bytes, total))
    return tuple(fits)


def fit_cards(
    model: Model, spec: RunSpec, forecast: Forecast, host: Host, vram_bytes: int | None
) -> tuple[CardFit, ...]:
    """Count the layers that would go on each device that is here, and on a card of vram_bytes.

    Raises
    ------
    HarnessError : the layers of this model cannot be priced.
    """
    # What a driver keeps for a process is not in what it calls free: it was asked by one. A card that is not here is taken for CUDA's.
    asked = [(device.name, device, device.memory_bytes, 0) for device in host.chosen(spec).devices]
    fits = []
    for name, device, memory_bytes, context_bytes in (
        *asked,
        (None, device_rules("CUDA0"), vram_bytes, CUDA_CONTEXT_BYTES),
    ):
        if memory_bytes is not None:
            prices, planned = price_layers(model.header, spec, device), compute_on(forecast, name)
            compute = estimate_compute(model, spec.n_ctx) if planned is None else planned
            found = fit_layers(prices, name, memory_bytes, compute, context_bytes)
            left = left_to_host(model.header, spec, host, device, found.n_fitting)
            fits.append(dataclasses.replace(found, host_bytes=left, is_estimated=planned is None))
    return tuple(fits)


def compute_on(forecast: Forecast, device: str | None) -> int | None:
    """The compute buffer of a device as planned there; where none is, all compute buffers together, which is more; None if unknown."""
    sizes = {line.device: line.size_bytes for line in forecast.lines if line.cause is Cause.COMPUTE}
    return sizes.get(device or "", sum(sizes.values())) if sizes else None


def estimate_compute(model: Model, n_ctx: int) -> int | None:
    """What predict says where llama.cpp plans nothing; None for a header that has no cost."""
    with contextlib.suppress(HarnessError):
        return estimate_compute_bytes(cost_of_header(model.header, "", model.label), n_ctx, model.header)
    return None


def check_room(fit: Fit) -> str | None:
    """Say by how much something exceeds the memory that is free, before anything is loaded; None where it fits."""
    needed, free = fit.needed_bytes, fit.free_bytes
    if free is None or needed <= free:
        return None
    return f"{format_gib(needed)} are needed in memory and {format_gib(free)} are free: {format_gib(needed - free)} too much"


# --- measured ---------------------------------------------------------------------------------------------------------


def measure(model: Model, spec: RunSpec, session: Session) -> tuple[Measurement, Conditions | None] | None:
    """Load, prompt and generate in a fresh process, and read its memory after each step, and what the system counted meanwhile.

    None after a failure or Ctrl-C.
    """
    assert model.path is not None, "there are weights where something is measured"
    readings: list[MemoryReading] = []
    done: dict[str, Any] | None = None
    try:
        with session.until_interrupted(), session.worker(session.worker_command or WORKER) as worker:
            for event in worker.ask("memory_steps", {"spec": spec.to_dict()}):
                if isinstance(event, Failure):
                    session.fail(event)
                elif event["event"] == "phase":
                    session.show(event["phase"])
                elif event["event"] == "reading":
                    readings.append(understand(MemoryReading, event))
                elif event["event"] == "done":
                    done = event
    except NativeError:
        if session.failure is None:  # it could not even be started
            raise
    if done is None:
        return None
    files = [os.path.realpath(model.path.parent / item.name) for item in model.files]
    buffers = tuple(understand(NativeBuffer, item) for item in done["buffers"])
    resolved = understand(Resolved, done["resolved"])
    runtime, weights_resident = explain_growth([item for item in readings if item.step != "after"], buffers, files)
    measurement = Measurement(
        tuple(dataclasses.replace(item, maps=()) for item in readings),
        buffers,
        runtime,
        weights_resident,
        resolved.flash_attn,
        resolved.load_mode,
        resolved.layers_by_device,
        resolved.is_unlocked,
    )
    seen = done.get("conditions")
    return measurement, understand(Conditions, seen) if seen else None


# --- the whole --------------------------------------------------------------------------------------------------------


def account_memory(request: MemoryRequest, session: Session) -> MemoryRecord:
    """Forecast every spec and, unless told otherwise, measure the only one, which is then kept.

    Raises
    ------
    UsageError : what would be measured is larger than the free memory, and force was not given; an RPC server is none.
    """
    model, spec = request.model, request.specs[0]
    check_servers(spec.rpc)
    session.show("dry run")
    forecasts, host = forecast(model, (*request.specs, *_with_one_more(spec)))
    forecasts, more = forecasts[: len(request.specs)], forecasts[len(request.specs) :]
    notes = [*_context_notes(model, request.specs), *_score_notes(model, request.specs[-1], forecasts[-1])]
    cards: tuple[CardFit, ...] = ()
    try:
        cards = fit_cards(model, spec, forecasts[0], host, request.vram_bytes)
    except HarnessError as error:
        notes.append(Note(Remark.NOT_PRICED, detail=str(error)))
    fits = find_fits(model, spec, forecasts[0], host)
    record = MemoryRecord(
        spec, model.subject, session.machine, forecasts, fits, cards, tuple(notes), time_utc=utc_now(),
        harness_version=__version__, one_more=more[0] if more else None,
    )  # fmt: skip
    if not request.is_measured:
        return record
    if (excess := check_room(fits[0])) and not request.force:
        raise UsageError(f"{excess}; take a smaller --ctx, or --force it (--predict-only shows the ledger).")
    assert model.path is not None
    measurement, conditions = measure(model, spec, session) or (None, None)
    if session.is_interrupted:
        return record
    file = dataclasses.replace(
        model.subject, file_name=model.path.name, file_sha256=hash_file(model.path, session.on_event)
    )
    found = {"measurement": measurement, "conditions": conditions, "failure": session.failure}
    record = dataclasses.replace(record, model=file, **found)  # type: ignore[arg-type]
    session.keep(record)
    return record


def _with_one_more(spec: RunSpec) -> tuple[RunSpec, ...]:
    """The same for one more sequence; nothing for a single one, or where there is no room for more."""
    n = spec.n_parallel + 1
    return (
        (dataclasses.replace(spec, n_parallel=n),) if 2 < n <= min(MAX_SEQUENCES, spec.n_batch, spec.n_ubatch) else ()
    )


def _score_notes(model: Model, spec: RunSpec, last: Forecast) -> Iterator[Note]:
    """What attention scores take once the context is full, where they are made and the ledger's prompt is shorter."""
    n_ctx = spec.n_ctx_seq
    if n_ctx > PROMPT_TOKENS and last.runtime and _has_scores(last.flash_attn, last.lines):
        full = work_bytes(model.header, spec, n_cells=n_ctx)
        yield Note(Remark.SCORES_GROW, size_bytes=full, n_ctx=n_ctx)


def note_untrained(model: Model, n_ctx: int) -> Iterator[Note]:
    """A remark where a sequence's context is longer than what the model was trained for."""
    trained = model.subject.n_ctx_train
    if trained and n_ctx > trained:
        yield Note(Remark.UNTRAINED, n_ctx=n_ctx, n_ctx_train=trained)


def _context_notes(model: Model, specs: Sequence[RunSpec]) -> Iterator[Note]:
    yield from note_untrained(model, max(spec.n_ctx_seq for spec in specs))
    if skipped := describe_attention(model.header).skipped:
        yield Note(Remark.BLOCKS_SKIPPED, count=len(skipped))
    yield from model.notes
    if model.path is None and model.header.is_synthetic:
        yield Note(Remark.STAND_IN_VOCABULARY)
