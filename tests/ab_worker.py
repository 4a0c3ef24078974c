"""A worker that measures nothing and says known durations: `python -m tests.ab_worker HOW`. An n_ubatch of 256 is arm B's.

HOW: equal · slower (B by 3 %) · drifting (all by 1 % a block) · dying (B, in its sixth block) · refusing (B's load) · wild (too scattered
to decide) · hanging (in the fourth block)
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

BUILD = {
    "llama_cpp_python": "0.3.36", "ggml_version": "0.15", "ggml_commit": "abc1234", "system_info": "", "backends": ["CPU"], "devices": [],
}  # fmt: skip
MODEL = {"file_name": "x.gguf", "description": "llama 1B Q4_0", "size_bytes": 1, "n_params": 2, "file_size_bytes": 3}
RESOLVED = {
    "n_ctx": 256, "n_batch": 2048, "n_ubatch": 512, "n_threads": 1, "flash_attn": True, "load_mode": "mmap", "layers_by_device": {},
    "repacked_bytes": 0, "buffers": [],
}  # fmt: skip
LOAD = {
    "load_duration_ns": 1,
    "context_duration_ns": 1,
    "rss_before_bytes": 1,
    "rss_loaded_bytes": 1,
    "rss_after_bytes": 1,
}

USUAL_NS = 10_000_000


def emit(event: str, **body: object) -> None:
    print(json.dumps({"event": event, **body}), flush=True)


def sample(duration_ns: int, *, is_warmup: bool = False) -> None:
    emit("sample", duration_ns=duration_ns, prompt_ns=None, token_ns=[duration_ns], is_warmup=is_warmup)


def measure(how: str, command: dict, n_blocks: int, scatter: random.Random) -> None:
    spec = command["measure"]
    is_b = spec["n_ubatch"] == 256
    emit("phase", phase="load", index=0, count=1)
    if how == "refusing" and is_b:
        emit(
            "refused", message="llama.cpp cannot load x.gguf: it is not to its taste.", reason="it is not to its taste"
        )
        return
    emit("loaded", model=MODEL)
    emit("phase", phase="warm-up", index=0, count=1)
    sample(USUAL_NS, is_warmup=True)
    if how == "dying" and is_b and n_blocks >= 10:
        os._exit(9)
    if how == "hanging" and n_blocks == 4:
        time.sleep(600)
    factor = (1.03 if how == "slower" and is_b else 1) * (1 + 0.01 * n_blocks if how == "drifting" else 1)
    factor *= 1 + (command["slowdown"] or 0)
    spread = 0.3 if how == "wild" else 0.002
    for _ in range(spec["repetitions"]):
        sample(round(USUAL_NS * factor * scatter.lognormvariate(0, spread)))
    emit("done", resolved=RESOLVED, load=LOAD, cautions=[], dispatch_ns_per_token=None)


def main(how: str) -> None:
    emit("hello", build=BUILD)
    scatter = random.Random(how)
    for n_blocks, line in enumerate(sys.stdin):
        command = json.loads(line)
        if not command:
            return
        measure(how, command, n_blocks, scatter)


if __name__ == "__main__":
    main(sys.argv[1])
