"""Runs held against each other as a Document: medians, their ratio with its interval, and whether it is more than noise."""

from __future__ import annotations

import functools
from typing import Any

from harness.evidence.two_samples import Method
from harness.records.measurements import MACHINE, MODEL
from harness.spec import parameters
from harness.speed.comparison import Basis, Comparison, Gathered, Pair, Side, Standing, Unlike, show_facet
from harness.speed.limits import Judgement
from harness.speed.model_names import name_stem
from harness.units import format_count
from harness.views.document import Block, Cell, Column, Document, Picture, Prose, Row, Section, Table, for_programs
from harness.views.settings import format_setting, heading, setting_columns
from harness.views.values import INTERVAL, PROBABILITY, RATE, SPEED_RATIO, format_interval, format_list, format_value

#: What is proved of a pair, in a table; noise is ``~`` as in Go's benchstat.
VERDICTS = {Standing.FASTER: "faster", Standing.SLOWER: "slower", Standing.NOISE: "~", Standing.UNDECIDED: "?"}

#: A sentence names as many tests and differences, and says how many there are.
_MOST_NAMED = 4


def name_side(side: Side) -> str:
    """What a side is called: its input, or the values that it stands for."""
    return side.name or ", ".join(f"{_head(name)} {_write(name, value)}" for name, value in side.values)


def letter(place: int) -> str:
    """The letter by which tables and sentences know a side; A is the first."""
    return chr(ord("A") + place) if place < 26 else f"S{place + 1}"


def describe_comparison(comparison: Comparison) -> Document:
    """All pairs with what is proved of each, and what has no like."""
    from harness.views.figures.contrasts import draw_contrasts

    blocks: list[Block] = [
        Prose([f"{letter(at)}  {_describe_side(side)}" for at, side in enumerate(comparison.sides)]),
        _table(comparison),
    ]
    if comparison.pairs:
        labels = [label_pair(comparison, pair) for pair in comparison.pairs]
        names = [name_side(side) for side in comparison.sides]
        draw = functools.partial(draw_contrasts, comparison.pairs, labels, names)
        blocks.append(
            Picture(draw, "Each pair's ratio of speeds with its interval; the table has the figures", name="ratios")
        )
    sides = [
        {"letter": letter(at), "name": name_side(side), "n_measurements": len(side.measurements), **dict(side.values)}
        for at, side in enumerate(comparison.sides)
    ]
    means = {letter(side): mean for side, mean in comparison.means.items()}
    data = {"sides": sides, "by": list(comparison.by), "geometric_mean_ratio": means}
    return Document("comparison", 1, "", [Section("", blocks)], describe_unlike(comparison), data, main="pairs")


def _describe_side(side: Side) -> str:
    times = sorted(one.time_utc for one in side.measurements if one.time_utc)
    subjects = {id(one.subject): one.subject for one in side.measurements}.values()
    commits = list(dict.fromkeys(subject.commit for subject in subjects if subject.commit))
    cpus = list(dict.fromkeys(str(show_facet(subject, MACHINE)) for subject in subjects))
    parts = [name_side(side), times[0][:16].replace("T", " ") if times else ""]
    parts += [f"llama.cpp {commits[0]}"] if len(commits) == 1 else []
    return " · ".join(filter(None, [*parts, cpus[0] if len(cpus) == 1 else ""]))


def _table(comparison: Comparison) -> Table:
    several = len(comparison.sides) > 2
    head = "" if several else "B"
    specs = [pair.other.spec for pair in comparison.pairs]
    varied = [
        name
        for name, parameter in parameters().items()
        if parameter.scope != "test" and name not in comparison.by and len({getattr(spec, name) for spec in specs}) > 1
    ]
    columns = [
        Column("model", shared="{}"),
        *setting_columns(parameters(), varied),
        Column("test"),
        Column("side", is_shown=several),
        Column("base_rate", "A t/s", RATE),
        Column("rate", f"{head} t/s".strip(), RATE),
        Column("ratio", f"{head} ÷ A".strip(), SPEED_RATIO, interval=INTERVAL),
        Column("p", "p", PROBABILITY),
        Column("verdict"),
        Column("repetitions", "n", align="r", left_out=1),
        *for_programs("standing", "basis", "method", "p_uncorrected", "base_n", "n", "is_distrusted"),
    ]
    rows: list[Row] = [Row(_row(comparison, pair)) for pair in comparison.pairs]
    n_blank = len(parameters())
    for side, mean in comparison.means.items() if len(comparison.pairs) > 1 else ():
        cells: list[Any] = [None] * len(columns)
        cells[1 + n_blank : 3 + n_blank] = ["geomean", letter(side)]
        cells[5 + n_blank] = mean
        rows.append(Row([*_shared_model(comparison), *cells[1:]], is_total=True))
    return Table("pairs", columns, rows, _notes(comparison), missing="")


def _shared_model(comparison: Comparison) -> list[Any]:
    """The model in a total's row where all rows have one, so that it goes into the line above."""
    names = {_name_model(pair) for pair in comparison.pairs}
    return [names.pop() if len(names) == 1 else None]


def _row(comparison: Comparison, pair: Pair) -> list[Cell | Any]:
    spec = pair.other.spec
    settings = [getattr(spec, name) for name in parameters()]
    counts = pair.base.n, pair.other.n
    n = " / ".join("?" if count is None else str(count) for count in counts)
    return [
        _name_model(pair), *settings, spec.test, letter(pair.side),
        Cell(pair.base_tok_per_s, notes=_distrust("A", pair.base)),
        Cell(pair.other_tok_per_s, notes=_distrust(letter(pair.side), pair.other)),
        Cell(pair.ratio.value, interval=pair.interval, notes=_weaknesses(comparison, pair)),
        pair.p, VERDICTS[pair.standing], n,
        pair.standing.value, pair.basis.value, pair.contrast.method.value, pair.contrast.p, *counts, pair.is_distrusted,
    ]  # fmt: skip


