"""What one's own records say: of many the one that speaks, none that is not to be trusted, whatever file it was."""

from __future__ import annotations

import dataclasses
import re

import pytest

from harness.codec import decode
from harness.errors import UsageError
from harness.gguf.cost import Cost
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Failure, Record, is_of
from harness.records.kinds import read_line, to_json
from harness.records.memory import MemoryRecord
from harness.records.text import Figures, TextRun
from harness.sources.model_file import describe_file
from harness.sources.user_catalog import load_catalog
from harness.speed.machines import known_machines
from harness.speed.model_names import ModelFile, ModelNames
from harness.speed.own import OwnMachine, own_points, predict_own
from harness.speed.prediction import PromptBasis, Question, cost_of_entry
from harness.speed.rates import collect, speaks_for
from harness.speed.standings import measured_rows
from harness.views.cells import write_cells
from harness.views.predict import describe_answers
from harness.views.report import Material, read_material, render_report

from .gguf_bytes import llama_like

CATALOG = load_catalog()
BUSY = Caution(CautionCause.BUSY_MACHINE, "busy machine: other processes used 1.9 of 2 CPUs", distrust=True)


@pytest.fixture
def usual(recorded):
    """tg128 with default settings, ten repetitions."""
    record = recorded[1]
    samples = tuple(dataclasses.replace(record.timed[0], duration_ns=10**9 + at) for at in range(10))
    asked = dataclasses.replace(record.asked, n_gen=128, repetitions=10)
    return dataclasses.replace(record, asked=asked, samples=samples, threads_source="physical cores")


def changed(record, *, rate=1.0, reps=10, **changes):
    samples = [
        dataclasses.replace(sample, duration_ns=round(sample.duration_ns / rate)) for sample in record.samples[:reps]
    ]
    return dataclasses.replace(record, samples=tuple(samples), **changes)


def test_the_trusted_and_most_repeated_record_speaks_and_not_the_latest_scrap(usual):
    scrap = changed(usual, rate=2, reps=1, time_utc="2026-11-25T00:00:00Z")
    short = changed(usual, rate=3, asked=dataclasses.replace(usual.asked, n_gen=2), time_utc="2026-11-26T00:00:00Z")
    busy = changed(usual, rate=0.1, warnings=(BUSY,), time_utc="2026-11-27T00:00:00Z")
    measured = collect([usual, scrap, short, busy], CATALOG)
    assert speaks_for(measured) is measured[0]
    (row,) = measured_rows(measured, "tg")
    (cell,) = row.cells.values()
    assert cell.rate_tok_per_s == pytest.approx(128, rel=1e-3)
    assert speaks_for(measured[1:]) is measured[1], "with default settings before other ones"
    assert speaks_for(measured[3:]) is measured[3], "and better than nothing"
    again = changed(usual, rate=1.5, time_utc="2026-11-28T00:00:00Z")
    assert speaks_for(collect([usual, again], CATALOG)).record.time_utc == again.time_utc, "of equals the latest"


def predict(*records):
    cost, _ = cost_of_entry(CATALOG.find("smollm2:135m"), "Q4_1")
    own = OwnMachine("here", "cpu", collect(records, CATALOG))
    return predict_own(own, Question(cost), known_machines(CATALOG))


def test_a_busy_run_is_left_out_of_a_prediction_and_that_is_said(usual):
    busy = changed(usual, rate=0.1, warnings=(BUSY,), time_utc="2026-12-01T00:00:00Z")
    quiet, both = predict(usual), predict(usual, busy)
    assert quiet.tg is not None
    assert both.tg == quiet.tg
    assert "left out: 1 record not to be trusted (busy machine)" in describe_answers([both]).warnings
    assert not describe_answers([quiet]).warnings
    with pytest.raises(UsageError, match=r"only figures that are not to be trusted \(busy machine\)"):
        predict(busy)


