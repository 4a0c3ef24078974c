"""Settings that are fast on this machine: what fits is worked out first, then what is free is raced, and the result is proven."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import harness
from harness.codec import decode
from harness.errors import HarnessError, UsageError
from harness.events import Measured, Progress
from harness.gguf.cost import cost_of_header
from harness.gguf.header import Header
from harness.gguf.model_kinds import Kind, Question, find_kind
from harness.gguf.settings import read_count
from harness.host.cpu import choose_threads, find_our_cpus
from harness.host.memory import available_memory_bytes
from harness.host.system import the_os
from harness.host.telemetry import Station
from harness.host.tuning import read_tuning
from harness.memory.causes import Cause
from harness.memory.fit import N_UBATCH, check_placement, estimate_compute_bytes, needed_in_host_memory
from harness.memory.forecast import DeviceRules, Host, list_rules, predict_memory
from harness.memory.repack import read_features
from harness.native.shelf import MAX_CONTEXTS, RESERVE_BYTES
from harness.records.cells import Build, Model, Resolved, Sample
from harness.records.failures import Failure
from harness.records.journal import utc_now
from harness.records.quality import QualityRecord
from harness.records.quality_figures import LEAST_WINDOWS
from harness.records.tuned import make_tuned
from harness.records.tuning import Quality, Stop, TuneRecord, Work
from harness.records.verdict import Trust, judge
from harness.runs.asking import blame_file, read_for
from harness.runs.bench import Bench, process_nature
from harness.runs.cells import check_cells, facts_in, model_of, plan_in
from harness.runs.devices import Survey, survey_devices
from harness.runs.memory import find_model, plan_compute
from harness.runs.needs import estimate_needs
from harness.runs.quality import compare_caches, measure_quality
from harness.runs.search import GOALS
from harness.runs.session import Session
from harness.runs.tune_races import BlockFailed, Tuner
from harness.runs.tune_space import Room, choose_base, list_factors
from harness.sources.model_file import FileFacts
from harness.sources.tuned_settings import keep_tuned
from harness.spec import DEFAULT_N_CTX, RunSpec, Settings
from harness.speed.offload import describe_blocks
from harness.units import format_mib

#: What may be tuned for, and how many tokens are in the cache when the work begins: a conversation that has gone on for a while, a file
#: that is open. Prompts and answers are those of `GOALS`.
PURPOSES: Mapping[str, int] = {"chat": 1024, "rag": 0, "batch": 0, "coding": 4096}


#: Windows of text by which the price of a cache is known: the fewest that have an interval.
PRICE_WINDOWS = LEAST_WINDOWS


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What is to be fast, and what is not free.

    model is a file. n_ctx is the context that has to have room; None: the usual one, or what the purpose needs. settings are fields of
    `RunSpec` that are given and stay. vram_bytes is what may be used of each device. A machine that is too noisy ends it after the
    defaults, unless goes_on_anyway.

    Raises
    ------
    UsageError : the purpose is not known, or a share is none.
    """

    model: str
    purpose: str = "chat"
    n_ctx: int | None = None
    quality: Quality = Quality.KEEP
    vram_bytes: int | None = None
    max_time_s: float = 300.0
    margin: float = 0.01
    alpha: float = 0.05
    seed: int = 0
    settings: Settings = dataclasses.field(default_factory=dict)
    cell_timeout_s: float | None = None
    goes_on_anyway: bool = False

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise UsageError(
                f"There is nothing known of {self.purpose!r} to tune for; it is one of {', '.join(PURPOSES)}."
            )
        if not (0 < self.margin < 1 and 0 < self.alpha < 1 and self.max_time_s > 0):
            raise UsageError("A margin and an alpha are shares between 0 and 100 %, and the time is above 0.")

    @property
    def rpc(self) -> tuple[str, ...]:
        """The RPC servers that join in."""
        return tuple(self.settings.get("rpc", ()))


