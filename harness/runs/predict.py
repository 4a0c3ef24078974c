"""`harness predict`: how fast a model would be, and whether it fits, before it is downloaded or the machine is bought."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.catalog import Catalog
from harness.errors import HarnessError, UsageError
from harness.gguf.anatomy import name_file_type
from harness.gguf.attention import describe_attention
from harness.gguf.caches import Context
from harness.gguf.cost import Cost, cost_of_header
from harness.gguf.header import Header
from harness.gguf.model_kinds import Kind, find_kind, refuse, refuse_context
from harness.gguf.model_kinds import Question as Ability
from harness.host.machine import describe_machine, machine_slug, predict_features
from harness.host.memory import available_memory_bytes
from harness.records.cells import Record
from harness.records.journal import read_lines
from harness.records.journal_files import find_journals
from harness.records.roofline import ARITHMETIC, READING, Roof, RoofTest, reading_for
from harness.records.verdict import judge, speaking_roof
from harness.sources.catalog_reference import CatalogReference, compute_catalog_header
from harness.sources.headers import Found
from harness.sources.model_file import DEFAULT_MODEL, hash_file
from harness.sources.reference import Reference
from harness.sources.references import parse_reference
from harness.sources.user_catalog import load_catalog
from harness.spec import DEFAULT_N_CTX
from harness.speed.machines import KINDS, Machine, find_machine, known_machines
from harness.speed.own import OwnMachine, predict_own
from harness.speed.prediction import (
    Answer,
    Prediction,
    Question,
    cost_by_size,
    cost_of_entry,
    header_of_entry,
    predict_by_bandwidth,
    predict_for,
)
from harness.speed.published import ARTICLE_MODELS
from harness.speed.rates import Measured, collect, is_shared, name_host
from harness.units import format_mib

#: What a `Question` has from the request as it is.
_AS_ASKED = ("n_depth", "vram_bytes", "memory_bytes", "host", "type_k", "type_v")


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A model (a reference, or the bytes of any dense one) on a machine: a published one, any with a bandwidth (in bytes a second;
    without a kind, of each kind), else this one.

    n_ctx of None is the usual one, or n_depth if that is more. host names the published CPU beside a card, vram_bytes is the card's
    memory, memory_bytes the machine's.
    """

    model: str | None = None
    size_bytes: int | None = None
    machine: str | None = None
    bandwidth: float | None = None
    kind: str | None = None
    flops: float | None = None
    n_ctx: int | None = None
    n_depth: int = 0
    type_k: str = "f16"
    type_v: str = "f16"
    vram_bytes: int | None = None
    memory_bytes: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class _Meant:
    """The model that is meant; about has what a `Prediction` says of it, path is the file that was named itself."""

    cost: Cost
    n_ctx: int | None
    found: Found | None
    about: Prediction
    path: pathlib.Path | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """What is kept of this machine: its cells, and its last roofline."""

    measured: Sequence[Measured]
    roof: Roof | None


def predict(
    request: PredictRequest, results: pathlib.Path, on_remark: Callable[[str], None] = lambda _sentence: None
) -> Prediction:
    """Predict how fast a model generates and reads prompts, and whether it fits.

    Parameters
    ----------
    results  : folder of journals, in which this machine's are read where it is asked about
    on_remark : told of each damaged line in them

    Raises
    ------
    UsageError   : there is no such model or machine, the file generates no text, or nothing is known of this machine.
    HarnessError : the model's header cannot be read.
    """
    catalog = load_catalog()
    meant = _find_model(catalog, request)
    usual = min(DEFAULT_N_CTX, meant.cost.n_ctx_train or DEFAULT_N_CTX)
    n_ctx = meant.n_ctx or max(usual, request.n_depth)
    plan = functools.cache(lambda: _plan_compute(meant, n_ctx, request))
    question = Question(
        meant.cost,
        n_ctx=n_ctx,
        flops_per_s=request.flops,
        header=meant.found.header if meant.found else None,
        file_sha256=hash_file(meant.path) if meant.path else None,
        plan_compute=(lambda: plan()[0]) if meant.found else None,
        **{name: getattr(request, name) for name in _AS_ASKED},
    )
    machines = known_machines(catalog)
    answers: list[Answer]
    if request.machine:
        answers = [predict_for(machine, question, machines) for machine in find_machine(machines, request.machine)]
    elif request.bandwidth:
        kinds = [request.kind] if request.kind else KINDS
        answers = [predict_by_bandwidth(kind, request.bandwidth, question, machines) for kind in kinds]
    else:
        answers = predict_this_machine(read_own(catalog, results, on_remark), question, machines)
    _refuse_cardless(answers, request)
    trouble = plan()[1] if plan.cache_info().currsize else None
    return dataclasses.replace(meant.about, answers=tuple(answers), plan_trouble=trouble)


