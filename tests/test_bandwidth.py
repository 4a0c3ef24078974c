"""The roofline's work, by the real engine: it is right in every row, on every number of threads, and what it says of itself is true."""

import dataclasses
import json

import numpy as np
import pytest

from harness.codec import decode
from harness.errors import NativeError
from harness.host import cpu
from harness.native.jobs import bandwidth
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Failure
from harness.records.kinds import to_json
from harness.records.roofline import (
    ARITHMETIC,
    READING,
    SECOND_METHOD,
    Roof,
    RoofRequest,
    RoofTest,
    latest,
    reading_for,
)
from harness.runs.roofline import check_size, default_threads, plan_roofline
from harness.runs.worker import Worker

REQUEST = {
    "size_bytes": 4 * 1024**2,
    "n_rows": 512,
    "threads": [1, 2],
    "repetitions": 6,
    "reading": ["F32", "F16", "Q8_0", "Q4_0"],
    "multiplying": ["F16", "Q4_0"],
}


@pytest.fixture(scope="module")
def events():
    worker = Worker()
    try:
        greeting = worker.hello()
        assert not isinstance(greeting, Failure), greeting
        return [greeting, *worker.ask("bandwidth", REQUEST, timeout_s=120)]
    finally:
        worker.close()


@pytest.fixture(scope="module")
def tests(events):
    assert events[-1]["event"] == "done", events[-1]
    return [decode(RoofTest, event["test"]) for event in events if event["event"] == "test"]


@pytest.mark.engine
def test_every_type_is_read_and_multiplied_on_every_number_of_threads(tests):
    cpu = [(t.work, t.type_name, t.n_threads) for t in tests if t.kind == "cpu"]
    expected = [(READING, name, n) for name in REQUEST["reading"] for n in (1, 2)]
    expected += [(ARITHMETIC, name, n) for name in REQUEST["multiplying"] for n in (1, 2)]
    expected += [(SECOND_METHOD, "F32", n) for n in (1, 2)]
    assert cpu == expected
    assert all(len(test.durations_ns) == 6 and min(test.durations_ns) > 0 for test in tests)


@pytest.mark.engine
def test_every_row_is_what_numpy_makes_of_it(tests):
    assert all(test.is_right for test in tests)
    errors = {test.type_name: test.max_error for test in tests if test.work == READING}
    assert (
        0 < errors["F32"] < errors["F16"] < errors["Q8_0"]
    )  # rounding grows as types shrink: these are measured, not made up


@pytest.mark.engine
def test_what_is_read_is_counted_from_the_type(tests):
    sizes = {test.type_name: test.n_bytes for test in tests if test.work == READING}
    assert sizes["F32"] == REQUEST["size_bytes"]
    assert all(size <= REQUEST["size_bytes"] and size % bandwidth.N_RANDOM_ROWS == 0 for size in sizes.values())
    product = next(test for test in tests if test.work == ARITHMETIC)
    assert product.n_flops == 2 * 4096 * 512 * 512


@pytest.mark.engine
def test_a_wrong_row_would_be_found(monkeypatch):
    """The check compares every row: put one wrong row among thousands and it is seen."""
    import llama_cpp

    from harness.native.engine import Runtime

    runtime = Runtime(log_to_stderr=False)
    pointer, device = runtime.list_devices()[0]
    work = bandwidth.Work(READING, "F32", 1024, 1, 1)
    with bandwidth._Product(runtime.lib, pointer, device.name, work) as product:
        product.set_threads(1)
        product.time()
        assert product.check() <= bandwidth.TOLERANCES["F32"]
        row = np.ones(bandwidth.N_IN, dtype=np.float32)
        runtime.lib.ggml_backend_tensor_set(product._matrix, row.ctypes.data, 777 * row.nbytes, row.nbytes)
        product.time()
        assert product.check() > bandwidth.TOLERANCES["F32"]
    assert llama_cpp.__version__


@pytest.mark.engine
def test_too_large_a_matrix_is_refused_in_a_sentence():
    worker = Worker()
    try:
        worker.hello()
        last = list(worker.ask("bandwidth", {**REQUEST, "size_bytes": 10**15}, timeout_s=60))[-1]
    finally:
        worker.close()
    assert isinstance(last, Failure)
    assert last.cause == "refused"
    assert "--size" in last.message


