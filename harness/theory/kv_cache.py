"""How much one token takes in llama.cpp's KV cache, layer by layer, by a model's header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.theory.gguf import ArrayValue, Header
from harness.theory.tensor_types import tensor_type

#: What llama-bench takes for --cache-type-k and -v. Source: tools/llama-bench/llama-bench.cpp ggml_type_from_name.
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")

#: Source: src/llama-hparams.h LLAMA_MAX_LAYERS.
MAX_LAYERS = 512


def name_set(text: str) -> frozenset[str]:
    """Make a set of the names in a text that separates them by spaces."""
    return frozenset(text.split())


#: Source: src/llama-arch.cpp llm_arch_is_recurrent.
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
#: Source: src/llama-arch.cpp llm_arch_is_hybrid.
_HYBRID = name_set(
    "jamba falcon-h1 plamo2 granitehybrid lfm2 lfm2moe nemotron_h nemotron_h_moe qwen3next kimi-linear "
    "bailingmoe3 kimi-k3 glm5-next qwen35 qwen35moe qwen4exp deepseek4 minimax-01"
)
#: Source: src/llama-model.cpp llama_model::create_memory, the cases that make no cache; vision and sound encoders.
_WITHOUT_CACHE = name_set(
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert wavtokenizer-dec modern-bert "
    "gemma-embedding dream llada llada-moe rnd1 clip t5encoder"
)
#: Architectures with caches of their own kind or a layer count that is not block_count.
#: Source: create_memory; src/models/granite-switch.cpp, nanbeige.cpp, t5.cpp, eagle3.cpp, dflash.cpp.
_OWN_CACHE = name_set(
    "minimax-m3 glm-dsa deepseek32 hy_v4 dots3note dflash gemma4-assistant eagle3 graniteswitch t5 qwen3tts pockettts"
)
#: Architectures whose window llama.cpp applies (others may state one that it ignores, like phi3).
#: Source: src/models/*.cpp, the ones that set hparams.swa_type.
_SLIDING_WINDOW = name_set(
    "llama4 exaone4 exaone-moe gemma2 gemma3 gemma3n gemma4 olmo2 plamo3 step35 muse-glimmer gpt-oss spark2_5 "
    "cohere2 cohere2moe afmoe laguna granite_swa mellum mimo2 smallthinker maple"
)


#: Every how many layers one looks back without a window, where the header has no pattern of its own; and whether it is the first of
#: them rather than the last. Source: src/models/*.cpp load_swa_pattern; llama-hparams.cpp set_swa_pattern.
_WINDOW_PERIODS = {
    "llama4": 4, "exaone4": 4, "exaone-moe": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "olmo2": 4, "plamo3": 8,
    "muse-glimmer": 4, "gpt-oss": 2, "cohere2": 4, "cohere2moe": 4, "afmoe": 4, "laguna": 4, "mellum": 4, "smallthinker": 4,
}  # fmt: skip
_DENSE_FIRST = {"cohere2moe", "laguna", "smallthinker"}
#: Windows that hold where the header states none. Source: src/models/gemma2.cpp, exaone4.cpp.
_DEFAULT_WINDOWS = {"gemma2": 4096, "exaone4": 4096}


@dataclass(frozen=True, slots=True)
class KvLayer:
    """One layer's cache row: elements of K and V for one token, and the size of one head (what blocks must divide).

    windowed says that the layer looks back only as far as its model's window, so that its cache stops growing there.
    """

    layer: int
    n_embd_k: int
    n_embd_v: int
    head_k: int
    head_v: int
    windowed: bool = False


@dataclass(frozen=True, slots=True)
class KvGeometry:
    """The layers that have a cache, and what qualifies the figure.

    layers is None where this module cannot be exact, and reason then says why. window_tokens is the sliding window that
    llama.cpp applies to some layers, whose cache stops growing there; the per-token figure holds below it.
    """

    layers: tuple[KvLayer, ...] | None
    reason: str | None = None
    window_tokens: int | None = None
    notes: tuple[str, ...] = ()

    def bytes_per_token(self, type_k: str, type_v: str | None = None) -> int | None:
        """Count the bytes that one token takes in all layers, with flash attention; None where that is not known.

        None also where llama.cpp refuses the type, because its blocks do not divide a head.

        Source: src/llama-kv-cache.cpp llama_kv_cache::llama_kv_cache; src/llama-context.cpp llama_init_from_model.
        """
        if self.layers is None:
            return None
        kind_k, kind_v = tensor_type(type_k), tensor_type(type_v or type_k)
        total = 0
        for layer in self.layers:
            if layer.head_k % kind_k.block_elements or layer.head_v % kind_v.block_elements:
                return None
            total += layer.n_embd_k // kind_k.block_elements * kind_k.block_bytes
            total += layer.n_embd_v // kind_v.block_elements * kind_v.block_bytes
        return total


def describe_kv_cache(header: Header) -> KvGeometry:
    """Work out which layers keep keys and values, and how many of each.

    Raises
    ------
    HarnessError : a setting has a value that llama.cpp would refuse too (more than 512 layers, an array of the wrong
        length, text for a number).

    Source: src/llama-model.cpp load_hparams; src/llama-hparams.cpp n_embd_k_gqa, n_embd_v_gqa, has_kv.
    """
    architecture = header.architecture
    if reason := _find_reason(header):
        return KvGeometry(None, reason)
    n_layers = read_count(header, "block_count")
    n_embd = read_count(header, "embedding_length")
    if n_layers is None or n_embd is None:
        return KvGeometry(None, "the header does not state block_count and embedding_length")
    if not 0 < n_layers <= MAX_LAYERS:
        raise HarnessError(f"{architecture}.block_count is {n_layers}, outside llama.cpp's 1 to {MAX_LAYERS}")
    heads = read_per_layer(header, "attention.head_count", n_layers)
    if heads is None or heads[0] == 0:
        return KvGeometry(None, "the header does not state attention.head_count")
    heads_kv = read_per_layer(header, "attention.head_count_kv", n_layers) or heads
    head_k = _first_count(header, "attention.key_length", n_embd // heads[0])
    head_v = _first_count(header, "attention.value_length", n_embd // heads[0])
    # With multi-head latent attention the values are a view of the keys: llama_kv_cache makes no V.
    latent = bool(read_count(header, "attention.key_length_mla")) and bool(
        read_count(header, "attention.value_length_mla")
    )
    sizes = _head_sizes(header, n_layers, head_k, head_v)
    if sizes is None:
        return KvGeometry(
            None, "its sliding-window layers have other heads, and the header does not say which they are"
        )
    crossing = _find_cross_layers(header)
    windowed = _find_windowed(header, n_layers)
    layers = tuple(
        KvLayer(
            index, k * heads_kv[index], 0 if latent else v * heads_kv[index], k, 0 if latent else v, windowed[index]
        )
        for index, (k, v) in enumerate(sizes[: _count_cached(header, n_layers)])
        if index not in crossing
    )
    return KvGeometry(layers, None, _find_window(header), _collect_notes(header, layers, latent))


def _find_reason(header: Header) -> str | None:
    """Say why the cache of this architecture cannot be worked out by the common rule, or None."""
    architecture = header.architecture
    if architecture in _RECURRENT:
        return "a recurrent model keeps a state of fixed size, not keys and values"
    if architecture in _HYBRID:
        return "a hybrid model keeps keys and values in some layers and a state of fixed size in others"
    if architecture in _WITHOUT_CACHE:
        return "llama.cpp makes no cache for this architecture"
    if architecture in _OWN_CACHE:
        return f"llama.cpp has a cache of its own kind for {architecture}"
    if (read_count(header, "num_loops") or 1) > 1:
        return "its layers run more than once and are cached each time"
    return None


def _head_sizes(header: Header, n_layers: int, head_k: int, head_v: int) -> list[tuple[int, int]] | None:
    """Return K's and V's head size per layer; None where windowed layers differ and are not told apart."""
    swa_k = _first_count(header, "attention.key_length_swa", head_k)
    swa_v = _first_count(header, "attention.value_length_swa", head_v)
    if (swa_k, swa_v) == (head_k, head_v):
        return [(head_k, head_v)] * n_layers
    pattern = header.hparam("attention.sliding_window_pattern")
    if not isinstance(pattern, ArrayValue) or pattern.length < n_layers:
        return None
    return [(swa_k, swa_v) if windowed else (head_k, head_v) for windowed in pattern.read()[:n_layers]]


def _count_cached(header: Header, n_layers: int) -> int:
    """Count the leading layers that have a cache of their own.

    Source: create_memory's filter on n_layer_nextn; src/models/gemma3n.cpp, gemma4.cpp n_layer_kv_from_start.
    """
    n_layers -= min(read_count(header, "nextn_predict_layers") or 0, n_layers - 1)
    if header.architecture == "gemma3n":
        return min(n_layers, 20)
    if header.architecture == "gemma4":
        return max(n_layers - (read_count(header, "attention.shared_kv_layers") or 0), 0)
    return n_layers


def _find_cross_layers(header: Header) -> frozenset[int]:
    """Name the layers that look at an image: they keep its keys and values, once, and nothing per token of text."""
    layers = header.hparam("attention.cross_attention_layers")
    return frozenset(layers.read()) if isinstance(layers, ArrayValue) and layers.data is not None else frozenset()


def _find_window(header: Header) -> int | None:
    if header.architecture not in _SLIDING_WINDOW:
        return None
    window = header.hparam("attention.sliding_window")
    if header.architecture == "llama4":
        return None if window == 0 else 8192  # src/models/llama4.cpp: the size of its attention chunks
    if header.architecture == "exaone4" and read_count(header, "block_count") != 64:
        return None  # src/models/exaone4.cpp: only the 32B model has windows
    if header.architecture == "smallthinker" and window:
        return 4096  # src/models/smallthinker.cpp
    if window is None:
        return _DEFAULT_WINDOWS.get(header.architecture)
    return window if isinstance(window, int) and window > 0 else None


def _find_windowed(header: Header, n_layers: int) -> list[bool]:
    """Say of each layer whether its cache is bounded by the window.

    Source: src/llama-model.cpp load_swa_pattern; llama-hparams.cpp set_swa_pattern.
    """
    if _find_window(header) is None:
        return [False] * n_layers
    pattern = header.hparam("attention.sliding_window_pattern")
    if isinstance(pattern, ArrayValue):
        flags = [bool(flag) for flag in pattern.read()[:n_layers]]
        return flags + [False] * (n_layers - len(flags))
    period = _WINDOW_PERIODS.get(header.architecture, 1) if pattern is None else _as_count(header, "pattern", pattern)
    dense = 0 if header.architecture in _DENSE_FIRST else period - 1
    return [period == 0 or index % period != dense for index in range(n_layers)]


def _collect_notes(header: Header, layers: tuple[KvLayer, ...], latent: bool) -> tuple[str, ...]:
    notes = []
    if window := _find_window(header):
        notes.append(f"some layers look back only {window} tokens; their cache stops growing there")
    if crossing := _find_cross_layers(header):
        notes.append(f"{len(crossing)} cross-attention layers keep an image's keys and values instead, not counted")
    if latent:
        notes.append("latent attention: keys only, values are read from them")
    if len({layer.n_embd_v for layer in layers}) > 1:
        notes.append("without flash attention every layer's V takes the room of the largest")
    return tuple(notes)


def read_count(header: Header, key: str) -> int | None:
    """Read one number among the model's settings; None where it is not stated.

    Raises
    ------
    HarnessError : the value is not a number from 0 to 2^32 - 1.
    """
    return None if (value := header.hparam(key)) is None else _as_count(header, key, value)


def read_per_layer(header: Header, key: str, n_layers: int) -> list[int] | None:
    """Read a setting that is one number for all layers or an array of one per layer; None where it is not stated.

    Raises
    ------
    HarnessError : an item is not a count, or the array is not n_layers long.

    Source: src/llama-model-loader.cpp get_key_or_arr.
    """
    value = header.hparam(key)
    if value is None:
        return None
    if not isinstance(value, ArrayValue):
        return [_as_count(header, key, value)] * n_layers
    if value.length != n_layers:
        raise HarnessError(
            f"{header.architecture}.{key} has {value.length} items for {n_layers} layers; download the model again"
        )
    return [_as_count(header, key, item) for item in value.read()]


def _first_count(header: Header, key: str, default: int) -> int:
    value = read_count(header, key)
    return default if value is None else value


def _as_count(header: Header, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        shown = f"an array of {value.length}" if isinstance(value, ArrayValue) else repr(value)[:40]
        raise HarnessError(f"{header.architecture}.{key} is {shown}, which is not a count; download the model again")
    return value