def _refuse_cardless(answers: Sequence[Answer], request: PredictRequest) -> None:
    """Refuse what is said of a card where none was asked about."""
    flag = "--vram" if request.vram_bytes else "--host" if request.host else None
    if flag is not None and all(answer.kind != "gpu" for answer in answers):
        raise UsageError(
            f"{flag} goes with a card, and {answers[0].machine} is none; name one with --machine, or ask `harness overhead "
            "--predict-only --vram` how many layers fit."
        )


# --- the model --------------------------------------------------------------------------------------------------------


def _find_model(catalog: Catalog, request: PredictRequest) -> _Meant:
    """A bare name of the catalog by its shape, nobody is asked; anything else by its header, without the weights."""
    if request.size_bytes:
        return _Meant(cost_by_size(catalog, request.size_bytes), request.n_ctx, None, Prediction(()))
    reference = parse_reference(request.model or DEFAULT_MODEL)
    if not isinstance(reference, CatalogReference):
        return _read_model(reference, request)
    entry = reference.entry
    quantization = reference.quantization or entry.default_quantization
    cost, encoder = cost_of_entry(entry, quantization, request.type_k, request.type_v)
    about = Prediction((), encoder=encoder, refused=entry.refused if encoder else None)
    found = None
    if header_of_entry(entry, quantization) is not None:
        found = compute_catalog_header(entry, quantization, "predict asks nobody", vocabulary=False)
    return _Meant(cost, request.n_ctx, found, about)


def _read_model(reference: Reference, request: PredictRequest) -> _Meant:
    found, path = reference.header(), reference.local_path()
    header, label = found.header, found.path.name if found.path else reference.shown
    try:
        refuse(header, Ability.SPEED, label)
    except UsageError as error:
        if find_kind(header).kind is not Kind.VOCABULARY:
            raise
        raise UsageError(f"{error}{_describe_cache(header, request)}") from None
    refuse_context(header, request.n_ctx or 0, label, "--ctx")
    refuse_context(header, request.n_depth, label, "--depth")
    kind, n_ctx = find_kind(header), request.n_ctx
    if kind.n_positions is not None:
        n_ctx = n_ctx or min(DEFAULT_N_CTX, kind.n_positions)
    quantization = name_file_type(header) or ""
    # The quantization is told beside the name, and needs no telling in it.
    name = path.stem if path else reference.shown
    name = re.sub(rf"[-_.:]{re.escape(quantization)}$", "", name, flags=re.IGNORECASE) if quantization else name
    cost = cost_of_header(header, quantization, name, request.type_k, request.type_v)
    return _Meant(cost, n_ctx, found, Prediction((), file_kind=kind, label=label, header_note=found.note), path)


def _describe_cache(header: Header, request: PredictRequest) -> str:
    """What a shape without weights tells all the same."""
    n_ctx = request.n_ctx or DEFAULT_N_CTX
    try:
        size = describe_attention(header).size_bytes(Context(n_ctx, request.type_k, request.type_v))
    except HarnessError:
        size = None
    return "" if size is None else f" A cache of this shape takes {format_mib(size)} for {n_ctx} tokens."