def test_a_missing_device_is_named():
    class Nothing:
        ggml_backend_dev_init = ggml_backend_free = staticmethod(lambda *_: None)

    with pytest.raises(NativeError, match="CUDA0"):
        bandwidth._Product(Nothing(), 1, "CUDA0", bandwidth.Work(READING, "F16", 256, 1, 1))


# The values.


def made(work=READING, type_name="F16", n_threads=1, duration=1_000_000, **changes):
    values = RoofTest(work, "CPU", "cpu", "cpu", type_name, n_threads, 10**6, 2 * 10**6, (duration,) * 6, 0.0, 1e-3)
    return dataclasses.replace(values, **changes)


def test_rates_are_of_the_median():
    assert made().rate_per_s == 10**9
    assert made(work=ARITHMETIC).rate_per_s == 2 * 10**9
    assert made(durations_ns=(1, 1, 1)).interval is None
    assert made().interval.low == made().interval.high == 10**9


def test_a_line_comes_back_as_it_was_written(recorded):
    roof = Roof("2026-01-01T00:00:00Z", recorded[0].machine, "0.1.0", recorded[0].build, (made(), made(n_threads=2)))
    assert decode(Roof, json.loads(json.dumps(to_json(roof)))) == roof
    assert to_json(roof)["kind"] == "roofline"
    newer = dataclasses.replace(roof, time_utc="2027-01-01T00:00:00Z")
    assert latest([roof, newer]) is newer
    assert latest([]) is None
    of_cache = dataclasses.replace(newer, warnings=(Caution(CautionCause.SIZE_IN_CACHE, "small", distrust=True),))
    assert latest([roof, of_cache]) is roof, "what was read from a cache says nothing of memory"
    assert latest([of_cache]) is of_cache


@pytest.mark.parametrize(
    ("size", "cache", "is_said"), [(63, 32, True), (64, 32, False), (1, None, False), (32, 32, True)]
)
def test_a_matrix_that_caches_hold_is_said(size, cache, is_said):
    found = check_size(size * 2**20, cache and cache * 2**20)
    assert [caution.distrust for caution in found] == [True] * is_said


def test_the_usual_matrix_is_four_times_the_caches(monkeypatch):
    for cache, size in ((None, 512), (32, 512), (384, 1536)):
        monkeypatch.setattr("harness.runs.roofline.read_cache_bytes", lambda cache=cache: cache and cache * 2**20)
        assert plan_roofline().size_bytes == size * 2**20
    assert plan_roofline(5, (1,)) == RoofRequest(5, (1,))
    assert default_threads(6) == (1, 2, 4, 6)


CACHES = {
    "/sys/devices/system/cpu/online": "0-3",
    **{f"/sys/devices/system/cpu/cpu{n}/cache/index{at}/{name}": text for n in range(4) for at, name, text in (
        (0, "level", "1"), (0, "size", "48K"), (0, "shared_cpu_list", str(n)),
        (1, "level", "3"), (1, "size", "32768K"), (1, "shared_cpu_list", f"{n // 2 * 2}-{n // 2 * 2 + 1}"),
    )},
}  # fmt: skip


def test_caches_that_cpus_share_count_once(monkeypatch):
    class System:
        platform, arch = "linux", "x86_64"
        read = staticmethod(CACHES.get)
        affinity = staticmethod(lambda: frozenset({0, 1, 2, 3}))
        count_cpus = staticmethod(lambda *, logical: 4)

    monkeypatch.setattr(cpu, "the_os", System)
    assert cpu.read_cache_bytes() == 2 * 32 * 2**20
    System.read = staticmethod(lambda path: None)
    assert cpu.read_cache_bytes() is None


@pytest.mark.parametrize(
    ("quantization", "type_name"),
    [
        ("Q4_0", "Q4_0"),
        ("Q4_K_M", "Q4_0"),
        ("IQ2_XS", "Q4_0"),
        ("Q6_K", "Q8_0"),
        ("F16", "F16"),
        ("BF16", "F16"),
        ("", "F16"),
    ],
)
def test_a_model_is_held_against_its_own_type(recorded, quantization, type_name):
    tests = (made(), made(type_name="Q4_0", duration=3_000_000), made(type_name="Q8_0", duration=2_000_000))
    roof = Roof("2026-01-01T00:00:00Z", recorded[0].machine, "0.1.0", recorded[0].build, tests)
    assert reading_for(roof, "CPU", quantization).type_name == type_name
    assert reading_for(roof, "CUDA0", quantization) is None
