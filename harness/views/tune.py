"""Settings that were looked for: which ones, what they gain over the defaults, what was tried beside them, and lines to paste."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evidence.racing import Fate, Race, Standing
from harness.evidence.sequential import Decision, SequentialTest
from harness.evidence.two_samples import Ratio
from harness.records.failures import describe_failure
from harness.records.quality import QualityRecord
from harness.records.quality_figures import find_figures
from harness.records.trust import Trust
from harness.records.tuning import LeftOut, Stop, TuneRace, TuneRecord, Why, replay_confirmation, replay_race
from harness.records.verdict import judge
from harness.spec import RunSpec, find_varied, parameters
from harness.views.ab import change_of
from harness.views.document import Block, Cell, Column, Document, Figure, KeyFigures, Line, Prose, Section, Table
from harness.views.paste import paste_section
from harness.views.settings import format_setting, format_settings, heading
from harness.views.spellings import Asked
from harness.views.values import (
    CHANGE,
    COUNT,
    DURATION,
    FINE_RATIO,
    GIVEN_SHARE,
    INTERVAL,
    SPEED_RATIO,
    Unit,
    format_value,
)
from harness.views.verdict import with_verdict

#: Of probabilities that hardly differ.
NATS = Unit("nats", lambda value: f"{value:.2g}")

#: What is said of settings that were not tried.
_WHY = {
    Why.NO_DEVICE: "there is no device but the CPU",
    Why.ONE_DEVICE: "there is one device",
    Why.ALL_ON_DEVICES: "everything is on devices",
    Why.ONE_NODE: "all memory is equally near",
    Why.ONE_CPU: "there is one CPU",
    Why.SHORT_PROMPT: "the prompt fits into one batch",
    Why.NOTHING_REPACKED: "no weight has another layout for this CPU",
    Why.QUALITY: "it would change what the model says (--quality allow)",
    Why.NO_FIT: "it does not fit into memory",
    Why.NO_TIME: "the time was up (--time)",
    Why.NO_EFFECT: "this build does not heed it",
    Why.OTHERS: "it would take time from other programs",
    Why.GIVEN: "it was given",
}

_FATES = {
    Fate.SLOWER: "dropped: slower",
    Fate.NO_BETTER: "dropped: no better",
    Fate.FAILED: "failed",
    Fate.KEPT: "kept to the end",
}


def describe_tuning(record: TuneRecord, price: QualityRecord | None = None) -> Document:
    """One search; price is what a quantized cache costs of quality, where one was chosen."""
    test, verdict = replay_confirmation(record), judge(record)
    races = [(race, replay_race(race, record)) for race in record.races]
    is_believed = verdict is None or verdict.trust is not Trust.NOT_TRUSTED
    chosen = record.chosen if is_believed else record.base
    blocks: list[Block] = [_facts(record, test), Prose(_conclude(record, test, chosen, is_believed=is_believed))]
    changes = _changes(record, races, chosen)
    blocks += [changes] if changes.rows else []
    sections = [Section("", blocks)]
    sections += [Section("price in quality", [figures])] if price and (figures := _price(price)) else []
    sections += [Section("what was tried", [_candidates(races)])] if races else []
    sections += [Section("what was not", [_left_out(record.left_out)])] if record.left_out else []
    sections.append(paste_section(asked_of(record, chosen), "to paste"))
    return with_verdict(Document("tuning", 1, "", sections, main="candidates"), verdict)


def summarize_tuning(content: object) -> str | None:
    """A line about a search that has just ended, for whoever waits."""
    if not isinstance(content, TuneRecord):
        return None
    sentences = _conclude(content, replay_confirmation(content), content.chosen, is_believed=True)
    return f"{content.base.file_name}: {sentences[0]}"


def asked_of(record: TuneRecord, spec: RunSpec) -> Asked:
    """What other programs are to be told."""
    layers = sum(record.resolved.layers_by_device.values()) - 1 if record.resolved else -1
    has_devices = record.build is None or any(device.kind != "cpu" for device in record.build.devices)
    alone = None if record.base.n_cpu_moe or record.base.override_tensors else record.base.n_gpu_layers
    return Asked(spec, record.work.n_ctx, layers if layers > 0 else None, has_devices, alone)


def _facts(record: TuneRecord, test: SequentialTest) -> KeyFigures:
    work, model, gain = record.work, record.model, gain_of(test.ratio)
    synthetic = " (synthetic)" if model and model.is_synthetic else ""
    return KeyFigures([
        Figure("model", "model", model.description + synthetic if model else record.base.file_name),
        Figure("purpose", "tuned for", _describe_work(record)),
        Figure("n_ctx", "context", work.n_ctx, COUNT),
        Figure("gain", "gain", Cell(gain.value, interval=gain.ends) if gain else None, SPEED_RATIO),
        Figure("pairs", "pairs", len(test.log_ratios) or None, is_shown=False),
        Figure("n_candidates", "candidates", sum(len(race.candidates) - 1 for race in record.races), is_shown=False),
        Figure("elapsed", "time spent", record.elapsed_ns, DURATION),
        Figure("decision", "", test.decision.value, is_shown=False),
        Figure("stop", "", record.stop.value, is_shown=False),
    ])  # fmt: skip


def _price(price: QualityRecord) -> KeyFigures | None:
    """What the chosen cache changes of the model's predictions, over a few windows of text."""
    found = find_figures(price)
    if found is None or found.departure is None:
        return None
    ratio, kld = found.departure.ratio, found.departure.kld
    return KeyFigures([
        Figure("perplexity_ratio", "perplexity, times", Cell(ratio.value, interval=ratio.interval), FINE_RATIO),
        Figure("kl_divergence", "KL divergence in nats", Cell(kld.value, interval=kld.interval), NATS),
        Figure("windows", "windows of text", found.n_windows),
    ])  # fmt: skip


