"""Where a model's memory goes: forecast from its header, measured in a fresh process, and set against each other."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import HarnessError, NativeError, UsageError
from harness.gguf.anatomy import name_file_type
from harness.gguf.attention import count_layers, describe_attention, tell_skipped
from harness.gguf.header import BytesSource, Header, read_header
from harness.gguf.model_kinds import find_kind, suit_batches
from harness.gguf.settings import read_count, tell_untrained
from harness.host.cpu import choose_threads
from harness.host.machine import read_cpu_features
from harness.host.memory import available_memory_bytes, total_memory_bytes
from harness.memory.fit import (
    CUDA_CONTEXT_BYTES,
    CardFit,
    Fit,
    fit_layers,
    left_to_host,
    needed_in_host_memory,
    price_layers,
)
from harness.memory.forecast import (
    COMPUTE,
    COPIED,
    HOST,
    KV,
    OUTPUT,
    RECURRENT,
    DeviceRules,
    Gap,
    Host,
    Line,
    Prediction,
    device_rules,
    list_rules,
    predict_memory,
    work_bytes,
)
from harness.memory.ledger import (
    Forecast,
    Measurement,
    Report,
    Subject,
)
from harness.memory.repack import read_features
from harness.memory.resident import (
    WORK,
    MemoryReading,
    NativeBuffer,
    Share,
    account_growth,
    cause_of_log,
    device_of_buffer,
)
from harness.records.cells import Build, Failure, build_from_json, group_servers, read, resolved_from_json
from harness.records.failures import Cause, describe_end
from harness.runs.worker import Worker
from harness.sources.references import parse_reference
from harness.sources.sparse import HeaderFile, write_sparse
from harness.spec import RunSpec
from harness.units import MIB, format_gb, format_gib, format_mib

#: The worker that reads its own memory from the start.
WORKER = (sys.executable, "-m", "harness.native.jobs.memory_steps")

#: A dry run takes some hundredths of a second; what takes this long has gone astray in a header.
DRY_RUN_TIMEOUT_S = 60.0

#: Tokens of the first prompt that is measured, as in pp512.
PROMPT_TOKENS = 512

#: Measured with two RPC devices: 108.2 MiB planned for the last one and 103.7 allocated; the others and the host's agree.
SEVERAL_DEVICES = "compute buffers: of several devices llama.cpp plans up to a twentieth more than it then allocates"

#: The log rounds each size to 0.01 MiB, and what it adds up was rounded before.
LOG_STEP_BYTES = 0.011 * MIB

Watch = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its header: files holds the headers' bytes for a dry run (none where llama.cpp could not read such a file).

    path is None where there are no weights here; file_bytes is the real file's size where it is known; remarks say where the header
    is from, in words, and origin in one (see `Subject`).
    """

    label: str
    header: Header
    files: tuple[HeaderFile, ...]
    path: pathlib.Path | None
    file_bytes: int | None = None
    remarks: tuple[str, ...] = ()
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


def find_model(reference: str, *, weights: bool, progress: Callable[[int, int], None] | None = None) -> Model:
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
        asked.open(progress)
    found = asked.header()
    files = found.read_files() if found.read_files else ()
    header = found.header
    if found.is_computed and files:  # the made-up file has a vocabulary, which takes memory too
        header = read_header(BytesSource(files[0].data), name=reference)
    remarks = [found.note.rstrip(".")] if found.note else []
    if found.fetched:
        remarks.append(
            f"only the header was fetched, {format_mib(found.fetched.size_bytes)} of it and what llama.cpp reads besides"
        )
    origin = "file" if found.path else "shape" if found.is_computed else "server"
    return Model(asked.label(), header, files, found.path, found.file_bytes, tuple(remarks), origin)


