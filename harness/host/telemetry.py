"""What the hardware does while it is measured: energy, clocks, temperature, throttling. Never read in the timed loop.

The timed loop runs in the worker, another process. While it does, the parent sleeps, but for a thread that asks graphics cards, where
there are any. Energy comes from counters that are read when a repetition begins and ends (RAPL, NVML's total), or from power samples
where a card has no counter. The processor's clock is read as a repetition ends: it takes a file of each core.
"""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.host.system import the_os
from harness.records.cells import Failure, Power, Telemetry

#: A reading every so often: a few dozen in a repetition of seconds, at a cost that the record states.
INTERVAL_S = 0.1

#: The most of one CPU's time that watching may take.
MAX_SHARE = 0.01

#: The longest that reading the processor's clock may take: the worker rests 10 ms before each repetition
#: (`native.watching.SETTLE_S`). On a machine that needs longer, for its many cores, it is read once.
CLOCK_READ_S = 0.005

_RAPL = pathlib.Path("/sys/class/powercap")

#: What a card at its power limit says, which is how it always runs.
POWER_CAP = "power cap"

#: Names of nvmlClocksEventReason bits that mean "slower than it could be"; idle and settings by the user are left out.
#: Source: nvml.h, nvmlClocksEventReasons.
_THROTTLE_BITS = {
    0x0000000000000004: POWER_CAP,
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "temperature (software)",
    0x0000000000000040: "temperature (hardware)",
    0x0000000000000080: "power brake",
}