def _head(name: str) -> str:
    """A setting's heading; of one that another version has, its name."""
    return heading(name) if name in parameters() else name


def gain_of(ratio: Ratio | None) -> Ratio | None:
    """How many times as fast, of a ratio of durations."""
    if ratio is None:
        return None
    ends = ratio.ends
    return Ratio(1 / ratio.value, 1 / ends[1], 1 / ends[0], ratio.level) if ends else Ratio(1 / ratio.value)


def _describe_work(record: TuneRecord) -> str:
    work = record.work
    before = f" with {work.n_depth} before" if work.n_depth else ""
    return f"{work.purpose}: {work.n_prompt} tokens of prompt and {work.n_gen} of answer{before}"


def _conclude(record: TuneRecord, test: SequentialTest, chosen: RunSpec, *, is_believed: bool) -> list[str]:
    """What came of it, in sentences."""
    gain = gain_of(test.ratio)
    match record.stop:
        case Stop.NOISY:
            return ["This machine is too noisy to be tuned now; these are the safe settings: llama.cpp's defaults."]
        case Stop.FAILED:
            why = f": {describe_failure(record.failure)}" if record.failure else ""
            return [f"The defaults could not be measured{why}."]
        case Stop.INTERRUPTED:
            return [
                f"Interrupted: the best so far is {_name(record, record.found)}, which is not held against the defaults yet."
            ]
    if not record.races:
        return ["There was nothing to try: the defaults stay."]
    if record.found == record.base:
        margin = format_value(record.margin, GIVEN_SHARE)
        return [f"Nothing that was tried came out better by more than {margin}: the defaults stay."]
    if not is_believed:
        return ["What was measured is not to be believed: these are the safe settings, llama.cpp's defaults."]
    if test.decision is Decision.FASTER and gain is not None and gain.ends is not None:
        low, high = gain.ends
        at_95 = f"[{low:.3f}, {high:.3f}]"
        return [f"{_name(record, chosen)}: {gain.value:.3f} times as fast as the defaults {at_95}."]
    how = {
        Decision.SLOWER: "is slower than the defaults",
        Decision.NO_DIFFERENCE: f"differs by less than {format_value(record.margin, GIVEN_SHARE)} from the defaults",
    }.get(test.decision, f"is not proven to be faster than the defaults within {record.max_time_s:g} s")
    return [f"{_name(record, record.found)} {how}: the defaults stay."]


