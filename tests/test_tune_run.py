"""`harness tune` from the command line's side: a worker that says known durations, what is kept, shown and used, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.codec import decode
from harness.errors import HarnessError, NativeError, Outcome, UsageError
from harness.events import Progress, ignore
from harness.records.cells import Build
from harness.records.failures import Cause
from harness.records.journal import read_lines
from harness.records.trust import Trust, Verdict
from harness.records.tuning import Quality, Stop, Why
from harness.runs import tune as run
from harness.runs import worker as child
from harness.runs.devices import Cards, Survey
from harness.runs.session import Session
from harness.runs.tune import PRICE_WINDOWS, TuneRequest, keep_result, price_quality, tune
from harness.sources.tuned_settings import find_tuned
from harness.units import GIB
from harness.views.tune import describe_tuning, summarize_tuning

from .conftest import HERE
from .kind_files import FILES

TOLD = json.loads((HERE / "recorded" / "pp-tg.jsonl").read_text(encoding="utf-8").splitlines()[0])


@pytest.fixture(autouse=True)
def no_engine(monkeypatch, tmp_path):
    """Devices and memory as a recorded machine has them; nothing is kept where the user's own settings are."""
    monkeypatch.chdir(HERE.parent)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    survey = Survey(decode(Build, TOLD["build"]), {}, ("CPU",), Cards(), None)
    monkeypatch.setattr(run, "survey_devices", lambda _rpc, _command=None: survey)
    monkeypatch.setattr(run, "available_memory_bytes", lambda: 8 * GIB)


def search(kind, model, *, results=None, on_event=ignore, **asked):
    command = (sys.executable, "-m", "tests.noisy_worker", kind)
    with Session("tune", results, worker_command=command, on_event=on_event) as session:
        record = tune(TuneRequest(model, **asked), session)
    return record, session


def test_what_is_faster_is_found_kept_and_used_again(model, results):
    record, session = search("tunable", model, results=results)
    assert (record.stop, record.is_proven, record.chosen.flash_attn) == (Stop.DONE, True, "off")
    assert session.outcome is Outcome.OK
    [line] = read_lines([session.journals[0]], pytest.fail)
    assert line.content.chosen.flash_attn == "off"
    assert keep_result(pathlib.Path(model), record).is_file()
    assert find_tuned(pathlib.Path(model)).settings["flash_attn"] == "off"
    assert "1.2" in summarize_tuning(record)


def test_a_candidate_that_kills_the_worker_is_a_row(model):
    record, session = search("tunable", model)
    [race] = [race for race in record.races if race.settings == ("load_mode",)]
    assert [candidate.failure and candidate.failure.cause for candidate in race.candidates] == [None, Cause.EXIT]
    assert session.outcome is Outcome.OK
    assert describe_tuning(record)


def test_equal_settings_leave_the_defaults(model):
    record, session = search("quiet", model)
    assert (record.stop, record.is_proven, record.chosen) == (Stop.DONE, False, record.base)
    assert session.outcome is Outcome.OK


def test_a_crowded_machine_is_not_tuned_on(model, results):
    record, session = search("crowded", model, results=results)
    assert (record.stop, record.races) == (Stop.NOISY, ())
    assert session.outcome is Outcome.NOT_TRUSTED
    assert keep_result(pathlib.Path(model), record) is None
    record, session = search("crowded", model, goes_on_anyway=True)
    assert record.races
    assert session.outcome is Outcome.NOT_TRUSTED


def test_defaults_that_die_are_a_failure_with_a_record(model, results):
    record, session = search("dying", model, results=results)
    assert (record.stop, record.failure.cause) == (Stop.FAILED, Cause.EXIT)
    assert session.outcome is Outcome.NATIVE
    assert len(list(read_lines([session.journals[0]], pytest.fail))) == 1


def test_an_interrupt_in_a_race(model, results):
    def interrupt(event):
        if isinstance(event, Progress) and event.task.startswith("cpu_mask"):
            raise KeyboardInterrupt

    record, session = search("tunable", model, results=results, on_event=interrupt)
    assert (record.stop, session.outcome) == (Stop.INTERRUPTED, Outcome.INTERRUPTED)
    assert (record.found.flash_attn, record.chosen) == ("off", record.base)
    assert "best so far is fa off" in summarize_tuning(record)
    assert keep_result(pathlib.Path(model), record) is None


def test_what_is_given_stays(model):
    record, _ = search("tunable", model, settings={"flash_attn": "on", "n_threads": 1})
    assert {candidate.asked.flash_attn for race in record.races for candidate in race.candidates} == {"on"}
    assert record.base.n_threads == 1
    assert record.threads_source == "asked"
    assert Why.GIVEN in {one.why for one in record.left_out}


