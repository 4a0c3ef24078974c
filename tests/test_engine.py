"""The native edge, on the real model in this process."""

import ctypes

import pytest

from harness.errors import NativeError
from harness.native import bindings, versions
from harness.native.engine import Runtime
from harness.spec import RunSpec

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def runtime():
    return Runtime(log_to_stderr=False)


@pytest.fixture(scope="module")
def loaded(runtime, model):
    loaded = runtime.load(RunSpec(model, n_gen=1))
    yield loaded
    loaded.close()


def spec(model, **changes):
    return RunSpec(model, **{"n_prompt": 16, "n_threads": 2, **changes})


def test_the_registry_is_the_one_that_llama_uses(runtime):
    """A second copy of libggml would have a registry of its own; its CPU device would have another address."""
    lib = bindings.library()
    assert lib.ggml_backend_dev_count() >= 1
    build = runtime.describe()
    assert build.devices[-1].kind == "cpu"
    assert "CPU" in build.backends
    assert len(build.ggml_commit.split("-")[0]) in (7, 8)


def test_the_model_is_described_as_llama_bench_describes_it(loaded):
    model = loaded.describe()
    assert (model.description, model.size_bytes, model.n_params) == ("llama 256M Q4_1", 96576768, 134515008)
    assert model.file_size_bytes == 98362432


def test_what_ran_is_told(loaded, model):
    session = loaded.open(spec(model, n_ubatch=8, n_batch=12, flash_attn="off", n_threads=1))
    resolved = session.describe()
    session.close()
    assert (resolved.n_batch, resolved.n_ubatch, resolved.n_threads) == (12, 8, 1)
    assert resolved.flash_attn is False
    assert resolved.load_mode == "mmap"
    assert {buffer.cause for buffer in resolved.buffers} == {"model", "kv", "compute", "output"}
    assert sum(resolved.layers_by_device.values()) == 31


def test_batches_are_chunks_of_random_tokens(loaded, model):
    session = loaded.open(spec(model, n_prompt=40, n_batch=16))
    batches = session.prompt_batches(40)
    assert [batch.n_tokens for batch in batches] == [16, 16, 8]
    tokens = [batch.token[i] for batch in batches for i in range(batch.n_tokens)]
    assert len(set(tokens)) > 30
    assert all(0 <= token < 49152 for token in tokens)
    session.close()


def test_no_tokens_are_no_batches_whatever_a_vocabulary_begins_with(loaded, model, monkeypatch):
    session = loaded.open(spec(model))
    monkeypatch.setattr("llama_cpp.llama_vocab_get_add_bos", lambda vocab: True)
    assert session.prompt_batches(0) == session.token_batches(0) == []
    assert session.prompt_batches(1)[0].n_tokens == 1
    session.close()


def test_decoding_fills_the_cache_and_clearing_empties_it(loaded, model):
    import llama_cpp

    session = loaded.open(spec(model))
    memory = llama_cpp.llama_get_memory(session.context)

    def decode(batches):
        for batch in batches:
            session.decode(batch)
        session.synchronize()

    decode(session.prompt_batches(16))
    assert llama_cpp.llama_memory_seq_pos_max(memory, 0) == 15
    state = session.save_state()
    session.clear()
    assert llama_cpp.llama_memory_seq_pos_max(memory, 0) == -1
    assert session.restore_state(state)
    decode(session.token_batches(2))
    assert llama_cpp.llama_memory_seq_pos_max(memory, 0) == 17
    session.close()


def test_a_batch_that_does_not_fit_is_refused_in_words(loaded, model):
    session = loaded.open(spec(model, n_batch=16))
    with pytest.raises(NativeError, match="refused to decode"):
        for batch in session.prompt_batches(400):  # the context has 256
            session.decode(batch)
    session.close()


def test_a_context_beyond_all_memory_is_refused_in_words(loaded, model):
    with pytest.raises(NativeError, match="cannot make a context of 9000000 tokens"):
        loaded.open(spec(model, n_prompt=9_000_000))


def test_a_damaged_file_is_refused_with_llamas_reason(runtime, model, tmp_path):
    cut = tmp_path / "cut.gguf"
    with open(model, "rb") as file:
        cut.write_bytes(file.read(3_000_000))
    with pytest.raises(NativeError, match=r"cannot load cut\.gguf: .*corrupted or incomplete"):
        runtime.load(RunSpec(str(cut), n_gen=1))


def test_another_struct_is_refused(monkeypatch):
    import llama_cpp

    class Other(ctypes.Structure):
        _fields_ = (("n_ctx", ctypes.c_uint32),)

    monkeypatch.setattr(llama_cpp, "llama_context_params", Other)
    with pytest.raises(NativeError, match="another llama_context_params than harness knows"):
        versions.check_binding(llama_cpp)
