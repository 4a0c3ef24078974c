"""Chapters of records that have a Document each: ledgers of memory and time, roofs, texts, comparisons with Ollama."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from harness.records.ab import Ab
from harness.records.advice import advise, find_tests
from harness.records.cells import machine_key
from harness.records.memory import MemoryRecord
from harness.records.noise import NoiseRecord
from harness.records.ollama import Comparison
from harness.records.quality import QualityRecord
from harness.records.roofline import Roof
from harness.records.speculation import Speculation
from harness.records.token_time import TimeRecord
from harness.records.tuning import TuneRecord
from harness.spec import cell_key
from harness.speed.roofline import hold_against
from harness.views.ab import describe_ab
from harness.views.document import Document
from harness.views.machines import describe_machines
from harness.views.memory import describe_memory
from harness.views.noise import describe_noise
from harness.views.ollama import describe_comparison
from harness.views.predict import describe_answers
from harness.views.quality import describe_quality
from harness.views.report.frame import explained, in_report
from harness.views.report.material import Material
from harness.views.roofline import describe_roofline
from harness.views.speculate import describe_speculation
from harness.views.text import describe_texts
from harness.views.token_time import describe_token_time
from harness.views.tune import describe_tuning

Ledger = TypeVar("Ledger", bound=MemoryRecord | TimeRecord)

#: What a ledger of time says that it asked, beside its cell.
_TIME_PLAN = operator.attrgetter("depths", "rounds", "n_tokens", "cache_types", "load_rounds", "application_tokens")


def show_memory(material: Material) -> Sequence[Document]:
    """Memory ledgers, of the same question the latest."""
    means = "What a model takes, cause by cause: predicted from its header, allocated by llama.cpp, and how much of it was in memory."

    def describe(record: MemoryRecord) -> Document:
        # The page's name, in the picture too, says itself what is synthetic.
        named = dataclasses.replace(record.model, label=material.model_name(record), is_synthetic=False)
        return describe_memory(dataclasses.replace(record, model=named))

    return _show_latest(material, means, MemoryRecord, _memory_question, describe)


def show_token_time(material: Material) -> Sequence[Document]:
    """Time ledgers, of the same question the latest."""
    means = (
        "Where the time of a generated token goes: measured part by part, and inside the decode node by node, brought down to the "
        "token that nobody watched. Figures are medians."
    )
    return _show_latest(
        material, means, TimeRecord, _time_question, lambda one: describe_token_time(one, material.model_name(one))
    )


def show_roofline(material: Material) -> Sequence[Document]:
    """What each machine reads and calculates at best, and the records under it; the latest measurement of each machine."""
    latest = {machine_key(roof.machine): roof for roof in material.contents(Roof)}
    means = (
        "Generating a token reads every weight once, so reading limits it; a prompt shares the reading among its tokens, so "
        "arithmetic limits it. Both were measured by ggml itself, with large matrices."
    )
    return explained(
        [means], [describe_roofline(roof, hold_against(material.measured, roof)) for roof in latest.values()]
    )


def show_texts(material: Material) -> Sequence[Document]:
    """Texts that models wrote, with Ollama's figures."""
    means = (
        "PP and TG are what Ollama calls prompt eval rate and eval rate; sampling and the way of the text are in them. The first "
        "token's decode counts as the prompt's, so TG is a little too good for short texts."
    )
    runs = [(material.model_name(run), run) for run in material.texts]
    return explained([means], [describe_texts(runs, with_time=True)] if runs else [])


def show_published(material: Material) -> Sequence[Document]:
    """Measured generation among the published machines, fastest first."""
    if not (material.catalog and material.with_published) or all(row.is_published for row in material.standings):
        return []
    means = "» marks what was measured by harness; the other rows are an article's, with nothing said of their spread."
    return explained([means], [describe_machines(material.standings, "tg")])


def show_predictions(material: Material) -> Sequence[Document]:
    """What the article's models would do on the machine that made the page."""
    means = "Predicted for the machine that made this page, by harness predict. Nothing here was measured."
    return explained([means], [describe_answers(material.answers)] if material.answers else [])


def show_ollama(material: Material) -> Sequence[Document]:
    """Comparisons with an Ollama server."""
    means = "The same file, prompts, context, threads and layers, by turns, through an Ollama server and directly."
    found = [one for one in material.contents(Comparison) if one.ollama_version]
    return explained([means], [in_report(material, one, describe_comparison(one)) for one in found])


def show_ab(material: Material) -> Sequence[Document]:
    """Decisions between two settings, the tests of one run below each other."""
    means = "Two settings measured by turns, in random order, until a test that may be looked at knew the answer."
    latest = {_ab_question(one): one for one in material.contents(Ab)}
    runs: dict[Any, list[Ab]] = {}
    for one in latest.values():
        runs.setdefault(_ab_question(one, but=("n_prompt", "n_gen")), []).append(one)
    return explained([means], [in_report(material, found[0], describe_ab(found)) for found in runs.values()])


