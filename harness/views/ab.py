"""Two settings decided: for each test both speeds, the ratio with its interval, and the decision in words."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UsageError
from harness.evidence.sequential import Decision, SequentialTest
from harness.evidence.two_samples import Ratio
from harness.records.ab import Ab, Arm, Side, Stop, replay
from harness.records.failures import describe_failure
from harness.records.verdict import judge_all
from harness.spec import find_varied
from harness.units import format_count
from harness.views.document import Bar, Bars, Cell, Column, Document, Figure, KeyFigures, Prose, Section, Table, Value
from harness.views.settings import format_settings
from harness.views.values import CHANGE, DURATION, GIVEN_SHARE, INTERVAL, RATE, SHARE, format_value
from harness.views.verdict import with_verdict

#: Ends of an interval: B's speed against A's, as a change (0.03: 3 % faster).
Change = tuple[float, float]


def describe_ab(records: Sequence[Ab]) -> Document:
    """The tests of one command, whose arms are the same in all of them.

    Raises
    ------
    UsageError : there is no record.
    """
    if not records:
        raise UsageError("There is no decision to show; measure one with `harness ab`.")
    first, tests = records[0], [(record, replay(record)) for record in records]
    sentences = [f"{record.a.asked.test}: {_decide(record, test)}." for record, test in tests]
    notes = [f"A decision of this command is false in at most {format_value(first.alpha, GIVEN_SHARE)} of cases"]
    notes[0] += f"; its {first.n_tests} tests share that evenly." if first.n_tests > 1 else "."
    table = Table("tests", _columns(), [_row(record, test) for record, test in tests], notes)
    facts = _facts(first)
    arms = Table("arms", [Column("arm"), Column("settings", wraps=True)], _describe_arms(first))
    sections = [Section("", [facts, arms, table, Prose(sentences)]), Section("", _bars(tests))]
    return with_verdict(Document("ab", 1, "", sections, main="tests"), judge_all(records))


def describe_test(content: object) -> str | None:
    """One line on a test that was just decided, for whoever waits."""
    if not isinstance(content, Ab):
        return None
    return f"{content.a.asked.test}: {_decide(content, replay(content))}"


def change_of(ratio: Ratio | None) -> tuple[float | None, Change | None]:
    """By how much B is faster than A (0.03: its rate is 3 % higher; below 0: slower) by the ratio of durations, and the interval of
    that."""
    if ratio is None:
        return None, None
    ends = ratio.ends
    return 1 / ratio.value - 1, ends and (1 / ends[1] - 1, 1 / ends[0] - 1)


def _columns() -> list[Column]:
    return [
        Column("test"), Column("a", "A t/s", RATE), Column("b", "B t/s", RATE),
        Column("change", "B − A", CHANGE, interval=INTERVAL), Column("pairs", align="r"), Column("elapsed", "time", DURATION),
        Column("decision", is_shown=False), Column("stop", is_shown=False), Column("margin", unit=GIVEN_SHARE, is_shown=False),
        Column("alpha", unit=GIVEN_SHARE, is_shown=False), Column("repetitions", is_shown=False), Column("seed", is_shown=False),
    ]  # fmt: skip


def _row(record: Ab, test: SequentialTest) -> list[Cell | Value]:
    change, ends = change_of(test.ratio)
    rates = [record.rate(arm) for arm in Arm]
    counted = [len(block.timed) for block in record.blocks if not block.is_trial]
    return [
        record.a.asked.test, *rates, Cell(change, interval=ends), len(record.pairs), record.elapsed_ns,
        test.decision.value, record.stop.value, record.margin, record.alpha, max(counted, default=None), record.seed,
    ]  # fmt: skip


def _decide(record: Ab, test: SequentialTest) -> str:
    """The answer, without a full stop."""
    change, ends = change_of(test.ratio)
    match test.decision:
        case Decision.FASTER | Decision.SLOWER if change is not None and ends is not None:
            word = "faster" if change > 0 else "slower"
            low, high = sorted(map(abs, ends))
            return f"B is {_share(abs(change))} {word} [{_number(low)}, {_number(high)}]"
        case Decision.NO_DIFFERENCE:
            return f"no difference larger than {format_value(record.margin, GIVEN_SHARE)}"
    return f"not decided{_why(record)}: {_within(ends, len(record.pairs))}"


def _why(record: Ab) -> str:
    pairs = format_count(len(record.pairs), "pair")
    match record.stop:
        case Stop.TIME:
            return f" within {record.max_time_s:g} s"
        case Stop.PAIRS | Stop.DECIDED:
            return f" by {pairs}"
        case Stop.INTERRUPTED:
            return f", interrupted after {pairs}"
        case Stop.FAILED:
            arm = record.failed_arm.value if record.failed_arm else "a worker"
            what = describe_failure(record.failure) if record.failure else "it failed"
            return f", {arm} failed after {pairs} ({what})"


def _within(ends: Change | None, n_pairs: int) -> str:
    if ends is None:
        return f"{format_count(n_pairs, 'pair')} {'is' if n_pairs == 1 else 'are'} too few for an interval"
    words = [f"{_share(abs(end))} {'slower' if end < 0 else 'faster'}" for end in ends]
    return f"B is between {words[0]} and {words[1]}"


def _share(share: float) -> str:
    return format_value(share, SHARE)


def _number(share: float) -> str:
    return _share(share).removesuffix(" %")


def _describe_arms(record: Ab) -> list[list[Cell | Value]]:
    """What tells the arms apart: models, settings, builds."""
    varied = find_varied((record.a.asked, record.b.asked))
    files = {side.asked.file_name for side in (record.a, record.b)}
    builds = {(side.build.commit, side.build.llama_cpp_python) for side in (record.a, record.b) if side.build}
    rows: list[list[Cell | Value]] = []
    for arm in Arm:
        side = record.side(arm)
        words = [side.asked.file_name] * (len(files) > 1) + [format_settings(side.asked, varied)]
        words += [_describe_build(side)] * (len(builds) > 1 or side.has_python)
        words += [f"made {format_value(side.slowdown, GIVEN_SHARE)} slower by a test"] * (side.slowdown > 0)
        rows.append([arm.value, ", ".join(filter(None, words)) or "the same settings"])
    return rows


def _describe_build(side: Side) -> str:
    where = " of another Python" if side.has_python else ""
    if side.build is None:
        return f"llama-cpp-python{where}"
    return f"llama.cpp {side.build.commit} (llama-cpp-python {side.build.llama_cpp_python}{where})"


def _facts(record: Ab) -> KeyFigures:
    """What both have in common: the model where it is one, and the threads."""
    models = {side.model.description for side in (record.a, record.b) if side.model}
    synthetic = all(side.model and side.model.is_synthetic for side in (record.a, record.b))
    model = models.pop() + (" (synthetic)" if synthetic else "") if len(models) == 1 else None
    threads = {side.asked.n_threads for side in (record.a, record.b)}
    return KeyFigures(
        [
            Figure("model", "", model),
            Figure("n_threads", "", threads.pop() if len(threads) == 1 else None, phrase="{} threads"),
            Figure("margin", "margin", record.margin, GIVEN_SHARE),
        ],
        in_line=True,
    )


def _bars(tests: Sequence[tuple[Ab, SequentialTest]]) -> list[Bars]:
    """Both speeds of each test."""
    found = []
    for record, _ in tests:
        bars = [
            Bar(arm.value, rate, interval.ends if (interval := record.interval(arm)) else None)
            for arm in Arm
            if (rate := record.rate(arm))
        ]
        caption = f"The orange line is the {INTERVAL} of the median."
        found += [Bars(record.a.asked.test, RATE, bars, caption, record.a.asked.test)] if bars else []
    return found
