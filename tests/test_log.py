"""Lines recorded from the llama.cpp of llama-cpp-python 0.3.36."""

from harness.native.log import read_buffers, read_caches, read_flash_attention, read_layers, read_load_mode
from harness.records.cells import Buffer

CPU = """\
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors: layer   0 assigned to device CPU, is_swa = 0
load_tensors: layer   1 assigned to device CPU, is_swa = 0
load_tensors: offloaded 31/31 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
load_tensors:   CPU_REPACK model buffer size =   522.00 MiB
llama_context: flash_attn            = auto
llama_context:        CPU  output buffer size =     0.19 MiB
llama_kv_cache:        CPU KV buffer size =    16.88 MiB
llama_kv_cache: size =   16.88 MiB (   768 cells,  30 layers,  1/1 seqs), K (f16):    8.44 MiB, V (f16):    8.44 MiB
resolve_fused_ops: Flash Attention enabled
sched_reserve:        CPU compute buffer size =    98.25 MiB
""".splitlines()

RPC = """\
load_tensors: layer   0 assigned to device CPU, is_swa = 0
load_tensors: layer   1 assigned to device RPC0, is_swa = 0
load_tensors: RPC0[127.0.0.1:50052] model buffer size =    47.71 MiB
llama_kv_cache: RPC0[127.0.0.1:50052] KV buffer size =     3.38 MiB
""".splitlines()


def test_every_buffer_is_found_once_with_its_cause():
    assert read_buffers(CPU) == (
        Buffer("model", "CPU_Mapped", round(92.10 * 2**20)),
        Buffer("model", "CPU_REPACK", 522 * 2**20),
        Buffer("output", "CPU", round(0.19 * 2**20)),
        Buffer("kv", "CPU", round(16.88 * 2**20)),
        Buffer("compute", "CPU", round(98.25 * 2**20)),
    )
    assert [(item.cause, item.buffer) for item in read_buffers(RPC)] == [
        ("model", "RPC0[127.0.0.1:50052]"),
        ("kv", "RPC0[127.0.0.1:50052]"),
    ]


def test_layers_are_counted_where_they_were_put_and_not_where_the_log_boasts():
    assert read_layers(CPU) == {"CPU": 2}
    assert read_layers(RPC) == {"CPU": 1, "RPC0": 1}


def test_flash_attention_is_what_auto_became():
    assert read_flash_attention(CPU) is True
    assert read_flash_attention(["llama_context: flash_attn            = disabled"]) is False
    assert read_flash_attention([CPU[6], "resolve_fused_ops: Flash Attention not supported, set to disabled"]) is False
    assert read_flash_attention([]) is None


def test_load_mode():
    assert read_load_mode(CPU) == "mmap"
    assert read_load_mode([]) is None
    # llama-cpp-python 0.3.34 and before
    older = "load_tensors: loading model tensors, this can take a while... (mmap = {}, direct_io = {})"
    assert read_load_mode([older.format("true", "false")]) == "mmap"
    assert read_load_mode([older.format("false", "false")]) == "none"
    assert read_load_mode([older.format("true", "true")]) == "dio"


def test_host_memory_is_told_from_a_device():
    named = {
        name: Buffer("model", name, 1).is_host
        for name in ("CPU_Mapped", "CPU_REPACK", "CPU", "CUDA_Host", "CUDA0", "Metal")
    }
    assert named == {
        "CPU_Mapped": True, "CPU_REPACK": True, "CPU": True, "CUDA_Host": True, "CUDA0": False, "Metal": False,
    }  # fmt: skip
    assert not any(buffer.is_host for buffer in read_buffers(RPC))


def test_a_cache_is_of_the_kind_that_was_said_before_it_was_made():
    lines = [
        "llama_kv_cache_dsa: creating main KV cache, size = 512 cells",
        "llama_kv_cache:        CPU KV buffer size =     4.50 MiB",
        "llama_kv_cache: size =    4.50 MiB (   512 cells,   2 layers,  1/1 seqs), K (f16):    4.50 MiB, V (f16):    0.00 MiB",
        "llama_kv_cache_dsa: creating indexer KV cache, size = 512 cells",
        "llama_kv_cache:      CUDA0 KV buffer size =     0.50 MiB",
        "llama_kv_cache: size =    0.50 MiB (   512 cells,   2 layers,  1/1 seqs), K (f16):    0.50 MiB, V (f16):    0.00 MiB",
    ]
    assert [(item.cause, item.buffer) for item in read_buffers(lines)] == [("kv", "CPU"), ("indexer", "CUDA0")]
    assert [(item.cause, item.size_bytes) for item in read_caches(lines)] == [("kv", 4718592), ("indexer", 524288)]
    assert [item.cause for item in read_buffers(lines[1:2])] == ["kv"]
