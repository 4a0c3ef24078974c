"""The sequences that a context holds: their states saved and put back, and one of them copied to the others."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp


def save(context: Any, n_sequences: int) -> list[Any]:
    """The content of the first sequences."""
    return [_save(context, sequence) for sequence in range(n_sequences)]


def restore(context: Any, states: Sequence[Any]) -> bool:
    """Put contents back; False where the context cannot take one, which then holds nothing of them."""
    if all(_restore(context, sequence, state) for sequence, state in enumerate(states)):
        return True
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
    return False


def copy_first(context: Any, n_sequences: int, step: Callable[[], None], *, is_unified: bool) -> None:
    """Copy the first sequence to all others, as batched-bench.cpp does.

    Where each has a cache of its own llama.cpp copies when it decodes next: step computes a token of the first sequence, which is taken
    back, so that the first step that is timed copies nothing.
    """
    memory, model = llama_cpp.llama_get_memory(context), llama_cpp.llama_get_model(context)
    # Those cannot take back one token: the state is put back whole.
    has_states = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model)
    state = _save(context, 0) if has_states and not is_unified else None
    for sequence in range(1, n_sequences):
        llama_cpp.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
    if is_unified:
        return
    end = llama_cpp.llama_memory_seq_pos_max(memory, 0) + 1
    step()
    if state is None:
        llama_cpp.llama_memory_seq_rm(memory, 0, end, -1)
    else:
        llama_cpp.llama_memory_seq_rm(memory, 0, -1, -1)
        _restore(context, 0, state)


def _save(context: Any, sequence: int) -> Any:
    size = llama_cpp.llama_state_seq_get_size(context, sequence)
    state = (ctypes.c_uint8 * size)()
    llama_cpp.llama_state_seq_get_data(context, state, size, sequence)
    return state


def _restore(context: Any, sequence: int, state: Any) -> bool:
    return bool(llama_cpp.llama_state_seq_set_data(context, state, len(state), sequence))
