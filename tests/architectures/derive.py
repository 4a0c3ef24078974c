"""Find out what each architecture's smallest model must hold, by asking llama.cpp, and write it to `models.json`.

    python -m tests.architectures.derive              all architectures
    python -m tests.architectures.derive mamba bert   these again

A header with nothing in it is loaded again and again, without weights. Each refusal names a setting that is missing, a tensor that is
missing, or a tensor's shape; that is added, until the model loads. So the descriptions say what this llama.cpp requires and no more.
Settings that it does not require but that make the architecture what it is (experts, windows, states) are in `SETTINGS` below.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

from tests.architectures import DATA, N_VOCAB, Architecture, describe_header, expand_layers

N_LAYERS, N_EMBD, N_HEADS, N_HEADS_KV, N_FF = 4, 256, 4, 2, 512

#: What every model states.
COMMON: dict[str, Any] = {
    "block_count": N_LAYERS, "context_length": 4096, "embedding_length": N_EMBD, "feed_forward_length": N_FF,
    "attention.head_count": N_HEADS, "attention.head_count_kv": N_HEADS_KV,
}  # fmt: skip

#: What a setting gets where an architecture requires it.
REQUIRED: dict[str, Any] = {
    "attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": 1e-5, "attention.group_norm_epsilon": 1e-5,
    "attention.group_norm_groups": 4, "attention.clamp_kqv": 8.0, "attention.relative_buckets_count": 32,
    "attention.sliding_window": 300, "attention.sliding_window_pattern": [True, False] * (N_LAYERS // 2),
    "attention.q_lora_rank": 64, "attention.kv_lora_rank": 64, "attention.key_length_mla": 64, "attention.value_length_mla": 64,
    "attention.key_length_swa": 32, "attention.value_length_swa": 32,
    "attention.decay_lora_rank": 32, "attention.iclr_lora_rank": 32, "attention.value_residual_mix_lora_rank": 32,
    "attention.indexer.head_count": 4, "attention.indexer.key_length": 64, "attention.indexer.top_k": 64,
    "attention.indexer.block_size": 16, "attention.indexer.local_blocks": 1, "attention.indexer.kpool": 4,
    "attention.indexer.types": [True, False] * (N_LAYERS // 2),
    "attention.output_group_count": 4, "attention.output_lora_rank": 32, "attention.compress_rope_freq_base": 10000.0,
    "logit_scale": 0.5, "residual_scale": 1.0, "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 128,
    "expert_shared_feed_forward_length": 128,
    "expert_shared_count": 1, "expert_gating_func": 2, "expert_weights_scale": 1.0, "expert_weights_norm": True,
    "expert_group_scale": 0.5, "experts_per_group": 2, "leading_dense_block_count": 1, "interleave_moe_layer_step": 2,
    "use_parallel_residual": True, "full_attention_interval": 2, "rope.freq_base_swa": 10000.0,
    "rope.dimension_sections": [8, 12, 12, 0], "ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16,
    "ssm.time_step_rank": 16, "ssm.group_count": 1, "kda.head_dim": 64, "kda.gate_lower_bound": -5.0, "wkv.head_size": 64,
    "time_mix_extra_dim": 32, "time_decay_extra_dim": 32, "shortconv.l_cache": 3, "embedding_length_per_layer_input": 64,
    "xielu.alpha_n": 1.0, "xielu.alpha_p": 1.0, "xielu.beta": 1.0, "xielu.eps": 1e-6, "swiglu_clamp_exp": 7.0,
    "hyper_connection.count": 4, "hyper_connection.sinkhorn_iterations": 2, "hyper_connection.epsilon": 1e-6,
    "hyper_connection.magnitude": 2.0, "hyper_connection.low_rank": 32, "hash_layer_count": 0,
    "attn_res.block_size": 2, "activation.situ_beta": 4.0, "activation.situ_linear_beta": 25.0,
    "hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2,
    "posnet.embedding_length": 256, "posnet.block_count": N_LAYERS, "convnext.embedding_length": 256,
    "convnext.block_count": N_LAYERS, "features_length": 256, "target_hidden_size": 256, "target_layers": [0, 1, 2],
    "moe_every_n_layers": 2,
}  # fmt: skip

#: Of so many experts a token is sent to so few.
_MOE: dict[str, Any] = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 128}
_SHARED_MOE = {**_MOE, "expert_shared_count": 1, "expert_shared_feed_forward_length": 128}
#: Latent attention: one compressed row of keys and values, and a part of it with positions.
_MLA: dict[str, Any] = {
    "attention.head_count_kv": 1, "attention.key_length": 96, "attention.value_length": 64, "attention.key_length_mla": 64,
    "attention.value_length_mla": 64, "attention.kv_lora_rank": 64, "attention.q_lora_rank": 64, "rope.dimension_count": 32,
}  # fmt: skip
#: One block more, which only predicts and is loaded only when asked for.
_NEXTN: dict[str, Any] = {"block_count": N_LAYERS + 1, "nextn_predict_layers": 1}
#: Layers 1 and 3 attend, 0 and 2 keep a state.
_ALTERNATING: dict[str, Any] = {"attention.head_count_kv": [0, N_HEADS_KV] * (N_LAYERS // 2)}
_LATENT_ALTERNATING: dict[str, Any] = {**_MLA, "attention.head_count_kv": [0, 1] * (N_LAYERS // 2)}
_NO_HEADS: dict[str, Any] = {"attention.head_count": 0, "attention.head_count_kv": None}
_WINDOW: dict[str, Any] = {"attention.sliding_window": 300}
_DELTA_NET: dict[str, Any] = {
    "ssm.inner_size": 256, "ssm.state_size": 64, "ssm.time_step_rank": 4, "ssm.group_count": 2, "full_attention_interval": 2,
    "attention.key_length": 64, "attention.value_length": 64,
}  # fmt: skip
_BERT: dict[str, Any] = {
    "tokenizer.ggml.token_type_count": 2,
    "attention.causal": False,
    "attention.head_count_kv": None,
}

#: What makes an architecture what it is, and what it wants to be of another size; None takes a common setting away.
_FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("bert nomic-bert jina-bert-v2 jina-bert-v3", _BERT),
    ("nomic-bert-moe", {**_BERT, **_MOE, "moe_every_n_layers": 2}),
    ("grok qwen2moe qwen3moe qwen3vlmoe phimoe maple dbrx arctic rnd1 llada-moe granitemoe grovemoe gpt-oss", _MOE),
    ("deepseek bailingmoe ernie4_5-moe hunyuan-moe", _SHARED_MOE),
    ("glm4moe exaone-moe bailingmoe2 hy_v3", {**_SHARED_MOE, **_NEXTN}),
    ("mimo2 step35", {**_SHARED_MOE, **_NEXTN, "attention.sliding_window_pattern": [1, 0, 1, 0, 1]}),
    ("deepseek2-ocr olmoe", {**_SHARED_MOE, "attention.head_count_kv": N_HEADS}),
    ("dots1", {**_SHARED_MOE, "attention.head_count_kv": N_HEADS, "expert_gating_func": 2}),
    ("afmoe laguna mellum", {**_SHARED_MOE, **_WINDOW}),
    ("minicpm3 plm", {"attention.head_count_kv": N_HEADS, "rope.dimension_count": 32, "attention.key_length": 96}),
    ("t5 t5encoder", {"attention.head_count_kv": N_HEADS}),
    ("mamba mamba2 rwkv6", _NO_HEADS),
    ("rwkv6qwen2", {**_NO_HEADS, "token_shift_count": 1}),
    ("jamba granitehybrid", _ALTERNATING),
    ("plamo2", {**_ALTERNATING, "ssm.group_count": 0}),
    ("minimax-m2", {**_MOE, "expert_gating_func": 2}),
    ("smallthinker", {**_MOE, **_WINDOW, "expert_gating_func": 2}),
    ("lfm2", {**_ALTERNATING, **_WINDOW}),
    ("lfm2moe", {**_ALTERNATING, **_MOE}),
    (
        "nemotron_h",
        {
            "block_count": 6,
            "attention.head_count_kv": [0, 2, 0, 0, 2, 0],
            "feed_forward_length": [0, 0, 512, 0, 0, 512],
        },
    ),
    (
        "nemotron_h_moe",
        {
            **_SHARED_MOE,
            "block_count": 6,
            "attention.head_count_kv": [0, 2, 0, 0, 2, 0],
            "feed_forward_length": [0, 0, 512, 0, 0, 512],
        },
    ),
    ("minimax-01", {**_MOE, "full_attention_interval": 2}),
    ("chameleon", {"vocab_size": 10240}),
    ("paddleocr", {"rope.dimension_sections": [8, 12, 12, 0]}),
    ("mistral4", {**_SHARED_MOE, **_MLA}),
    ("hy_v4", {**_SHARED_MOE, **_MLA, "expert_gating_func": 2}),
    ("deepseek2 deepseek32 glm-dsa", {**_SHARED_MOE, **_MLA, **_NEXTN}),
    ("kimi-linear kimi-k3 bailingmoe3", {**_SHARED_MOE, **_LATENT_ALTERNATING}),
    ("qwen3next qwen35moe", {**_MOE, **_DELTA_NET, **_NEXTN}),
    ("glm4", _NEXTN),
    ("nanbeige", {"num_loops": 2}),
    ("gemma2 olmo2 modern-bert", _WINDOW),
    ("gemma3 gemma-embedding", {**_WINDOW, "block_count": 7}),
    ("plamo3", {**_WINDOW, "block_count": 9}),
    ("exaone4", {**_WINDOW, "block_count": 64, "embedding_length": 64, "feed_forward_length": 64}),
    ("gemma3n", {**_WINDOW, "block_count": 22}),
    ("llama4", {**_MOE, "interleave_moe_layer_step": 2}),
    ("qwen35", {**_DELTA_NET, **_NEXTN}),
    (
        "qwen4exp",
        {
            **_MOE,
            **_DELTA_NET,
            "attention.compress_ratios": [4] * N_LAYERS,
            "rope.dimension_count": 64,
            "ple.layers": [0],
            "ple.ngram_size": 3,
            "ple.heads_per_ngram": 2,
            "ple.conv_kernel": 4,
            "ple.eos_token_id": 2,
            "embedding_length_per_layer_input": 64,
            "ple.layer_multipliers": [1, 3, 5],
            "ple.head_offsets": [N_VOCAB * head for head in range(4)],
            "ple.head_vocab_sizes": [N_VOCAB] * 4,
        },
    ),
    ("glm5-next", {**_SHARED_MOE, **_LATENT_ALTERNATING, "rope.dimension_count": 0, "attention.key_length": 64}),
    (
        "gemma4",
        {
            "block_count": 6,
            "attention.sliding_window_pattern": [True, True, True, False, True, False],
            "attention.shared_kv_layers": 2,
            "rope.dimension_count_swa": 32,
            "attention.key_length": 64,
            "attention.value_length": 64,
        },
    ),
    (
        "gemma4-assistant",
        {
            "embedding_length_out": 512,
            "nextn_predict_layers": N_LAYERS,
            "attention.key_length": 64,
            "attention.value_length": 64,
        },
    ),
    ("cohere2moe", {**_SHARED_MOE, **_NEXTN, "attention.layer_norm_rms_epsilon": 1e-05}),
    (
        "deepseek4",
        {
            **_MOE,
            **_NEXTN,
            "attention.head_count_kv": 1,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "rope.dimension_count": 32,
            "attention.compress_ratios": [0, 0, 4, 128, 0],
            "expert_gating_func": 4,
        },
    ),
    ("rwkv7", {**_NO_HEADS, "attention.gate_lora_rank": 32}),
    ("arwkv7", {**_NO_HEADS, "token_shift_count": 1, "attention.gate_lora_rank": 32}),
    (
        "graniteswitch",
        {
            "adapters.count": 2,
            "adapters.lora_rank": 8,
            "adapters.token_ids_activate": [270, 271],
            "adapters.token_ids_substitute": [1, 2],
        },
    ),
    (
        "dots3note",
        {
            **_SHARED_MOE,
            **_MLA,
            "attention.kv_lora_rank_swa": 64,
            "attention.key_length_swa": 96,
            "attention.value_length_swa": 64,
            "attention.key_length_mla_swa": 64,
            "attention.value_length_mla_swa": 64,
            "attention.indexer.types": [False, True] * 2,
        },
    ),
    ("eagle3", {"target_layers": [0, 1, 2], "block_count": 1}),
    ("dflash", {"target_layers": [0, 1, 2], "block_size": 4}),
    ("minimax-m3", {**_SHARED_MOE, "attention.indexer.head_count": N_HEADS_KV, "rope.dimension_count": 64}),
    ("hrm_text", {"block_count": 6}),
)
_VARIANTS: dict[str, dict[str, Any]] = {
    "llama+experts": _MOE,
    "llama+untied": {},
    "llama+ahead": _NEXTN,
    "deci+skipping": {
        "attention.head_count": [4, 0, 0, 4], "attention.head_count_kv": [2, 0, 0, 1], "feed_forward_length": [512, 256, 0, 512],
    },
    "openelm+layers": {
        "attention.head_count": [2, 2, 4, 4], "attention.head_count_kv": [1, 1, 2, 2], "attention.key_length": 64,
        "attention.value_length": 64, "feed_forward_length": [256, 256, 512, 512],
    },
    "laguna+layers": {
        **_SHARED_MOE, **_WINDOW, "attention.head_count": [4, 8, 8, 8], "attention.key_length": 64, "attention.value_length": 64,
        "attention.sliding_window_pattern": [False, True, True, True],
    },
    "step35+layers": {
        **_SHARED_MOE, "attention.head_count": [4, 8, 4, 8], "attention.head_count_kv": [2, 1, 2, 1], "attention.key_length": 64,
        "attention.value_length": 64, "expert_used_count": [1, 2, 2, 2],
    },
    "gemma3+endless": {"block_count": 7},
    "gemma3+alternating": {**_WINDOW, "attention.sliding_window_pattern": 2},
    "gemma4+experts": {**_MOE, "rope.dimension_count_swa": 32, "attention.key_length": 64, "attention.value_length": 64, "attention.value_length_swa": 32},
    "phi3+window": _WINDOW,
    "granitehybrid+experts": {**_ALTERNATING, **_MOE},
    "jamba+experts": {**_ALTERNATING, **_MOE},
    "deepseek2+unpacked": {
        **_SHARED_MOE, "attention.head_count_kv": N_HEADS, "attention.key_length": 96, "attention.value_length": 64,
        "rope.dimension_count": 32, "expert_gating_func": 2,
    },
    "qwen3next+listed": {**_MOE, **_DELTA_NET, "attention.recurrent_layers": [True, True, False, True]},
    "falcon-h1+groups": {"ssm.group_count": 2, "ssm.state_size": 32},
    "mamba+plain": {**_NO_HEADS, "ssm.dt_b_c_rms": True},
    "bailingmoe3+ahead": {**_SHARED_MOE, **_MLA, **_NEXTN, "attention.head_count_kv": [0, 1, 0, 1, 1]},
    "kimi-linear+ahead": {**_SHARED_MOE, **_MLA, **_NEXTN, "attention.head_count_kv": [0, 1, 0, 1, 1]},
    "lfm2+ahead": {**_NEXTN, "attention.head_count_kv": [0, 2, 0, 2, 2]},
    "hy_v4+ahead": {**_SHARED_MOE, **_MLA, **_NEXTN, "expert_gating_func": 2, "attention.indexer.types": [True, False] * 2},
    "minimax-m3+ahead": {
        **_SHARED_MOE, **_NEXTN, "attention.indexer.head_count": N_HEADS_KV, "rope.dimension_count": 64,
    },
    "minimax-01+ahead": {**_MOE, **_NEXTN, "full_attention_interval": 2},
    "exaone4+ahead": {**_NEXTN},
    "plamo3+ahead": {**_WINDOW, **_NEXTN},
    "gemma2+ahead": {**_WINDOW, **_NEXTN},
}  # fmt: skip

SETTINGS = {name: settings for names, settings in _FAMILIES for name in names.split()} | _VARIANTS

#: Tensors whose shape an architecture reads before it says what it must be.
TENSORS: dict[str, dict[str, tuple[int, ...]]] = {
    "jina-bert-v2": {"blk.0-3.ffn_up.weight": (N_EMBD, N_FF)},
    "laguna+layers": {"blk.0.attn_gate.weight": (N_EMBD, N_HEADS), "blk.1-3.attn_gate.weight": (N_EMBD, 2 * N_HEADS)},
    "laguna": {"blk.0-3.attn_gate.weight": (N_EMBD, N_HEADS)},
    "qwen4exp": {"per_layer_token_embd.weight": (64, 4 * N_VOCAB)},
    "rwkv6": {"blk.0-3.time_mix_lerp_fused.weight": (N_EMBD, 1, 1, 5)},
}

_QKV = "blk.0-3.attn_qkv.weight"
_DELTA_LAYERS = "blk.0,2.attn_qkv.weight blk.0,2.attn_gate.weight"
#: What tells whether there is a trunk, and a block that only predicts: without them nothing of either is required.
_PROBES = "blk.0.attn_norm.weight blk.4.nextn.eh_proj.weight"
_DENSE = "blk.0.ffn_gate.weight blk.0.ffn_up.weight blk.0.ffn_down.weight"
_SHARED_EXPERT = "blk.1-3.ffn_gate_shexp.weight blk.1-3.ffn_up_shexp.weight blk.1-3.ffn_down_shexp.weight"
_EXPERTS = (
    "blk.1-3.ffn_gate_inp.weight blk.1-3.ffn_gate_exps.weight blk.1-3.ffn_up_exps.weight blk.1-3.ffn_down_exps.weight"
)
#: Tensors that loading does not require and computing does.
_UNASKED: tuple[tuple[str, str], ...] = (
    ("qwen3next qwen35 qwen35moe", f"{_DELTA_LAYERS} {_PROBES}"),
    ("cohere2moe deepseek2 deepseek32 glm4moe", _PROBES),
    ("qwen4exp", _DELTA_LAYERS),
    ("qwen3next+listed", "blk.0,1,3.attn_qkv.weight blk.0,1,3.attn_gate.weight blk.0.attn_norm.weight"),
    ("llama+untied", "output.weight"),
    ("deepseek2+unpacked step35+layers bailingmoe3+ahead minimax-m3+ahead", "blk.0.attn_norm.weight"),
    ("granitehybrid granitehybrid+experts", "blk.0,2.ssm_conv1d.bias"),
    ("nemotron_h", "blk.0,3.ssm_conv1d.bias"),
    ("nemotron_h_moe", "blk.0,3.ssm_conv1d.bias"),
    ("t5", "enc.blk.0.attn_rel_b.weight dec.blk.0.attn_rel_b.weight"),
    ("t5encoder", "enc.blk.0.attn_rel_b.weight"),
    (
        "glm-dsa",
        f"{_PROBES} blk.0-4.indexer.k_norm.weight blk.0-4.indexer.k_norm.bias blk.0-4.indexer.proj.weight blk.0-4.indexer.attn_k.weight blk.0-4.indexer.attn_q_b.weight",
    ),
    ("hy_v3", f"{_PROBES} {_EXPERTS} {_SHARED_EXPERT} {_DENSE}"),
    ("mimo2", f"{_PROBES} {_EXPERTS} {_DENSE}"),
    ("step35", f"{_PROBES} {_EXPERTS} {_SHARED_EXPERT} {_DENSE}"),
    ("phi3 phi3+window", _QKV),
    ("pockettts", _QKV),
    ("codeshell", "token_embd.weight"),
    ("falcon-h1 falcon-h1+groups", "blk.0-3.ssm_conv1d.bias blk.0-3.ssm_norm.weight"),
)
OPTIONAL = {name: tensors for names, tensors in _UNASKED for name in names.split()}


def list_architectures() -> list[str]:
    """The names that the installed libllama knows, in the order of its own list. Source: llama-arch.h llm_arch, llm_arch_name."""
    import llama_cpp

    name_of = llama_cpp.llama_cpp._lib["_Z13llm_arch_name8llm_arch"]
    name_of.restype, name_of.argtypes = ctypes.c_char_p, (ctypes.c_int,)
    names: list[str] = []
    while (name := name_of(len(names)).decode()) not in ("(unknown)", "unknown"):
        names.append(name)
    return names


_MISSING_KEY = re.compile(r"key not found in model: (\S+)")
_MISSING_TENSOR = re.compile(r"(?:missing tensor|check_tensor_dims: tensor) '([^']+)'(?: not found|\n|$)")
_WRONG_SHAPE = re.compile(r"tensor '([^']+)' has wrong shape; expected\s+([\d, ]+?), got")


class Discovery:
    """One architecture's model, as far as it is known."""

    def __init__(self, runtime: Any, name: str, folder: pathlib.Path) -> None:
        self.runtime, self.name, self.path = runtime, name, folder / "m.gguf"
        self.settings: dict[str, Any] = {**COMMON, **SETTINGS.get(name, {})}
        self.settings = {key: value for key, value in self.settings.items() if value is not None}
        self.tensors: dict[str, tuple[int, ...]] = {}
        for pattern in OPTIONAL.get(name, "").split():
            self.tensors |= dict.fromkeys(expand_layers(pattern), (1,))
        for pattern, shape in TENSORS.get(name, {}).items():
            self.tensors |= dict.fromkeys(expand_layers(pattern), shape)

    @property
    def model(self) -> Architecture:
        return Architecture(self.name, self.settings, self.tensors, {})

    def run(self) -> None:
        """Load until it loads; whatever else llama.cpp says is the end of it."""
        for _attempt in range(4000):
            trouble = self._load()
            if trouble is None:
                return
            if not self._learn(trouble):
                raise SystemExit(f"{self.name}: {trouble}")
        raise SystemExit(f"{self.name}: no end to it")

    def _load(self) -> str | None:
        from harness.errors import NativeError
        from harness.native.jobs.dry_run import DryModel
        from harness.spec import RunSpec

        class WholeModel(DryModel):
            """Asks for the blocks that only predict, too, so that the file has them."""

            def _parameters(self, spec: RunSpec) -> Any:
                parameters = super()._parameters(spec)
                parameters.load_mtp = True
                return parameters

        made = describe_header(self.model, "F32")
        with open(self.path, "wb") as file:
            file.write(made.build())
            file.truncate(file.tell() + made.offset)
        try:
            WholeModel(self.runtime, RunSpec(model=str(self.path), n_gen=1, n_threads=1)).close()
        except NativeError:
            return "\n".join(self.runtime.tape.errors)
        return None

    def _learn(self, trouble: str) -> bool:
        if found := _MISSING_KEY.search(trouble):
            key = found[1].removeprefix(f"{self.model.architecture}.")
            if key not in REQUIRED or key in self.settings:
                return False
            self.settings[key] = REQUIRED[key]
        elif found := _WRONG_SHAPE.search(trouble):
            shape = tuple(int(extent) for extent in found[2].split(","))
            while len(shape) > 1 and shape[-1] == 1:
                shape = shape[:-1]
            if self.tensors.get(found[1]) == shape:
                return False
            self.tensors[found[1]] = shape
        elif (found := _MISSING_TENSOR.search(trouble)) and found[1] not in self.tensors:
            self.tensors[found[1]] = (1,)
        else:
            return False
        return True


