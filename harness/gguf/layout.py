"""Which tensors a model of a given shape has, and in which types llama.cpp's quantizer stores them.

Pure arithmetic over `Shape`: no weights, no file. The rules are those of llama.cpp 0c1e570 (in llama-cpp-python
0.3.36), without an importance matrix; `tests/test_layout.py` holds them against the quantizer itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.catalog import Shape
from harness.errors import UsageError
from harness.gguf.header import DEFAULT_ALIGNMENT, Tensor
from harness.gguf.types import DEFAULT_TYPES, find_quantization, pad, tensor_size_bytes, tensor_type

#: Architectures whose tensors are known here; each is a decoder with RMS norms and a gated FFN.
ARCHITECTURES = (
    "llama", "qwen2", "qwen3", "qwen3moe", "qwen35", "qwen35moe", "gemma2", "gemma3", "gpt-oss", "smollm3", "phi3",
    "mistral3", "granite", "granitehybrid",
)  # fmt: skip

#: Llama 3.2 Vision's text part. llama.cpp never had this architecture; the layout is that of Ollama's conversion, so that a size can
#: be told, and its quantizer's rules are taken to be the same.
#: Source: ollama/ollama llama/patches "add mllama support" (tensor names and dimensions; the embeddings hold 8 more rows than the
#: output, for the image token).
MLLAMA = "mllama"
_MLLAMA_EXTRA_ROWS = 8

_WITH_HEAD_NORMS = {"qwen3", "qwen3moe", "qwen35", "qwen35moe", "gemma3"}
_WITH_POST_NORMS = {"gemma2", "gemma3"}
#: Their norm before the FFN is called post_attention_norm in GGUF.
_WITH_POST_FOR_FFN_NORM = {"qwen35", "qwen35moe", "gpt-oss"}
_WITH_FUSED_MATRICES = {"phi3"}  # one matrix for q, k and v, and one for gate and up
_WITH_DELTA_NET = {"qwen35", "qwen35moe"}
_WITH_EXPERTS = {"llama", "qwen3moe", "qwen35moe", "gpt-oss", "granitehybrid"}
#: Their feed_forward_length is one expert's.
ONLY_WITH_EXPERTS = {"qwen3moe", "qwen35moe", "gpt-oss"}

#: Source: llama-quant.cpp tensor_type_fallback (256-element blocks on the left).
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}


def tensor_table(shape: Shape, quantization: str) -> tuple[Tensor, ...]:
    """Lay out a model of this shape as llama.cpp's converter and llama-quantize would.

    Parameters
    ----------
    shape        : feed_forward_length is one expert's where expert_count > 0
    quantization : as `find_quantization` takes it

    Returns
    -------
    The tensors in the order of llama-quantize's output: those outside the blocks by name, then block by block, by name.
    F32, F16 and BF16 files, which may come from the converter alone, are laid out in the same order.

    Raises
    ------
    UsageError : unknown architecture or quantization, or dimensions that this architecture cannot have.

    Source: src/models/*.cpp load_arch_tensors (names, dimensions); llama-model-loader.h weight_name_comparer (order);
    llama-quant.cpp llama_tensor_get_type (types).
    """
    quantization = find_quantization(quantization)
    _check(shape)
    ffn = list(_ffn_tensors(shape))
    inner = [
        (block, f"blk.{block}.{name}", ne)
        for block in range(shape.block_count)
        for name, ne in (*_mixer_tensors(shape, block), *ffn)
    ]
    tensors: list[Tensor] = []
    offset = 0
    for block, name, ne in sorted([*_outer_tensors(shape), *inner]):
        kind = tensor_type(_tensor_type(shape, quantization, block, name, ne))
        tensors.append(Tensor(name, ne, kind.type_id, kind.name, offset, tensor_size_bytes(ne, kind.type_id)))
        offset += pad(tensors[-1].size_bytes, DEFAULT_ALIGNMENT)
    return tuple(tensors)


def _check(shape: Shape) -> None:
    if shape.architecture not in (*ARCHITECTURES, MLLAMA):
        known = ", ".join(ARCHITECTURES)
        raise UsageError(f"the tensors of architecture {shape.architecture!r} are not known here; known are {known}")
    if shape.architecture == "qwen2" and shape.head_count * shape.head_dim != shape.embedding_length:
        raise UsageError("qwen2 needs head_count * head_dim equal to embedding_length; correct the shape")
    if shape.architecture == "gemma2" and not shape.tied_embeddings:
        raise UsageError("llama.cpp reads no separate output matrix for gemma2; set tied_embeddings in the shape")
    if shape.expert_count and shape.architecture not in _WITH_EXPERTS:
        known = ", ".join(sorted(_WITH_EXPERTS))
        raise UsageError(f"llama.cpp reads no experts for architecture {shape.architecture!r}; use {known}")
    if shape.architecture in ONLY_WITH_EXPERTS and not shape.expert_count:
        raise UsageError(f"{shape.architecture} needs experts; set expert_count and expert_used_count in the shape")
    _check_state(shape)
    heads = (shape.head_count, shape.head_count_kv, shape.head_dim)
    sizes = (shape.block_count, shape.embedding_length, shape.feed_forward_length, shape.vocab_size)
    if min(*heads, *sizes) < 1:
        raise UsageError("every dimension of a shape must be at least 1; correct the shape")


def _check_state(shape: Shape) -> None:
    """Refuse a recurrent block without dimensions, or with such as its architecture cannot have."""
    if not any(shape.is_recurrent(block) for block in range(shape.block_count)):
        return
    kinds = (*_WITH_DELTA_NET, "granitehybrid")
    if shape.architecture not in kinds:
        raise UsageError(f"{shape.architecture} has no recurrent blocks; use {', '.join(sorted(kinds))}")
    dimensions = (shape.ssm_conv_kernel, shape.ssm_state_size, shape.ssm_group_count, shape.ssm_time_step_rank)
    if min(*dimensions, shape.ssm_inner_size) < 1:
        raise UsageError("recurrent blocks need all five ssm dimensions; set them in the shape")
    if shape.architecture == "granitehybrid" and shape.ssm_inner_size != 2 * shape.embedding_length:
        raise UsageError("granitehybrid needs ssm_inner_size of twice embedding_length; correct the shape")
    if (
        shape.architecture in _WITH_DELTA_NET
        and shape.ssm_inner_size != shape.ssm_state_size * shape.ssm_time_step_rank
    ):
        raise UsageError(
            f"{shape.architecture} needs ssm_inner_size of ssm_state_size * ssm_time_step_rank; correct it"
        )


_Row = tuple[int, str, tuple[int, ...]]  # block index (-1 outside the blocks), name, dimensions


def _outer_tensors(shape: Shape) -> Iterator[_Row]:
    embedding = (shape.embedding_length, shape.vocab_size)
    more = _MLLAMA_EXTRA_ROWS if shape.architecture == MLLAMA else 0
    yield -1, "token_embd.weight", (shape.embedding_length, shape.vocab_size + more)
    yield -1, "output_norm.weight", (shape.embedding_length,)
    if not shape.tied_embeddings:
        yield -1, "output.weight", embedding
    if shape.rope_factors:
        yield -1, "rope_freqs.weight", (shape.head_dim // 2,)


def _mixer_tensors(shape: Shape, block: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What one block looks at other tokens with: attention, a recurrent state, or attention to an image."""
    yield "attn_norm.weight", (shape.embedding_length,)
    if block in shape.cross_attention_blocks:
        yield from _cross_attention_tensors(shape)
    elif not shape.is_recurrent(block):
        yield from _attention_tensors(shape)
    elif shape.architecture in _WITH_DELTA_NET:
        yield from _delta_net_tensors(shape)
    else:
        yield from _mamba_tensors(shape)


def _attention_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = shape.embedding_length
    q_width, kv_width = shape.head_count * shape.head_dim, shape.head_count_kv * shape.head_dim
    if shape.architecture in _WITH_FUSED_MATRICES:
        parts = {"qkv": q_width + 2 * kv_width}
    else:
        # With the delta net the attention's output is gated, and the gate lies beside q.
        parts = {"q": q_width * (2 if shape.architecture in _WITH_DELTA_NET else 1), "k": kv_width, "v": kv_width}
    for part, part_width in parts.items():
        yield f"attn_{part}.weight", (width, part_width)
        if shape.attention_bias:
            yield f"attn_{part}.bias", (part_width,)
    yield "attn_output.weight", (q_width, width)
    if shape.architecture == "gpt-oss":
        yield "attn_output.bias", (width,)
        yield "attn_sinks.weight", (shape.head_count,)
    if shape.architecture in _WITH_HEAD_NORMS:
        yield "attn_q_norm.weight", (shape.head_dim,)
        yield "attn_k_norm.weight", (shape.head_dim,)
    if shape.architecture in _WITH_POST_NORMS:
        yield "post_attention_norm.weight", (width,)


def _delta_net_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A gated delta net. Source: src/models/qwen35.cpp load_arch_tensors."""
    width, rank, inner = shape.embedding_length, shape.ssm_time_step_rank, shape.ssm_inner_size
    channels = 2 * shape.ssm_state_size * shape.ssm_group_count + inner  # keys, queries and values
    yield "attn_qkv.weight", (width, channels)
    yield "attn_gate.weight", (width, inner)
    yield "ssm_conv1d.weight", (shape.ssm_conv_kernel, channels)
    yield "ssm_dt.bias", (rank,)
    yield "ssm_a", (rank,)
    yield "ssm_beta.weight", (width, rank)
    yield "ssm_alpha.weight", (width, rank)
    yield "ssm_norm.weight", (shape.ssm_state_size,)
    yield "ssm_out.weight", (inner, width)


def _mamba_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A Mamba 2 mixer. Source: src/models/granite-hybrid.cpp load_arch_tensors."""
    width, heads, inner = shape.embedding_length, shape.ssm_time_step_rank, shape.ssm_inner_size
    channels = inner + 2 * shape.ssm_group_count * shape.ssm_state_size
    yield "ssm_in.weight", (width, inner + channels + heads)
    yield "ssm_conv1d.weight", (shape.ssm_conv_kernel, channels)
    yield "ssm_conv1d.bias", (channels,)
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (1, heads)
    yield "ssm_d", (1, heads)
    yield "ssm_norm.weight", (inner // shape.ssm_group_count, shape.ssm_group_count)
    yield "ssm_out.weight", (inner, width)


def _cross_attention_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = shape.embedding_length
    q_width, kv_width = shape.head_count * shape.head_dim, shape.head_count_kv * shape.head_dim
    yield "cross_attn_q_proj.weight", (width, q_width)
    yield "cross_attn_k_proj.weight", (width, kv_width)
    yield "cross_attn_v_proj.weight", (width, kv_width)
    yield "cross_attn_o_proj.weight", (q_width, width)
    yield "cross_attn_q_norm.weight", (shape.head_dim,)
    yield "cross_attn_k_norm.weight", (shape.head_dim,)
    yield "cross_attn_attn_gate", (1,)
    yield "cross_attn_mlp_gate", (1,)


def _ffn_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, experts = shape.embedding_length, shape.feed_forward_length, shape.expert_count
    yield ("post_attention_norm" if shape.architecture in _WITH_POST_FOR_FFN_NORM else "ffn_norm") + ".weight", (width,)
    if shape.architecture in _WITH_POST_NORMS:
        yield "post_ffw_norm.weight", (width,)
    if shape.architecture in _WITH_FUSED_MATRICES:
        yield "ffn_up.weight", (width, 2 * inner)
        yield "ffn_down.weight", (inner, width)
        return
    if experts:  # what chooses them, and how much the shared one counts
        yield "ffn_gate_inp.weight", (width, experts)
        if shape.architecture == "gpt-oss":
            yield "ffn_gate_inp.bias", (experts,)
        if shape.architecture == "qwen35moe":
            yield "ffn_gate_inp_shexp.weight", (width,)
    suffix, more = ("_exps", (experts,)) if experts else ("", ())
    for part, rows, columns in (("gate", width, inner), ("up", width, inner), ("down", inner, width)):
        yield f"ffn_{part}{suffix}.weight", (rows, columns, *more)
        if shape.architecture == "gpt-oss":
            yield f"ffn_{part}{suffix}.bias", (columns, *more)
        if shared := shape.expert_shared_feed_forward_length:
            yield f"ffn_{part}_shexp.weight", ((shared, width) if part == "down" else (width, shared))


def _tensor_type(shape: Shape, quantization: str, block: int, name: str, ne: tuple[int, ...]) -> str:
    """Choose one tensor's type. Source: llama-quant.cpp llama_tensor_get_type, tensor_allows_quantization."""
    default = DEFAULT_TYPES[quantization]
    n_dims = max((i + 1 for i, n in enumerate(ne) if n > 1), default=1)  # ggml_n_dims: trailing ones do not count
    kept = ("_norm.weight", "ffn_gate_inp", "ssm_conv1d")
    if n_dims < 2 or not name.endswith("weight") or any(part in name for part in kept):
        return "F32"
    if tensor_type(default).block_elements == 1:
        return default
    return _fit_rows(_mixture_type(shape, quantization, block, name, ne), ne[0])


def _fit_rows(type_name: str, row_elements: int) -> str:
    """Fall back to a smaller block where rows are no whole number of blocks. Source: llama-quant.cpp tensor_type_fallback."""
    if row_elements % tensor_type(type_name).block_elements == 0:
        return type_name
    type_name = _FALLBACK.get(type_name, type_name)
    return type_name if row_elements % tensor_type(type_name).block_elements == 0 else "F16"


def _mixture_type(shape: Shape, quantization: str, block: int, name: str, ne: tuple[int, ...]) -> str:
    """Choose the type that the mixture gives this tensor. Source: llama-quant.cpp llama_tensor_get_type_impl."""
    default = DEFAULT_TYPES[quantization]
    if name == "output.weight" or (name == "token_embd.weight" and shape.tied_embeddings):
        keeps = default in ("Q8_0", "MXFP4") or ne[0] % tensor_type(default).block_elements
        return "Q8_0" if keeps else "Q6_K"
    if quantization == "MXFP4_MOE":
        return "MXFP4" if len(ne) > 2 and ne[2] > 1 else "Q8_0"
    kind = name.rsplit(".", 2)[-2]
    if kind in ("attn_v", "attn_qkv"):
        return _attn_v_type(shape, quantization, *_rank_among_values(shape, block))
    if kind == "attn_k":
        return "Q8_0" if shape.expert_count == 8 else default
    if kind in ("ffn_down", "ffn_down_exps", "ffn_down_shexp"):
        return _ffn_down_type(shape, quantization, block)
    if kind == "attn_output":
        return _attn_output_type(shape, quantization)
    return default


def _use_more_bits(block: int, n_blocks: int) -> bool:
    """Tell whether a block is in the first or last eighth, or is every third between. Source: lambda of that name."""
    first = n_blocks // 8
    return block < first or block >= 7 * n_blocks // 8 or (block - first) % 3 == 2


def _is_70b(shape: Shape) -> bool:
    """Tell whether llama.cpp takes the shape for LLM_TYPE_70B. Source: src/models/{llama,qwen2}.cpp load_arch_hparams."""
    if shape.block_count != 80 or shape.expert_count == 8:
        return False
    return shape.architecture == "qwen2" or (shape.architecture == "llama" and shape.head_count != shape.head_count_kv)


def _rank_among_values(shape: Shape, block: int) -> tuple[int, int]:
    """Which of the model's value matrices a block's is, from 0, and how many there are; a Mamba block has none.

    Source: llama-quant.cpp i_attention_wv, n_attention_wv.
    """
    if shape.architecture != "granitehybrid":
        return block, shape.block_count
    with_values = [index for index in range(shape.block_count) if not shape.is_recurrent(index)]
    return with_values.index(block), len(with_values)


def _attn_v_type(shape: Shape, quantization: str, index: int, n_values: int) -> str:
    if shape.expert_count == 8:
        return "Q8_0"
    # hparams.n_gqa() is that of the first block, and 0 where granitehybrid has no attention there.
    no_heads = shape.architecture == "granitehybrid" and shape.is_recurrent(0)
    many_heads = not no_heads and shape.head_count // shape.head_count_kv >= 4
    type_name = DEFAULT_TYPES[quantization]
    if quantization == "Q2_K":
        type_name = "Q4_K" if many_heads else "Q3_K"
    elif quantization == "Q3_K_M":
        type_name = "Q5_K" if index < 2 else "Q4_K"
    elif quantization == "Q3_K_L" or (quantization in ("IQ4_NL", "IQ4_XS") and many_heads):
        type_name = "Q5_K"
    elif quantization in ("Q4_K_M", "Q5_K_M") and _use_more_bits(index, n_values):
        type_name = "Q6_K"
    elif quantization == "Q4_K_S" and index < 4:
        type_name = "Q5_K"
    return "Q5_K" if _is_70b(shape) and type_name in ("Q3_K", "Q4_K") else type_name


def _ffn_down_type(shape: Shape, quantization: str, block: int) -> str:
    n_blocks = shape.block_count
    if quantization == "Q3_K_M":
        return "Q5_K" if block < n_blocks // 16 else "Q4_K"
    if quantization in ("Q4_K_M", "Q5_K_M") and _use_more_bits(block, n_blocks):
        return "Q6_K"
    if quantization in ("Q4_K_S", "IQ4_NL", "IQ4_XS") and block < n_blocks // 8:
        return "Q5_K"
    return {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K"}.get(quantization, DEFAULT_TYPES[quantization])


def _attn_output_type(shape: Shape, quantization: str) -> str:
    default = DEFAULT_TYPES[quantization]
    if shape.expert_count == 8:
        raised = {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"}
        return "Q5_K" if quantization in raised else default
    return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(quantization, default)
