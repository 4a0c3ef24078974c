"""What the parent of a long sweep holds of its cells: what is equal of two thousand of them, once."""

from __future__ import annotations

import gc
import weakref

import pytest

from harness.records.cells import Model, Resolved
from harness.records.fallbacks import find_fallbacks
from harness.records.shared_parts import OncePerParts
from harness.runs.cells import model_of
from harness.runs.worker import Garbled, understand
from harness.sources.model_file import FileFacts

MODEL = {"file_name": "a.gguf", "description": "llama 1M F16", "size_bytes": 10, "n_params": 5, "file_size_bytes": 12}
RESOLVED = {
    "n_ctx": 8, "n_batch": 8, "n_ubatch": 8, "n_threads": 1, "flash_attn": True, "load_mode": "mmap", "layers_by_device": {"CPU": 3},
    "repacked_bytes": 0, "buffers": [{"cause": "model", "buffer": "CPU", "size_bytes": 10}],
}  # fmt: skip


def test_equal_models_of_cells_are_one_object():
    facts = FileFacts("hash", 12, False, {"n_layers": 3})
    one, other = (model_of({"event": "loaded", "model": dict(MODEL)}, facts) for _ in range(2))
    assert one is other
    assert (one.file_name, one.file_sha256, one.cost) == ("a.gguf", "hash", {"n_layers": 3})
    assert model_of({"event": "loaded", "model": dict(MODEL)}, FileFacts("another", 12)) is not one


@pytest.mark.parametrize(("kind", "values"), [(Model, MODEL), (Resolved, RESOLVED)])
def test_equal_parts_are_one_object_and_others_are_not(kind, values):
    one = understand(kind, dict(values), is_shared=True)
    assert understand(kind, dict(values), is_shared=True) is one == understand(kind, dict(values))
    assert understand(kind, {**values, next(iter(values)): "b" if kind is Model else 9}, is_shared=True) != one
    with pytest.raises(Garbled):
        understand(kind, {}, is_shared=True)


def test_what_is_worked_out_of_a_cell_does_not_hold_all_cells():
    class Part:
        pass

    once, alive = OncePerParts(lambda part: 1), []
    for _ in range(2000):
        part = Part()
        alive.append(weakref.ref(part))
        once(part)
    del part
    gc.collect()
    assert sum(one() is not None for one in alive) <= 256


def test_what_llama_cpp_did_otherwise_is_found_once_for_equal_parts(recorded):
    assert find_fallbacks(recorded[0]) is find_fallbacks(recorded[0])
