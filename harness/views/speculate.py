"""What drafts bring as a Document: speed and acceptance by length, what a step costs, what would pay, and memory of both models."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records.cells import Buffer
from harness.records.failures import describe_failure
from harness.records.speculation import Member, Speculation
from harness.records.verdict import judge
from harness.speed.speculation import LengthResult, Payoff, SpeculationResult, rivals_of, summarize_speculation
from harness.units import format_count
from harness.untrusted import harmless
from harness.views.document import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Figure,
    KeyFigures,
    Line,
    Picture,
    Prose,
    Section,
    Table,
)
from harness.views.figures.speculate import draw_speculation
from harness.views.values import (
    BYTES,
    COUNT,
    DURATION,
    INTERVAL,
    RATE,
    RATIO,
    ROUND_SHARE,
    SHARE,
    SPEED_RATIO,
    format_interval,
    format_list,
    format_value,
)
from harness.views.verdict import with_verdict

_CACHES = ("kv", "recurrent")


def describe_speculation(record: Speculation) -> Document:
    """The texts of one question."""
    result = summarize_speculation(record)
    blocks: list[Block] = [_facts(record, result), _show_lengths(result)]
    if len(result.lengths) > 1:
        title = f"{_name(record.target)}, drafted by {_describe_drafter(record)}"
        blocks.append(
            Picture(
                lambda theme: draw_speculation(result, title, theme), "Speed-up and acceptance over the draft's length"
            )
        )
    blocks.append(Prose([*_answer(record, result), _compare_texts(record, result)]))
    if lines := _lines_to_paste(record, result):
        blocks.append(Code(lines))
    sections = [Section("", blocks)]
    if any(one.step_ns for one in result.lengths):
        sections += [
            Section("what a step costs", [_show_costs(record, result)]),
            Section("what would pay", [_show_payoffs(result)]),
        ]
    sections.append(Section("memory", [_show_memory(record)]))
    about = {"machine": record.machine, "build": record.build, "manner": record.manner, "rollback": record.rollback}
    document = Document("speculation", 1, "", sections, list(_warn(record, result)), about, main="lengths")
    return with_verdict(document, judge(record))


def _name(member: Member) -> str:
    return member.asked.file_name


def _describe_drafter(record: Speculation) -> str:
    if record.draft is None:
        return f"the text so far (its last {record.manner.n_gram} tokens)"
    return "itself" if record.is_own_draft else _name(record.draft)


def _facts(record: Speculation, result: SpeculationResult) -> KeyFigures:
    first = [passage for passage in record.passages if passage.round == 0 and not passage.n_draft]
    n_threads = record.target.asked.n_threads
    return KeyFigures(
        [
            Figure("target", "", _name(record.target)),
            Figure("draft", "", _describe_drafter(record), phrase="drafted by {}"),
            Figure("n_threads", "", n_threads, phrase="{} thread" if n_threads == 1 else "{} threads"),
            Figure("n_texts", "", len(first), COUNT, "{} text" if len(first) == 1 else "{} texts"),
            Figure("n_written", "", sum(one.n_written for one in first), COUNT, "{} tokens"),
            Figure(
                "n_rounds", "", result.alone.n_rounds, COUNT, "{} round" if result.alone.n_rounds == 1 else "{} rounds"
            ),
            Figure("alpha", "", result.alpha, is_shown=False),
            Figure("rss", "", record.rss_bytes, BYTES, is_shown=False),
        ],
        in_line=True,
    )


def _show_lengths(result: SpeculationResult) -> Table:
    def rate_end(place: int) -> object:
        return lambda one: one.rate_interval.ends[place] if one.rate_interval else None

    columns = [
        Column("n_draft", "draft", COUNT, of=lambda one: one.n_draft if one.n_draft else Cell(0, instead="")),
        Column("rate", "t/s", RATE, of=lambda one: one.rate_tok_per_s),
        Column("speedup", "speed-up", SPEED_RATIO, interval=INTERVAL, of=_speedup_of),
        Column("acceptance", "right", SHARE),
        Column("tokens_per_step", "a step", RATIO, left_out=2, of=lambda one: one.tokens_per_step if one.n_draft else None),
        Column("predicted", "predicted", RATIO, left_out=3, of=lambda one: result.predict(one) if one.n_draft else None),
        Column("chance_that_pays", "pays from", ROUND_SHARE, left_out=1, of=lambda one: _pays_from(result, one)),
        Column("rate_low", unit=RATE, is_shown=False, of=rate_end(0)),  # type: ignore[arg-type]
        Column("rate_high", unit=RATE, is_shown=False, of=rate_end(1)),  # type: ignore[arg-type]
        Column("n_rounds", is_shown=False), Column("n_differing", is_shown=False),
    ]  # fmt: skip
    notes = [
        "draft: tokens that are guessed at once; 0 is without. right: guesses that were, of all. a step: tokens with the target's own.",
        "predicted: the speed-up that follows from how often a guess is right and from what a step costs. pays from: the share of "
        "right guesses behind right ones from which such drafts cost no time; never: even if all were.",
    ]
    return Table.of("lengths", (result.alone, *result.lengths), columns, notes)


def _speedup_of(one: LengthResult) -> Cell:
    if not one.n_draft:
        return Cell(None)
    return Cell(one.speedup, interval=one.speedup_interval.ends if one.speedup_interval else None)


def _pays_from(result: SpeculationResult, one: LengthResult) -> Cell:
    if not one.n_draft or one.step_ns is None:
        return Cell(None)
    return Cell(result.chance_that_pays(one), instead="never")


def _answer(record: Speculation, result: SpeculationResult) -> Iterator[str]:
    """What is best, and how sure that is; of random weights what the cost alone says."""
    if record.is_synthetic:
        yield _answer_by_cost(result)
        return
    best = result.best
    if best is None or best.speedup is None:
        return
    interval = best.speedup_interval
    sure = f" [{format_interval(*interval.ends, SPEED_RATIO)}]" if interval else " (too few rounds for an interval)"
    times = f"{format_value(best.speedup, SPEED_RATIO)} times as fast as without one{sure}"
    tokens = format_count(best.n_draft, "token")
    if interval and interval.low > 1:
        yield f"Drafts of {tokens} are best: {times}."
    elif best.speedup <= 1:
        yield f"No draft pays here: the best, of {tokens}, is {times}."
    else:
        yield f"It is not proved that a draft pays here: the best, of {tokens}, is {times}."
    if interval and (rivals := rivals_of(record, best.n_draft)):
        yield f"Drafts of {format_list([str(length) for length in rivals], 'or')} may be as good: that they are slower is not proved."
    if result.alpha is not None:
        share = format_value(result.alpha, SHARE)
        yield f"A guess behind right ones is right in {share} of cases; what it takes to pay stands under 'pays from'."


def _answer_by_cost(result: SpeculationResult) -> str:
    """From which share of right guesses on a draft of this cost would pay."""
    found = [(chance, one.n_draft) for one in result.lengths if (chance := result.chance_that_pays(one)) is not None]
    if not found:
        return "At this cost no draft pays, even if all of its guesses were right."
    chance, n_draft = min(found)
    tokens, share = format_count(n_draft, "token"), format_value(chance, ROUND_SHARE)
    return f"At this cost drafts of {tokens} pay soonest: where a guess behind right ones is right in {share} of cases."


def _compare_texts(record: Speculation, result: SpeculationResult) -> str:
    """Whether the texts are the same with drafts as without."""
    n_differing = sum(one.n_differing for one in result.lengths)
    first = [one for one in record.passages if one.round == 0 and one.n_draft]
    if not n_differing:
        return f"All {len(first)} texts with a draft are token by token those without one."
    earliest = min(one.differs_at for one in first if one.differs_at is not None)
    return (
        f"{n_differing} of {len(first)} texts with a draft differ from those without one, the earliest at token {earliest + 1}: "
        "several tokens at once are rounded otherwise than one, which decides between two that are nearly alike."
    )


def _lines_to_paste(record: Speculation, result: SpeculationResult) -> list[str]:
    """What llama-server takes, where a draft model pays. Source: common/arg.cpp."""
    best = result.best
    if best is None or record.draft is None or record.is_own_draft or (best.speedup or 0) <= 1 or record.is_synthetic:
        return []
    more = [f" --spec-draft-p-min {record.manner.p_min:g}"] if record.manner.p_min else []
    more += [f" --spec-draft-n-min {record.manner.n_min}"] if record.manner.n_min else []
    return [
        f"{harmless.shell_line(['llama-server', '-m', _name(record.target), '-md', _name(record.draft)])} \\",
        f"  --spec-type draft-simple --spec-draft-n-max {best.n_draft}{''.join(more)}",
    ]


def _show_costs(record: Speculation, result: SpeculationResult) -> Table:
    alone_ns = result.alone.step_ns

    def share_of(one: LengthResult) -> float | None:
        return one.step_ns / alone_ns if one.step_ns and alone_ns else None

    columns = [
        Column("n_draft", "draft", COUNT),
        Column("draft_time", "guessing", DURATION, of=lambda one: one.draft_ns if one.n_draft else None),
        Column("verify_time", "checking", DURATION, of=lambda one: one.verify_ns),
        Column("follow_time", "reading along", DURATION, of=lambda one: one.follow_ns if one.n_draft and record.draft else None),
        Column("step_time", "a step", DURATION, of=lambda one: one.step_ns), Column("n_single", "single tokens", RATIO, of=share_of),
    ]  # fmt: skip
    notes = [
        "Medians of steps with a whole draft. checking: the target's batch of the draft and one token more; reading along: the draft "
        "model computes that batch too, as in llama.cpp. single tokens: the step's time in tokens without a draft."
    ]
    return Table.of("costs", [one for one in (result.alone, *result.lengths) if one.step_ns], columns, notes)


def _show_payoffs(result: SpeculationResult) -> Table:
    columns = [
        Column("alpha", "right behind right ones", ROUND_SHARE), Column("n_draft", "best draft", COUNT),
        Column("speedup", "speed-up", RATIO),
    ]  # fmt: skip
    notes = ["What a draft model of the same cost would bring, by how often it is right (Leviathan et al. 2023)."]
    found: list[Payoff] = result.payoffs()
    return Table.of("payoffs", found, columns, notes)


def _show_memory(record: Speculation) -> Table:
    members = [("target", record.target), *([("draft", record.draft)] if record.draft else [])]
    columns = [
        Column("member", "model"), Column("file_name", "file"), Column("weights", unit=BYTES), Column("cache", unit=BYTES),
        Column("compute", unit=BYTES), Column("total", unit=BYTES),
    ]  # fmt: skip
    rows: list[Line] = []
    for name, member in members:
        buffers = member.resolved.buffers if member.resolved else ()
        sizes = [_sum(buffers, "model"), _sum(buffers, *_CACHES), _sum(buffers, "compute", "output")]
        rows.append([name, _name(member), *sizes, sum(sizes)])
    n_ctx = record.target.resolved.n_ctx if record.target.resolved else record.target.asked.n_ctx
    return Table("memory", columns, rows, [f"As llama.cpp allocated it, for a context of {n_ctx} tokens in each."])


def _sum(buffers: tuple[Buffer, ...], *causes: str) -> int:
    return sum(buffer.size_bytes for buffer in buffers if buffer.cause in causes)


def _warn(record: Speculation, result: SpeculationResult) -> Iterator[str]:
    yield from (caution.text for caution in record.warnings)
    if record.is_synthetic:
        yield "Random weights took part: what steps cost is real; how many guesses are right, and the speed-up by that, says nothing."
    if record.rollback == "snapshots":
        yield "The target's recurrent state is taken back by copies of it (n_rs_seq); llama-server computes it again, which is slower."
    if record.is_own_draft and not record.is_synthetic:
        yield "The model drafts for itself: that its guesses are right shows that nothing is lost, and its speed what guessing costs."
    if record.failure and record.failure.is_fatal:
        yield f"It ended early: {describe_failure(record.failure)}."
    elif record.failure:
        yield f"Interrupted after {format_count(result.alone.n_rounds, 'round')} of {record.manner.rounds}."
    elif result.alone.n_rounds < record.manner.rounds:
        wanted = format_count(record.manner.rounds, "round")
        yield f"{result.alone.n_rounds} of {wanted} were made; give more --max-time, or fewer tokens with -n."