def make_spec(model: Model, n_ctx: int, options: dict[str, Any]) -> RunSpec:
    """Describe a run in a context of n_ctx tokens: a prompt and one token, the rest of the context left free; the whole context as
    a prompt where a model reads it at once.

    Raises
    ------
    UsageError : the options contradict each other.
    """
    kind = find_kind(model.header)
    n_prompt = n_ctx if kind.reads_at_once else max(min(PROMPT_TOKENS, n_ctx - 1), 1)
    n_gen = 0 if kind.reads_at_once else 1
    n_depth = max(n_ctx - n_prompt - n_gen, 0)
    spec = RunSpec(str(model.path or model.label), n_prompt=n_prompt, n_gen=n_gen, n_depth=n_depth, **options)
    return suit_batches(kind, spec, options, model.label)[0].with_threads(choose_threads().count)


# --- predicted --------------------------------------------------------------------------------------------------------


@dataclass
class _DryRun:
    """What a dry run said: plans by index, readings of its process, the engine; trouble is why something is missing."""

    build: Build | None = None
    plans: dict[int, dict[str, Any]] = field(default_factory=dict)
    readings: list[MemoryReading] = field(default_factory=list)
    trouble: str | None = None


def forecast(model: Model, specs: Sequence[RunSpec]) -> tuple[tuple[Forecast, ...], Host]:
    """Predict each spec's memory from the model's header alone.

    A dry run that dies or is refused takes only its own lines along.
    """
    dry = _run_dry(model, specs)
    host = _describe_host(dry.build)
    host.chosen(specs[0])  # a -mg that names nothing is refused before anything is said
    return tuple(_forecast_one(model, spec, host, dry, index) for index, spec in enumerate(specs)), host


def _describe_host(build: Build | None) -> Host:
    if build is None:  # without an engine the CPU's own word has to do
        return Host(read_cpu_features())
    return Host(read_features(build.system_info), list_rules(build.devices))


def _run_dry(model: Model, specs: Sequence[RunSpec], command: Sequence[str] = WORKER) -> _DryRun:
    dry = _DryRun()
    with contextlib.ExitStack() as stack:
        try:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-")))
            worker = Worker(command)
            stack.callback(worker.close)
            greeting = worker.hello()
            if isinstance(greeting, Failure):
                dry.trouble = describe_end(greeting)
                return dry
            dry.build = build_from_json(greeting["build"])
            if not model.files:
                dry.trouble = f"llama.cpp does not know the architecture {model.header.architecture}"
                return dry
            first = str(write_sparse(model.files, folder))
        except HarnessError as error:
            dry.trouble = str(error)
            return dry
        asked = [dataclasses.replace(spec, model=first).to_dict() for spec in specs]
        for event in worker.ask("dry_run", {"specs": asked}, DRY_RUN_TIMEOUT_S):
            if isinstance(event, Failure):
                dry.trouble = describe_end(event)
            elif event["event"] == "planned":
                dry.plans[event["index"]] = event
            elif event["event"] == "build":
                dry.build = build_from_json(event["build"])
            elif event["event"] == "reading":
                dry.readings.append(_reading_from_json(event))
    return dry


def _forecast_one(model: Model, spec: RunSpec, host: Host, dry: _DryRun, index: int) -> Forecast:
    prediction = _predict(model, spec, host)
    lines, gaps, remarks = list(prediction.lines), list(prediction.gaps), []
    plan = dry.plans.get(index, {})
    if trouble := plan.get("refused") or (dry.trouble if not plan else None):
        remarks.append(f"compute and output buffers: {trouble}")
    servers = group_servers(dry.build.devices) if dry.build else {}
    planned = []
    for buffer in plan.get("buffers", ()):
        device = device_of_buffer(buffer["buffer"], servers)
        planned.append(
            Line(cause_of_log(buffer["cause"], buffer["buffer"]), device, buffer["buffer"], buffer["size_bytes"])
        )
    lines += [line for line in planned if line.cause in (COMPUTE, OUTPUT)]
    if len({line.device for line in lines if line.cause == COMPUTE and line.device != HOST}) > 1:
        remarks.append(SEVERAL_DEVICES)
    _check_plan(KV, lines, gaps, remarks, _planned_cache(plan))
    _check_plan(RECURRENT, lines, gaps, remarks, [line for line in planned if line.cause == RECURRENT])
    flash = plan.get("flash_attn")
    n_cells = spec.n_prompt if _has_scores(flash, lines) else None
    runtime, interpreter = _forecast_runtime(model, spec, dry, lines, n_cells=n_cells)
    return Forecast(
        spec=spec,
        lines=tuple(lines),
        runtime=runtime,
        interpreter_bytes=interpreter,
        flash_attn=flash,
        remarks=(*(gap.reason for gap in gaps), *remarks),
        unknown=frozenset(gap.cause for gap in gaps),
    )