def show_noise(material: Material) -> Sequence[Document]:
    """How noisy each machine was, by its latest half minute."""
    means = (
        "Two small tests repeated by turns for a while: which differences this machine can show, and what would help."
    )
    latest = {machine_key(one.machine): one for one in material.contents(NoiseRecord) if one.blocks}
    return explained([means], [in_report(material, one, _describe_noise(one)) for one in latest.values()])


def _describe_noise(record: NoiseRecord) -> Document:
    tests = find_tests(record)
    return describe_noise(record, tests, advise(tests, record.tuning))


def show_tuning(material: Material) -> Sequence[Document]:
    """Searches for fast settings, of the same file and the same work the latest."""
    means = "Settings raced against llama.cpp's defaults in short tests, and what won held against them by turns until it was proven."
    latest = {
        (machine_key(one.machine), cell_key(one.base), one.work, one.quality): one
        for one in material.contents(TuneRecord)
    }
    return explained([means], [in_report(material, one, describe_tuning(one)) for one in latest.values()])


def show_quality(material: Material) -> Sequence[Document]:
    """Models over the same text and windows beside the same base, of each the latest."""
    means = (
        "How well a text is predicted (perplexity: the lower the better), and how far a model's predictions are from those of a base "
        "model (KL divergence)."
    )
    latest = {(_quality_question(one), _who(one)): one for one in material.contents(QualityRecord) if one.windows}
    groups: dict[Any, list[QualityRecord]] = {}
    for (question, _), one in latest.items():
        groups.setdefault(question, []).append(one)
    ordered = [sorted(group, key=lambda one: one.base is not None) for group in groups.values()]
    return explained([means], [in_report(material, group[0], _name_quality(group)) for group in ordered])


def _name_quality(group: Sequence[QualityRecord]) -> Document:
    text, n_ctx = group[0].text.name, group[0].asked.n_ctx
    return dataclasses.replace(describe_quality(group), title=f"{text}, windows of {n_ctx} tokens")


def _who(record: QualityRecord) -> tuple[Any, ...]:
    """The model with its settings."""
    return (record.model.file_sha256 if record.model else None) or record.asked.file_name, cell_key(
        record.asked, but=("model",)
    )


def _quality_question(record: QualityRecord) -> tuple[Any, ...]:
    """What models have to have in common to stand in one table: text, windows, base; a base is its own."""
    asked, model = (record.base.asked, record.base.model) if record.base else (record.asked, record.model)
    base = (model.file_sha256 if model else None) or asked.file_name, cell_key(asked, but=("model",))
    return (machine_key(record.machine), record.text.sha256, base)


def show_speculation(material: Material) -> Sequence[Document]:
    """Drafts, of the same pair and the same texts the latest."""
    means = "Tokens guessed by a small model or out of the text so far, and checked by the large one all at once: what that brings."
    latest = {_speculation_question(one): one for one in material.contents(Speculation)}
    return explained([means], [in_report(material, one, describe_speculation(one)) for one in latest.values()])


def _speculation_question(record: Speculation) -> tuple[Any, ...]:
    members = [one and cell_key(one.asked) for one in (record.target, record.draft)]
    return (machine_key(record.machine), *members, record.manner, tuple(prompt.sha256 for prompt in record.prompts))


def _show_latest(
    material: Material, means: str, kind: type[Ledger], question: Callable[[Ledger], Any], describe: Callable[[Ledger], Document],
) -> Sequence[Document]:  # fmt: skip
    """Of the same question the latest ledger, in the order of the files, and how many older ones there are."""
    found = material.contents(kind)
    latest = {id(one) for one in {question(one): one for one in found}.values()}
    documents = [in_report(material, one, describe(one)) for one in found if id(one) in latest]
    n_older = len(found) - len(latest)
    are = "one of the same is" if n_older == 1 else "ones of the same are"
    older = [f"The latest of each is shown; {n_older} older {are} left out."] if n_older else []
    return explained([means, *older], documents)


def _memory_question(record: MemoryRecord) -> tuple[Any, ...]:
    """What a ledger was about: two of the same are one, made again."""
    cell = cell_key(record.asked, but=("model",))
    return (machine_key(record.machine), record.model.label, record.forecast.n_ctx, cell)


def _time_question(record: TimeRecord) -> tuple[Any, ...]:
    model, asked = record.model.file_sha256 or record.model.file_name, record.asked
    return (machine_key(record.machine), model, cell_key(asked.spec, but=("model",)), _TIME_PLAN(asked))


def _ab_question(record: Ab, but: tuple[str, ...] = ()) -> tuple[Any, ...]:
    arms = [(cell_key(side.asked, but=but), side.has_python, side.slowdown) for side in (record.a, record.b)]
    return (machine_key(record.machine), *arms)