def plan_work(purpose: str, n_ctx: int | None, n_ctx_train: int | None) -> Work:
    """The work of a purpose, cut to the context where it is less: first less is in the cache before, then the prompt is shorter.

    Parameters
    ----------
    n_ctx       : that was asked for; None: what the work needs, and no less than the usual context
    n_ctx_train : the model's own, beyond which nobody goes unless he asks for it
    """
    goal, n_depth = GOALS[purpose], PURPOSES[purpose]
    usual = max(DEFAULT_N_CTX, goal.n_prompt + goal.n_gen + n_depth)
    context = n_ctx or min(usual, n_ctx_train or usual)
    n_gen = min(goal.n_gen, max(context // 4, 1))
    n_prompt = min(goal.n_prompt, max(context - n_gen, 1))
    return Work(purpose, n_prompt, n_gen, min(n_depth, max(context - n_prompt - n_gen, 0)), max(context, 2))


def tune(request: TuneRequest, session: Session, *, clock: Callable[[], float] = time.monotonic) -> TuneRecord | None:
    """Look for fast settings and keep the record; after Ctrl-C the best until then. None where nothing was measured.

    Raises
    ------
    UsageError   : the file is no language model.
    HarnessError : the model fits nowhere, even without a device.
    """
    header, path = read_for(request.model, Question.MEASURE), pathlib.Path(request.model)
    kind = find_kind(header)
    if kind.kind is not Kind.TEXT:
        raise UsageError(f"{kind.describe(path.name)}; only what writes text is tuned.")
    work = plan_work(request.purpose, request.n_ctx, read_count(header, "context_length"))
    session.show("looking for devices")
    survey = survey_devices(request.rpc, session.worker_command)
    threads = choose_threads()
    asked = _ask(request, work).with_threads(threads.count)
    room = make_room(request, header, survey, asked, work.n_ctx)
    if request.vram_bytes is not None and not room.devices:
        session.remark(
            "note: there is no device here whose memory --vram could bound; `harness fit --vram` answers for one elsewhere."
        )
    base = choose_base(asked, room)
    if base is None:
        raise HarnessError(_describe_lack(_of_context(asked, work.n_ctx), path))
    check_cells([base], session)
    facts = facts_in(session)(path)
    time_utc, source = utc_now(), threads.source_of(request.settings.get("n_threads"))
    with contextlib.closing(Station()) as station:
        engine = _Engine(Bench(plan_in(session, station, request.cell_timeout_s)), facts, request.cell_timeout_s)

        def record_of(tuner: Tuner) -> TuneRecord:
            record = TuneRecord(
                session.command, time_utc, session.machine, harness.__version__, base, work, vram_bytes=request.vram_bytes,
                model=engine.model, build=engine.build, resolved=engine.resolved, threads_source=source,
            )  # fmt: skip
            return tuner.fill(record)

        def is_noisy(tuner: Tuner) -> bool:
            verdict = judge(record_of(tuner))
            return not request.goes_on_anyway and verdict is not None and verdict.trust is Trust.NOT_TRUSTED

        def show(task: str, done_s: float) -> None:
            session.on_event(
                Progress(task, min(round(done_s), round(request.max_time_s)), round(request.max_time_s), "s")
            )

        tuner = Tuner(
            base, work, room, engine, clock, list_factors(), request.quality, request.max_time_s, request.margin, request.alpha,
            request.seed, frozenset(request.settings), is_noisy, show,
        )  # fmt: skip
        with contextlib.closing(engine), session.until_interrupted():
            tuner.run()
        if not tuner.baseline and tuner.failure is None:
            return None
        record = record_of(tuner)
    session.keep(record)
    session.on_event(Measured(record))
    return record


def keep_result(path: pathlib.Path, record: TuneRecord) -> pathlib.Path | None:
    """Keep what a search came to for ``--tuned``, where it ended and is to be believed; the file that holds it.

    Raises
    ------
    StoreError : it cannot be written.
    """
    model = record.model
    if record.stop not in (Stop.DONE, Stop.TIME) or not _is_believed(record) or record.build is None or model is None:
        return None
    tuned = make_tuned(
        record.chosen, record.work.purpose, record.work.n_ctx, record.time_utc, build=record.build, machine=record.machine,
        sha256=model.file_sha256, size_bytes=model.file_size_bytes,
    )  # fmt: skip
    return keep_tuned(path, tuned)


def _is_believed(record: TuneRecord) -> bool:
    verdict = judge(record)
    return verdict is not None and verdict.trust is not Trust.NOT_TRUSTED


def price_quality(record: TuneRecord, session: Session) -> QualityRecord | None:
    """Measure what a quantized cache that was chosen costs of quality, beside the usual one, and keep it; None where none was chosen.

    A model of random weights predicts nothing, so that nothing is lost. The time is not the search's. Where it cannot be measured, that
    is told, and what was found stands.
    """
    caches = {name: getattr(record.chosen, name) for name in ("type_k", "type_v")}
    is_known = record.model is not None and not record.model.is_synthetic
    if (
        session.is_interrupted
        or not is_known
        or not _is_believed(record)
        or all(getattr(record.base, name) == kind for name, kind in caches.items())
    ):
        return None
    session.show("measuring what the cache costs of quality")
    try:
        measured = measure_quality(compare_caches(record.chosen, [caches], n_chunks=PRICE_WINDOWS), session)
    except HarnessError as error:
        session.remark(f"What the cache costs of quality is not known: {error}")
        session.add(error.outcome)
        return None
    return measured[-1] if len(measured) > 1 else None


def _ask(request: TuneRequest, work: Work) -> RunSpec:
    """The defaults, of the whole work."""
    return RunSpec(
        request.model,
        n_prompt=work.n_prompt,
        n_gen=work.n_gen,
        n_depth=work.n_depth,
        seed=request.seed,
        **request.settings,
    )


def _describe_lack(spec: RunSpec, path: pathlib.Path) -> str:
    needs = estimate_needs(spec)
    size = f" ({format_mib(needs.file_bytes)} of weights)" if needs else ""
    return (
        f"{path.name}{size} does not fit into the {format_mib(available_memory_bytes())} of memory that are free, with a context of "
        f"{spec.n_ctx} tokens; ask for less with --ctx, or take a smaller quantization."
    )


# --- what there is ----------------------------------------------------------------------------------------------------


def make_room(request: TuneRequest, header: Header, survey: Survey, spec: RunSpec, n_ctx: int) -> Room:
    """What this machine and this model leave to choose, with memory as it is free now; the spec has its threads."""
    assert spec.n_threads is not None, "threads are filled in before there is room for them"
    ours, cores = find_our_cpus(), read_tuning().core_cpus
    devices = tuple(device for device in survey.build.devices if device.is_gpu)
    features, blocks = read_features(survey.build.system_info), describe_blocks(header)
    repacked = predict_memory(header, dataclasses.replace(spec, n_gpu_layers=0), Host(features))
    rules = tuple(_limit(rule, request.vram_bytes) for rule in list_rules(survey.build.devices))
    return Room(
        n_threads=spec.n_threads,
        n_cpus=ours.count,
        n_layers=blocks.max_gpu_layers,
        core_cpus=cores,
        n_nodes=_count_nodes(),
        devices=devices,
        has_experts=bool(read_count(header, "expert_count")),
        has_repacked=any(line.cause is Cause.REPACKED for line in repacked.lines),
        has_openmp=features.has("OPENMP"),
        fits=_make_fits(request, header, Host(features, rules), spec, n_ctx),
    )


def _count_nodes() -> int:
    """Nodes of memory, as Linux lists them; 1 elsewhere."""
    names = the_os().names("/sys/devices/system/node")
    return max(sum(name.startswith("node") and name[4:].isdecimal() for name in names), 1)


def _make_fits(
    request: TuneRequest, header: Header, host: Host, spec: RunSpec, n_ctx: int
) -> Callable[[RunSpec], bool]:
    """Whether settings have room: weights, the whole context and computing, on the host's devices and in its memory."""
    free_bytes, cost = available_memory_bytes() - RESERVE_BYTES, cost_of_header(header, "", "")
    planned: dict[str, int] = {}
    if host.devices:
        with contextlib.suppress(HarnessError):  # without a plan weights and cache are a lower bound
            planned = dict(plan_compute(find_model(request.model, weights=False), _of_context(spec, n_ctx))[0])

    @functools.cache
    def fits(asked: RunSpec) -> bool:
        whole = _of_context(asked, n_ctx)
        times = max(1.0, whole.n_ubatch / N_UBATCH)
        computed = {name: round(size * times) for name, size in planned.items()}
        if host.devices and not check_placement(header, whole, host.devices, computed, free_bytes).fits:
            return False
        lines = predict_memory(header, whole, host).lines
        needed = needed_in_host_memory(lines, host.chosen(whole).devices, header)
        return needed + round(estimate_compute_bytes(cost, n_ctx, header) * times) <= free_bytes

    return fits


def _of_context(spec: RunSpec, n_ctx: int) -> RunSpec:
    """The spec with so large a context."""
    return dataclasses.replace(spec, n_prompt=1, n_gen=1, n_depth=max(n_ctx - 2, 0))


def _limit(rule: DeviceRules, vram_bytes: int | None) -> DeviceRules:
    """A device of which no more may be used than was said."""
    if vram_bytes is None:
        return rule
    free = rule.memory_bytes
    return dataclasses.replace(rule, memory_bytes=vram_bytes if free is None else min(free, vram_bytes))


# --- the engine -------------------------------------------------------------------------------------------------------


class _Engine:
    """Has blocks measured by a worker that keeps contexts; a cell that was not among the last few is warmed up again."""

    def __init__(self, bench: Bench, facts: FileFacts, timeout_s: float | None) -> None:
        self._bench, self._facts, self._timeout_s = bench, facts, timeout_s
        self._needs = functools.cache(estimate_needs)
        self._warm: list[RunSpec] = []
        self._nature: object = None
        self.model: Model | None = None
        self.resolved: Resolved | None = None

    @property
    def build(self) -> Build | None:
        """The engine that measures."""
        return self._bench.build

    def measure_block(self, spec: RunSpec) -> Sequence[Sample]:
        """See `harness.runs.tune_races.Measures`."""
        nature = (process_nature(spec), spec.rpc)
        if nature != self._nature:  # it gets a worker of its own, which has none of the contexts
            self._warm, self._nature = [], nature
        command = {"repetitions": spec.repetitions, "keep": True, "is_first": spec not in self._warm}
        samples = []
        for event in self._bench.run(spec, command, self._needs(spec), self._timeout_s):
            if isinstance(event, Failure):
                self._warm.clear()  # a worker that has died takes its contexts along
                raise BlockFailed(blame_file(event, spec.model))
            if event["event"] == "sample":
                samples.append(decode(Sample, event))
            elif event["event"] == "loaded" and self.model is None:
                self.model = model_of(event, self._facts)
            elif event["event"] == "done" and self.resolved is None:
                self.resolved = decode(Resolved, event["resolved"])
        self._warm = [*(one for one in self._warm if one != spec), spec][-MAX_CONTEXTS:]
        return samples

    def close(self) -> None:
        """End the worker."""
        self._bench.close()