def _has_scores(flash_attn: bool | None, lines: Sequence[Line]) -> bool:
    """Whether the CPU makes whole matrices of attention scores: layers with their cache here, and no flash attention."""
    return flash_attn is False and any(line.cause == KV and line.device == HOST for line in lines)


def _predict(model: Model, spec: RunSpec, host: Host) -> Prediction:
    try:
        return predict_memory(model.header, spec, host)
    except HarnessError as error:
        return Prediction((), (Gap(COPIED, f"weights and KV cache: {error}"),))


def _planned_cache(plan: dict[str, Any]) -> list[Line]:
    """The caches as llama.cpp plans them: how large they are, and not where they lie."""
    return [Line(KV, HOST, HOST, size) for size in plan.get("caches_bytes", ())]


def _check_plan(cause: str, lines: list[Line], gaps: list[Gap], remarks: list[str], planned: Sequence[Line]) -> None:
    """Set the arithmetic of a cache or a state against llama.cpp's own plan, which wins: it knows every architecture.

    Where both agree to the log's rounding, the arithmetic's shares of the devices are kept.
    """
    if not planned:
        return
    found = sum(line.size_bytes for line in lines if line.cause == cause)
    total = sum(line.size_bytes for line in planned)
    if abs(found - total) <= max(LOG_STEP_BYTES * len(planned), 1e-4 * total):
        return
    if found:
        remarks.append(f"{cause}: llama.cpp plans {format_gb(total)}, not {format_gb(found)} as by the header")
    gaps[:] = [gap for gap in gaps if gap.cause != cause]
    lines[:] = [line for line in lines if line.cause != cause] + list(planned)


def _forecast_runtime(
    model: Model, spec: RunSpec, dry: _DryRun, lines: Sequence[Line], *, n_cells: int | None
) -> tuple[tuple[Share, ...], int | None]:
    """Take libraries, objects and tables from the dry run's own process, which has all of a real one's but its buffers."""
    if len(dry.readings) < 2 or dry.readings[-1].step != "context":
        return (), None
    # A plan's output buffer and recurrent state are real; nothing has touched the first, and the second is cleared.
    real = [
        NativeBuffer(line.cause, line.device, line.buffer, line.size_bytes, 0 if line.cause == OUTPUT else None)
        for line in lines
        if line.device == HOST and line.cause in (OUTPUT, RECURRENT)
    ]
    shares = account_growth(dry.readings, real, ()).runtime
    if not shares:
        return (), dry.readings[0].rss_bytes
    work = Share(WORK, work_bytes(model.header, spec, n_cells=n_cells))
    return (*(share for share in shares if share.cause != WORK), work), dry.readings[0].rss_bytes


def plan_compute(model: Model, spec: RunSpec) -> tuple[dict[str, int], str | None]:
    """(bytes of the compute buffers by device as llama.cpp plans them, why there are none to tell)."""
    dry = _run_dry(model, [spec])
    plan = dry.plans.get(0, {})
    servers = group_servers(dry.build.devices) if dry.build else {}
    sizes: dict[str, int] = {}
    for buffer in plan.get("buffers", ()):
        if buffer["cause"] == "compute":
            device = device_of_buffer(buffer["buffer"], servers)
            sizes[device] = sizes.get(device, 0) + buffer["size_bytes"]
    return sizes, None if sizes else plan.get("refused") or dry.trouble or "llama.cpp planned none"