def _plan_compute(meant: _Meant, n_ctx: int, request: PredictRequest) -> tuple[int | None, str | None]:
    """(bytes for computing as llama.cpp plans them, why it did not say)."""
    from harness.runs.memory import Model, make_spec, plan_compute  # only where memory is judged

    found = meant.found
    assert found is not None
    try:
        files = found.read_files() if found.read_files else ()
        model = Model(meant.cost.name, found.header, files, found.path)
        spec = make_spec(model, n_ctx, {"type_k": request.type_k, "type_v": request.type_v})
        planned, trouble = plan_compute(model, spec)
        return sum(planned.values()) or None, trouble
    except HarnessError as error:
        return None, str(error)


# --- this machine -----------------------------------------------------------------------------------------------------


def read_own(catalog: Catalog, results: pathlib.Path, on_remark: Callable[[str], None]) -> Own:
    """Read this machine's journals; a damaged line is told to `on_remark`."""
    journals = find_journals((), results / machine_slug(describe_machine()))
    roofs: list[Roof] = []

    def cells() -> Iterator[Record]:  # one by one, for their samples are let go
        for line in read_lines(journals, on_remark, ("result", "failure", "roofline")):
            if isinstance(line.content, Roof):
                roofs.append(line.content)
            elif isinstance(line.content, Record):
                yield line.content

    return Own(collect(cells(), catalog), speaking_roof(roofs))


def predict_this_machine(own: Own, question: Question, machines: Sequence[Machine]) -> list[Answer]:
    """One answer for the CPU, and one for each card that was measured.

    Raises
    ------
    UsageError : neither a roofline nor a record is there.
    """
    roof, host = own.roof, name_host(describe_machine())
    labels = {item.machine_label: item.kind for item in own.measured if not is_shared(item.record)}
    for test in roof.tests if roof else ():
        labels.setdefault(host if test.kind == "cpu" else test.description, test.kind if test.kind == "cpu" else "gpu")
    memory_bytes = question.memory_bytes or available_memory_bytes()
    question = dataclasses.replace(question, memory_bytes=memory_bytes, features=predict_features())
    return [
        predict_own(_describe_own(own, label, kind, question), question, machines)
        for label, kind in (labels or {host: "cpu"}).items()
    ]


def _describe_own(own: Own, label: str, kind: str, question: Question) -> OwnMachine:
    """What is known of the device that records call by its label; there is one CPU."""
    measured = [item for item in own.measured if item.machine_label == label]
    found: tuple[RoofTest | None, ...] = (None, None, None)
    for test in own.roof.tests if own.roof else ():
        if own.roof and (test.kind == "cpu" if kind == "cpu" else test.description == label):
            typed = reading_for(own.roof, test.device, question.cost.quantization)
            found = (own.roof.best(READING, test.device), typed, own.roof.best(ARITHMETIC, test.device))
            break
    cautions = _list_cautions(own.roof) if own.roof else ()
    reading, by_type, product = (test.rate_per_s if test else None for test in found)
    return OwnMachine(label, kind, measured, reading, by_type, product, cautions)


def predict_article(catalog: Catalog, own: Own) -> list[Answer]:
    """The article's models on this machine; none where nothing is known of it yet."""
    machines = known_machines(catalog)
    answers: list[Answer] = []
    for name in (name for name in ARTICLE_MODELS if name in catalog.entries):
        entry = catalog.entries[name]
        quantization = entry.default_quantization
        question = Question(cost_of_entry(entry, quantization)[0], header=header_of_entry(entry, quantization))
        try:
            answers += predict_this_machine(own, question, machines)
        except UsageError:
            return []
    return answers


def _list_cautions(roof: Roof) -> tuple[str, ...]:
    """What is to be known of the roof that a prediction rests on: its cautions, and why it is noisy or not to be trusted."""
    verdict = judge(roof)
    reasons = verdict.reasons if verdict else ()
    return tuple(dict.fromkeys(caution.text for caution in (*roof.warnings, *reasons)))
