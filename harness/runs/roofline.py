"""What this machine can do at best: bytes read and operations done a second, by ggml's own kernels."""

from __future__ import annotations

import harness
from harness.codec import encode
from harness.errors import Outcome
from harness.host.cpu import choose_threads, read_cache_bytes
from harness.host.rpc import check_servers
from harness.records.cautions import Caution, CautionCause
from harness.records.journal import utc_now
from harness.records.roofline import CACHE_FACTOR, Roof, RoofRequest, RoofTest
from harness.runs.session import Session
from harness.runs.worker import understand
from harness.units import MIB

#: A matrix below this says nothing of a memory.
MINIMUM_BYTES = 1_000_000

#: Of the matrix that is read, where nobody says and the caches are no larger.
USUAL_BYTES = 512 * MIB


def plan_roofline(
    size_bytes: int | None = None, threads: tuple[int, ...] = (), repetitions: int = 10, rpc: tuple[str, ...] = ()
) -> RoofRequest:
    """What to measure where not all of it is said: a matrix that no cache holds, and 1, 2, 4 … threads up to all cores."""
    usual = max(USUAL_BYTES, 2 * CACHE_FACTOR * (read_cache_bytes() or 0))
    return RoofRequest(
        size_bytes or usual, threads or default_threads(choose_threads().count), repetitions=repetitions, rpc=rpc
    )


def default_threads(n_cores: int) -> tuple[int, ...]:
    """1, 2, 4 … and all of them."""
    return tuple(sorted({*(1 << power for power in range(n_cores.bit_length()) if 1 << power <= n_cores), n_cores}))


def measure_roofline(request: RoofRequest, session: Session) -> Roof | None:
    """Have a worker do everything, and keep what came of it; None where no test was finished.

    Raises
    ------
    NativeError : the worker cannot be started, or a server of `rpc` is not there.
    """
    check_servers(request.rpc)
    tests: list[RoofTest] = []
    cautions = check_size(request.size_bytes, read_cache_bytes())
    with session.until_interrupted():
        for event in session.ask("bandwidth", encode(request)):
            if event["event"] == "phase":
                session.show(event["phase"], event["index"], event["count"])
            elif event["event"] == "test":
                tests.append(understand(RoofTest, event["test"]))
    if session.build is None or not tests:
        return None
    roof = Roof(utc_now(), session.machine, harness.__version__, session.build, tuple(tests), cautions, session.failure)
    session.keep(roof)
    if not all(test.is_right for test in tests):
        session.add(Outcome.NATIVE)
    return roof


def check_size(size_bytes: int, cache_bytes: int | None) -> tuple[Caution, ...]:
    """Say where caches hold part of the matrix, so that it is not memory that is read; nothing where their size is not known."""
    if cache_bytes is None or size_bytes >= CACHE_FACTOR * cache_bytes:
        return ()
    wanted_bytes = 2 * CACHE_FACTOR * cache_bytes
    cause = CautionCause.SIZE_IN_CACHE
    return (Caution(cause, distrust=True, size_bytes=size_bytes, cache_bytes=cache_bytes, wanted_bytes=wanted_bytes),)
