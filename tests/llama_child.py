"""Run llama.cpp on a file and print what it says as JSON: a child process, because native code may abort.

python llama_child.py plan FILE TYPE...      the quantizer's own choice for each tensor, for each file type (a number)
python llama_child.py quantize FILE TYPE OUT quantize for real
python llama_child.py decode FILE N          load, decode N tokens greedily, report the logits
"""

from __future__ import annotations

import ctypes
import json
import re
import sys

import llama_cpp
import numpy as np

LOG: list[str] = []


@llama_cpp.llama_log_callback
def _keep_log(level, text, user_data):
    LOG.append(text.decode(errors="replace"))


llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))

# "[   2/ 290]   blk.0.attn_k.weight   - [ 2048, 512, 1, 1], type =    f16, size = 2.00 MiB -> 0.56 MiB (q4_0)"
_PLAN_LINE = re.compile(
    r"\[\s*\d+/\s*\d+\] (\S+)\s+- \[[\d, ]+\], type =\s+(\w+), size =\s+[\d.]+ MiB(?: ->\s+[\d.]+ MiB \((\w+)\))?"
)


def quantize(source: str, file_type: int, target: str, dry_run: bool) -> list[list[str]]:
    """Run llama_model_quantize and return [tensor name, type that it got] in its order."""
    LOG.clear()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = 1
    params.dry_run = dry_run
    rc = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    text = "".join(LOG)
    if rc != 0:
        raise SystemExit(text[-2000:])
    return [[name, (after or before).upper()] for name, before, after in _PLAN_LINE.findall(text)]


def decode(path: str, n_tokens: int) -> dict:
    """Load a model on the CPU, decode n_tokens one at a time and say what came out."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit("".join(LOG)[-2000:])
    context_params = llama_cpp.llama_context_default_params()
    context_params.n_ctx = 64
    context_params.n_threads = 1
    context = llama_cpp.llama_init_from_model(model, context_params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    n_vocab = llama_cpp.llama_vocab_n_tokens(vocab)
    token = (ctypes.c_int32 * 1)(llama_cpp.llama_vocab_bos(vocab))
    finite, spread, codes = True, [], []
    for _ in range(n_tokens):
        codes.append(llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1)))
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), shape=(n_vocab,))
        finite &= bool(np.isfinite(logits).all())
        spread.append(float(logits.std()))
        token[0] = int(logits.argmax())
    return {
        "codes": codes,
        "finite": finite,
        "spread": spread,
        "n_vocab": n_vocab,
        "n_params": llama_cpp.llama_model_n_params(model),
        "size_bytes": llama_cpp.llama_model_size(model),
        "add_bos": bool(llama_cpp.llama_vocab_get_add_bos(vocab)),
        "bos": llama_cpp.llama_vocab_bos(vocab),
        "eos": llama_cpp.llama_vocab_eos(vocab),
        "log": "".join(LOG),
    }


def main(arguments: list[str]) -> None:
    match arguments:
        case ["plan", source, *file_types]:
            result = {t: quantize(source, int(t), source + ".never-written", dry_run=True) for t in file_types}
        case ["quantize", source, file_type, target]:
            result = quantize(source, int(file_type), target, dry_run=False)
        case ["decode", path, n_tokens]:
            result = decode(path, int(n_tokens))
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
