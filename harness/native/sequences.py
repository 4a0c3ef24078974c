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


def forgets_in_state(context: Any, *, swa_full: bool) -> bool:
    """Whether a saved state lacks what lies outside a window, although the cache still has it.

    Source: llama-kv-cache.cpp state_write (is_masked_swa).
    """
    return not swa_full and llama_cpp.llama_model_n_swa(llama_cpp.llama_get_model(context)) > 0


def go_back(context: Any, n_tokens: int, *, swa_full: bool) -> bool:
    """Take back what the first sequence holds behind its first tokens; False where it cannot be, and then it holds nothing.

    A state cannot be taken back in part, and a layer with a window may have lost what lies before it: llama.cpp's server asks the same
    (tools/server/server-context.cpp, pos_min_thold).
    """
    memory, model = llama_cpp.llama_get_memory(context), llama_cpp.llama_get_model(context)
    window = 0 if swa_full else llama_cpp.llama_model_n_swa(model)
    has_lost = window > 0 and llama_cpp.llama_memory_seq_pos_min(memory, 0) > max(0, n_tokens - window)
    if not has_lost and llama_cpp.llama_memory_seq_rm(memory, 0, n_tokens, -1):
        return True
    llama_cpp.llama_memory_clear(memory, False)
    return False


def _save(context: Any, sequence: int) -> Any:
    size = llama_cpp.llama_state_seq_get_size(context, sequence)
    state = (ctypes.c_uint8 * size)()
    llama_cpp.llama_state_seq_get_data(context, state, size, sequence)
    return state


def _restore(context: Any, sequence: int, state: Any) -> bool:
    return bool(llama_cpp.llama_state_seq_set_data(context, state, len(state), sequence))
