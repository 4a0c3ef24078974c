"""Runs held against each other as a Document: medians, their ratio with its interval, and whether it is more than noise."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from harness.evidence.two_samples import Method
from harness.records.measurements import BUILD, MACHINE, MODEL
from harness.spec import find_varied, parameters
from harness.speed.comparison import Basis, Comparison, Gathered, Pair, Side, Standing, Unlike, show_facet
from harness.speed.limits import Judgement
from harness.speed.model_names import name_stem
from harness.units import format_count
from harness.views.document import (
    Block,
    Cell,
    Column,
    Document,
    Figure,
    KeyFigures,
    Picture,
    Prose,
    Row,
    Section,
    Table,
    for_programs,
)
from harness.views.settings import format_setting, format_settings, heading, setting_columns
from harness.views.values import (
    INTERVAL,
    MINUTE,
    PROBABILITY,
    RATE,
    SPEED_RATIO,
    format_interval,
    format_list,
    format_value,
)

#: What is proved of a pair, in a table; noise is ``~`` as in Go's benchstat.
VERDICTS = {Standing.FASTER: "faster", Standing.SLOWER: "slower", Standing.NOISE: "~", Standing.UNDECIDED: "?"}

#: A sentence names as many tests and differences, and says how many there are.
_MOST_NAMED = 4


#: A list of more sides says nothing, and a longer name leaves a table no room.
_MOST_SIDES, _LONGEST_CALL = 8, 14

#: How what all sides share reads above the table.
_PHRASES = {MACHINE: "{}", BUILD: "llama.cpp {}"}


def name_side(side: Side) -> str:
    """What a side is called: its input, or the values that it stands for."""
    return side.name or ", ".join(f"{_head(name)} {_write(name, value)}" for name, value in side.values)


def letter(place: int) -> str:
    """The letter by which tables and sentences know a side; A is the first."""
    return chr(ord("A") + place) if place < 26 else f"S{place + 1}"


def call_side(comparison: Comparison, place: int) -> str:
    """What tables and pictures of several sides call one: its values where these are short, else its letter."""
    names = [name_side(side) for side in comparison.sides]
    return names[place] if comparison.by and max(map(len, names)) <= _LONGEST_CALL else letter(place)


def describe_comparison(comparison: Comparison) -> Document:
    """All pairs with what is proved of each, and what has no like."""
    from harness.views.figures.contrasts import draw_contrasts

    sides = comparison.sides[:1] if len(comparison.sides) > _MOST_SIDES else comparison.sides
    facts = [_facts_of(side) for side in comparison.sides]
    shared = {name: value for name, value in facts[0].items() if all(fact.get(name) == value for fact in facts)}
    told = [Figure(name, "", value, phrase=_PHRASES[name]) for name, value in shared.items()]
    listed = [f"{letter(at)}  {_describe_side(side, shared)}" for at, side in enumerate(sides)]
    blocks: list[Block] = [KeyFigures(told, in_line=True), Prose(listed), _table(comparison)]
    if comparison.pairs:
        labels = label_pairs(comparison, comparison.pairs, is_alone=True)
        draw = functools.partial(
            draw_contrasts, comparison.pairs, labels, [name_side(side) for side in comparison.sides]
        )
        said = "Each pair's ratio of speeds with its interval; the table has the figures"
        blocks.append(Picture(draw, said, name="ratios"))
    data = {
        "sides": [
            {
                "letter": letter(at),
                "name": name_side(side),
                "n_measurements": len(side.measurements),
                **dict(side.values),
            }
            for at, side in enumerate(comparison.sides)
        ],
        "by": list(comparison.by),
        "geometric_mean_ratio": {letter(side): mean for side, mean in comparison.means.items()},
    }
    return Document("comparison", 1, "", [Section("", blocks)], describe_unlike(comparison), data, main="pairs")


def _facts_of(side: Side) -> Mapping[str, str]:
    """What all measurements of a side have in common of machine and build."""
    subjects = {id(one.subject): one.subject for one in side.measurements}.values()
    found = {}
    for name in _PHRASES:
        values = {str(show_facet(subject, name)) for subject in subjects}
        if len(values) == 1 and (value := values.pop()):
            found[name] = value
    return found


def _describe_side(side: Side, shared: Mapping[str, str]) -> str:
    facts = {
        name: value for name, value in _facts_of(side).items() if name not in shared and name not in dict(side.values)
    }
    first = min((one.time_utc for one in side.measurements if one.time_utc), default="")
    phrases = [_PHRASES[name].format(value) for name, value in facts.items()]
    return " · ".join(filter(None, [name_side(side), format_value(first, MINUTE), *phrases]))


def _varied(comparison: Comparison) -> list[str]:
    """Settings that tell pairs apart."""
    varied = find_varied(pair.other.spec for pair in comparison.pairs)
    return [name for name in varied if parameters()[name].scope != "test" and name not in comparison.by]


def _table(comparison: Comparison) -> Table:
    several = len(comparison.sides) > 2
    head = "" if several else "B"
    columns = [
        Column("model", shared="{}"),
        *setting_columns(parameters(), _varied(comparison)),
        Column("test"),
        Column("side", is_shown=several),
        Column("base_rate", "A t/s", RATE, left_out=2 if several else 0),
        Column("rate", f"{head} t/s".strip(), RATE),
        Column("ratio", f"{head} ÷ A".strip(), SPEED_RATIO, interval=INTERVAL),
        Column("p", "p", PROBABILITY, left_out=1),
        Column("verdict"),
        Column("repetitions", "n", align="r", left_out=3),
        *for_programs("standing", "basis", "method", "p_uncorrected", "base_n", "n", "is_distrusted"),
    ]
    rows = [Row(_row(comparison, pair)) for pair in comparison.pairs]
    models = {_name_model(pair) for pair in comparison.pairs}
    for side, mean in comparison.means.items() if len(comparison.pairs) > 1 else ():
        values: dict[str, Any] = {
            "side": call_side(comparison, side),
            "ratio": mean,
            "test" if len(models) == 1 else "model": "geomean",
        }
        if len(models) == 1:  # so that it goes into the line above
            values["model"] = min(models)
        rows.append(Row([values.get(column.name) for column in columns], is_total=True))
    return Table("pairs", columns, rows, _notes(comparison), missing="")


def _row(comparison: Comparison, pair: Pair) -> list[Any]:
    spec = pair.other.spec
    settings = [getattr(spec, name) for name in parameters()]
    counts = pair.base.n, pair.other.n
    n = " / ".join("?" if count is None else str(count) for count in counts)
    return [
        _name_model(pair), *settings, spec.name_test_without(*comparison.by), call_side(comparison, pair.side),
        Cell(pair.base_tok_per_s, notes=_doubts("A", pair.base)),
        Cell(pair.other_tok_per_s, notes=_doubts(letter(pair.side), pair.other)),
        Cell(pair.ratio.value, interval=pair.interval, notes=_weaknesses(comparison, pair)),
        pair.p, VERDICTS[pair.standing], n,
        pair.standing.value, pair.basis.value, pair.contrast.method.value, pair.contrast.p, *counts, pair.is_distrusted,
    ]  # fmt: skip


def _name_model(pair: Pair) -> str:
    subject = pair.other.measurements[0].subject
    return subject.model_description or name_stem(subject.spec.file_name)


def _doubts(name: str, gathered: Gathered) -> list[str]:
    """What is doubtful of one side of a pair, and that it is not to be trusted where that is so."""
    if len(gathered.measurements) == 1:
        reasons = gathered.measurements[0].verdict.reasons
        told = "not to be trusted: " if any(one.distrust for one in reasons) else ""
        found = [f"{name}: {told}{'; '.join(one.text for one in reasons)}"] if reasons else []
    else:
        n_runs = len(gathered.measurements)
        n_noisy = sum(bool(one.verdict.reasons) for one in gathered.measurements)
        what = "not to be trusted" if gathered.is_distrusted else "noisy"
        found = [f"{name}: {n_noisy} of {n_runs} runs are {what}"] if n_noisy else []
    if gathered.n_left_out:
        found.append(f"{name}: {format_count(gathered.n_left_out, 'run')} not to be trusted left out")
    return found


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


def label_pairs(comparison: Comparison, pairs: Sequence[Pair], *, is_alone: bool = False) -> list[str]:
    """What tells each of some pairs from all others: test, settings that differ, the side where there are several.

    is_alone: no list of letters stands above them, so that sides have their names.
    """
    several = len({_name_model(one) for one in comparison.pairs}) > 1
    varied = _varied(comparison)
    labels = []
    for pair in pairs:
        settings = [format_settings(pair.other.spec, (name,)) for name in varied]
        model = [_name_model(pair)] if several else []
        called = name_side(comparison.sides[pair.side]) if is_alone else call_side(comparison, pair.side)
        side = [called] if len(comparison.sides) > 2 else []
        labels.append(" · ".join([*side, *model, pair.other.spec.name_test_without(*comparison.by), *settings]))
    return labels


def describe_unlike(comparison: Comparison) -> list[str]:
    """What has no like, and what the nearest differs in: a few sentences, the ones about most cells first."""
    found = sorted(comparison.unlike, key=lambda one: -one.n)
    said = [_describe_cells(one) for one in found[:_MOST_NAMED]]
    if (n_more := sum(one.n for one in found[_MOST_NAMED:])) > 0:
        said.append(f"nor is there one of {format_count(n_more, 'other cell')}")
    return said


def _describe_cells(unlike: Unlike) -> str:
    has, lacks = ("A", letter(unlike.side)) if unlike.is_missing else (letter(unlike.side), "A")
    named = format_list(unlike.tests) if len(unlike.tests) <= _MOST_NAMED else f"{unlike.tests[0]} and others"
    said = f"{has} has {format_count(unlike.n, 'cell')} ({named}) with no like in {lacks}"
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
    for label, pair in zip(label_pairs(comparison, judgement.broken), judgement.broken, strict=True):
        ratio = format_value(pair.ratio.value, SPEED_RATIO)
        ends = f", {INTERVAL} {format_interval(*pair.interval, SPEED_RATIO)}" if pair.interval else ""
        said.append(f"{label} is {VERDICTS[pair.standing]} beyond the limit: {ratio} of A{ends}.")
    if judgement.undecided:
        names = label_pairs(comparison, judgement.undecided)
        said.append(
            f"Nothing is proved of {format_list(names[:_MOST_NAMED])}: too few repetitions, or records not to be trusted."
        )
    tests = list(dict.fromkeys(pair.other.spec.test for pair in comparison.pairs)) if judgement.idle else []
    named = format_list(tests) if len(tests) <= _MOST_NAMED else f"{tests[0]} and others"
    said += [f"--fail-if {limit.text} is about none of these tests ({named})." for limit in judgement.idle]
    return said


def _head(name: str) -> str:
    return heading(name) if name in parameters() else name


def _write(name: str, value: Any) -> str:
    if name == MODEL:
        return name_stem(str(value))
    return format_setting(value) if name in parameters() else str(value) or "not known"
