"""What is handed to llama_decode: tokens of one sequence, or of several at once as llama-batched-bench has them.

Positions are left to llama.cpp, which continues each sequence after the last token that its memory holds (llama_batch_compat::init in
src/llama-batch.cpp). Arrays are Python's own: a batch keeps those alive that its struct points into.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp


def cut(tokens: Any, size: int) -> list[Any]:
    """Batches of so many tokens of one sequence, the last one of the rest."""
    starts = range(0, len(tokens), size)
    return [_keep(llama_cpp.llama_batch_get_one(_at(tokens, i), min(size, len(tokens) - i)), tokens) for i in starts]


def join_prompts(tokens: Sequence[int], n_sequences: int, size: int) -> list[Any]:
    """As many prompts as sequences, one after the other in batches of size tokens; of each the last token has an output.

    tokens holds them all. Source: main in llama.cpp's tools/batched-bench/batched-bench.cpp.
    """
    length = len(tokens) // n_sequences
    sequences = [at for at in range(n_sequences) for _ in range(length)]
    outputs = ([0] * (length - 1) + [1]) * n_sequences if length else []
    return list(_cut_many(tokens, sequences, outputs, n_sequences, size))


def join_steps(tokens: Sequence[int], n_sequences: int) -> list[Any]:
    """A batch a step, in which each sequence gets one token with an output: 0123 0123 0123 …"""
    sequences = [at for _ in range(len(tokens) // n_sequences) for at in range(n_sequences)]
    return list(_cut_many(tokens, sequences, [1] * len(tokens), n_sequences, n_sequences))


def list_sequences(batch: Any) -> list[int]:
    """The sequence of each token of a batch; all are of the first one where it names none."""
    if not batch.seq_id:
        return [0] * batch.n_tokens
    return [batch.seq_id[at][0] for at in range(batch.n_tokens)]


def _cut_many(
    tokens: Sequence[int], sequences: Sequence[int], outputs: Sequence[int], n_sequences: int, size: int
) -> Iterator[Any]:
    n = len(tokens)
    names = (llama_cpp.llama_seq_id * n_sequences)(*range(n_sequences))
    pointers = [_at(names, at) for at in range(n_sequences)]
    arrays = (
        (llama_cpp.llama_token * n)(*tokens),
        (ctypes.c_int32 * n)(*([1] * n)),
        (ctypes.POINTER(llama_cpp.llama_seq_id) * n)(*(pointers[at] for at in sequences)),
        (ctypes.c_int8 * n)(*outputs),
    )
    for start in range(0, n, size):
        token, n_seq_id, seq_id, logits = (_at(array, start) for array in arrays)
        batch = llama_cpp.llama_batch(
            n_tokens=min(size, n - start), token=token, n_seq_id=n_seq_id, seq_id=seq_id, logits=logits
        )
        yield _keep(batch, (*arrays, names))


def _at(array: Any, start: int) -> Any:
    """A pointer to an element of an array."""
    kind = array._type_
    return ctypes.cast(ctypes.byref(array, start * ctypes.sizeof(kind)), ctypes.POINTER(kind))


def _keep(batch: Any, arrays: Any) -> Any:
    batch.keep_alive = arrays
    return batch
