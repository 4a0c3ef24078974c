"""Which of a file's blocks llama.cpp loads, and how many layers they make.

Blocks that only predict further tokens (MTP, NextN) are in the file and not in memory; a few models pass their blocks more than once.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import HarnessError
from harness.gguf.header import Header, Tensor
from harness.gguf.roles import find_role
from harness.gguf.settings import count_blocks, name_set, read_count
from harness.spec import MAX_LAYERS

#: Draft models that are made of such blocks, and one where the extra layer is no such block.
_NO_TRUNK = name_set("gemma4-assistant eagle3 dflash")


def count_layers(header: Header) -> int:
    """Count a model's layers as llama.cpp deals them out to devices, without the output layer.

    Blocks that only predict further tokens are among them, looped blocks count once a loop, and a router is one more.

    Raises
    ------
    HarnessError : the header does not state block_count, or beyond what llama.cpp takes.

    Source: src/models/nanbeige.cpp, granite-switch.cpp load_arch_hparams; llama-model.cpp load_tensors (n_layer_all).
    """
    n_blocks = n_layers = count_blocks(header)
    n_layers *= count_loops(header)
    n_layers += header.architecture == "graniteswitch"
    if n_layers > MAX_LAYERS:
        raise HarnessError(
            f"the {n_blocks} blocks make {n_layers} layers, and llama.cpp takes {MAX_LAYERS} at the most"
        )
    return n_layers


def count_loops(header: Header) -> int:
    """How often a token goes through all blocks. Source: src/models/nanbeige.cpp."""
    return (read_count(header, "num_loops") or 1) if header.architecture == "nanbeige" else 1


def loaded_tensors(header: Header) -> tuple[Tensor, ...]:
    """The tensors that llama.cpp loads: all but those of blocks that only predict further tokens."""
    skipped = find_skipped(header)
    if not skipped:
        return header.tensors
    return tuple(tensor for tensor in header.tensors if find_role(tensor.name).block not in skipped)


def count_trunk(header: Header) -> int:
    """Count the blocks that a token passes: all but the last ones that only predict further tokens.

    Source: llama-hparams.cpp n_layer; deepseek4.cpp, which looks whether those are there.
    """
    n_blocks = count_blocks(header)
    ahead = read_count(header, "nextn_predict_layers") or 0
    if not ahead or header.architecture in _NO_TRUNK:
        return n_blocks
    first = max(n_blocks - ahead, 0)
    probe = header.find_tensor(f"blk.{first}.nextn.eh_proj.weight")
    return n_blocks if header.architecture == "deepseek4" and probe is None else first


def find_skipped(header: Header) -> tuple[int, ...]:
    """Name the blocks that are in the file and are loaded only when asked; a file may state them and have none.

    Source: llama_model_params.load_mtp, TENSOR_SKIP and trunk_only in src/models/*.cpp load_arch_tensors.
    """
    if not read_count(header, "nextn_predict_layers"):
        return ()
    first, stop = count_trunk(header), count_blocks(header)
    there = {find_role(tensor.name).block for tensor in header.tensors}
    return tuple(block for block in range(first, stop) if block in there)


def describe_skipped(skipped: Sequence[int]) -> str:
    """Say what blocks are that are not loaded."""
    what = "block predicts" if len(skipped) == 1 else f"{len(skipped)} blocks predict"
    return f"the last {what} further tokens (MTP): in the file, not in memory, not read by a token"
