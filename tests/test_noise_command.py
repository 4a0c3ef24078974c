"""How noisy a machine is: what repetitions show, what was seen, what would help, and nothing that does not apply."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import sys

import pytest

from harness.errors import Outcome, UsageError
from harness.evidence.detectable import FEWEST, find_detectable, find_pattern
from harness.host import system as host_os
from harness.host.programs import ProgramWatch
from harness.host.tuning import read_tuning
from harness.records.advice import Advice, advise, count_disturbances, find_tests
from harness.records.disturbances import Disturbance
from harness.records.journal import read_lines
from harness.records.kinds import read_line, to_json
from harness.records.noise import NoiseBlock, NoiseRecord, Tuning
from harness.records.trust import Trust
from harness.records.verdict import judge
from harness.runs.noise import NoiseRequest, measure_noise
from harness.runs.session import Session
from harness.views.figures.noise import draw_noise
from harness.views.figures.style import to_bytes
from harness.views.formats import format_names, render
from harness.views.noise import describe_noise, describe_programs

from . import machines
from .conftest import HERE


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """Half a minute of each kind of noise, by a worker without an engine: no time passes."""
    folder = tmp_path_factory.mktemp("noise")
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent.parent))
    patch.setattr(host_os, "_system", machines.Identity(machines.DEFAULT))
    found = {}
    for kind in ("quiet", "bimodal", "drifting", "stolen"):
        found[kind] = measure(kind, folder / kind)[0].record
    patch.undo()
    return found


def measure(kind, results, **request):
    worker = (sys.executable, "-m", "tests.noisy_worker", kind)
    with Session("noise", results, worker_command=worker) as session:
        noise = measure_noise(NoiseRequest("smollm2.gguf", **request), session, clock=lambda: 0.0)
    return noise, session


@pytest.fixture(scope="module")
def tests_of(noises):
    return {kind: find_tests(record) for kind, record in noises.items()}


def test_half_a_minute_is_taken_by_turns_in_short_blocks(noises):
    record = noises["quiet"]
    tests = [block.asked.test for block in record.blocks]
    assert set(tests) == {"tg32", "pp128"}
    assert all(set(tests[place : place + 2]) == {"tg32", "pp128"} for place in range(0, len(tests) - 1, 2))
    assert len({tuple(tests[place : place + 2]) for place in range(0, len(tests) - 1, 2)}) == 2, "the order is drawn"
    took_s = sum(sample.duration_ns for block in record.blocks for sample in block.samples) / 1e9
    assert 28 < took_s < 34
    assert all(2 <= len(block.timed) <= 12 for block in record.blocks)


def test_a_quiet_machine_shows_small_differences_and_needs_nothing(noises, tests_of):
    tests = tests_of["quiet"]
    assert judge(noises["quiet"]).trust is Trust.QUIET
    for test in tests:
        six, _, thirty = test.detectable
        assert six.half_width < 0.02
        assert thirty.half_width < six.half_width
        assert thirty.apart < 0.01
        assert thirty.paired < 0.01
        assert test.pattern.states is None
        assert test.pattern.drift is None
    assert "Nothing: it is steady." in render(describe_noise(noises["quiet"], tests, []), "table")
    assert advise(tests, Tuning(governors=("powersave",), is_turbo_on=True, n_siblings=4, is_plugged_in=False)) == []


def test_two_states_are_seen_and_turns_help(tests_of):
    for test in tests_of["bimodal"]:
        quick, slow, share = test.pattern.states
        assert slow / quick == pytest.approx(1.08, abs=0.01)
        assert 0.2 < share < 0.6
        ten = test.detectable[1]
        assert ten.apart > 0.05, "two runs may lie in different states"
        assert ten.paired < ten.apart
    assert advised(tests_of["bimodal"], Tuning()) == [Advice.TAKE_TURNS]
    turbo = Tuning(is_turbo_on=True, governors=("schedutil",))
    assert set(advised(tests_of["bimodal"], turbo)) == {Advice.GOVERNOR, Advice.TURBO_OFF, Advice.TAKE_TURNS}


def test_a_drift_is_seen_and_pairs_do_not_mind(tests_of):
    for test in tests_of["drifting"]:
        assert test.pattern.drift == pytest.approx(0.04, abs=0.015)
        assert test.pattern.states is None
        assert test.detectable[2].equal_apart > 0.3
        assert test.detectable[2].paired < 0.015
    assert Advice.TAKE_TURNS in advised(tests_of["drifting"], Tuning())


def test_stolen_time_is_named(noises, tests_of):
    tests = tests_of["stolen"]
    assert count_disturbances(tests)[Disturbance.STEAL] == pytest.approx(0.33, abs=0.12)
    assert advised(tests, Tuning(is_turbo_on=True, governors=("powersave",)))[0] is Advice.LEAVE_NEIGHBOURS
    assert Advice.TURBO_OFF not in advised(tests, Tuning(is_turbo_on=True)), "what was stolen is no clock"
    assert judge(noises["stolen"]).trust is not Trust.QUIET


def advised(tests, tuning):
    return [one.advice for one in advise(tests, tuning)]


@pytest.mark.parametrize(
    ("tuning", "advice"),
    [
        (Tuning(is_plugged_in=False), Advice.PLUG_IN),
        (Tuning(governors=("powersave", "performance")), Advice.GOVERNOR),
        (Tuning(governors=("powersave",), preferences=("balance_performance",)), Advice.PREFERENCE),
        (Tuning(profile="low-power"), Advice.PROFILE),
        (Tuning(is_turbo_on=True), Advice.TURBO_OFF),
        (Tuning(n_siblings=8, core_cpus=(0, 1, 2, 3)), Advice.PIN),
    ],
)
def test_how_the_system_is_set_is_advised_about_where_it_applies(tests_of, tuning, advice):
    assert advice in advised(tests_of["bimodal"], tuning)
    assert advice not in advised(tests_of["bimodal"], Tuning())


@pytest.mark.parametrize(
    "tuning",
    [
        Tuning(is_plugged_in=True), Tuning(governors=("performance",)), Tuning(preferences=("performance",)),
        Tuning(profile="performance"), Tuning(is_turbo_on=False),
        Tuning(governors=("powersave",), preferences=("performance",)),
    ],
)  # fmt: skip
def test_what_is_well_set_needs_no_advice(tests_of, tuning):
    assert advised(tests_of["bimodal"], tuning) == [Advice.TAKE_TURNS]


def test_turbo_is_no_fault_where_no_clock_moved(tests_of):
    assert Advice.TURBO_OFF not in advised(tests_of["drifting"], Tuning(is_turbo_on=True))


@pytest.mark.parametrize(
    ("seen", "advice"),
    [
        ({"busy_s": 0.6, "own_s": 0.2}, Advice.END_PROGRAMS),
        ({"stolen_s": 0.1}, Advice.LEAVE_NEIGHBOURS),
        ({"n_held": 3, "held_s": 0.1}, Advice.RAISE_QUOTA),
        ({"n_thermal": 2}, Advice.COOL),
        ({"n_major_faults": 500}, Advice.FREE_MEMORY),
        ({"n_swapped_pages": 500}, Advice.FREE_MEMORY),
    ],
)
def test_what_was_seen_is_advised_against(noises, seen, advice):
    def disturb(sample):
        return dataclasses.replace(sample, conditions=dataclasses.replace(sample.conditions, **seen))

    blocks = [
        dataclasses.replace(block, samples=tuple(map(disturb, block.samples))) for block in noises["quiet"].blocks
    ]
    tests = find_tests(dataclasses.replace(noises["quiet"], blocks=tuple(blocks[:4])))
    (first, *_) = advise(tests, Tuning())
    assert (first.advice, first.share) == (advice, 1.0)


def test_the_gravest_comes_first(noises, tests_of):
    order = [one.share for one in advise(tests_of["stolen"], Tuning(governors=("powersave",), n_siblings=2))]
    assert order == sorted(order, reverse=True)


def test_what_is_kept_is_raw_and_is_read_again(noises, tmp_path):
    measure("quiet", tmp_path)
    (line,) = read_lines(sorted(tmp_path.rglob("*.jsonl")), pytest.fail)
    assert line.kind == "noise"
    assert isinstance(line.content, NoiseRecord)
    assert line.content.blocks == noises["quiet"].blocks
    assert read_line(json.loads(json.dumps(to_json(line.content)))).content == line.content


def test_a_dead_worker_ends_it_and_what_was_measured_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    noise, session = measure("dying", tmp_path)
    assert session.outcome is Outcome.NATIVE
    assert noise.record.failure is not None
    assert len(noise.record.blocks) == 1


def test_a_machine_so_busy_that_finding_lengths_takes_all_the_time_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    noise, session = measure("crowded", tmp_path, duration_s=1.0)
    assert len(noise.record.blocks) == 2
    assert judge(noise.record).trust is Trust.NOT_TRUSTED
    assert session.outcome is Outcome.NOT_TRUSTED
    shown = render(describe_noise(noise.record, find_tests(noise.record), []), "table")
    assert "not to be trusted" in shown
    assert "2 repetitions say nothing of what others would show" in shown


def test_a_moment_is_too_short(tmp_path):
    with pytest.raises(UsageError, match="too short"):
        measure("quiet", tmp_path, duration_s=0.5)


@pytest.fixture
def noise(noises, tests_of):
    """What is shown of a machine with stolen time and much else."""
    tuning = Tuning(
        governors=("powersave",), is_turbo_on=True, is_plugged_in=False, n_siblings=4, core_cpus=(0, 1, 2, 5),
        profile="balanced", quota=1.5,
    )  # fmt: skip
    machine = dataclasses.replace(
        noises["bimodal"].machine, python="3.11.7"
    )  # which of them runs the tests is no matter
    record = dataclasses.replace(
        noises["bimodal"], tuning=tuning, time_utc="2026-11-28T12:00:00Z", harness_version="0.1.0", machine=machine
    )
    return record, tests_of["bimodal"], advise(tests_of["bimodal"], tuning)


@pytest.mark.parametrize("form", ["table", "json"])
def test_output_is_the_golden_one(noise, form):
    shown = render(describe_noise(*noise), form)
    assert shown == (HERE / "golden" / f"noise.{form}").read_text(encoding="utf-8")
    assert form == "json" or max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("form", format_names())
def test_every_format_is_written(noise, form):
    assert render(describe_noise(*noise), form)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_drawn(noises, tests_of, theme):
    picture = to_bytes(draw_noise(noises["stolen"], tests_of["stolen"], theme), "svg").decode()
    assert "disturbed" in picture
    assert "tg32" in picture


def test_few_repetitions_say_so(noises):
    few = dataclasses.replace(noises["quiet"], blocks=noises["quiet"].blocks[:1])
    tests = find_tests(few)
    document = describe_noise(few, tests, advise(tests, None))
    assert "give a longer --time" in " ".join(document.warnings)
    assert render(document, "table")


# --- the host ---------------------------------------------------------------------------------------------------------


def test_every_machine_says_what_it_can(identity):
    tuning = read_tuning()
    if identity.platform != "linux":
        assert tuning.governors == tuning.core_cpus == ()
        assert (tuning.is_turbo_on, tuning.profile, tuning.is_virtual) == (None, None, None)
    else:
        assert 1 <= len(tuning.core_cpus) <= (identity.count_cpus(logical=True) or 1)
        assert set(tuning.core_cpus) <= set(identity.allowed or tuning.core_cpus)


def test_a_laptop_is_read(machine_it_runs_on):
    system = machine_it_runs_on
    folder = "/sys/devices/system/cpu"
    for number in (0, 1):
        system.files[f"{folder}/cpu{number}/cpufreq/scaling_governor"] = "powersave\n"
        system.files[f"{folder}/cpu{number}/cpufreq/energy_performance_preference"] = "balance_power\n"
        system.files[f"{folder}/cpu{number}/topology/thread_siblings"] = "3\n"
    system.files[f"{folder}/intel_pstate/no_turbo"] = "0\n"
    system.files["/sys/firmware/acpi/platform_profile"] = "low-power\n"
    system.told["is_plugged_in"] = False
    tuning = read_tuning()
    assert (tuning.governors, tuning.preferences) == (("powersave",), ("balance_power",))
    assert (tuning.is_turbo_on, tuning.profile, tuning.is_plugged_in) == (True, "low-power", False)
    assert (tuning.n_siblings, tuning.core_cpus) == (2, (0,))
    system.files[f"{folder}/intel_pstate/no_turbo"] = "1\n"
    assert read_tuning().is_turbo_on is False
    del system.files[f"{folder}/intel_pstate/no_turbo"]
    system.files[f"{folder}/cpufreq/boost"] = "1\n"
    assert read_tuning().is_turbo_on is True


def test_programs_are_named_by_what_they_took(machine_it_runs_on):
    system = machine_it_runs_on
    system.programs = {(1, "browser"): 5.0, (2, "browser"): 1.0, (3, "editor"): 9.0}
    watch = ProgramWatch()
    system.programs = {(1, "browser"): 6.0, (4, "browser"): 1.0, (3, "editor"): 9.05, (5, "make"): 1.5}
    found = watch.busiest(0.1)
    assert [(one.name, one.cpu_s) for one in found] == [("browser", 2.0), ("make", 1.5)]
    assert describe_programs(found) == "CPU time meanwhile: browser (2.0 s) and make (1.5 s)"


def test_no_record_has_a_name_of_a_program(noises, tmp_path, machine_it_runs_on):
    watch = "a-program-that-nobody-is-to-know"
    machine_it_runs_on.programs = {(9, watch): 100.0}
    assert watch not in json.dumps(to_json(noises["quiet"]))


# --- what durations show ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_has_no_pattern(seed):
    draw = random.Random(seed)
    for make in (lambda: draw.gauss(1, 0.02), lambda: draw.uniform(1, 1.1), lambda: 1 + 0.02 * draw.expovariate(1)):
        pattern = find_pattern([1e8 * make() for _ in range(100)])
        assert (pattern.drift, pattern.states) == (None, None)
        assert abs(pattern.correlation) < 0.4


def test_the_difference_that_is_told_is_the_one_that_is_found():
    """By trying: runs of ten from a machine with 2 % of noise, one of them slower by what was told."""
    from harness.evidence.two_samples import compare_samples

    draw = random.Random(3)
    (ten,) = find_detectable([1e8 * draw.gauss(1, 0.02) for _ in range(300)], (10,))
    found = 0
    for _ in range(300):
        first = [draw.gauss(1, 0.02) for _ in range(10)]
        second = [draw.gauss(1, 0.02) * (1 + ten.apart) for _ in range(10)]
        found += compare_samples(first, second).ratio.low > 1
    assert 0.72 <= found / 300 <= 0.88


def test_too_few_say_nothing():
    assert find_pattern([1.0] * (FEWEST - 1)) is None
    assert find_detectable([1.0] * (FEWEST - 1)) == []


def test_what_never_changes_has_no_noise():
    (six,) = find_detectable([1e8] * 20, (6,))
    assert (six.half_width, six.apart, six.equal_apart) == (0, 0, 0)
    assert find_pattern([1e8] * 20).states is None


def test_a_block_knows_which_repetitions_count(noises):
    block = noises["quiet"].blocks[0]
    assert isinstance(block, NoiseBlock)
    assert len(block.timed) == len(block.samples) - 1