def write_down(model: Architecture) -> dict[str, Any]:
    """Describe a model with the layers that share a tensor's shape in one line."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    plain: dict[str, list[int]] = {}
    for name, shape in model.tensors.items():
        if match := re.fullmatch(r"((?:\w+\.)?\w+)\.(\d+)\.(.+)", name):
            groups.setdefault((match[1], match[3], shape), []).append(int(match[2]))
        else:
            plain[name] = list(shape)
    layered = {f"{group}.{_ranges(layers)}.{name}": list(shape) for (group, name, shape), layers in groups.items()}
    return {"settings": model.settings, "tensors": plain | layered}


def _ranges(layers: list[int]) -> str:
    pieces: list[list[int]] = []
    for layer in sorted(layers):
        if pieces and layer == pieces[-1][1] + 1:
            pieces[-1][1] = layer
        else:
            pieces.append([layer, layer])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in pieces)


def _discover(name: str) -> None:
    from harness.native.engine import Runtime

    with tempfile.TemporaryDirectory() as folder:
        discovery = Discovery(Runtime(log_to_stderr=False), name, pathlib.Path(folder))
        try:
            discovery.run()
        finally:
            print(json.dumps(write_down(discovery.model)))


def main(names: list[str]) -> None:
    if names[:1] == ["--one"]:
        _discover(names[1])
        return
    known: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    architectures = list_architectures()
    everything = [*architectures, *(name for name in SETTINGS if "+" in name)]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    for name in names or everything:
        done = subprocess.run(
            [sys.executable, "-m", "tests.architectures.derive", "--one", name],
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode == 0:
            known[name] = json.loads(done.stdout)
        else:
            print(name, done.returncode, done.stderr.strip()[-400:], file=sys.stderr)
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in everything if name in known]
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} of {len(everything)}")


if __name__ == "__main__":
    main(sys.argv[1:])