@dataclass
class RaplSource:
    """A package's energy counter of the CPU. Source: Linux Documentation/power/powercap/powercap.rst."""

    name: str
    folder: pathlib.Path
    _last_uj: int = 0
    _wrapped_uj: int = 0

    def read_joules(self) -> float | None:
        """Energy in J; the counter wraps at max_energy_range_uj, which is taken out."""
        try:
            now = int((self.folder / "energy_uj").read_text(encoding="ascii"))
            if now < self._last_uj:
                self._wrapped_uj += int((self.folder / "max_energy_range_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        self._last_uj = now
        return (self._wrapped_uj + now) / 1e6


def find_rapl(root: pathlib.Path = _RAPL) -> list[RaplSource]:
    """The CPU packages whose energy may be read (since 2020 that needs root, or a rule of the system's owner)."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") != 1:
            continue  # a part of a package would be counted twice
        try:
            name = (folder / "name").read_text(encoding="ascii").strip()
            source = RaplSource(f"rapl:{name}", folder)
        except OSError:
            continue
        if name.startswith("package") and source.read_joules() is not None:
            found.append(source)
    return found


@dataclass
class Card:
    """One NVIDIA card. Readings that it does not give are None."""

    nvml: Any
    handle: Any
    index: int
    name: str
    _joules: float = 0.0
    _last: tuple[float, float] | None = None

    def ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self.nvml, function)(self.handle, *arguments)
        except self.nvml.NVMLError:
            return None

    def read_joules(self) -> float | None:
        """The card's own counter in J (since Volta), else power times time between readings."""
        counted = self.ask("nvmlDeviceGetTotalEnergyConsumption")
        if counted is not None:
            return float(counted) / 1e3
        milliwatts = self.ask("nvmlDeviceGetPowerUsage")
        if milliwatts is None:
            return None
        now = time.monotonic()
        if self._last is not None:
            self._joules += (now - self._last[0]) * (self._last[1] + milliwatts) / 2e3
        self._last = (now, float(milliwatts))
        return self._joules


@dataclass
class Nvml:
    """NVIDIA's management library through pynvml; without a driver it has no cards and says why."""

    cards: list[Card] = field(default_factory=list)
    driver: str | None = None
    trouble: str | None = None
    _module: Any = None

    @classmethod
    def open(cls) -> Nvml:
        try:
            import pynvml
        except ImportError as error:
            return cls(trouble=str(error))
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return cls(trouble=str(error))
        opened = cls(_module=pynvml)
        try:
            opened.driver = _text(pynvml.nvmlSystemGetDriverVersion())
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                opened.cards.append(Card(pynvml, handle, index, _text(pynvml.nvmlDeviceGetName(handle))))
        except pynvml.NVMLError as error:
            opened.trouble = str(error)
        return opened

    def close(self) -> None:
        if self._module is not None:
            with contextlib.suppress(self._module.NVMLError):
                self._module.nvmlShutdown()
            self._module = None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class Station:
    """The instruments of this machine, opened once and used for every cell."""

    def __init__(self, rapl: Sequence[RaplSource] | None = None, nvml: Nvml | None = None) -> None:
        self.rapl = list(find_rapl() if rapl is None else rapl)
        self.nvml = Nvml.open() if nvml is None else nvml

    def watch(self) -> Watch:
        return Watch(self)

    def energy_sources(self) -> list[tuple[str, Callable[[], float | None]]]:
        cards = [(f"nvml:{card.index} {card.name}", card.read_joules) for card in self.nvml.cards]
        return [*cards, *((source.name, source.read_joules) for source in self.rapl)]

    def close(self) -> None:
        self.nvml.close()


class Watch:
    """Watches one cell: a thread that samples while repetitions run, and energy read at their ends."""

    def __init__(self, station: Station, interval_s: float = INTERVAL_S) -> None:
        self._station, self._interval_s = station, interval_s
        self._sources = station.energy_sources()
        self._begun: list[float | None] = []
        self._begun_s: float | None = None
        self._joules = [0.0] * len(self._sources)
        self._window_s = [0.0] * len(self._sources)
        self._clocks: list[float] = []
        self._of_cards: dict[str, list[int]] = defaultdict(list)
        self._throttled: dict[str, None] = {}
        self._n_samples = 0
        self._cost_ns = self._watched_ns = 0
        self._running = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._asks_clock = True
        self._thread = threading.Thread(target=self._sample_on, daemon=True)
        if station.nvml.cards:
            self._thread.start()

    def on_event(self, event: dict[str, Any] | Failure) -> None:
        """A repetition's phase opens a window, its sample closes it; a warm-up's sample finds none open."""
        if isinstance(event, Failure):
            self._begun_s = None
            self._running.clear()
        elif event["event"] == "phase" and event["phase"] == "repetition":
            self._begun_s, self._begun = time.monotonic(), self._read_energy()
            self._running.set()
        elif event["event"] == "sample" and self._begun_s is not None:
            self._running.clear()
            self._close_window(time.monotonic() - self._begun_s)
            self._read_clock()

    def _read_clock(self) -> None:
        if not self._asks_clock:
            return
        begun = time.monotonic()
        clock = the_os().cpu_mhz()
        self._asks_clock = clock is not None and time.monotonic() - begun < CLOCK_READ_S
        if clock is not None:
            self._clocks.append(clock)

    def _read_energy(self) -> list[float | None]:
        with self._lock:
            return [read() for _, read in self._sources]

    def _close_window(self, window_s: float) -> None:
        for index, (before, after) in enumerate(zip(self._begun, self._read_energy(), strict=True)):
            if before is not None and after is not None:
                self._joules[index] += after - before
                self._window_s[index] += window_s
        self._begun_s = None

    def _sample_on(self) -> None:
        while not self._ended.is_set():
            if not self._running.wait(self._interval_s):
                continue
            start_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
            self._n_samples += 1
            with self._lock:
                for card in self._station.nvml.cards:
                    self._sample_card(card)
            # Asking many cards takes long: then it is done less often.
            took_s = (time.thread_time_ns() - cpu_ns) / 1e9
            self._ended.wait(max(self._interval_s, took_s / MAX_SHARE))
            self._cost_ns += time.thread_time_ns() - cpu_ns
            self._watched_ns += time.monotonic_ns() - start_ns

    def _sample_card(self, card: Card) -> None:
        card.read_joules()  # keeps the integral of power fine where there is no counter
        memory = card.ask("nvmlDeviceGetMemoryInfo")
        readings = {
            "clock": card.ask("nvmlDeviceGetClockInfo", 1),  # NVML_CLOCK_SM
            "temperature": card.ask("nvmlDeviceGetTemperature", 0),  # NVML_TEMPERATURE_GPU
            "memory": None if memory is None else int(memory.used),
        }
        for name, value in readings.items():
            self._of_cards[name] += [] if value is None else [value]
        reasons = card.ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        self._throttled |= {name: None for bit, name in _THROTTLE_BITS.items() if reasons & bit}

    def finish(self) -> Telemetry | None:
        """Stop the thread and sum up."""
        self._ended.set()
        self._running.clear()
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout=5)
        power = tuple(
            Power(name, joules, window_s)
            for (name, _), joules, window_s in zip(self._sources, self._joules, self._window_s, strict=True)
            if window_s > 0
        )
        if not power and not self._n_samples and not self._clocks:
            return None
        return Telemetry(
            power=power,
            gpu_clock_min_mhz=min(self._of_cards["clock"], default=None),
            gpu_temperature_max_c=max(self._of_cards["temperature"], default=None),
            gpu_memory_max_bytes=max(self._of_cards["memory"], default=None),
            throttled=tuple(self._throttled),
            cpu_clock_min_mhz=min(self._clocks, default=None),
            cpu_clock_mean_mhz=sum(self._clocks) / len(self._clocks) if self._clocks else None,
            n_samples=self._n_samples,
            sampler_share=self._cost_ns / self._watched_ns if self._watched_ns else None,
        )
