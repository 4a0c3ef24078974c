"""Small GGUF files of the kinds that people have, made here; weights are zeros, where there are any."""

from __future__ import annotations

from collections.abc import Callable

from .gguf_bytes import HeaderBytes


def settings(made: HeaderBytes, architecture: str, **changed: int) -> HeaderBytes:
    """The settings of a tiny model of two layers."""
    values = {
        "block_count": 2, "context_length": 2048, "embedding_length": 64, "feed_forward_length": 128, "attention.head_count": 4,
        "attention.head_count_kv": 2,
    }  # fmt: skip
    made.add("general.architecture", "str", architecture)
    for key, value in {**values, **{key.replace("__", "."): value for key, value in changed.items()}}.items():
        made.add(f"{architecture}.{key}", "u32", value)
    return made.add(f"{architecture}.attention.layer_norm_rms_epsilon", "f32", 1e-5)


def tokenizer(made: HeaderBytes, n_tokens: int = 32) -> HeaderBytes:
    made.add("tokenizer.ggml.model", "str", "llama")
    made.add_array("tokenizer.ggml.tokens", "str", [f"t{index}" for index in range(n_tokens)])
    made.add_array("tokenizer.ggml.scores", "f32", [0.0] * n_tokens)
    return made.add_array("tokenizer.ggml.token_type", "i32", [1] * n_tokens)


def tensors(made: HeaderBytes, n_layers: int = 2, down: int | None = None) -> HeaderBytes:
    """A llama's tensors; down is the number of another program's type for one of them."""
    made.add_tensor("token_embd.weight", "F32", 64, 32).add_tensor("output_norm.weight", "F32", 64)
    for layer in range(n_layers):
        block = f"blk.{layer}."
        made.add_tensor(block + "attn_norm.weight", "F32", 64).add_tensor(block + "ffn_norm.weight", "F32", 64)
        for name, width in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32), ("attn_output", 64)):
            made.add_tensor(f"{block}{name}.weight", "F32", 64, width)
        for name in ("ffn_gate", "ffn_up"):
            made.add_tensor(f"{block}{name}.weight", "F32", 64, 128)
        if down is None or layer:
            made.add_tensor(block + "ffn_down.weight", "F32", 128, 64)
        else:
            made.add_tensor(block + "ffn_down.weight", "F32", 128, 64, offset=made.offset, type_id=down)
            made.offset += 4352
    return made


def llama(down: int | None = None, architecture: str = "llama") -> HeaderBytes:
    return tensors(tokenizer(settings(HeaderBytes(), architecture)), down=down)


def stated(kind: str, architecture: str = "llama") -> HeaderBytes:
    return HeaderBytes().add("general.architecture", "str", architecture).add("general.type", "str", kind)


#: Settings that bring an architecture's own rules into play: windows, states, experts, blocks that are not loaded.
SETTINGS = {
    "attention__sliding_window": 1024, "attention__sliding_window_pattern": 6, "full_attention_interval": 4, "ssm__conv_kernel": 4,
    "ssm__inner_size": 128, "ssm__state_size": 16, "ssm__time_step_rank": 4, "ssm__group_count": 2, "expert_count": 8,
    "expert_used_count": 2, "nextn_predict_layers": 1, "attention__key_length": 16, "attention__value_length": 16, "wkv__head_size": 16,
    "attention__shared_kv_layers": 1, "attention__kv_lora_rank": 16, "rope__dimension_count": 8, "shortconv__l_cache": 3,
    "leading_dense_block_count": 1,
}  # fmt: skip


def settled(architecture: str) -> HeaderBytes:
    """A model of an architecture with settings of many, of which it takes its own."""
    made = settings(HeaderBytes(), architecture, block_count=4, **SETTINGS)
    tensors(tokenizer(made), 4)
    made.add_tensor("blk.1.ffn_gate_exps.weight", "Q4_0", 64, 32, 8).add_tensor("blk.1.ssm_in.weight", "Q8_0", 64, 256)
    return made.add_tensor("output.weight", "Q6_K", 256, 32)


def pooled() -> HeaderBytes:
    """A decoder that was trained to embed, as Qwen3-Embedding."""
    return tensors(tokenizer(settings(HeaderBytes(), "llama", pooling_type=3)))


def learned() -> HeaderBytes:
    """GPT-2 with a table of 256 learned positions."""
    return tensors(tokenizer(settings(HeaderBytes(), "gpt2", context_length=256))).add_tensor(
        "position_embd.weight", "F32", 64, 256
    )


def bert(context_length: int = 512) -> HeaderBytes:
    made = settings(HeaderBytes(), "bert", context_length=context_length)
    return tensors(tokenizer(made)).add_tensor("position_embd.weight", "F32", 64, context_length)


