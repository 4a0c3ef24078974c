"""Lines recorded from llama.cpp, or spelled as its source spells them where no card was at hand."""

import pytest

from harness.last_words import CARD, MEMORY, SERVER, explain


@pytest.mark.parametrize(
    ("lines", "trouble", "meaning"),
    [
        (
            [
                "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 3070) (0000:01:00.0) - 604 MiB free",
                "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 812.00 MiB on device 0: cudaMalloc failed: out of memory",
                "alloc_tensor_range: failed to allocate CUDA0 buffer of size 851443712",
                "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
            ],
            MEMORY,
            "out of memory on CUDA0, asked 812 MiB of 604 free",
        ),
        (["unable to allocate Vulkan0 buffer"], MEMORY, "out of memory on Vulkan0"),
        (
            ["failed to allocate RPC0[127.0.0.1:50052] buffer of size 1048576"],
            MEMORY,
            "out of memory on RPC0[127.0.0.1:50052], asked 1 MiB",
        ),
        (
            ["CUDA error: out of memory", "  current device: 1, in function alloc at ggml-cuda.cu:452"],
            MEMORY,
            "out of memory on CUDA1 while it computed: the model fits, its scratch memory does not; offload fewer layers",
        ),
        (
            ["ggml-rpc.cpp:349: Remote RPC server crashed or returned malformed response"],
            SERVER,
            "the RPC server hung up: it crashed, was ended, or the network is gone",
        ),
        (["Failed to connect to 10.0.0.1:50052"], SERVER, "the RPC server at 10.0.0.1:50052 could not be reached"),
        (["CUDA error: GPU is lost"], CARD, "the card or its driver went away (GPU is lost)"),
        (["llama_kv_cache: size = 5 MiB", "GGML_ASSERT(n > 0) failed"], None, None),
        ([], None, None),
    ],
)
def test_last_words_are_understood(lines, trouble, meaning):
    said = explain(lines)
    assert (said and said.trouble, said and said.text) == (trouble, meaning)
