"""What of a roofline, a text, a comparison, a memory ledger cannot be; `time_doubts` says it of a time ledger.

Each function yields the doubts about one kind of record, derived from what the record holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from harness.evidence.medians import median
from harness.records.cautions import Caution, CautionCause
from harness.records.doubts import Limits, doubt, doubt_rounds, doubt_same
from harness.records.memory import MemoryRecord
from harness.records.ollama import Comparison, Round
from harness.records.parity import Parity
from harness.records.quality import QualityRecord
from harness.records.roofline import ARITHMETIC, READING, SECOND_METHOD, Roof, RoofTest
from harness.records.speculation import Speculation, round_ratios
from harness.records.text import Figures, TextRun

#: Repetitions of one piece of work: those of a virtual machine with neighbours differ by 10 %.
REPETITIONS = Limits(0.15, 0.5)

#: Times the rate of one thread: what all of them must come to at least. Reading may gain nothing; it loses nothing either.
HINDERED = Limits(0.2, 0.5)

#: Two ways to read the same memory, ggml's kernels and numpy: 1.0 and 1.35 times on one machine. They share neither code nor threads.
TWO_METHODS = Limits(3.0)

#: Bytes and operations a second that no machine reads or does: slower than a memory card, quicker than a rack of cards.
SENSIBLE = {READING: (1e8, 1e14), SECOND_METHOD: (1e8, 1e14), ARITHMETIC: (1e8, 1e17)}

#: A token that took so many times the median one was held up; and what of the time such tokens had beyond it.
HELD_UP_TIMES, HELD_UP = 3.0, Limits(0.05, 0.25)

#: By how much parts may exceed what they are parts of: clocks are read one after the other.
EXCESS = Limits(0.01, 0.02)

#: What of the growth of resident memory nothing explains, either way: below 0.1 % on the machines tried.
UNEXPLAINED = Limits(0.05, 0.20)

#: What was swapped out, and what left memory again while the process only grew, as a share of the growth.
SWAPPED, LEFT = Limits(0.0, 0.02), Limits(0.02, 0.20)

#: Pairs of runs that are to tell a difference of one percent.
PAIRS = Limits(0.05, 0.15)


def doubt_roof(roof: Roof) -> Iterator[Caution]:
    """Repetitions that disagree, more threads that are slower, methods that differ, rates beyond sense, wrong results.

    Only what speaks for a device, its quickest test of a work, makes a roof worthless; of the others the doubt is told.
    """
    spoken = {id(roof.best(work, device)) for device in roof.devices() for work in (READING, ARITHMETIC)}
    for test in roof.tests:
        limits = REPETITIONS if id(test) in spoken else Limits(REPETITIONS.noisy)
        yield from doubt_rounds(test.durations_ns, limits, part=name_test(test))
        low, high = SENSIBLE.get(test.work, (0.0, float("inf")))
        if not low < test.rate_per_s < high:
            yield Caution(CautionCause.RATE_SENSELESS, distrust=True, part=name_test(test), rate_per_s=test.rate_per_s)
        if not test.is_right:
            yield Caution(CautionCause.WRONG_RESULT, distrust=True, part=name_test(test))
    for device in roof.devices():
        for work in (READING, ARITHMETIC):
            yield from _doubt_threads(roof, work, device)
        reading, second = roof.best(READING, device), roof.best(SECOND_METHOD, device)
        if reading and second:
            seconds = 1 / second.rate_per_s, 1 / reading.rate_per_s
            yield from doubt_same(*seconds, TWO_METHODS, part=SECOND_METHOD, other_part=READING)


def find_doubted(roof: Roof) -> set[str]:
    """The tests, as `name_test` calls them, that are not to be trusted."""
    return {doubt.part for doubt in doubt_roof(roof) if doubt.distrust and doubt.part}


def name_test(test: RoofTest) -> str:
    """What a test is called in a doubt about it."""
    threads = f", {test.n_threads} threads" if test.n_threads else ""
    return f"{test.work} {test.type_name} on {test.device}{threads}"


def _doubt_threads(roof: Roof, work: str, device: str) -> Iterator[Caution]:
    """The most threads beside one, type by type."""
    by_type: dict[str, dict[int, float]] = defaultdict(dict)
    for test in roof.tests:
        if (test.work, test.device) == (work, device) and test.n_threads:
            by_type[test.type_name][test.n_threads] = test.rate_per_s
    for type_name, rates in by_type.items():
        most = max(rates)
        if most > 1 and 1 in rates:
            share = rates[most] / rates[1]
            about = {"part": f"{work} {type_name}", "n_threads": most, "share": share}
            yield from doubt(CautionCause.THREADS_HINDER, 1 - share, HINDERED, **about)


def doubt_text(run: TextRun) -> Iterator[Caution]:
    """Tokens that were held up, and parts that take longer than the whole."""
    yield from doubt_tokens(run.token_ns)
    yield from _doubt_figures(run.figures, run.sample_ns, run.decode_ns)


def doubt_tokens(token_ns: Sequence[int]) -> Iterator[Caution]:
    """The time that tokens took beyond the usual one where they took several times as long: the first is another one's work."""
    later = token_ns[1:]
    if len(later) < 6:
        return
    usual = median(later)
    held = [ns - usual for ns in later if ns > HELD_UP_TIMES * usual]
    share = sum(held) / sum(later) if sum(later) else 0.0
    about = {"share": share, "n_stalled": len(held), "n_timed": len(later)}
    yield from doubt(CautionCause.STALLED, share, HELD_UP, **about)


