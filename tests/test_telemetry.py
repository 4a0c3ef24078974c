"""Energy, clocks and throttling: RAPL from a made-up folder, NVML through the real pynvml against a stand-in library in C."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from harness.codec import decode
from harness.host.telemetry import Nvml, RaplSource, Station, Watch, find_rapl
from harness.records.cells import Failure, Record
from harness.records.kinds import to_json
from harness.records.statistics import joules_per_token

from . import machines

HERE = pathlib.Path(__file__).parent


def make_domain(root, name, label, energy_uj):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(str(energy_uj))
    (folder / "max_energy_range_uj").write_text("1000000000")
    return folder


def test_rapl_packages_are_found_and_their_parts_are_not(tmp_path):
    make_domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    make_domain(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    make_domain(tmp_path, "intel-rapl:1", "psys", 9_000_000)
    (source,) = find_rapl(tmp_path)
    assert source.name == "rapl:package-0"
    assert source.read_joules() == 5
    assert find_rapl(tmp_path / "nothing") == []


def test_a_counter_that_wraps_goes_on(tmp_path):
    folder = make_domain(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    source = RaplSource("rapl:package-0", folder)
    before = source.read_joules()
    (folder / "energy_uj").write_text("1000000")
    assert source.read_joules() - before == pytest.approx(2)
    (folder / "energy_uj").unlink()
    assert source.read_joules() is None, "rights that are taken away are no reading of zero"


class Counter:
    """100 W by the real clock."""

    name = "rapl:package-0"

    def read_joules(self):
        return 100 * time.monotonic()


def events(n):
    yield {"event": "phase", "phase": "warm-up"}
    yield {"event": "sample", "is_warmup": True}
    for index in range(n):
        yield {"event": "phase", "phase": "repetition", "index": index}
        time.sleep(0.05)
        yield {"event": "sample", "is_warmup": False}


def watch(station, stream, longest=None):
    """Let a watch hear a stream; `longest` collects, by an outer clock, how long each window can have been."""
    observer, begun = Watch(station, interval_s=0.01), 0.0
    for event in stream:
        if isinstance(event, dict) and event.get("phase") == "repetition":
            begun = time.monotonic()
        observer.on_event(event)
        if longest is not None and event["event"] == "sample" and not event["is_warmup"]:
            longest.append(time.monotonic() - begun)
        time.sleep(0.02)  # between repetitions, where nothing may be counted
    return observer.finish()


def test_energy_is_that_of_the_repetitions_alone():
    longest = []
    seen = watch(Station(rapl=[Counter()], nvml=Nvml()), events(3), longest)
    (power,) = seen.power
    assert 0.15 <= power.window_s <= sum(longest), "three windows, without the pauses between them and the warm-up"
    assert 15 <= power.joules <= 100 * sum(longest)
    assert (seen.n_samples, seen.sampler_share) == (0, None), "without a card nothing is asked while something is timed"


class Clocks:
    """Notes between which events the processor's clock was asked."""

    def __init__(self, monkeypatch, answer):
        self.asked, self.open = [], False
        monkeypatch.setattr(machines.Identity, "read_clock_mhz", lambda system: self.ask(answer))

    def ask(self, answer):
        self.asked.append(self.open)
        return answer()

    def events(self, n):
        for event in events(n):
            self.open = event.get("phase") == "repetition"
            yield event


def test_the_clock_is_asked_between_repetitions_only(monkeypatch):
    clocks = Clocks(monkeypatch, lambda: 3000.0)
    seen = watch(Station(rapl=[], nvml=Nvml()), clocks.events(3))
    assert clocks.asked == [False] * 3
    assert (seen.cpu_clock_min_mhz, seen.cpu_clock_mean_mhz) == (3000, 3000)


def test_a_clock_that_raises_costs_nothing(monkeypatch):
    def fail():
        raise NotImplementedError("can't find current frequency file")

    clocks = Clocks(monkeypatch, fail)
    seen = watch(Station(rapl=[Counter()], nvml=Nvml()), clocks.events(3))
    assert clocks.asked == [False], "and is not asked again in this cell"
    assert seen.cpu_clock_mean_mhz is None
    assert seen.power, "the rest is measured all the same"