def test_a_short_prompt_tells_nothing_of_long_ones(usual):
    """Four tokens take as long as reading the weights: pp512 from pp4 was a third of what roofline's arithmetic gives."""

    def prompt(n):
        spec = dataclasses.replace(usual.asked, n_prompt=n, n_gen=0)
        return changed(usual, asked=spec, time_utc="2026-11-26T00:00:00Z")

    assert predict(usual, prompt(512)).pp_basis is PromptBasis.OWN_RECORDS
    both = predict(usual, prompt(512), prompt(4))
    assert both.pp == predict(usual, prompt(512)).pp
    short = predict(usual, prompt(4))
    assert short.pp is None
    assert (short.pp_basis, short.has_short_prompts) == (PromptBasis.NOT_TIMED, True)


@pytest.fixture
def stranger(usual, tmp_path):
    """A record of a file that no catalog knows, as `pp-tg` writes it."""
    path = tmp_path / "mine.gguf"
    path.write_bytes(llama_like().build(data=True))
    facts = dataclasses.asdict(describe_file(path))
    model = dataclasses.replace(usual.model, file_name=path.name, n_params=999, **facts)
    return dataclasses.replace(usual, model=model, file_sha256=facts["file_sha256"])


def test_a_model_outside_the_catalog_counts_as_measured(stranger):
    (item,) = collect([decode(Record, to_json(stranger))], CATALOG)
    assert item.entry is None
    cost = item.cost()
    assert cost is not None
    assert cost.name == "mine"
    (point,) = own_points([item])
    assert point.cost == cost
    assert point.cost.bytes_per_token(0) > 0


def test_a_record_of_old_is_matched_by_its_hash(stranger):
    (known,) = collect([stranger], CATALOG)
    old = dataclasses.replace(stranger, model=dataclasses.replace(stranger.model, cost=None))
    (item,) = collect([old], CATALOG)
    asked = known.cost()
    assert item.cost() is None
    assert own_points([item], Question(asked)) == []
    (point,) = own_points([item], Question(asked, file_sha256=old.model.file_sha256))
    assert point.cost == asked
    assert own_points([item], Question(asked, file_sha256="0" * 64)) == []


def test_a_cost_of_another_version_is_no_cost(stranger):
    odd = dataclasses.replace(stranger, model=dataclasses.replace(stranger.model, cost={"read_bytes": 5}))
    (item,) = collect([odd], CATALOG)
    assert item.cost() is None
    assert isinstance(collect([stranger], CATALOG)[0].cost(), Cost)


def test_a_record_is_of_a_machine_and_a_file(stranger):
    machine, sha256, size = stranger.machine, stranger.file_sha256, stranger.model.file_size_bytes
    assert is_of(stranger, machine, sha256, size)
    assert not is_of(stranger, machine, "0" * 64, size), "another file of the same name"
    assert not is_of(stranger, dataclasses.replace(machine, cpu="another"), sha256, size)
    updated = dataclasses.replace(machine, os="Linux 99", python="3.99")
    assert is_of(stranger, updated, sha256, size), "an update makes no other machine"
    failed = dataclasses.replace(stranger, model=None, samples=())
    assert is_of(failed, machine, sha256, size), "it failed before its model was loaded"
    assert not is_of(dataclasses.replace(failed, file_sha256=None), machine, sha256, size), "nothing says of what file"
    model = dataclasses.replace(stranger.model, file_sha256=None)
    huge = dataclasses.replace(stranger, model=model, file_sha256=None)
    assert is_of(huge, machine, None, size), "of a file too large to be hashed the size has to do"
    assert not is_of(huge, machine, None, size + 1)