# --- does it fit ------------------------------------------------------------------------------------------------------


def find_fits(model: Model, forecast: Forecast, host: Host) -> tuple[Fit, ...]:
    """Say of this machine's memory and of each device whether the forecast fits; devices that share the host's memory take of it."""
    partial = not forecast.is_whole
    devices = host.chosen(forecast.spec).devices
    needed = needed_in_host_memory(forecast.lines, devices, model.header) + forecast.runtime_bytes
    fits = [Fit(HOST, needed, available_memory_bytes(), total_memory_bytes(), partial)]
    for device in devices:
        total = device.memory_bytes if device.total_bytes is None else device.total_bytes
        fits.append(Fit(device.name, forecast.on(device.name), device.memory_bytes, total, partial))
    return tuple(fits)


def fit_cards(model: Model, forecast: Forecast, host: Host, vram_bytes: int | None) -> tuple[CardFit, ...]:
    """Count the layers that would go on each device that is here, and on a card of vram_bytes.

    Raises
    ------
    HarnessError : the layers of this model cannot be priced.
    """
    fits = []
    for device in host.chosen(forecast.spec).devices:
        if device.memory_bytes is not None:
            compute = _compute_on(forecast, device.name)
            # What a driver keeps for a process is not in what it calls free: it was asked by one.
            fits.append(_fit_card(model, forecast, host, device, device.name, device.memory_bytes, compute))
    if vram_bytes is not None:  # a card that is not here is taken for CUDA's
        card, name = device_rules("CUDA0"), f"a card of {format_gib(vram_bytes)}"
        compute = _compute_on(forecast, "")
        fits.append(_fit_card(model, forecast, host, card, name, vram_bytes, compute, CUDA_CONTEXT_BYTES))
    return tuple(fits)


def _compute_on(forecast: Forecast, device: str) -> int | None:
    """The compute buffer of a device as planned there; where none is, all compute buffers together, which is more; None if unknown."""
    sizes = {line.device: line.size_bytes for line in forecast.lines if line.cause == COMPUTE}
    if not sizes:
        return None
    return sizes.get(device, sum(sizes.values()))


def _fit_card(
    model: Model, forecast: Forecast, host: Host, device: DeviceRules, name: str, memory_bytes: int, compute: int | None,
    context_bytes: int = 0,
) -> CardFit:  # fmt: skip
    prices = price_layers(model.header, forecast.spec, device)
    found = fit_layers(prices, name, memory_bytes, compute, context_bytes)
    left = left_to_host(model.header, forecast.spec, host, device, found.n_fitting)
    return dataclasses.replace(found, host_bytes=left)


def check_room(fit: Fit) -> str | None:
    """Say by how much something exceeds the memory that is free, before anything is loaded; None where it fits."""
    needed, free = fit.needed_bytes, fit.free_bytes
    if free is None or needed <= free:
        return None
    return (
        f"{format_gb(needed)} are needed in memory and {format_gb(free)} are free: {format_gb(needed - free)} too much"
    )


# --- measured ---------------------------------------------------------------------------------------------------------


