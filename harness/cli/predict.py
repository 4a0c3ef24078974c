"""`harness predict`: how fast a model would be, before it is downloaded or the machine is bought."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from harness.cli import terminal
from harness.cli.options import (
    Amount,
    Memory,
    context_option,
    one_reference,
    one_value,
    refuse_contradiction,
    results_option,
    vram_option,
)
from harness.errors import HarnessError, UsageError
from harness.gguf.cost import Cost
from harness.gguf.header import Header
from harness.gguf.settings import tell_untrained
from harness.records.roofline import Roof
from harness.spec import DEFAULT_N_CTX
from harness.speed.prediction import KINDS, Answer, Machine, Question
from harness.speed.rates import Measured

if TYPE_CHECKING:
    from harness.sources.headers import Found
    from harness.sources.reference import Reference

_EXAMPLES = """
\b
Examples:
  harness predict -m llama3.1:8b:q4_0               on this machine
  harness predict -m model.gguf --depth 8192 -ctk q8_0 -ctv q8_0
  harness predict -m hf:OWNER/REPO:Q4_K_M           from its header alone
  harness predict -m llama3.1:8b:q4_0 --machine "M4 Pro"
  harness predict --size 20GB --bandwidth 273GB/s --kind apple
  harness predict -m llama3.1:70b:q4_0 --machine "RTX 3070 Ti" --host i7-8700
  harness predict -m llama3.1:70b:q4_0 --machine "M4 Pro" --memory 48GiB
  harness predict --check                           how far it is wrong
