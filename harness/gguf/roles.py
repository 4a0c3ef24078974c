"""What a tensor is, by its name alone: the one table of llama.cpp's tensor names, which memory, cost, time and anatomy ask.

Source: llama.cpp 0c1e570 src/llama-arch.cpp LLM_TENSOR_NAMES, and LLM_TENSOR_INFOS for the operation and the place.
"""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass

TOKEN_EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
POSITIONS = "position_embd.weight"

#: The work of the matrices that lead out of a feed-forward network.
FFN_DOWN = "ffn down"

#: Tables of which a token reads one row, which is nothing; llama.cpp keeps them in host memory.
TABLES = (TOKEN_EMBEDDING, POSITIONS, "token_types.weight", "per_layer_token_embd.weight")

#: The parts that a size is broken down into, in the order in which data passes them.
PARTS = ("token embeddings", "attention", "ffn", "experts", "norms", "output", "other")

#: A stack of experts' matrices within a block, as a regular expression. Source: common/common.h LLM_FFN_EXPS_REGEX.
EXPERT_STACK = r"ffn_(up|down|gate|gate_up)_(ch|)exps"

#: How names of eyes and ears begin; llama.cpp wants those in a file of their own (mmproj).
_SENSES = ("v.", "mm.", "a.")


class Place(enum.Enum):
    """Which layer's device holds a tensor."""

    INPUT = "none: host memory"
    FIRST_LAYER = "the first layer's"
    OWN_LAYER = "its own block's"
    EVERY_LAYER = "each layer's"
    OUTPUT = "the output layer's"


@dataclass(frozen=True, slots=True)
class Role:
    """What a tensor is for.

    block is the layer in whose name it is, None outside of blocks. part is one of `PARTS`; work what the time of a product with it
    counts as, None for what is looked up. is_stack says that its last dimension counts experts, is_expert that it is such a stack or
    one expert's own matrix, as older files have them; is_multiplied that it is the left side of a matrix product, if it is a matrix.
    """

    block: int | None
    part: str
    work: str | None
    place: Place
    is_stack: bool
    is_expert: bool
    is_multiplied: bool


#: Names within a block, numbers of experts and endings left out, with part and work; the first that fits.
_IN_BLOCK = (
    (".*norm", "norms", "norms"),
    ("attn_qkv", "attention", "attn qkv"),
    ("attn_q(_a|_b)?$", "attention", "attn q"),
    ("attn_k(_b)?$|attn_kv_a_mqa$|attn_kv_b$", "attention", "attn k"),
    ("attn_v(_b)?$", "attention", "attn v"),
    ("attn_output$", "attention", "attn out"),
    ("(cross_)?attn_", "attention", "other matrices"),
    ("ffn_gate(_exps|_shexp|_chexps|_up_exps)?$", "ffn", "ffn gate"),
    ("ffn_up(_exps|_shexp|_chexps)?$", "ffn", "ffn up"),
    ("ffn_down(_exps|_shexp|_chexps)?$", "ffn", FFN_DOWN),
    ("ffn_", "ffn", "other matrices"),
    ("rope", "other", "rope"),
    ("", "other", "other matrices"),
)
#: The same outside of blocks.
_OUTSIDE = (
    ("output$", "output", "output head"),
    ("(output|cls).*norm", "output", "norms"),
    ("output|cls", "output", "other matrices"),
    ("(token_embd|per_layer_token_embd|position_embd|token_types).*norm", "token embeddings", "norms"),
    ("token_embd|per_layer_token_embd|position_embd|token_types", "token embeddings", None),
    (".*norm", "other", "norms"),
    ("rope", "other", "rope"),
    ("", "other", "other matrices"),
)
#: Tensors outside of blocks that llama.cpp keeps with layers.
_FIRST_LAYER = ("token_embd_norm", "per_layer_model_proj", "per_layer_proj_norm")
_EVERY_LAYER = ("rope_freqs", "rope_factors_long", "rope_factors_short")

#: Looked up row by row, or otherwise never the left side of a matrix product, though they may have its shape: the entries with
#: GGML_OP_GET_ROWS, GGML_OP_SSM_CONV, GGML_OP_SSM_SCAN, GGML_OP_IM2COL, GGML_OP_MUL, GGML_OP_NONE.
_NOT_MULTIPLIED = re.compile(
    r"(.+\.)?((cross_)?attn_rel_b|ffn_gate_tid2eid|embed_tokens|ssm_conv1d(_[qkv])?|ple_conv1d|ssm_a|shortconv\.conv|conv[12]|conv1d|dw)"
    r"|.*compressor_ape.*|.*norm.*|rope_.*|masked_embd.*|(token_embd|position_embd|token_types|per_layer_token_embd|d2t)"
)

_BLOCK = re.compile(r"(?:enc\.|dec\.)?blk\.([0-9]{1,4}|#)\.(.+)")
_ENDING = re.compile(r"(.+?)(\.[0-9]+)?\.(weight|bias)")
_STACK = re.compile(rf"{EXPERT_STACK}\b")
_EXPERT = re.compile(r"ffn_(gate|up|down)\.[0-9]+\.")


@functools.lru_cache(maxsize=8192)
def find_role(name: str) -> Role:
    """Say what a tensor is for; a name that no table has is one of other matrices, kept with the output.

    Parameters
    ----------
    name : as in a file (``blk.3.ffn_up.weight``); ``#`` stands for the number of any block
    """
    match = _BLOCK.fullmatch(name)
    inner = match[2] if match else name
    ending = _ENDING.fullmatch(inner)
    stem, is_bias = (ending[1], ending[3] == "bias") if ending else (inner, False)
    part, work = next((row[1], row[2]) for row in (_IN_BLOCK if match else _OUTSIDE) if re.match(row[0], stem))
    is_stack = match is not None and _STACK.match(inner) is not None
    is_expert = is_stack or (match is not None and _EXPERT.match(inner) is not None)
    return Role(
        block=int(match[1]) if match and match[1] != "#" else None,
        part="experts" if is_expert else part,
        work="rest" if is_bias and work not in ("norms", "output head") else work,
        place=Place.OWN_LAYER if match else _find_place(name),
        is_stack=is_stack,
        is_expert=is_expert,
        is_multiplied=not is_bias and _NOT_MULTIPLIED.fullmatch(stem) is None,
    )


def _find_place(name: str) -> Place:
    if name in TABLES:
        return Place.INPUT
    if name.startswith(_FIRST_LAYER):
        return Place.FIRST_LAYER
    return Place.EVERY_LAYER if name.startswith(_EVERY_LAYER) else Place.OUTPUT


def is_sense(name: str) -> bool:
    """Whether a tensor is of an eye or ear: a part of it is named, which a tensor that somebody called "a" does not."""
    return name.startswith(_SENSES) and name.count(".") > 1


def begins_with_name(data: bytes) -> bool:
    """Whether bytes begin as the names of a language model's tensors do."""
    return data.startswith((b"blk.", b"output.", b"enc.", b"dec.", b"token_embd."))
