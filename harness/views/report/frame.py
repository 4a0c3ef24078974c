"""What the report says about its records as a whole: summary, machines, failures, warnings, method."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from harness.records.ab import Ab
from harness.records.cells import Machine, machine_key
from harness.records.failures import describe_failure
from harness.records.memory import MemoryRecord
from harness.records.noise import NoiseRecord
from harness.records.ollama import Comparison
from harness.records.parity import Parity
from harness.records.quality import QualityRecord
from harness.records.speculation import Speculation
from harness.records.token_time import TimeRecord
from harness.records.tuning import TuneRecord
from harness.records.verdict import Trust
from harness.units import format_count
from harness.views.cells import describe_layers
from harness.views.document import Block, Column, Document, Figure, KeyFigures, Prose, Section, Table
from harness.views.parity import describe_parity
from harness.views.report.material import Material
from harness.views.values import FILE, INTERVAL, MINUTE, RATE, format_interval, format_value


def page_of(*blocks: Block, title: str = "") -> list[Document]:
    """Blocks as the one document of a chapter."""
    return [Document("report", 1, title, [Section("", blocks)])]


def explained(paragraphs: Sequence[str], documents: Sequence[Document]) -> list[Document]:
    """Documents below sentences that say what they show; nothing where there are none."""
    return [*page_of(Prose(paragraphs)), *documents] if documents else []


def in_report(
    material: Material,
    record: MemoryRecord | TimeRecord | Comparison | Ab | Speculation | TuneRecord | QualityRecord | NoiseRecord,
    document: Document,
) -> Document:
    """The document under the name that the model has on this page, with the machine, where there are several, and the time."""
    machine = material.machine_name(record.machine) if len(material.machines) > 1 else ""
    name = material.model_name(record) if isinstance(record, MemoryRecord | TimeRecord) else document.title
    parts = [name, machine, format_value(record.time_utc, MINUTE)]
    return dataclasses.replace(document, title=" · ".join(filter(None, parts)))


# --- summary ----------------------------------------------------------------------------------------------------------


def summarize_page(material: Material) -> Sequence[Document]:
    """The whole in a few sentences."""
    sentences = [_count_things(material)]
    sentences += [text for kind in ("pp", "tg") if (text := _describe_best(material, kind))]
    distrusted = sum(cell.summary.is_distrusted for cell in material.cells)
    if distrusted:
        are = "figure is" if distrusted == 1 else "figures are"
        sentences.append(f"{distrusted} {are} not to be trusted, for what the footnotes say.")
    others = sum(verdict.trust is Trust.NOT_TRUSTED for _, verdict in material.verdicts if verdict)
    if others:
        are = "ledger, text or comparison is" if others == 1 else "ledgers, texts and comparisons are"
        sentences.append(f"{others} {are} not to be trusted, for the reasons that stand below each.")
    if any(record.model and record.model.is_synthetic for record in material.records):
        sentences.append(
            "Figures of synthetic models, which have the shape of a real one and random weights, are marked: they tell speed, "
            "and nothing else."
        )
    if material.failures:
        sentences.append(f"{format_count(len(material.failures), 'cell')} failed; they are listed under Failures.")
    return page_of(Prose(sentences))


def _count_things(material: Material) -> str:
    names = {material.model_name(record) for record in material.records}
    names |= {material.model_name(run) for run in material.texts if run.model}
    things = {"measured cell": len(material.records), "written text": len(material.texts)}
    counted = " and ".join(format_count(count, noun) for noun, count in things.items() if count)
    where = format_count(len(material.machines), "machine")
    if not counted:
        return (
            f"There are {format_count(len(material.lines), 'line')} of other kinds from {where}, and no measured cell."
        )
    return f"This page shows {counted} of {format_count(len(names), 'model')} on {where}."


def _describe_best(material: Material, kind: str) -> str | None:
    """The quickest record of pure prompt processing or generation, with its interval and what it was."""
    wanted = [cell for cell in material.cells if cell.record.asked.kind == kind and not cell.record.failure]
    if not wanted:
        return None
    # What is not to be trusted is told only where there is nothing else, and so is what several users get together.
    quickest = max(
        wanted,
        key=lambda cell: (
            not cell.summary.is_distrusted,
            cell.record.asked.n_parallel == 1,
            cell.summary.rate_tok_per_s,
        ),
    )
    best, summary = quickest.record, quickest.summary
    what = "Prompts went in at up to" if kind == "pp" else "Text came out at up to"
    interval = "too few repetitions for an interval"
    if summary.interval:
        interval = f"{INTERVAL} {format_interval(*summary.interval, RATE, with_sign=False)}"
    layers = best.resolved.layers_by_device if best.resolved else {}
    devices = "" if set(layers) <= {"CPU"} else f", layers: {describe_layers(best)}"
    where = f" on {material.machine_name(best.machine)}" if len(material.machines) > 1 else ""
    doubt = "; not to be trusted" if summary.is_distrusted else ""
    return (
        f"{what} {format_value(summary.rate_tok_per_s, RATE, with_sign=False)} tokens/s ({interval}): {best.asked.test}, "
        f"{material.model_name(best)}, {best.asked.n_threads} threads{devices}{where}{doubt}."
    )


# --- machines ---------------------------------------------------------------------------------------------------------


def describe_machines(material: Material) -> Sequence[Document]:
    """Hardware, system and engine of each machine."""
    documents = []
    for machine in material.machines:
        title = material.machine_name(machine) if len(material.machines) > 1 else ""
        documents += page_of(KeyFigures([Figure("", *pair) for pair in _machine_pairs(material, machine)]), title=title)
    return documents


def _machine_pairs(material: Material, machine: Machine) -> list[tuple[str, str]]:
    key = machine_key(machine)
    seen = [one for one in material.every_machine if machine_key(one) == key]
    builds = [build for one, build in material.engines if machine_key(one) == key]
    engines = (
        f"{build.commit} (ggml {build.ggml_version}, llama-cpp-python {build.llama_cpp_python}), "
        # Servers have addresses of their own, which are among the devices.
        f"{', '.join(dict.fromkeys(name.partition('[')[0] for name in build.backends))}"
        for build in builds
    )
    found = [device for build in builds for device in build.devices if device.kind != "cpu"]
    devices = {(device.name, device.description, device.memory_total_bytes) for device in found}
    return [
        ("CPU", machine.cpu),
        ("cores", f"{machine.n_cores_physical} physical, {machine.n_cores_logical} logical"),
        ("memory", format_value(machine.memory_bytes, FILE)),
        *(("system", text) for text in dict.fromkeys(f"{one.os}, {one.arch}, Python {one.python}" for one in seen)),
        *(("llama.cpp", text) for text in dict.fromkeys(engines)),
        *(("compiled with", text) for text in dict.fromkeys(build.system_info for build in builds)),
        *(
            (name, description + (f", {format_value(memory, FILE)}" if memory else ""))
            for name, description, memory in sorted(devices, key=str)
        ),
    ]


# --- beside llama-bench, trouble, method ------------------------------------------------------------------------------


def show_parity(material: Material) -> Sequence[Document]:
    """Comparisons with llama-bench, by scripts/parity."""
    lines = material.contents(Parity)
    return [describe_parity(lines, material.file_label)] if lines else []


def list_failures(material: Material) -> Sequence[Document]:
    """Cells that have no result, and why."""
    found = [(record, record.failure) for record in material.failures if record.failure]
    columns = [
        Column("model", of=lambda one: material.model_name(one[0])), Column("test", of=lambda one: one[0].asked.test),
        Column("phase", of=lambda one: one[1].phase), Column("message", "what happened", of=lambda one: describe_failure(one[1])),
        Column("log", "last words", of=lambda one: one[1].log[-1] if one[1].log else None),
    ]  # fmt: skip
    return page_of(Table.of("failures", found, columns)) if found else []


def list_warnings(material: Material) -> Sequence[Document]:
    """Every caution once with the number of figures that it qualifies, and what could not be read."""
    cautions = [caution for cell in material.cells for caution in cell.summary.cautions]
    # Of the other kinds a record counts as one figure.
    for record, verdict in material.verdicts:
        reasons = verdict.reasons if verdict else ()
        cautions += dict.fromkeys([*getattr(record, "warnings", ()), *reasons])
    # Many records share one object: its sentence is made once.
    same, counts = {id(caution): caution for caution in cautions}, collections.Counter[tuple[str, bool]]()
    for place, count in collections.Counter(map(id, cautions)).items():
        counts[same[place].text, same[place].distrust] += count
    rows = [
        [text, "not to be trusted" if distrust else "with care", count]
        for (text, distrust), count in sorted(counts.items(), key=lambda item: (not item[0][1], item[0][0]))
    ]
    columns = [Column("warning"), Column("trust", "take the figure"), Column("n_figures", "figures")]
    blocks: list[Block] = [Table("warnings", columns, rows)] if rows else []
    if material.troubles:
        blocks.append(Prose(material.troubles, is_list=True))
    return page_of(*blocks) if blocks else []


def describe_method(material: Material, shown: Sequence[str]) -> Sequence[Document]:
    """How the figures came about; shown are the kinds of lines that have a chapter."""
    texts = []
    if material.records:
        numbers = {record.asked.repetitions for record in material.records}
        counts = [str(number) for number in sorted(number for number in numbers if number is not None)]
        counts += ["as many as the median's interval needs"] * (None in numbers)
        warm = all(record.asked.warmup for record in material.records)
        texts.append(
            "Speeds were measured as llama-bench measures them: random tokens, the cache cleared before each repetition, prompts in "
            "chunks of n_batch, one token a decode without sampling. ppN is a prompt of N tokens, tgN the generation of N, @ dN with N "
            f"tokens in the cache before. Repetitions: {', '.join(counts)}{', after a warm-up' if warm else ''}."
        )
        texts.append(
            "t/s is tokens divided by the median duration. The interval holds the true median with 95 % confidence and assumes nothing "
            "about the shape of the noise (order statistics; it needs six repetitions). Where two intervals overlap, do not call one "
            "faster."
        )
    if material.texts:
        texts.append(
            "Texts were written with the model's own chat template and sampled; their figures mean what those of ollama run --verbose "
            "mean. Records hold no prompt and no text unless that was asked for."
        )
    others = [line.kind for line in material.lines if line.kind not in shown]
    for kind in sorted(set(others)):
        texts.append(
            f"Not shown: {format_count(others.count(kind), 'line')} of kind {kind}, which this version has no section for."
        )
    versions = sorted({line.harness_version for line in material.lines if line.harness_version})
    facts = [
        Figure("", "records", ", ".join(material.files)),
        Figure("", "written by harness", ", ".join(versions) or "not said"),
    ]
    return page_of(Prose(texts), KeyFigures(facts))