def test_a_clock_that_takes_long_is_read_once(monkeypatch):
    clocks = Clocks(monkeypatch, lambda: time.sleep(0.02) or 2000.0)
    seen = watch(Station(rapl=[], nvml=Nvml()), clocks.events(3))
    assert len(clocks.asked) == 1
    assert seen.cpu_clock_min_mhz == 2000


def test_every_machine_is_watched(identity):
    seen = watch(Station(rapl=[], nvml=Nvml()), events(1))
    told = identity.told["cpu_mhz"]
    assert (seen and seen.cpu_clock_mean_mhz) == (None if isinstance(told, str) else told)


def test_a_failed_cell_leaves_no_window_open():
    seen = watch(
        Station(rapl=[Counter()], nvml=Nvml()),
        [{"event": "phase", "phase": "repetition", "index": 0}, Failure("repetition", "gone", "abort")],
    )
    assert seen is None or seen.power == ()


def test_joules_per_token_survive_the_journal(recorded):
    import dataclasses

    from harness.records.cells import Power, Telemetry

    record = dataclasses.replace(recorded[0], telemetry=Telemetry(power=(Power("rapl:package-0", 100.0, 2.0),)))
    again = decode(Record, json.loads(json.dumps(to_json(record))))
    assert again.telemetry == record.telemetry
    timed_s = sum(sample.duration_ns for sample in record.timed) / 1e9
    assert joules_per_token(again) == pytest.approx(50 * timed_s / (64 * len(record.timed)))
    assert joules_per_token(recorded[0]) is None, "no source, no number"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """The stand-in library under NVIDIA's name, which is no measurement of a card."""
    if sys.platform != "linux" or not shutil.which("cc"):
        pytest.skip("needs Linux and a C compiler (cc) to make the stand-in for NVIDIA's library")
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "nvml_stand_in.c"], check=True)
    return folder


def with_stand_in(folder, code, mode=""):
    environment = {
        **os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(HERE.parent), "NVML_STAND_IN": mode,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


WATCH_A_CARD = """
import dataclasses, json
from harness.records.statistics import joules_per_token
from harness.host.telemetry import Station
from tests.test_telemetry import events, watch
station = Station(rapl=[])
seen = watch(station, events(3))
station.close()
print(json.dumps({"driver": station.nvml.driver, **dataclasses.asdict(seen)}))
"""


@pytest.mark.parametrize("mode", ["", "nocounter"])
def test_a_card_is_read_through_pynvml(stand_in, mode):
    """pynvml is the real one, the library behind it is not: what is tested is our use of its functions, not a card."""
    seen = with_stand_in(stand_in, WATCH_A_CARD, mode)
    assert seen["driver"] == "555.42.02"
    (power,) = seen["power"]
    assert power["source"] == "nvml:0 Stand-in 8 GB"
    # Whole mJ of the counter; without one, the integral of power lacks what lies before its first reading.
    assert power["joules"] / power["window_s"] == pytest.approx(50, rel=0.02 if mode == "" else 0.3)
    assert (seen["gpu_clock_min_mhz"], seen["gpu_temperature_max_c"]) == (1410, 83)
    assert seen["gpu_memory_max_bytes"] == 6 << 30
    assert seen["throttled"] == ["temperature (software)"]


def test_a_card_that_vanishes_gives_no_numbers_and_no_error(stand_in):
    seen = with_stand_in(stand_in, WATCH_A_CARD, "lost")
    assert seen["power"] == []
    assert seen["gpu_temperature_max_c"] is None
    assert seen["throttled"] == []


def test_a_driver_that_is_not_loaded_is_said(stand_in):
    code = "import json; from harness.host.telemetry import Nvml; n = Nvml.open(); print(json.dumps([n.trouble, n.driver, len(n.cards)]))"
    trouble, driver, n_cards = with_stand_in(stand_in, code, "nodriver")
    assert "Driver Not Loaded" in trouble
    assert (driver, n_cards) == (None, 0)