#: name → (file, its `Kind` by name).
FILES: dict[str, tuple[Callable[[], HeaderBytes], str]] = {
    "plain": (llama, "TEXT"),
    "bert": (bert, "EMBEDDING"),
    "pooled": (pooled, "EMBEDDING"),
    "gpt2": (learned, "TEXT"),
    "t5": (lambda: llama(architecture="t5"), "ENCODER_DECODER"),
    "t5encoder": (lambda: llama(architecture="t5encoder"), "EMBEDDING"),
    "llada": (lambda: llama(architecture="llada"), "TEXT_DIFFUSION"),
    "eagle3": (lambda: llama(architecture="eagle3"), "DRAFT"),
    "wavtokenizer": (lambda: llama(architecture="wavtokenizer-dec"), "SOUND"),
    "mmproj": (lambda: stated("mmproj", "clip").add_tensor("v.patch_embd.weight", "F32", 8, 8), "PROJECTOR"),
    "clip": (lambda: HeaderBytes().add("general.architecture", "str", "clip"), "PROJECTOR"),
    "lora": (lambda: stated("adapter").add_tensor("blk.0.attn_q.weight.lora_a", "F32", 64, 4), "ADAPTER"),
    "old lora": (lambda: llama().add_tensor("blk.0.attn_q.weight.lora_a", "F32", 64, 4), "ADAPTER"),
    "control vector": (lambda: stated("", "controlvector").add_tensor("direction.1", "F32", 64), "CONTROL_VECTOR"),
    "imatrix": (lambda: HeaderBytes().add("general.type", "str", "imatrix"), "IMATRIX"),
    "vocabulary": (lambda: tokenizer(settings(HeaderBytes(), "llama")), "VOCABULARY"),
    "no vocabulary": (
        lambda: (
            HeaderBytes().add("general.architecture", "str", "llama").add("tokenizer.ggml.model", "str", "no_vocab")
        ),
        "VOCABULARY",
    ),
    "flux": (lambda: HeaderBytes().add("general.architecture", "str", "flux"), "IMAGE"),
    "sd.cpp": (lambda: HeaderBytes().add_tensor("model.diffusion_model.out.2.weight", "F32", 4), "IMAGE"),
    "newer": (lambda: llama(architecture="llama9"), "UNKNOWN"),
    "ollama": (lambda: llama(4), "FOREIGN"),
    "bitnet": (lambda: llama(36), "FOREIGN"),
    "ik_llama": (lambda: llama(139), "FOREIGN"),
    "removed": (lambda: llama(31), "FOREIGN"),
    "newer type": (lambda: llama(43), "FOREIGN"),
}


# --- files that llama.cpp runs ----------------------------------------------------------------------------------------


def runnable_bert(n_positions: int = 128) -> HeaderBytes:
    made = tokenizer(settings(HeaderBytes(), "bert", context_length=n_positions, attention__head_count_kv=4))
    made.add("bert.attention.layer_norm_epsilon", "f32", 1e-5).add("bert.attention.causal", "bool", 0)
    made.add("bert.pooling_type", "u32", 1).add("tokenizer.ggml.token_type_count", "u32", 2)
    made.add_tensor("token_embd.weight", "F32", 64, 32).add_tensor("position_embd.weight", "F32", 64, n_positions)
    made.add_tensor("token_types.weight", "F32", 64, 2)
    norms = ["token_embd_norm"] + [f"blk.{i}.{name}_output_norm" for i in range(2) for name in ("attn", "layer")]
    for name in norms:
        made.add_tensor(f"{name}.weight", "F32", 64).add_tensor(f"{name}.bias", "F32", 64)
    for block in ("blk.0.", "blk.1."):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            made.add_tensor(f"{block}{name}.weight", "F32", 64, 64).add_tensor(f"{block}{name}.bias", "F32", 64)
        made.add_tensor(f"{block}ffn_up.weight", "F32", 64, 128).add_tensor(f"{block}ffn_down.weight", "F32", 128, 64)
    return made


def runnable_gpt2(n_positions: int = 64) -> HeaderBytes:
    made = tokenizer(settings(HeaderBytes(), "gpt2", context_length=n_positions, attention__head_count_kv=4))
    made.add("gpt2.attention.layer_norm_epsilon", "f32", 1e-5)
    made.add_tensor("token_embd.weight", "F32", 64, 32).add_tensor("position_embd.weight", "F32", 64, n_positions)
    made.add_tensor("output_norm.weight", "F32", 64).add_tensor("output_norm.bias", "F32", 64)
    for block in ("blk.0.", "blk.1."):
        for name, rows, columns in (
            ("attn_norm", 0, 64), ("ffn_norm", 0, 64), ("attn_qkv", 64, 192), ("attn_output", 64, 64), ("ffn_up", 64, 128),
            ("ffn_down", 128, 64),
        ):  # fmt: skip
            made.add_tensor(f"{block}{name}.weight", "F32", *filter(None, (rows, columns)))
            made.add_tensor(f"{block}{name}.bias", "F32", columns)
    return made


def runnable_t5(architecture: str = "t5") -> HeaderBytes:
    """T5's encoder and decoder, or its encoder alone."""
    made = tokenizer(settings(HeaderBytes(), architecture, attention__head_count_kv=4))
    made.add(f"{architecture}.attention.relative_buckets_count", "u32", 32)
    made.add(f"{architecture}.attention.key_length", "u32", 16).add(f"{architecture}.attention.value_length", "u32", 16)
    made.add_tensor("token_embd.weight", "F32", 64, 32)
    stacks = ("enc",) if architecture == "t5encoder" else ("enc", "dec")
    for stack in stacks:
        made.add_tensor(f"{stack}.output_norm.weight", "F32", 64)
        for layer in range(2):
            block = f"{stack}.blk.{layer}."
            attentions = ("attn", "cross_attn") if stack == "dec" else ("attn",)
            for attention in attentions:
                made.add_tensor(f"{block}{attention}_norm.weight", "F32", 64)
                for part in "qkvo":
                    made.add_tensor(f"{block}{attention}_{part}.weight", "F32", 64, 64)
            made.add_tensor(f"{block}attn_rel_b.weight", "F32", 4, 32).add_tensor(f"{block}ffn_norm.weight", "F32", 64)
            made.add_tensor(f"{block}ffn_up.weight", "F32", 64, 128).add_tensor(
                f"{block}ffn_down.weight", "F32", 128, 64
            )
    return made


RUNNABLE: dict[str, Callable[[], HeaderBytes]] = {
    "llama": llama,
    "pooled": pooled,
    "bert": runnable_bert,
    "gpt2": runnable_gpt2,
    "llada": lambda: llama(architecture="llada"),
    "t5": runnable_t5,
    "t5encoder": lambda: runnable_t5("t5encoder"),
}
