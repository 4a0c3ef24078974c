"""`harness compare` from its words to its page and its exit code."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import pytest
from click.testing import CliRunner

import harness
from harness.cli import cli
from harness.errors import HarnessError
from harness.records.journal import Journal
from harness.runs.compare import CompareRequest, compare_files
from harness.views import page
from harness.views.compare import label_pairs, name_side
from harness.views.formats import format_names

from .conftest import HERE
from .measured import draw, with_durations
from .test_comparison import DISTRUST

GOLDEN = HERE / "golden"

#: Durations of a prompt before and after: 3 % longer, and each known to the digit.
BEFORE = [100_000_000 + 100_000 * n for n in range(12)]
AFTER = [103_050_000 + 103_000 * n for n in range(12)]


def run(*words, **environment):
    done = CliRunner().invoke(cli, ["compare", *map(str, words)], env=environment)
    if done.exception and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, HarnessError), done.exception
        return done.exception.outcome, str(done.exception), ""
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def keep(results, recorded):
    """Keeps cells in a journal of their own: durations of a prompt and of a generation."""

    def make(prompt, generation=None, label=None, change=lambda record: record, **asked):
        with Journal(results, "pp-tg", label=label) as journal:
            for record, durations in zip(recorded[:2], (prompt, generation), strict=True):
                if durations:
                    journal.append(change(with_durations(record, durations, **asked)))
        return journal.path

    return make


@pytest.fixture
def two(keep, tmp_path):
    """A run before and one after under names that stay."""
    files = []
    for name, prompt in (("before", BEFORE), ("after", AFTER)):
        path = keep(prompt, [50_000_000 + 70_000 * n for n in range(8)])
        files.append(path.rename(tmp_path / f"{name}.jsonl"))
    return files


@pytest.mark.parametrize("form", ["table", "md", "benchstat"])
def test_output_is_the_golden_one(two, form):
    code, text, _ = run(*two, "-o", form)
    assert code == 0
    assert text == (GOLDEN / f"compare.{form}").read_text(encoding="utf-8")


def test_programs_get_the_same_in_every_format(two):
    values = json.loads(run(*two, "-o", "json")[1])
    assert [side["name"] for side in values["sides"]] == ["before", "after"]
    assert [(row["test"], row["standing"], row["verdict"]) for row in values["pairs"]] == [
        ("pp64", "slower", "slower"),
        ("tg16", "noise", "~"),
    ]
    first = values["pairs"][0]
    assert first["ratio"] == pytest.approx(100.55 / 103.6165, rel=1e-3)
    assert first["ratio_low"] < first["ratio"] < first["ratio_high"] < 1
    assert (first["basis"], first["method"], first["base_n"], first["n"]) == ("repetitions", "mann_whitney", 12, 12)
    assert first["p"] == 2 * first["p_uncorrected"]
    assert values["geometric_mean_ratio"]["B"] == pytest.approx(first["ratio"] ** 0.5)
    lines = [json.loads(line) for line in run(*two, "-o", "jsonl")[1].splitlines()]
    rows = list(csv.DictReader(io.StringIO(run(*two, "-o", "csv")[1])))
    assert [line["ratio"] for line in lines] == [row["ratio"] for row in values["pairs"]]
    assert [float(row["ratio"]) for row in rows] == [row["ratio"] for row in values["pairs"]]
    assert {*lines[0]} - {*rows[0]} == {"schema", "kind"}
    assert "<table" in run(*two, "-o", "html")[1]
    assert {"table", "md", "csv", "json", "jsonl", "html"} <= {*format_names()}


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_page_is_as_wide_as_it_may_be(two, columns):
    code, text, _ = run(*two, two[0].parent, COLUMNS=str(columns))
    assert code == 0
    assert "slower" in text
    assert max(map(page.columns_of, text.splitlines())) <= columns


def test_without_words_the_last_run_against_the_one_before(keep):
    keep(BEFORE, label="old fan")
    keep(AFTER, label="new fan")
    code, text, _ = run()
    assert code == 0
    assert "A  old fan" in text
    assert "B  new fan" in text
    assert "slower" in text


def test_of_equal_names_each_is_called_as_it_was_typed(keep, results):
    keep(BEFORE, label="fan")
    keep(AFTER, label="fan")
    assert "A  last~1" in run("last~1", "last")[1]


@pytest.mark.parametrize(
    ("limit", "code"),
    [("slower:2%", 6), ("slower:3.5%", 0), ("tg:slower:1%", 0), ("faster:1%", 0), ("pp64:slower:2%", 6)],
)
def test_a_limit_ends_with_a_code_of_its_own(two, limit, code):
    found, _, said = run(*two, "--fail-if", limit)
    assert (found, "beyond the limit" in said) == (code, code == 6)


def test_what_is_not_to_be_trusted_ends_with_5_and_breaks_no_limit(keep):
    keep(BEFORE)
    keep(AFTER, change=lambda record: dataclasses.replace(record, warnings=(DISTRUST,)))
    code, text, said = run("--fail-if", "slower:1%")
    assert code == 5
    assert "B: not to be trusted: " in text
    assert "Nothing is proved of pp64" in said


def test_a_limit_that_is_about_nothing_is_a_question_put_wrongly(two):
    code, _, said = run(*two, "--fail-if", "tg99:slower:3%", "--fail-if", "pp64:slower:9%")
    assert code == 2
    assert "--fail-if tg99:slower:3% is about none of these tests (pp64 and tg16)." in said
    assert run(*two, "--fail-if", "tg99:slower:3%", "--fail-if", "pp64:slower:2%")[0] == 6


def test_a_test_is_called_without_what_the_comparison_is_by(keep):
    for n in (1, 4):
        path = keep(None, BEFORE, n_parallel=n)
    code, text, said = run(path.parent, "--by", "np", "--fail-if", "tg16:faster:1%")
    assert code == 6
    assert "tg16 " in text
    assert "tg16 is faster beyond the limit" in said
    assert "x4" not in text + said


def test_a_picture_of_several_sides_has_their_names(keep):
    for name in ("long name of one", "long name of another", "long name of a third"):
        path = keep(BEFORE, label=name)
    found = compare_files(CompareRequest(sorted(map(str, path.parent.glob("*.jsonl")))), print)
    labels = label_pairs(found, found.pairs, is_alone=True)
    assert [label.partition(" · ")[0] for label in labels] == [name_side(side) for side in found.sides[1:]]
    assert [label[0] for label in label_pairs(found, found.pairs)] == ["B", "C"]


def test_one_repetition_has_no_interval(keep):
    keep([BEFORE[0]])
    keep([AFTER[0]])
    code, text, _ = run()
    assert (code, "?" in text, "too few repetitions for a 95 % interval" in text) == (0, True, True)
    assert run("--fail-if", "slower:1%")[0] == 5


def test_one_run_by_a_setting(keep):
    with_both = [keep(BEFORE, type_k=kind) for kind in ("q8_0", "f16")]
    code, text, _ = run(with_both[0].parent, "--by", "ctk")
    assert code == 0
    assert "A  type_k f16" in text
    assert "A  type_k q8_0" in run(with_both[0].parent, "--by", "type_k", "--base", "q8_0")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.jsonl", "last"], "no file or folder nowhere.jsonl"),
        (["last~7", "last"], "last~7 is not there"),
        (["last"], "There is nothing to hold .* against"),
        (["last", "last"], "last and last are the same"),
        (["last", "--by", "type_k"], "Everything was measured with type_k f16"),
        (["last", "--by", "colour"], "nothing called colour to compare by; there are machine, build, model"),
        (["last~1", "last", "--base", "x"], "--base says which value of --by"),
        (["last~1", "last", "--by", "seed"], "nothing called seed"),
    ],
)
def test_questions_that_cannot_be_meant(keep, words, said):
    keep(BEFORE)
    keep(AFTER)
    code, text, _ = run(*words)
    assert code == 2

    assert re.search(said, text), text


def test_a_limit_that_is_none():
    code, _, said = run("--fail-if", "slow")
    assert (code, "is not a limit such as slower:3%" in said) == (2, True)


def test_nothing_in_common_says_what_differs(keep):
    keep(BEFORE, type_k="f16")
    keep(AFTER, type_k="q8_0", n_gpu_layers=3)
    code, text, _ = run()
    assert code == 2
    assert "B has 1 cell (pp64) with no like in A: ngl is 3 and not -1 and type_k is q8_0 and not f16" in text
    assert "(--by n_gpu_layers --by type_k compares them)" in text


def test_nothing_is_compared_with_something(keep, tmp_path, recorded):
    keep(BEFORE)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.txt").write_text("hello")
    for name in ("empty.jsonl", "other.txt"):
        code, text, _ = run(tmp_path / name, "last")
        assert (code, "holds no test that was measured" in text) == (2, True)


def test_what_cannot_be_read_is_said_and_the_rest_is_used(two):
    text = two[1].read_text(encoding="utf-8")
    two[1].write_text(text + text.splitlines()[0][:99] + "\n", encoding="utf-8")
    code, shown, said = run(*two)
    assert (code, "after.jsonl:3: not a record" in said, "slower" in shown) == (0, True, True)


def test_llama_benchs_files_against_each_other_and_a_journal(keep):
    theirs = [GOLDEN / f"llama-bench.{form}" for form in ("json", "csv", "sql")]
    code, text, _ = run(*theirs)
    assert code == 0
    assert "weaker evidence" in text
    assert "5 are taken" in text
    own = keep(draw(52e6), n_prompt=16)
    code, text, _ = run(own, theirs[0])
    assert (code, "pp16" in text) == (0, True)
    assert "machine" not in text, "a processor known by the same name is the same machine"


def test_one_input_may_go_to_benchstat_alone(two):
    code, text, _ = run(two[0], "-o", "benchstat")
    assert (code, text.count("Benchmark"), "side:" in text) == (0, 20, False)


def test_pictures_of_both_themes(two, tmp_path):
    for theme in ("light", "dark"):
        path = tmp_path / f"{theme}.svg"
        assert run(*two, "--plot", path, "--theme", theme)[0] == 0
        drawn = path.read_text(encoding="utf-8")
        assert all(text in drawn for text in ("pp64", "tg16", "slower", "inside the noise", "after against before"))


def test_a_script_can_ask_the_same(two):
    found = harness.compare(*two)
    assert [(pair.other.spec.test, pair.standing.value) for pair in found.pairs] == [
        ("pp64", "slower"),
        ("tg16", "noise"),
    ]
    assert not harness.compare(two[0], GOLDEN / "llama-bench.json").pairs
