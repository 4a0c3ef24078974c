"""How noisy a machine is as a Document: the verdict, what repetitions show, what was seen, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.host.programs import ProgramTime
from harness.records.advice import Advice, Advised, Test, count_disturbances
from harness.records.cautions import describe_caution
from harness.records.disturbances import Disturbance
from harness.records.noise import NoiseRecord, Tuning
from harness.records.trust import Trust
from harness.records.verdict import judge
from harness.units import format_count
from harness.views.document import Cell, Column, Document, Figure, KeyFigures, Line, Picture, Prose, Section, Table
from harness.views.figures.noise import draw_noise
from harness.views.values import (
    CHANGE,
    COUNT,
    DURATION,
    ROUND_SHARE,
    SHARE,
    Unit,
    format_list,
)

_PLUS_MINUS = Unit("", lambda share: f"± {_bounded(share)}")
_SEEN_SHARE = Unit("", lambda share: _bounded(share))


def _bounded(share: float) -> str:
    """A share of which nobody wants to know how much more than all it is."""
    return SHARE.form(share) if share <= 1 else "> 100 %"


_VERDICTS = {
    Trust.QUIET: "quiet: nothing disturbed it",
    Trust.NOISY: "noisy: its figures hold, but less closely than their digits say",
    Trust.NOT_TRUSTED: "not to be trusted: what is measured now is worth nothing",
}

#: What was seen, as a row of the table says it.
_SEEN = {
    Disturbance.OTHERS: "other programs ran on our CPUs",
    Disturbance.STEAL: "the hypervisor gave our CPUs to others",
    Disturbance.QUOTA: "a control group's quota held us back",
    Disturbance.PAGE_INS: "pages came from disk",
    Disturbance.SWAP: "pages went to or came from swap",
    Disturbance.HEAT: "the processor was slowed for its heat",
    Disturbance.CLOCK: "the clock was below its usual",
    Disturbance.SWITCHES: "threads were sent off their CPUs",
}


def describe_noise(record: NoiseRecord, tests: Sequence[Test], advised: Sequence[Advised]) -> Document:
    """What half a minute says of a machine.

    Parameters
    ----------
    tests   : what was found of each test, as `advice.find_tests` finds it
    advised : what would help, the most important first
    """
    verdict = judge(record)
    trust = verdict.trust if verdict else None
    facts = [
        Figure("verdict", "", trust.value if trust else None, is_shown=False),
        Figure("cpu", "", record.machine.cpu),
        Figure("model", "", record.model.description if record.model else None),
        Figure("n_threads", "", next((test.cell.asked.n_threads for test in tests), None), phrase="{} threads"),
        Figure("n_repetitions", "", sum(len(test.cell.timed) for test in tests), COUNT, "{} repetitions"),
        Figure("time_utc", "", record.time_utc, is_shown=False),
    ]
    said = [f"This machine is {_VERDICTS[trust]}."] if trust else []
    said += [f"{_capital(describe_caution(reason))}." for reason in verdict.reasons] if verdict else []
    picture = Picture(
        lambda theme: draw_noise(record, tests, theme), "Each repetition over time; the tables have its figures"
    )
    sections = [
        Section("", [KeyFigures(facts, in_line=True), picture, Prose(said)]),
        Section("", [_show_tests(tests)]),
        Section("what repetitions show here", [_show_detectable(tests)]),
    ]
    if seen := _show_seen(tests):
        sections.append(Section("what was seen", [seen]))
    sections.append(Section("what would help", [_show_advice(advised, tests, record.tuning)]))
    about = {"machine": record.machine, "build": record.build, "tuning": record.tuning}
    return Document("noise", 1, "", sections, list(_warn(tests)), about, main="detectable")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _warn(tests: Sequence[Test]) -> Iterator[str]:
    for test in tests:
        if test.pattern is None:
            done = format_count(len(test.cell.timed), "repetition")
            yield f"{test.cell.asked.test}: {done} say nothing of what others would show; give a longer --time."


def _show_tests(tests: Sequence[Test]) -> Table:
    """The durations of each test, and what they look like in time."""
    columns = [
        Column("test"), Column("n_repetitions", "reps", COUNT), Column("median", "median", DURATION),
        Column("spread", "spread", _PLUS_MINUS), Column("drift", "drift", CHANGE), Column("correlation", is_shown=False),
        Column("states", "two states", wraps=True), Column("n_disturbed", "disturbed", COUNT),
        *(Column(name, unit=DURATION, is_shown=False) for name in ("quick_state", "slow_state")),
        Column("slow_share", is_shown=False),
    ]  # fmt: skip
    notes = (
        ["spread: half the distance of the quartiles, of the median."] if any(test.pattern for test in tests) else []
    )
    if any(test.pattern and test.pattern.drift is not None for test in tests):
        notes.append("drift: the last third against the first.")
    return Table("tests", columns, [_test_line(test) for test in tests], notes, missing="")


def _test_line(test: Test) -> Line:
    found = test.pattern
    states = found.states if found else None
    told = None
    if states:
        told = f"{DURATION.form(states[0])} and {DURATION.form(states[1])} ({ROUND_SHARE.form(states[2])})"
    n_disturbed = sum(bool(one.disturbances) for one in test.marked)
    is_known = any(one.sample.conditions for one in test.marked)
    return [
        test.cell.asked.test, len(test.cell.timed), found.median_ns if found else None, found.spread if found else None,
        found.drift if found else None, found.correlation if found else None, told, n_disturbed if is_known else None,
        *(states[:2] if states else (None, None)), states[2] if states else None,
    ]  # fmt: skip


def _show_detectable(tests: Sequence[Test]) -> Table:
    columns = [
        Column("test", is_merged=True), Column("n", "reps", COUNT), Column("half_width", "interval", _PLUS_MINUS),
        Column("apart", "two runs compared", _SEEN_SHARE), Column("paired", "by turns (ab)", _SEEN_SHARE),
        Column("equal_apart", "equal runs differ", ROUND_SHARE),
    ]  # fmt: skip
    rows: list[Line] = [
        [test.cell.asked.test, one.n, one.half_width, one.apart, one.paired, one.equal_apart]
        for test in tests
        for one in test.detectable
    ]
    notes = [
        "interval: of the median. two runs compared, by turns: the smallest difference that is found in 80 of 100 cases, of "
        "two runs after each other and of pairs of neighbours.",
        "equal runs differ: how often two runs after each other seem to, though nothing was changed; 5 % is what is allowed.",
    ]
    return Table("detectable", columns, rows, notes)


def _show_seen(tests: Sequence[Test]) -> Table | None:
    shares = count_disturbances(tests)
    columns = [
        Column("disturbance", "what", of=lambda one: _SEEN[one]), Column("name", of=lambda one: one.value, is_shown=False),
        Column("share", "of repetitions", ROUND_SHARE, of=lambda one: shares[one]),
    ]  # fmt: skip
    ordered = sorted(shares, key=lambda one: -shares[one])
    return Table.of("seen", ordered, columns) if ordered else None


def _show_advice(advised: Sequence[Advised], tests: Sequence[Test], tuning: Tuning | None) -> Table | Prose:
    if not advised:
        steady = all(test.is_steady for test in tests)
        return Prose(["Nothing: it is steady." if steady else "Nothing that is known here: no cause was seen."])
    columns = [
        Column("place", "#", COUNT, of=lambda one: advised.index(one) + 1),
        Column("text", "what to do", wraps=True, of=lambda one: describe_advice(one.advice, tuning or Tuning())),
        Column("advice", of=lambda one: one.advice.value, is_shown=False),
        Column("share", "seen in", ROUND_SHARE, of=lambda one: Cell(one.share) if one.share else None),
    ]
    return Table.of("advice", advised, columns, missing="")


def describe_advice(advice: Advice, tuning: Tuning) -> str:
    """What to do, in a sentence."""
    governors = format_list([one for one in tuning.governors if one != "performance"])
    preferences = format_list([one for one in tuning.preferences if one != "performance"])
    quota = "" if tuning.quota is None else f" of {tuning.quota:g} CPUs"
    is_intel = (tuning.driver or "").startswith("intel")
    turbo = f"{'1' if is_intel else '0'} | sudo tee /sys/devices/system/cpu/{'intel_pstate/no_turbo' if is_intel else 'cpufreq/boost'}"
    sentences = {
        Advice.END_PROGRAMS: "End what else computes here, or wait until it has ended.",
        Advice.LEAVE_NEIGHBOURS: (
            "The hypervisor's other guests take CPUs away: ask for CPUs of your own (dedicated, not shared), or measure when they rest."
        ),
        Advice.RAISE_QUOTA: (
            f"Raise the control group's quota{quota} (docker --cpus, cpu.max), or take fewer threads with -t than it gives CPUs."
        ),
        Advice.COOL: "Let it cool down: air, a lower power limit, or pauses (--delay); a clock that heat decides is nobody's speed.",
        Advice.FREE_MEMORY: "Free memory: pages come from disk while it computes. A smaller model or context, or fewer programs.",
        Advice.PLUG_IN: "Plug it in: it runs on its battery.",
        Advice.GOVERNOR: f"Set the governor to performance (it is {governors}): sudo cpupower frequency-set -g performance",
        Advice.PREFERENCE: (
            f"Have the processor prefer performance (it prefers {preferences}): sudo cpupower set --epp performance"
        ),
        Advice.PROFILE: f"Set the platform's profile to performance (it is {tuning.profile}): powerprofilesctl set performance",
        Advice.TURBO_OFF: f"Turn turbo off while you compare, for the clock comes and goes with it: echo {turbo}",
        Advice.PIN: f"Keep each thread on a core of its own: taskset -c {_format_cpus(tuning.core_cpus)} harness …",
        Advice.TAKE_TURNS: (
            "Compare by turns, with harness ab: here two runs after each other differ by when they were made."
        ),
    }
    return sentences[advice]


def _format_cpus(numbers: Sequence[int]) -> str:
    """Numbers as taskset takes them: 0-3,8."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def describe_programs(programs: Sequence[ProgramTime]) -> str:
    """Which programs took CPU time meanwhile, for the terminal; empty where none did."""
    if not programs:
        return ""
    named = [f"{one.name} ({one.cpu_s:.1f} s)" for one in programs]
    return f"CPU time meanwhile: {format_list(named)}"
