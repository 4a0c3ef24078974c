import dataclasses
import re

import pytest

from harness.machine import LoadReading, count_physical_cores, describe_machine, judge_load, machine_slug, read_load

IDLE = LoadReading(wall_s=0, busy_s=100, own_s=50, stolen_s=1)


def after(others_s=0.0, own_s=0.0, stolen_s=0.0, wall_s=10.0):
    return LoadReading(wall_s, 100 + own_s + others_s, 50 + own_s, 1 + stolen_s)


def codes(cautions):
    return [(caution.code, caution.distrust) for caution in cautions]


def test_a_quiet_machine_gets_no_caution():
    assert judge_load(IDLE, after(own_s=20), n_threads=2, n_cpus=2) == ()


def test_others_do_no_harm_while_cpus_are_idle():
    assert judge_load(IDLE, after(own_s=20, others_s=20), n_threads=2, n_cpus=8) == ()


def test_others_who_compete_are_named_with_how_many_cpus():
    (caution,) = judge_load(IDLE, after(own_s=18, others_s=3), n_threads=2, n_cpus=2)
    assert (caution.code, caution.distrust) == ("busy-machine", False)
    assert "used 0.3 of 2 CPUs while 2 threads ran" in caution.text


def test_much_competition_makes_the_number_worthless():
    assert codes(judge_load(IDLE, after(own_s=10, others_s=10), n_threads=2, n_cpus=2)) == [("busy-machine", True)]


def test_stolen_time_is_told_apart():
    assert codes(judge_load(IDLE, after(own_s=18, stolen_s=3), n_threads=2, n_cpus=2)) == [("cpu-stolen", False)]


def test_too_short_a_time_cannot_be_judged():
    assert judge_load(IDLE, after(others_s=1, wall_s=0.01), n_threads=2, n_cpus=2) == ()


@pytest.mark.this_machine
def test_counters_only_grow():
    first = read_load(0.0)
    sum(range(200_000))
    second = read_load(1.0)
    assert second.own_s >= first.own_s > 0
    assert second.busy_s >= first.busy_s > 0


def test_every_machine_is_described_without_names_of_people(identity):
    machine = describe_machine()
    assert machine.cpu
    assert 1 <= machine.n_cores_physical == count_physical_cores() <= machine.n_cores_logical
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", machine_slug(machine))


def test_slugs_read_well():
    intel = "Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz"
    machine = dataclasses.replace(describe_machine(), cpu=intel, n_cores_physical=6, memory_bytes=16 * 2**30)
    assert machine_slug(machine) == "intel-core-i7-8700-6c-16g"