def test_every_file_has_one_name():
    files = [
        ModelFile("Meta-Llama-3.1-8B-Instruct.Q4_0.gguf", "a" * 64, "Q4_0"),
        ModelFile("Hermes-3-Llama-3.1-8B.Q4_0.gguf", "b" * 64, "Q4_0"),
        ModelFile("Hermes-3-Llama-3.1-8B.Q4_0.gguf", "c" * 64, "Q4_0"),
        ModelFile("mine.gguf", "d" * 64, "Q8_0", is_synthetic=True),
        ModelFile("mine.gguf"),
    ]
    names = ModelNames(files, CATALOG)
    told = [names.of(file) for file in files]
    assert told[0] == "llama3.1:8b Q4_0 (Meta-Llama-3.1-8B-Instruct.Q4_0.gguf)"
    assert told[1] == "llama3.1:8b Q4_0 (Hermes-3-Llama-3.1-8B.Q4_0.gguf) (bbbbbbbb)"
    assert told[2] == "llama3.1:8b Q4_0 (Hermes-3-Llama-3.1-8B.Q4_0.gguf) (cccccccc)"
    assert told[3] == told[4] == "mine (synthetic)", "the one file of that name, hash or not"
    assert ModelNames(files[:1], CATALOG).of(files[0]) == "llama3.1:8b Q4_0"
    known = next(entry for entry in CATALOG.entries.values() if any(files.sha256 for files in entry.files))
    sha256 = next(files.sha256[0] for files in known.files if files.sha256)
    assert ModelNames([], CATALOG).of(ModelFile("renamed.gguf", sha256, "Q4_0")) == f"{known.name} Q4_0", "by its hash"


def test_a_ledgers_model_is_the_file_that_is_called_so():
    """A ledger keeps the name that was asked for and no hash; the page has one name for both."""
    file = ModelFile("SmolLM2-135M-Instruct.Q4_1.gguf", "a" * 64, "Q4_1")
    asked = ModelFile("smollm2:135m", None, "Q4_1")
    names = ModelNames([asked, file], CATALOG)
    assert names.of(asked) == names.of(file) == "smollm2:135m Q4_1"
    other = ModelFile("SmolLM2-135M-Instruct-Q4_1.gguf", "b" * 64, "Q4_1")
    names = ModelNames([asked, file, other], CATALOG)
    assert len({names.of(found) for found in (asked, file, other)}) == 3, "which of the two it was of is not known"
    assert names.of(None) == "—"


def test_two_files_of_one_shape_have_their_names_in_every_table(usual):
    other = dataclasses.replace(usual.model, file_name="mine.gguf", file_sha256="f" * 64)
    both = [usual, dataclasses.replace(usual, model=other, asked=dataclasses.replace(usual.asked, model="mine.gguf"))]
    for form in ("table", "md"):
        text = write_cells(both, form)
        assert "mine" in text
        assert "SmolLM2-135M-Instruct" in text
        assert "mine" not in write_cells(both[:1], form)
    lines = read_material(read_line(to_json(record)) for record in both)
    page = render_report(Material(lines, [], ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1"))
    (alt,) = re.findall(r'aria-label="(Text generation:[^"]*)"', page)
    assert "mine" in alt, "neither vanishes from the picture"
    assert "SmolLM2-135M-Instruct" in alt


def test_a_model_has_one_name_on_a_page(usual):
    machine = to_json(usual)["machine"]
    file = {"file_name": usual.model.file_name, "file_sha256": usual.model.file_sha256}
    memory = {
        "schema": 1, "kind": "overhead", "model": "./smol.gguf", "n_ctx": 512, "ledger": [], "machine": machine, **file,
    }  # fmt: skip
    text = to_json(
        TextRun("run", usual.time_utc, usual.machine, "0.1", {}, "hash", Figures(1), "stop", model=usual.model)
    )
    failed = to_json(dataclasses.replace(usual, samples=(), model=None, failure=Failure("load", "x", "refused")))
    lines = read_material(map(read_line, [to_json(usual), memory, text, failed]))
    material = Material(lines, [], ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1", catalog=CATALOG)
    found = [*material.records, *material.texts, *material.failures, *material.contents(MemoryRecord)]
    assert len(found) == 4
    assert {material.model_name(one) for one in found} == {"smollm2:135m Q4_1"}
    page = render_report(material)
    assert "llama 256M" not in page
    assert "./smol.gguf" not in page
