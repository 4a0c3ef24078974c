"""The slow-down for tests: by its share, inside the timed region, and not there at all unless asked for."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.native.measure import measure
from harness.native.slowdown import VARIABLE, Slowed, read_share, slow_down
from harness.spec import RunSpec

from .fakes import FakeClock, FakeEngine


class TickingClock(FakeClock):
    """Moves by a nanosecond at each look, so that a busy wait ends."""

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns


def time_cell(share, **test):
    clock = TickingClock()
    engine = FakeEngine(clock)
    spec = RunSpec("x.gguf", n_threads=1, repetitions=6, **test)
    slowed = Slowed(engine, share, clock) if share else engine
    samples = measure(slowed, clock, spec, lambda _sample: None, lambda *_step: None)
    return [sample.duration_ns for sample in samples if not sample.is_warmup]


@pytest.mark.parametrize("test", [{"n_gen": 16}, {"n_prompt": 64}])
@pytest.mark.parametrize("share", [0.01, 0.03, 1.0])
def test_every_decode_is_longer_by_the_share(share, test):
    usual, slowed = time_cell(0, **test), time_cell(share, **test)
    for before, after in zip(usual, slowed, strict=True):
        assert after / before == pytest.approx(1 + share, abs=0.001)


def test_without_a_share_it_is_the_engine_itself():
    engine = FakeEngine(FakeClock())
    assert slow_down(engine, 0.0) is engine
    assert isinstance(slow_down(engine, 0.03), Slowed)


def test_everything_else_is_the_engines():
    engine = FakeEngine(FakeClock())
    Slowed(engine, 1.0).clear()
    assert engine.calls == ["clear"]


def test_the_environment_is_read(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_share() == 0
    monkeypatch.setenv(VARIABLE, "0.03")
    assert read_share() == 0.03


@pytest.mark.parametrize("text", ["3 %", "-0.1", "nan", "inf", "x"])
def test_what_is_no_share_is_refused(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match="no share from 0 to 20"):
        read_share()
