"""harness beside llama-bench or llama-batched-bench, as `scripts/parity` and `scripts/batched-parity` compare them: the table of
tests, and each one's verdict in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.evidence.medians import median
from harness.records.parity import ALPHA, Equality, Parity
from harness.records.verdict import judge
from harness.units import format_count
from harness.views.document import Block, Cell, Column, Document, Prose, Section, Table
from harness.views.values import FINE_RATIO, GIVEN_SHARE, INTERVAL, MINUTE, RATE, format_interval, format_value
from harness.views.verdict import describe_verdict

_MEANS = "harness and {}, from the same source, run by run, compared pair by pair. Above 1, harness was faster."

_VERDICTS = {
    Equality.EQUAL: "equal within ± {margin}",
    Equality.FASTER: "harness is faster",
    Equality.SLOWER: "harness is slower",
    Equality.UNDECIDED: "not known whether they are equal within ± {margin}",
}


def name_test(parity: Parity) -> str:
    """The test as llama-bench names it."""
    several = f" x{parity.n_parallel}" if parity.n_parallel > 1 else ""
    depth = f" @ d{parity.n_depth}" if parity.n_depth else ""
    return parity.test + several + depth + (" shared" if parity.is_prompt_shared else "")


def describe_equality(parity: Parity) -> str:
    """What the pairs show and how sure that is, ``equal within ± 1 %: ratio 1.0020 [0.9960 – 1.0080], 24 pairs, at 95 %``; empty for
    a fixed number of pairs."""
    test = parity.weighed
    equality = parity.equality
    if test is None or parity.margin is None or equality is None:
        return ""
    verdict = _VERDICTS[equality].format(margin=format_value(parity.margin, GIVEN_SHARE))
    n_pairs, ratio = format_count(len(test.log_ratios), "pair"), test.ratio
    if ratio is None or (ends := ratio.ends) is None:
        return f"{verdict}: ratio {format_value(median(parity.ratios), FINE_RATIO)}, too few pairs for an interval ({n_pairs})"
    interval = format_interval(*ends, FINE_RATIO)
    sure = format_value(1 - ALPHA, GIVEN_SHARE)
    return f"{verdict}: ratio {format_value(ratio.value, FINE_RATIO)} [{interval}], {n_pairs}, at {sure}"


def describe_parity(lines: Sequence[Parity], name_model: Callable[[str], str] = str) -> Document:
    """Comparisons, a row each; name_model says how a file's name is shown."""
    references = list(dict.fromkeys(line.reference for line in lines))
    several = len(references) > 1
    columns = [
        Column("model", of=lambda line: name_model(line.model)), Column("test", of=name_test),
        Column("harness", "harness t/s", RATE),
        Column("llama_bench", "its t/s" if several else f"{''.join(references)} t/s", RATE),
        Column("reference", "beside", is_shown=several),
        Column("ratio", unit=FINE_RATIO, interval=INTERVAL, of=_ratio), Column("n_pairs", "pairs", of=lambda line: len(line.ratios)),
        Column("time_utc", "when", MINUTE, left_out=1),
    ]  # fmt: skip
    verdicts = [
        f"{name_model(line.model)} {name_test(line)}: {_describe_both(line)}"
        for line in lines
        if line.margin is not None
    ]
    means = _MEANS.format(" or ".join(references))
    blocks: list[Block] = [Prose([means]), Table.of("parity", lines, columns), Prose(verdicts, is_list=True)]
    return Document("parity", 1, "", [Section("", blocks)])


def _describe_both(line: Parity) -> str:
    """The verdict on both programs, and that on the pairs where they were disturbed."""
    trust = judge(line)
    disturbed = f"; {describe_verdict(trust)}" if trust and trust.reasons else ""
    return describe_equality(line) + disturbed


def _ratio(line: Parity) -> Cell:
    """The ratio with its interval: the sequential test's where one decided, else the median's."""
    if (test := line.weighed) is None:
        return Cell(median(line.ratios), interval=found.ends if (found := line.interval) else None)
    ratio = test.ratio
    if ratio is None:
        return Cell(median(line.ratios))
    return Cell(ratio.value, interval=ratio.ends)
