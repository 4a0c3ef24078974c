"""LocalScore's figure as a Document: the figure, what it is made of, each test, and what is not the same as there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records.cells import Record
from harness.records.score import OFFICIAL, SETTINGS, TESTS, Score, score_cells
from harness.records.verdict import judge_all
from harness.spec import RunSpec, name_test
from harness.units import format_count
from harness.views.document import Block, Cell, Column, Document, Figure, KeyFigures, Prose, Section, Table
from harness.views.settings import format_setting, format_settings, heading
from harness.views.values import DURATION, RATE, Unit, format_list
from harness.views.verdict import with_verdict

#: A score has no unit, and is shown whole, as LocalScore's site does.
SCORE = Unit("", lambda value: f"{value:.0f}" if value >= 10 else f"{value:.1f}")

#: What is done otherwise here than by LocalScore 0.9 (localscore/cmd.cpp, localscore.cpp), whatever was asked for.
DIFFERENCES = (
    "Tests, order and formula are LocalScore's. The engine is not: LocalScore ships llamafile, with an older llama.cpp and matrix "
    "kernels of its own. Its cache is bf16 on CPUs that have AVX512_BF16, and f16 on others.",
    "Nothing is sent anywhere.",
)


def describe_score(score: Score, records: Sequence[Record]) -> Document:
    """The score of cells of one model."""
    model = records[-1].model
    title = model.description + (" (synthetic)" if model.is_synthetic else "") if model else ""
    notes = list(_qualify(score, records[-1].asked))
    name = "LocalScore" if score.is_whole and not score.changed else "no LocalScore"
    figures = [
        Figure("score", name, Cell(score.value, notes=notes), SCORE),
        Figure("prompt_rate", "prompt", score.prompt_rate_tok_per_s, RATE),
        Figure("gen_rate", "generation", score.gen_rate_tok_per_s, RATE),
        Figure("first_token", "first token after", score.first_token_ns, DURATION),
        Figure("n_tests", "", len(score.tests), is_shown=False), Figure("is_comparable", "", score.is_comparable, is_shown=False),
        Figure("size", "size class", score.official.size if score.official else None),
    ]  # fmt: skip
    columns = [
        Column("test", of=lambda one: name_test(one.test.n_prompt, one.test.n_gen)),
        Column("use", "stands for", left_out=1, of=lambda one: one.test.use),
        Column("prompt_rate", "prompt t/s", RATE), Column("gen_rate", "generated t/s", RATE),
        Column("first_token", "first token", DURATION), Column("n_repetitions", "reps", left_out=2, align="r"),
        Column("n_prompt", is_shown=False, of=lambda one: one.test.n_prompt),
        Column("n_gen", is_shown=False, of=lambda one: one.test.n_gen),
    ]  # fmt: skip
    blocks: list[Block] = [KeyFigures(figures), Table.of("tests", score.tests, columns), Prose(DIFFERENCES)]
    return with_verdict(Document("score", 1, title, [Section("", blocks)]), judge_all(records))


def _qualify(score: Score, asked: RunSpec) -> Iterator[str]:
    """What keeps the figure from being held against others."""
    if score.changed:
        yield f"measured with {format_settings(asked, score.changed)}, and LocalScore with {_list_usual(score.changed)}"
    if score.missing:
        yield f"{len(score.tests)} of {format_count(len(TESTS), 'test')}: not comparable with any LocalScore"
    if score.official is None:
        models = format_list([f"{one.name} ({one.size})" for one in OFFICIAL])
        yield f"the site compares machines by {models}, and not by this model"


def _list_usual(names: Sequence[str]) -> str:
    return ", ".join(f"{heading(name)} {format_setting(SETTINGS[name])}" for name in names)


def describe_test(content: object) -> str | None:
    """A line about a test that was just measured, for whoever waits."""
    if not isinstance(content, Record) or (score := score_cells([content])) is None:
        return None
    (one,) = score.tests
    rates = " and ".join(RATE.form(rate) for rate in (one.prompt_rate_tok_per_s, one.gen_rate_tok_per_s))
    return f"{content.asked.test}: {rates} t/s"