def _name(record: TuneRecord, spec: RunSpec) -> str:
    """Settings by what tells them from the defaults."""
    return format_settings(spec, find_varied((record.base, spec))) or "the defaults"


Races = Sequence[tuple[TuneRace, Race]]


def _changes(record: TuneRecord, races: Races, chosen: RunSpec) -> Table:
    """Each setting that is not llama.cpp's default, with what its own race says of it."""
    rows: list[Line] = []
    for race, replayed in races:
        winner = replayed.winner
        if winner in (None, replayed.incumbent) or chosen == record.base:
            continue
        spec, before = race.candidates[winner].asked, race.candidates[replayed.incumbent].asked
        change, ends = change_of(replayed.ratio_of(winner, replayed.incumbent))
        rows += [
            [heading(name), format_setting(getattr(record.base, name)), format_setting(getattr(spec, name)),
             Cell(change if first else None, interval=ends if first else None)]
            for first, name in ((not place, name) for place, name in enumerate(find_varied((before, spec))))
        ]  # fmt: skip
    notes = ["The gain is that of the whole work, as this setting's own race has it."]
    columns = [
        Column("setting"), Column("default", "llama.cpp's default"), Column("chosen"),
        Column("change", "gain", CHANGE, interval=INTERVAL),
    ]  # fmt: skip
    return Table("settings", columns, rows, notes, missing="")


def _candidates(races: Races) -> Table:
    """Every candidate with what became of it, race by race."""
    rows: list[Line] = []
    for race, replayed in races:
        varied = find_varied(candidate.asked for candidate in race.candidates)
        names = [format_settings(candidate.asked, varied) for candidate in race.candidates]
        rows += [_row(race, names, replayed, standing) for standing in replayed.standings()]
    columns = [
        Column("race", is_shown=False), Column("candidate", wraps=True),
        Column("change", "speed", CHANGE, interval=INTERVAL), Column("than", "against", wraps=True, left_out=1),
        Column("rounds", align="r"), Column("fate", "what became of it"),
    ]  # fmt: skip
    return Table(
        "candidates", columns, rows, ["Speeds are of the whole work, against the candidate that it was held against."]
    )


def _row(race: TuneRace, names: Sequence[str], replayed: Race, standing: Standing) -> Line:
    change, ends = change_of(standing.ratio)
    is_winner = standing.candidate == replayed.winner
    failure = race.candidates[standing.candidate].failure
    fate: Cell = Cell(
        "chosen" if is_winner else _FATES[standing.fate], notes=[describe_failure(failure)] if failure else []
    )
    against = names[standing.than] if standing.than is not None and not is_winner else None
    return [
        ", ".join(map(_head, race.settings)), names[standing.candidate],
        Cell(None if is_winner else change, interval=None if is_winner else ends), against, standing.n_rounds, fate,
    ]  # fmt: skip


def _left_out(left_out: Sequence[LeftOut]) -> Table:
    by_why: dict[Why, list[str]] = {}
    for one in left_out:
        of = f" {'; '.join(one.values)}" if one.values else ""
        by_why.setdefault(one.why, []).append(f"{', '.join(map(_head, one.settings))}{of}")
    rows: list[Line] = [[_WHY[why], "; ".join(names), why.value] for why, names in by_why.items()]
    return Table(
        "left_out",
        [Column("reason", "because", wraps=True), Column("settings", wraps=True), Column("why", is_shown=False)],
        rows,
    )