def test_a_model_that_fits_nowhere_is_a_sentence(model, monkeypatch):
    monkeypatch.setattr(run, "available_memory_bytes", lambda: 300 << 20)
    with pytest.raises(
        HarnessError,
        match=r"does not fit into the 300.00 MiB of memory that are free, with a context of 4096 tokens; .*--ctx",
    ):
        search("quiet", model)


def test_only_what_writes_text_is_tuned(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(FILES["bert"][0]().build(data=True))
    with pytest.raises(UsageError, match="only what writes text is tuned"):
        search("quiet", str(path))


def use_worker(monkeypatch, kind):
    """Have the command line start this worker."""
    command, init = (sys.executable, "-m", "tests.noisy_worker", kind), child.Worker.__init__
    monkeypatch.setattr(child.Worker, "__init__", lambda self, _command=None, **more: init(self, command, **more))


# --- what a quantized cache costs of quality --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_cache():
    """A search that chose a quantized cache; made once, by whoever asks first."""
    found = []

    def make(model):
        found[:] = found or [search("cached", model, quality=Quality.ALLOW)[0]]
        return found[0]

    return make


@pytest.fixture
def asked_of_quality(monkeypatch):
    """What would be asked of the models; nothing is computed, and each cell's record is itself."""
    asked = []
    monkeypatch.setattr(
        run, "measure_quality", lambda request, _session: asked.append(request) or list(request.ordered)
    )
    return asked


def test_the_price_of_a_cache_is_asked_beside_the_usual_one(model, with_cache, asked_of_quality):
    record = with_cache(model)
    assert (record.chosen.type_k, record.chosen.type_v) == ("q8_0", "q8_0")
    with Session("tune", None) as session:
        price = price_quality(record, session)
    [request] = asked_of_quality
    assert (request.base.type_k, request.base.type_v, request.n_chunks) == ("f16", "f16", PRICE_WINDOWS)
    assert price == request.cells[0]
    assert (price.type_k, price.type_v, price.n_depth, price.n_gen) == ("q8_0", "q8_0", 0, 0)


@pytest.mark.parametrize("why", ["synthetic", "defaults stay", "interrupted", "not to be trusted", "no model"])
def test_there_is_no_price_where_nothing_is_chosen_or_lost(model, with_cache, asked_of_quality, monkeypatch, why):
    record = with_cache(model)
    if why == "synthetic":
        record = dataclasses.replace(record, model=dataclasses.replace(record.model, is_synthetic=True))
    elif why == "no model":
        record = dataclasses.replace(record, model=None)
    elif why == "defaults stay":
        record = dataclasses.replace(record, confirmation=())
    elif why == "not to be trusted":
        monkeypatch.setattr(run, "judge", lambda _record: Verdict(Trust.NOT_TRUSTED))
    with Session("tune", None) as session:
        if why == "interrupted":
            session.add(Outcome.INTERRUPTED)
        assert price_quality(record, session) is None
    assert asked_of_quality == []


def test_a_price_that_cannot_be_had_costs_the_price_alone(model, results, monkeypatch):
    use_worker(monkeypatch, "cached")

    def refuse(_request, _session):
        raise NativeError("There is no memory for two contexts.")

    monkeypatch.setattr(run, "measure_quality", refuse)
    done = CliRunner().invoke(cli, ["tune", "-m", model, "--quality", "allow"])
    assert done.exit_code == Outcome.NATIVE, done.output
    assert "-ctk q8_0" in done.stdout
    assert "There is no memory for two contexts." in done.stderr
    assert find_tuned(pathlib.Path(model)).settings["type_k"] == "q8_0"


def test_the_command_shows_keeps_and_forgets(model, results, monkeypatch):
    use_worker(monkeypatch, "tunable")
    done = CliRunner().invoke(cli, ["tune", "-m", model, "--time", "120", "--for", "rag"])
    assert done.exit_code == 0, done.output
    assert "fa off" in done.stdout
    assert "llama-server -m" in done.stdout
    assert "-fa off" in done.stdout
    assert find_tuned(pathlib.Path(model)) is not None
    done = CliRunner().invoke(cli, ["tune", "-m", model, "--forget"])
    assert done.exit_code == 0
    assert find_tuned(pathlib.Path(model)) is None


@pytest.mark.parametrize("form", ["json", "csv", "md", "html", "jsonl"])
def test_every_format_has_it(model, results, monkeypatch, form):
    use_worker(monkeypatch, "tunable")
    done = CliRunner().invoke(cli, ["tune", "-m", model, "-o", form])
    assert done.exit_code == 0, done.output
    assert "flash_attn" in done.stdout or "fa off" in done.stdout


def test_a_bound_on_devices_that_are_not_there_is_said_to_be_none(model):
    remarks = []
    search("crowded", model, vram_bytes=8 * GIB, on_event=lambda event: remarks.append(getattr(event, "text", "")))
    assert any("--vram" in text for text in remarks)
