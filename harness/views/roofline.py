"""What a machine does at best, and what was measured under that roof, as a document."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from harness.records.failures import describe_end
from harness.records.plausibility import find_doubted, name_test
from harness.records.roofline import ARITHMETIC, READING, SECOND_METHOD, Roof, RoofTest
from harness.records.verdict import judge
from harness.speed.roofline import TOO_MUCH, UnderRoof
from harness.views.document import (
    Cell,
    Column,
    Document,
    Figure,
    KeyFigures,
    Picture,
    Prose,
    Section,
    Table,
    for_programs,
)
from harness.views.figures.roofline import draw_roofline
from harness.views.settings import format_settings
from harness.views.values import ARITHMETIC as FLOPS
from harness.views.values import BANDWIDTH, FILE, GB_ALONE, GFLOP, INTERVAL, RATE, SHARE
from harness.views.verdict import MARK, MARK_MEANS, with_verdict

_HEADINGS = {READING: "reading (ggml, matrix × vector)", ARITHMETIC: "multiplying (ggml, matrix × matrix)"}


def describe_roofline(roof: Roof, under: Sequence[UnderRoof]) -> Document:
    """Both roofs by device, threads and type; the second method beside them; then each cell's share of them."""
    sizes = [test.n_bytes for test in roof.tests if test.work == READING]
    n_runs = min((len(test.durations_ns) for test in roof.tests), default=0)
    facts = [
        Figure("cpu", "", roof.machine.cpu),
        Figure("size", "", max(sizes, default=None), FILE, "matrices of {} read"),
        Figure("n_runs", "", n_runs, phrase="medians of {} runs"),
        Figure("time_utc", "", roof.time_utc, is_shown=False),
    ]
    picture = Picture(
        lambda theme: draw_roofline(roof, under, theme), f"Roofline of {roof.machine.cpu}; the tables have its figures"
    )
    sections = [Section("", [KeyFigures(facts, in_line=True), picture])]
    for work, heading in _HEADINGS.items():
        if tests := [test for test in roof.tests if test.work == work]:
            sections.append(Section(heading, [_show_tests(tests, find_doubted(roof))]))
    if seconds := [test for test in roof.tests if test.work == SECOND_METHOD]:
        sections.append(
            Section("", [Prose(list(_compare_methods(roof, seconds))), _show_tests(seconds, (), is_shown=False)])
        )
    if under:
        sections.append(Section("measured here, against the quickest of them", [_show_under(under)]))
    else:
        sections.append(Section("", [Prose(["No records of known models here yet; `harness pp-tg` makes some."])]))
    data = {"machine": roof.machine, "build": roof.build}
    return with_verdict(Document("roofline", 1, "", sections, list(_warn(roof)), data), judge(roof))


def _warn(roof: Roof) -> Iterator[str]:
    for test in roof.tests:
        if not test.is_right:
            error = "not numbers" if test.max_error is None else f"off by {test.max_error:.2g}"
            yield f"{test.device} {test.type_name} gives wrong results ({error})"
    yield from (caution.text for caution in roof.warnings)
    if roof.failure:
        yield describe_end(roof.failure)


def _show_tests(tests: Sequence[RoofTest], doubted: Collection[str], *, is_shown: bool = True) -> Table:
    unit = FLOPS if tests[0].work == ARITHMETIC else BANDWIDTH

    def rate(test: RoofTest) -> Cell:
        mark = MARK if name_test(test) in doubted else ""
        return Cell(test.rate_per_s, interval=found.ends if (found := test.interval) else None, mark=mark)

    columns = [
        *for_programs("work"),
        Column("device", of=lambda test: test.device if test.kind == "cpu" else f"{test.device} {test.description}"),
        Column("type", of=lambda test: test.type_name + (" repacked" if test.is_repacked else "")),
        Column("n_threads", "threads"), Column("rate", unit.sign, unit, interval=INTERVAL, of=rate),
        Column("result", of=lambda test: "right" if test.is_right else "WRONG"),
        *for_programs("n_bytes", "n_flops", "max_error", "tolerance"),
    ]  # fmt: skip
    notes = [MARK_MEANS] if any(name_test(test) in doubted for test in tests) else []
    shown = columns if is_shown else [replace(column, is_shown=False) for column in columns]
    return Table.of("tests", tests, shown, notes)


def _compare_methods(roof: Roof, seconds: Sequence[RoofTest]) -> Iterator[str]:
    """What numpy reads with as many threads, and the ratio."""
    for test in seconds:
        same = [t for t in roof.tests if t.work == READING and t.kind == "cpu" and t.n_threads == test.n_threads]
        if same:
            ratio = max(t.rate_per_s for t in same) / test.rate_per_s
            yield (
                f"numpy.max with {test.n_threads} thread{'s' * (test.n_threads != 1)}: {test.rate_per_s / 1e9:.2f} GB/s; "
                f"ggml's best is {ratio:.2f} times that"
            )


def _show_under(under: Sequence[UnderRoof]) -> Table:
    notes = ["of roof: t/s against bandwidth / bytes a token (tg), and FLOP/s / operations a token (pp)."]
    if any(item.is_synthetic for item in under):
        notes.append("* random weights in this model's shape.")
    if any(item.share > TOO_MUCH for item in under):
        notes.append(
            "! more than the roof: it was measured while the machine was busier; run `harness roofline` again."
        )

    def test(item: UnderRoof) -> str:
        return "\n".join((item.asked.test, *(format_settings(item.asked, (name,)) for name in item.varied)))

    def token(item: UnderRoof) -> Cell:
        return Cell(item.flops_per_token, GFLOP) if item.n_prompt else Cell(item.bytes_per_token, GB_ALONE)

    columns = [
        Column("model", of=lambda item: Cell(f"{item.model} {item.quantization}", mark="*" if item.is_synthetic else "")),
        Column("test", wraps=True, of=test), Column("n_threads", "thr."), Column("rate", "t/s", RATE),
        Column("roof", "roof t/s", RATE, left_out=1), Column("token", "a token", of=token),
        Column("used", is_shown=False, of=lambda item: Cell(item.used_per_s, FLOPS if item.n_prompt else BANDWIDTH)),
        Column("share", "of roof", SHARE, of=lambda item: Cell(item.share, mark="!" if item.share > TOO_MUCH else "")),
    ]  # fmt: skip
    return Table.of("records", under, columns, notes)