"""


#: Context in tokens where nobody asks for another.

#: Options that say what is asked, by name; None where they are not given.
_QUESTION = {
    "model": "-m",
    "size_bytes": "--size",
    "machine": "--machine",
    "bandwidth": "--bandwidth",
    "host": "--host",
    "vram_bytes": "--vram",
    "memory_bytes": "--memory",
}


@click.command("predict", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@one_reference("model")
@click.option("--size", "size_bytes", type=Amount("20GB"), metavar="SIZE", help="Any dense model of this size instead.")
@click.option("--machine", metavar="NAME", help="A published machine instead of this one.")
@click.option(
    "--bandwidth", type=Amount("273GB/s", "/s|ps"), metavar="RATE", help="Any machine with this memory bandwidth."
)
@click.option("--kind", type=click.Choice(KINDS), help="What has that bandwidth; else all kinds are shown.")
@click.option(
    "--flops", type=Amount("20TFLOPS", "flops(/s)?|flop/s"), metavar="RATE", help="What matrix products reach, for pp."
)
@context_option()
@one_value("n_depth")
@one_value("type_k")
@one_value("type_v")
@vram_option
@click.option(
    "--memory", "memory_bytes", type=Memory("48GB"), metavar="SIZE", help="Memory of the machine; 48GB is 48 GiB."
)
@click.option("--host", metavar="NAME", help="Published CPU that takes the layers that a card cannot.")
@click.option("--check", is_flag=True, help="Predict every published figure without itself, and show the errors.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format. [table]")
@results_option
def command(**options: Any) -> None:
    """Predict how fast a model generates and reads prompts on a machine, and whether it fits.

    Generating is limited by reading the weights: the prediction is the time of reading them, at the share of the bandwidth that
    machines of the kind really have, plus what each layer costs. A machine's own figures (records here, published ones elsewhere)
    move it.
    """
    from harness.sources.user_catalog import load_catalog
    from harness.views.predict import render_answers, render_answers_json, render_check, render_check_json

    catalog = load_catalog()
    _refuse_nonsense(options)
    if options["check"]:
        from harness.speed.crosscheck import check_predictions

        check = check_predictions(catalog)
        terminal.show((render_check_json if options["output"] == "json" else render_check)(check), nl=False)
        return
    cost, found, remarks = _find_model(catalog, options)
    options["n_ctx"] = options["n_ctx"] or max(DEFAULT_N_CTX, options["n_depth"])
    planner = _Planner(found, cost.name, options) if found else None
    question = Question(
        cost=cost,
        **{name: options[name] for name in ("n_ctx", "n_depth", "vram_bytes", "memory_bytes", "host")},
        flops_per_s=options["flops"],
        header=found.header if found else None,
        type_k=options["type_k"],
        type_v=options["type_v"],
        file_sha256=_hash_asked(options["model"]),
        plan_compute=planner.ask if planner else None,
    )
    answers = _answer(catalog, question, options)
    _refuse_cardless(answers, options)
    trouble = f"working memory is estimated: {planner.trouble}" if planner and planner.trouble else ""
    remarks = (*remarks, tell_untrained(cost.n_ctx_train, [options["n_ctx"]]) or "", trouble)
    render = render_answers_json if options["output"] == "json" else render_answers
    terminal.show(render(answers, remarks), nl=False)


def _refuse_nonsense(options: dict[str, Any]) -> None:
    given = [flag for name, flag in _QUESTION.items() if options[name] is not None]
    refuse_contradiction(
        options["check"] and bool(given),
        f"--check predicts what was published and asks nothing else; leave out {given[0] if given else ''}.",
    )
    refuse_contradiction(
        bool(options["model"] and options["size_bytes"]), "-m and --size both name a model; give one of them."
    )
    refuse_contradiction(
        bool(options["machine"] and options["bandwidth"]),
        "--machine and --bandwidth both name a machine; give one of them.",
    )
    refuse_contradiction(
        bool(options["kind"] and not options["bandwidth"]), "--kind says what has the --bandwidth; give that too."
    )
    n_ctx, n_depth = options["n_ctx"], options["n_depth"]
    refuse_contradiction(
        n_ctx is not None and n_depth > n_ctx,
        f"A context of {n_ctx} tokens holds no {n_depth}; ask for more with --ctx, or leave it out.",
    )


def _refuse_cardless(answers: Sequence[Answer], options: dict[str, Any]) -> None:
    """Refuse what is said of a card where none was asked about."""
    flag = "--vram" if options["vram_bytes"] else "--host" if options["host"] else None
    refuse_contradiction(
        flag is not None and all(answer.kind != "gpu" for answer in answers),
        f"{flag} goes with a card, and {answers[0].machine} is none; name one with --machine, or ask `harness overhead "
        "--predict-only --vram` how many layers fit.",
    )


class _Planner:
    """Asks llama.cpp, once, what it would plan for computing; trouble is why it did not say."""

    def __init__(self, found: Found, label: str, options: dict[str, Any]) -> None:
        self._found, self._label, self._options = found, label, options
        self._planned: dict[str, int] | None = None
        self.trouble: str | None = None

    def ask(self) -> int | None:
        if self._planned is None:
            self._planned, trouble = self._plan()
            self.trouble = trouble and trouble.rstrip(".")
        return sum(self._planned.values()) or None

    def _plan(self) -> tuple[dict[str, int], str | None]:
        from harness.runs.memory import Model, make_spec, plan_compute

        try:
            files = self._found.read_files() if self._found.read_files else ()
            model = Model(self._label, self._found.header, files, self._found.path)
            types = {name: self._options[name] for name in ("type_k", "type_v")}
            return plan_compute(model, make_spec(model, self._options["n_ctx"], types))
        except HarnessError as error:
            return {}, str(error)


def _find_model(catalog: Any, options: dict[str, Any]) -> tuple[Cost, Found | None, tuple[str, ...]]:
    """Cost and header of the model that is meant, with remarks: a bare name of the catalog by its shape, else by its header."""
    from harness.sources.catalog_reference import CatalogReference, compute_catalog_header
    from harness.sources.references import parse_reference
    from harness.speed.prediction import cost_by_size, cost_of_entry, header_of_entry

    if options["size_bytes"]:
        cost = cost_by_size(catalog, options["size_bytes"])
        guess = f"taken as a dense Q4_0 of Llama's family: {cost.n_layers} layers, all bytes read for a token"
        return cost, None, (guess,)
    text = options["model"] or "smollm2:135m"
    reference = parse_reference(text)
    if isinstance(reference, CatalogReference):
        entry = reference.entry
        quantization = reference.quantization or entry.default_quantization
        cost, remarks = cost_of_entry(entry, quantization, options["type_k"], options["type_v"])
        if header_of_entry(entry, quantization) is None:
            return cost, None, remarks
        return cost, compute_catalog_header(entry, quantization, "predict asks nobody"), remarks
    return _read_model(reference, options)


def _hash_asked(text: str | None) -> str | None:
    """The hash of the file that is asked about, where it lies here."""
    from harness.sources.model_file import hash_file
    from harness.sources.references import parse_reference

    path = parse_reference(text).local_path() if text else None
    return hash_file(path) if path else None


def _read_model(reference: Reference, options: dict[str, Any]) -> tuple[Cost, Found, tuple[str, ...]]:
    """By the model's header, from this disk or from its server without the weights."""
    from harness.gguf.anatomy import name_file_type
    from harness.gguf.cost import cost_of_header

    found, path = reference.header(), reference.local_path()
    remarks = _check_header(found.header, options, found.path.name if found.path else reference.shown)
    label = path.stem if path else reference.shown
    kind = name_file_type(found.header) or ""
    # The quantization is told beside the name, and needs no telling in it.
    name = re.sub(rf"[-_.:]{re.escape(kind)}$", "", label, flags=re.IGNORECASE) if kind else label
    cost = cost_of_header(found.header, kind, name, options["type_k"], options["type_v"])
    return cost, found, (*(() if found.note is None else (found.note.rstrip("."),)), *remarks)


