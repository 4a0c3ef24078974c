"""Ollama's figures: meaning, names, format; what a record of a text holds and what not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.codec import decode
from harness.errors import UsageError
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Failure
from harness.records.kinds import to_json
from harness.records.text import Figures, Skip, Skipped, TextRequest, TextRun, hash_prompt
from harness.views.formats import render
from harness.views.text import (
    describe_reference,
    describe_text,
    render_answer_json,
    render_verbose,
    render_verbose_json,
)

FIGURES = Figures(
    total_duration_ns=4_648_158_584,
    load_duration_ns=4_071_084,
    prompt_eval_count=36,
    prompt_eval_duration_ns=439_038_000,
    eval_count=180,
    eval_duration_ns=4_196_918_000,
    first_token_ns=440_000_000,
)

#: What `ollama run --verbose` prints of the same numbers (api/types.go, Summary), and one line more.
VERBOSE = """\
total duration:       4.648158584s
load duration:        4.071084ms
prompt eval count:    36 token(s)
prompt eval duration: 439.038ms
prompt eval rate:     82.00 tokens/s
eval count:           180 token(s)
eval duration:        4.196918s
eval rate:            42.89 tokens/s
time to first token:  440ms
"""


@pytest.fixture
def run(recorded):
    source = next(record for record in recorded if record.model)
    return TextRun(
        command="run",
        time_utc="2026-11-24T10:59:57Z",
        machine=source.machine,
        harness_version="0",
        asked=TextRequest("/home/ada/secret/model.gguf", "my private question", "be kind").settings(),
        prompt_sha256=hash_prompt("my private question"),
        figures=FIGURES,
        finish="stop",
        model=source.model,
        build=source.build,
        resolved=source.resolved,
        template="jinja",
        token_ns=(10, 20),
        sample_ns=5,
        decode_ns=4_100_000_000,
        warnings=(Caution(CautionCause.BUSY_MACHINE, "busy", distrust=True),),
    )


def test_the_lines_are_ollamas():
    assert render_verbose(FIGURES) == VERBOSE


def test_what_never_came_is_left_out():
    text = render_verbose(Figures(total_duration_ns=5_000_000, load_duration_ns=None))
    assert text == "total duration:       5ms\n"


def test_the_names_are_those_of_ollamas_api(run):
    values = json.loads(render_verbose_json(run))
    ollamas = {
        "total_duration": 4_648_158_584,
        "load_duration": 4_071_084,
        "prompt_eval_count": 36,
        "prompt_eval_duration": 439_038_000,
        "eval_count": 180,
        "eval_duration": 4_196_918_000,
    }
    assert {name: values[name] for name in ollamas} == ollamas
    assert values["eval_rate"] == pytest.approx(180 / 4.196918)
    answer = json.loads(render_answer_json(run, "It is …"))
    assert answer["response"] == "It is …"
    assert answer["done_reason"] == "stop"
    assert answer["warnings"] == ["busy"]


def test_a_full_context_is_a_length_to_ollama(run):
    assert json.loads(render_verbose_json(dataclasses.replace(run, finish="context")))["done_reason"] == "length"


def test_the_decode_rate_leaves_sampling_out_and_counts_decodes(run):
    assert run.figures.decode_rate_tok_per_s(run.decode_ns) == pytest.approx(179 / 4.1)


def test_a_record_goes_through_json_and_back(run):
    failed = dataclasses.replace(run, failure=Failure("prompt", "no", "refused", log=("a", "b")))
    for one in (run, failed):
        assert decode(TextRun, json.loads(json.dumps(to_json(one)))) == one


def test_a_record_holds_neither_prompt_nor_path_nor_text(run):
    line = json.dumps(to_json(run))
    for secret in ("private", "question", "ada", "kind,", "be kind"):
        assert secret not in line
    assert json.loads(line)["asked"]["has_system"] is True


def test_prompt_and_text_are_kept_where_asked_for(run):
    kept = to_json(dataclasses.replace(run, prompt="why", text="because"))
    assert (kept["prompt"], kept["text"]) == ("why", "because")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": " \n"}, "prompt is empty"),
        ({"max_tokens": 0}, "--max-tokens 0"),
        ({"temperature": -1}, "--temp -1"),
        ({"top_p": 0}, "--top-p 0"),
        ({"raw": True, "system": "x"}, "--system needs the chat template"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        TextRequest(**{"model": "m", "prompt": "p", **changes})


def test_the_reference_table_fits_and_says_what_was_left_out(run):
    failed = dataclasses.replace(
        run, figures=Figures(1), finish="failed", model=None, failure=Failure("load", "it broke", "abort"), warnings=()
    )
    document = describe_reference(
        [("llama3.2:1b:q8_0", run), ("llama3.1:8b", failed)], [Skipped("llama3.1:70b", Skip.NO_TEXT, "word " * 40)]
    )
    text = render(document, "table")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    (good,) = [line for line in lines if line.startswith("llama3.2:1b")]
    assert all(word in good for word in ("82.00", "42.89", "36 + 180", "stop [1]"))
    assert "failed [2]" in text
    assert {"[1] busy", "[2] it broke", "not run"} <= set(lines)
    rows = json.loads(render(document, "json"))["runs"]
    assert rows[0]["eval_rate_tok_per_s"] == pytest.approx(180 / 4.196918)
    assert (rows[1]["finish"], rows[1]["notes"]) == ("failed", ["it broke"])


def test_one_text_in_every_format(run):
    document = describe_text(run, "It is …\n\nso.")
    assert "It is …" in render(document, "md")
    assert render(document, "csv").splitlines()[1].startswith(run.model.file_name)
    html = render(document, "html")
    assert "<svg" in html
    assert "It is …" in html