def _name_model(pair: Pair) -> str:
    subject = pair.other.measurements[0].subject
    return subject.model_description or name_stem(subject.spec.file_name)


def _distrust(name: str, gathered: Gathered) -> list[str]:
    """What is doubtful of one side of a pair, and that it is not to be trusted where that is so."""
    cautions = [caution for one in gathered.measurements for caution in one.cautions]
    said = [f"{name}: {'not to be trusted: ' if caution.distrust else ''}{caution.text}" for caution in cautions]
    return list(dict.fromkeys(said))


def _weaknesses(comparison: Comparison, pair: Pair) -> list[str]:
    """What makes a pair's evidence weaker than it seems."""
    both = (pair.base, pair.other)
    found = []
    if pair.basis is Basis.SUMMARIES:
        unknown = any(one.n is None for one in both)
        assumed = f"; of how many repetitions is not in the file, {comparison.assumed_n} are taken" if unknown else ""
        found.append(f"weaker evidence: of means and deviations alone, as llama-bench's CSV and SQL have them{assumed}")
    elif pair.basis is Basis.RUNS:
        found.append("the medians of {} and {} runs are compared".format(*(len(one.measurements) for one in both)))
    elif max(len(one.measurements) for one in both) > 1:
        found.append(
            "repetitions of {} and {} runs together, which are more alike than runs are: six runs on each side say more".format(
                *(len(one.measurements) for one in both)
            )
        )
    if pair.interval is None:
        found.append("too few repetitions for a 95 % interval: give each side six")
    return found


def _notes(comparison: Comparison) -> list[str]:
    if not comparison.pairs:
        return []
    n_decided = sum(pair.contrast.p is not None for pair in comparison.pairs)
    corrected = f", corrected for {n_decided} pairs (Holm)" if n_decided > 1 else ""
    methods = {pair.contrast.method for pair in comparison.pairs}
    tests = {Method.MANN_WHITNEY: "Mann and Whitney's", Method.WELCH: "Welch's"}
    named = format_list([name for method, name in tests.items() if method in methods])
    notes = [f"Above 1 is faster than A; p: {named}{corrected}; ~: inside the noise."]
    if not comparison.by:
        notes.append("Whatever else changed between the runs is in the ratio too; `harness ab` measures both by turns.")
    return notes


def label_pair(comparison: Comparison, pair: Pair) -> str:
    """What tells a pair from the others: test, settings that differ, the side where there are several."""
    specs = [one.other.spec for one in comparison.pairs]
    varied = [
        name
        for name, parameter in parameters().items()
        if parameter.scope != "test" and name not in comparison.by and len({getattr(spec, name) for spec in specs}) > 1
    ]
    models = {_name_model(one) for one in comparison.pairs}
    settings = [f"{heading(name)} {format_setting(getattr(pair.other.spec, name))}" for name in varied]
    model = [_name_model(pair)] if len(models) > 1 else []
    side = [letter(pair.side)] if len(comparison.sides) > 2 else []
    return " · ".join([*side, *model, pair.other.spec.test, *settings])


def describe_unlike(comparison: Comparison) -> list[str]:
    """What has no like, and what the nearest differs in: a few sentences, the ones about most cells first."""
    found = sorted(comparison.unlike, key=lambda one: -one.n)
    said = [_say_unlike(one) for one in found[:_MOST_NAMED]]
    if (n_more := sum(one.n for one in found[_MOST_NAMED:])) > 0:
        said.append(f"{format_count(n_more, 'other cell')} have none like either")
    return said


def _say_unlike(unlike: Unlike) -> str:
    has, lacks = ("A", letter(unlike.side)) if unlike.is_missing else (letter(unlike.side), "A")
    named = format_list(unlike.tests) if len(unlike.tests) <= _MOST_NAMED else f"{unlike.tests[0]} and others"
    said = f"{has} has {format_count(unlike.n, 'cell')} ({named}) that {lacks} has none like"
    if not unlike.differences:
        return said
    told = [
        f"{_head(one.name)} is {_write(one.name, one.other)} and not {_write(one.name, one.base)}"
        if str(one.other) != str(one.base)
        else f"{_head(one.name)} is another one of that name"
        for one in unlike.differences[:_MOST_NAMED]
    ]
    by = " ".join(f"--by {one.name}" for one in unlike.differences)
    return f"{said}: {format_list(told)} ({by} compares them)"


def describe_judgement(judgement: Judgement, comparison: Comparison) -> list[str]:
    """What limits found: a sentence a pair that broke one, and one for those of which nothing can be said."""
    said = []
    for pair in judgement.broken:
        ratio = format_value(pair.ratio.value, SPEED_RATIO)
        ends = f", {INTERVAL} {format_interval(*pair.interval, SPEED_RATIO)}" if pair.interval else ""
        said.append(
            f"{label_pair(comparison, pair)} is {VERDICTS[pair.standing]} beyond the limit: {ratio} of A{ends}."
        )
    if judgement.undecided:
        names = [label_pair(comparison, pair) for pair in judgement.undecided]
        said.append(
            f"Nothing is proved of {format_list(names[:_MOST_NAMED])}: too few repetitions, or records not to be trusted."
        )
    return said


def _head(name: str) -> str:
    return heading(name) if name in parameters() else name


def _write(name: str, value: Any) -> str:
    if name == MODEL:
        return name_stem(str(value))
    return format_setting(value) if name in parameters() else str(value) or "not known"