def _check_header(header: Header, options: dict[str, Any], label: str) -> tuple[str, ...]:
    """Remarks on what the file is; the default context is bounded by learned positions.

    Raises
    ------
    UsageError : the file generates no text, or has fewer positions than are asked for.
    """
    from harness.gguf import model_kinds as kinds

    found = kinds.find_kind(header)
    if found.kind is kinds.Kind.VOCABULARY and kinds.may_be_asked(header, kinds.Question.MEMORY):
        raise UsageError(f"{found.describe(label)}. {_tell_cache(header, options)}")
    kinds.refuse(header, kinds.Question.SPEED, label)
    for name, flag in (("n_ctx", "--ctx"), ("n_depth", "--depth")):
        kinds.refuse_context(header, options[name] or 0, label, flag)
    if found.n_positions is not None:
        options["n_ctx"] = options["n_ctx"] or min(DEFAULT_N_CTX, found.n_positions)
    return () if found.kind is kinds.Kind.TEXT else (found.describe(label),)


def _tell_cache(header: Header, options: dict[str, Any]) -> str:
    """What a header without weights tells all the same: the cache of its shape, as every command counts it."""
    from harness.gguf.attention import Context, describe_attention
    from harness.units import format_mib

    n_ctx = options["n_ctx"] or DEFAULT_N_CTX
    try:
        size = describe_attention(header).size_bytes(Context(n_ctx, options["type_k"], options["type_v"]))
    except HarnessError:
        size = None
    if size is None:
        return "What its cache would take does not follow from it either."
    return f"A cache of this shape takes {format_mib(size)} for {n_ctx} tokens."


def _answer(catalog: Any, question: Question, options: dict[str, Any]) -> list[Answer]:
    from harness.speed.prediction import find_machine, known_machines, predict_by_bandwidth, predict_for

    machines = known_machines(catalog)
    if options["machine"]:
        return [predict_for(machine, question, machines) for machine in find_machine(machines, options["machine"])]
    if options["bandwidth"]:
        kinds = [options["kind"]] if options["kind"] else KINDS
        return [predict_by_bandwidth(kind, options["bandwidth"], question, machines) for kind in kinds]
    return answer_here(read_own(catalog, options["results"]), question, machines)


@dataclass(frozen=True, slots=True)
class Own:
    """What is kept of this machine: its cells, and its last roofline."""

    measured: Sequence[Measured]
    roof: Roof | None


def read_own(catalog: Any, results: pathlib.Path) -> Own:
    """Read this machine's journals."""
    from harness.cli.journals import own_journals, read_measured_and_roofs
    from harness.records.roofline import latest

    measured, roofs = read_measured_and_roofs(own_journals(results), catalog)
    return Own(measured, latest(roofs))


def answer_here(own_records: Own, question: Question, machines: Sequence[Machine]) -> list[Answer]:
    """One answer for the CPU, and one for each card that was measured."""
    import dataclasses

    from harness.host.machine import describe_machine
    from harness.host.memory import available_memory_bytes
    from harness.records.roofline import ARITHMETIC, READING, reading_for
    from harness.speed.prediction import OwnMachine, predict_own
    from harness.speed.rates import is_shared, name_host

    measured, roof = own_records.measured, own_records.roof
    host = name_host(describe_machine())
    labels = {item.machine_label: item.kind for item in measured if not is_shared(item.record)}
    for test in roof.tests if roof else ():
        labels.setdefault(host if test.kind == "cpu" else test.description, test.kind if test.kind == "cpu" else "gpu")
    question = dataclasses.replace(question, memory_bytes=question.memory_bytes or available_memory_bytes())
    answers = []
    for label, kind in (labels or {host: "cpu"}).items():
        device = _find_device(roof, label, kind)
        reading = roof.best(READING, device) if roof and device else None
        typed = reading_for(roof, device, question.cost.quantization) if roof and device else None
        product = roof.best(ARITHMETIC, device) if roof and device else None
        own = OwnMachine(
            label,
            kind,
            [item for item in measured if item.machine_label == label],
            reading.rate_per_s if reading else None,
            typed.rate_per_s if typed else None,
            product.rate_per_s if product else None,
            tuple(f"while harness roofline ran: {caution.text}" for caution in roof.warnings) if roof else (),
        )
        answers.append(predict_own(own, question, machines))
    return answers


def _find_device(roof: Roof | None, label: str, kind: str) -> str | None:
    """ggml's name of the device that records call by its description; there is one CPU."""
    for test in roof.tests if roof else ():
        if test.kind == "cpu" if kind == "cpu" else test.description == label:
            return test.device
    return None