def measure(
    model: Model, spec: RunSpec, watch: Watch, *, timeout_s: float | None = None, command: Sequence[str] = WORKER
) -> Measurement | Failure:
    """Load, prompt and generate in a fresh process, and read its memory after each step.

    A death on the way is returned as a `Failure`; nothing of the parent is lost.
    """
    assert model.path is not None, "there are weights where something is measured"
    readings: list[MemoryReading] = []
    done: dict[str, Any] = {}
    try:
        worker = Worker(command)
    except NativeError as error:
        return Failure("start", str(error), Cause.REFUSED)
    with contextlib.closing(worker):
        greeting = worker.hello()
        if isinstance(greeting, Failure):
            return greeting
        for event in _ask(worker, spec, timeout_s):
            if isinstance(event, Failure):
                return event
            if event["event"] == "phase":
                watch(event["phase"])
            elif event["event"] == "reading":
                readings.append(_reading_from_json(event))
            elif event["event"] == "done":
                done = event
    files = [os.path.realpath(model.path.parent / item.name) for item in model.files]
    buffers = tuple(read(NativeBuffer, item) for item in done["buffers"])
    resolved = resolved_from_json(done["resolved"])
    grown = [reading for reading in readings if reading.step != "after"]
    return Measurement(
        readings=tuple(readings),
        buffers=buffers,
        account=account_growth(grown, buffers, files),
        n_ctx=resolved.n_ctx,
        flash_attn=resolved.flash_attn,
        load_mode=resolved.load_mode,
        layers_by_device=dict(resolved.layers_by_device),
    )


def _ask(worker: Worker, spec: RunSpec, timeout_s: float | None) -> Iterator[dict[str, Any] | Failure]:
    try:
        yield from worker.ask("memory_steps", {"spec": spec.to_dict()}, timeout_s)
    except KeyboardInterrupt:
        worker.kill()
        raise


def _reading_from_json(values: dict[str, Any]) -> MemoryReading:
    return read(MemoryReading, values)


# --- the whole --------------------------------------------------------------------------------------------------------


def examine(
    model: Model,
    specs: Sequence[RunSpec],
    *,
    predict_only: bool = False,
    vram_bytes: int | None = None,
    force: bool = False,
    watch: Watch = lambda _step: None,
) -> Report:
    """Forecast every spec and, unless told otherwise, measure the only one.

    Raises
    ------
    UsageError : what would be measured is larger than the free memory, and force was not given.
    """
    watch("dry run")
    forecasts, host = forecast(model, specs)
    remarks = [*_context_remarks(model, specs), *_score_remarks(model, forecasts[-1])]
    cards: tuple[CardFit, ...] = ()
    try:
        cards = fit_cards(model, forecasts[0], host, vram_bytes)
    except HarnessError as error:
        remarks.append(f"layers on a card: {error}")
    report = Report(model.subject, forecasts, find_fits(model, forecasts[0], host), cards, remarks=tuple(remarks))
    if predict_only or len(specs) > 1:
        return report
    excess = check_room(report.fits[0])
    if excess and not force:
        raise UsageError(f"{excess}; take a smaller --ctx, or --force it (--predict-only shows the ledger).")
    outcome = measure(model, specs[0], watch)
    if isinstance(outcome, Failure):
        return dataclasses.replace(report, failure=describe_end(outcome))
    return dataclasses.replace(report, measurement=outcome)


def _score_remarks(model: Model, last: Forecast) -> Iterator[str]:
    """What attention scores take once the context is full, where they are made and the ledger's prompt is shorter."""
    if last.n_ctx <= PROMPT_TOKENS or not last.runtime or not _has_scores(last.flash_attn, last.lines):
        return
    full = work_bytes(model.header, last.spec, n_cells=last.n_ctx)
    yield f"without flash attention the work buffers grow to {format_gb(full)} when {last.n_ctx} tokens are in the context"


def _context_remarks(model: Model, specs: Sequence[RunSpec]) -> Iterator[str]:
    if said := tell_untrained(read_count(model.header, "context_length"), (spec.n_ctx for spec in specs)):
        yield said
    if skipped := describe_attention(model.header).skipped:
        yield tell_skipped(skipped)
    yield from model.remarks
    if model.path is None and model.header.is_synthetic:
        yield "the vocabulary is a stand-in for the real one, and so is what libraries and tables take for it"