def _doubt_figures(figures: Figures, sample_ns: int | None = None, decode_ns: int | None = None) -> Iterator[Caution]:
    parts = (figures.load_duration_ns, figures.prompt_eval_duration_ns, figures.eval_duration_ns)
    for part, spent, other, whole in (
        ("loading, prompt and tokens", sum(ns or 0 for ns in parts), "all of it", figures.total_duration_ns),
        ("sampling and decoding", (sample_ns or 0) + (decode_ns or 0), "writing", figures.eval_duration_ns or 0),
    ):
        if whole > 0:
            over = spent / whole - 1
            yield from doubt(CautionCause.PARTS_EXCEED_WHOLE, over, EXCESS, share=over, part=part, other_part=other)


def doubt_comparison(comparison: Comparison) -> Iterator[Caution]:
    """Both sides: rounds that disagree on either's rate, tokens that were held up here, parts above their whole on either."""
    here = [turn.direct.figures for turn in comparison.rounds]
    there = [turn.ollama for turn in comparison.rounds if turn.ollama]
    sides: tuple[tuple[str, Sequence[Figures]], ...] = (("harness", here), ("Ollama", there))
    for side, figures in sides:
        for what, rates in (
            ("prompt", [one.prompt_eval_rate_tok_per_s for one in figures]),
            ("generation", [one.eval_rate_tok_per_s for one in figures]),
        ):
            yield from doubt_rounds([rate for rate in rates if rate], part=f"{side}'s {what}")
    for turn in comparison.rounds:
        yield from _doubt_round(turn)


def _doubt_round(turn: Round) -> Iterator[Caution]:
    yield from doubt_tokens(turn.direct.token_ns)
    yield from _doubt_figures(turn.direct.figures, turn.direct.sample_ns, turn.direct.decode_ns)
    if turn.ollama:
        yield from _doubt_figures(turn.ollama)
        server_ns, wall_ns = turn.ollama.server_ns, turn.ollama.wall_ns
        if server_ns is not None and wall_ns:
            over, about = -server_ns / wall_ns, {"part": "Ollama's own time", "other_part": "the wait for it"}
            yield from doubt(CautionCause.PARTS_EXCEED_WHOLE, over, EXCESS, share=over, **about)


def doubt_parity(parity: Parity) -> Iterator[Caution]:
    """Pairs that disagree on the ratio."""
    yield from doubt_rounds(parity.ratios, PAIRS, part="the ratio")


def doubt_memory(record: MemoryRecord) -> Iterator[Caution]:
    """What was swapped out, what left memory meanwhile, and what nothing explains. Another process's memory does not matter to ours."""
    measured = record.measurement
    if measured is None:
        return
    growth = measured.resident_bytes - measured.interpreter_bytes
    swapped = max(reading.swap_bytes or 0 for reading in measured.grown)
    whole = max(growth, 1)
    yield from doubt(CautionCause.SWAPPED_OUT, swapped / whole, SWAPPED, size_bytes=swapped)
    rss = [reading.rss_bytes for reading in measured.grown]
    left = max((max(before - after, 0) for before, after in zip(rss, rss[1:], strict=False)), default=0)
    yield from doubt(CautionCause.LEFT_MEMORY, left / whole, LEFT, size_bytes=left)
    unexplained = measured.account.unexplained_bytes
    if unexplained is not None:
        share = abs(unexplained) / whole
        yield from doubt(CautionCause.UNEXPLAINED, share, UNEXPLAINED, share=share)


def doubt_speculation(record: Speculation) -> Iterator[Caution]:
    """Rounds that disagree on how much faster a text is with some draft than without."""
    for length in record.manner.lengths:
        yield from doubt_rounds(round_ratios(record.passages, 0, length), part=f"the speed-up by drafts of {length}")


def doubt_quality(record: QualityRecord) -> Iterator[Caution]:
    """Windows of which a figure came out infinite or as no number: what is left says nothing of the text."""
    if record.n_infinite:
        yield Caution(CautionCause.NOT_FINITE, distrust=True, n_done=record.n_infinite, n_wanted=len(record.windows))
