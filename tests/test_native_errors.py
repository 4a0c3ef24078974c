"""Lines recorded from llama.cpp, or spelled as its source spells them where no card was at hand."""

import pytest

from harness.records.cells import Failure
from harness.records.native_errors import CARD, MEMORY, SERVER, explain


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
        (
            ["terminate called after throwing an instance of 'std::bad_alloc'", "  what():  std::bad_alloc"],
            MEMORY,
            "out of memory in llama.cpp (std::bad_alloc)",
        ),
        (
            ["libc++abi: terminating due to uncaught exception of type std::bad_alloc: std::bad_alloc"],
            MEMORY,
            "out of memory in llama.cpp (std::bad_alloc)",
        ),
        (
            [
                "terminate called after throwing an instance of 'std::length_error'",
                "  what():  vector::_M_default_append",
            ],
            None,
            "nobody caught std::length_error: vector::_M_default_append",
        ),
        (["terminate called after throwing an instance of 'int'"], None, "nobody caught int"),
        (["llama_kv_cache: size = 5 MiB", "GGML_ASSERT(n > 0) failed"], None, None),
        ([], None, None),
    ],
)
def test_last_words_are_understood(lines, trouble, meaning):
    said = explain(lines)
    assert (said and said.trouble, said and said.text) == (trouble, meaning)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "llama_model_loader: loaded meta data with 7 key-value pairs and 0 tensors from /home/NAME/a b/m 1.gguf (version GGUF V3 (latest))",
            "llama_model_loader: loaded meta data with 7 key-value pairs and 0 tensors from m 1.gguf (version GGUF V3 (latest))",
        ),
        ("/home/N M/x y/vendor/llama.cpp/ggml/src/ggml-cpu/ops.cpp:12: GGML_ASSERT(a/b) failed", "ggml/src/ggml-cpu/ops.cpp:12: GGML_ASSERT(a/b) failed"),
        ("/tmp/pip-install-1/llama-cpp-python_2/vendor/llama.cpp/src/llama-context.cpp:9: x", "src/llama-context.cpp:9: x"),
        (r"C:\Users\N M\llama.cpp\ggml\src\ggml.c:1: GGML_ASSERT(x) failed", r"ggml\src\ggml.c:1: GGML_ASSERT(x) failed"),
        ("failed to open GGUF file '/home/N M/dir/m.gguf' (No such file)", "failed to open GGUF file 'm.gguf' (No such file)"),
        ("gguf_init: failed to read /Users/N M/.ollama/models/blobs/sha256-abc", "gguf_init: failed to read sha256-abc"),
        ("~/models/m.gguf and D:\\models\\m.gguf", "m.gguf and m.gguf"),
        ("mmap failed: /mnt/disk 2/m.gguf", "mmap failed: m.gguf"),
        ("reads 3.5 GB/s and tok/s; a/b.c stays; https://host/path/x stays", "reads 3.5 GB/s and tok/s; a/b.c stays; https://host/path/x stays"),
        ("libcuda.so: /usr/lib/x86_64-linux-gnu/libcuda.so.1: cannot open", "libcuda.so: libcuda.so.1: cannot open"),
        ("ratio 3 / 5 of 1/2", "ratio 3 / 5 of 1/2"),
    ],
)  # fmt: skip
def test_no_folder_is_left_in_a_failure(text, shown):
    failure = Failure("load", text, "abort", log=(text,), reason=text)
    assert failure.message == failure.reason == shown
    assert failure.log == (shown,)
    assert Failure("load", shown, "abort").message == shown
