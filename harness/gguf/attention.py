"""What each layer of a model keeps of the tokens before, by its header alone: keys and values, a window of them, a state, or nothing.

The one description that all arithmetic on caches (`harness.gguf.caches`) asks: the facts of every architecture.

The rules are those of llama.cpp 0c1e570: src/llama-model.cpp load_hparams and create_memory, src/models/*.cpp load_arch_hparams,
src/llama-hparams.cpp, src/llama-kv-cache*.cpp, src/llama-memory-recurrent.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.errors import HarnessError
from harness.gguf.blocks import count_layers, count_trunk, describe_skipped, find_skipped
from harness.gguf.caches import Attention, Keeping, KvLayer, StateLayer
from harness.gguf.header import ArrayValue, Header
from harness.gguf.model_kinds import ENCODERS, TEXT_DIFFUSION
from harness.gguf.settings import (
    count_blocks,
    name_set,
    read_array,
    read_count,
    read_count_or,
    read_flags,
    read_per_layer,
)
from harness.units import format_mib

#: Source: src/llama-arch.cpp llm_arch_is_recurrent.
_RECURRENT = name_set("mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7")
#: Hybrids whose recurrent layers are those without heads for keys and values.
_HEADLESS = name_set("jamba plamo2 granitehybrid lfm2 lfm2moe kimi-linear kimi-k3 bailingmoe3 glm5-next")
#: Hybrids of three kinds of layers: attention, a state, and a feed-forward network alone.
_MIXED = name_set("nemotron_h nemotron_h_moe")
#: Hybrids with attention in every so many layers, the last of each group, unless the header has an array of it.
_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
#: Every layer has both. Source: create_memory (filter_attn, filter_recr).
_BOTH = frozenset({"falcon-h1"})

#: Source: src/llama-model.cpp llama_model::create_memory, the cases that make no cache; vision encoders. T5's encoder alone has one,
#: which nothing uses.
_WITHOUT_CACHE = (ENCODERS - {"t5encoder"}) | TEXT_DIFFUSION | {"wavtokenizer-dec", "clip"}
#: Models whose caches are not worked out here, and why.
_UNKNOWN = {
    "gemma4-assistant": "it drafts for another model and uses that model's cache",
    "eagle3": "it drafts for another model",
    "dflash": "it drafts for another model",
}
#: Models that keep an indexer's keys beside the keys and values. Source: create_memory, llama_kv_cache_dsa, _msa and _hybrid_idx.
_INDEXED = name_set("glm-dsa deepseek32 hy_v4 dots3note minimax-m3 qwen4exp glm5-next")
#: Hybrids whose MTP blocks llama.cpp gives a cache, though no token uses it: their filter asks only for what is recurrent.
#: Source: create_memory, filter_attn left at its default, or by is_recr and n_ff; hy_v4 and minimax-m3 have no filter.
_CACHED_AHEAD = (_HEADLESS - {"glm5-next"}) | _MIXED | {"hy_v4", "minimax-m3", "deepseek4"}
#: How many tokens DeepSeek-V4 compresses into one row, in layers of two kinds. Source: llama-kv-cache-dsv4.cpp DSV4_CSA_RATIO.
_CSA_RATIO, _HCA_RATIO = 4, 128
#: Architectures whose window llama.cpp applies (others may state one that it ignores, like phi3).
#: Source: src/models/*.cpp, the ones that set hparams.swa_type.
_SLIDING_WINDOW = name_set(
    "llama4 exaone4 exaone-moe gemma2 gemma3 gemma3n gemma4 olmo2 plamo3 step35 muse-glimmer gpt-oss spark2_5 "
    "cohere2 cohere2moe afmoe laguna granite_swa mellum mimo2 smallthinker maple dots3note lfm2 deepseek4"
)
#: Every how many layers one looks back without a window, where the header has no pattern of its own; and whether it is the first of
#: them rather than the last. Source: src/models/*.cpp load_swa_pattern; llama-hparams.cpp set_swa_pattern.
_WINDOW_PERIODS = {
    "llama4": 4, "exaone4": 4, "exaone-moe": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "olmo2": 4, "plamo3": 8,
    "muse-glimmer": 4, "gpt-oss": 2, "cohere2": 4, "cohere2moe": 4, "afmoe": 4, "laguna": 4, "mellum": 4, "smallthinker": 4,
    "deepseek4": 0,
}  # fmt: skip
_DENSE_FIRST = name_set("cohere2moe laguna smallthinker")
#: Windows that hold where the header states none. Source: src/models/gemma2.cpp, exaone4.cpp.
_DEFAULT_WINDOWS = {"gemma2": 4096, "exaone4": 4096}


def describe_attention(header: Header) -> Attention:
    """Work out what each layer keeps.

    Raises
    ------
    HarnessError : a setting has a value that llama.cpp would refuse too (more than 512 layers, an array of the wrong
        length, text for a number).
    """
    architecture = header.architecture
    if architecture in _WITHOUT_CACHE:
        return Attention((), notes=("llama.cpp makes no cache for this architecture",))
    if read_count(header, "block_count") is None or read_count(header, "embedding_length") is None:
        return Attention(None, "the header does not state block_count and embedding_length")
    if reason := _UNKNOWN.get(architecture):
        count_blocks(header)
        return Attention(None, reason, skipped=find_skipped(header))
    plan = _Plan(header)
    if plan.trouble:
        return Attention(None, plan.trouble, skipped=plan.skipped)
    layers, states = tuple(plan.list_rows()), tuple(plan.list_states())
    return Attention(
        layers=layers,
        window_tokens=plan.window,
        notes=tuple(_collect_notes(plan, layers, states)),
        states=states,
        skipped=plan.skipped,
    )


class _Plan:
    """A header's settings as llama.cpp holds them while it makes a model's memory."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.architecture = header.architecture
        n_blocks = count_blocks(header)
        self.n_embd = read_count_or(header, "embedding_length", 0)
        self.skipped = find_skipped(header)
        self.n_trunk = count_trunk(header)
        self.heads = read_per_layer(header, "attention.head_count", n_blocks) or [0] * n_blocks
        self.heads_kv = read_per_layer(header, "attention.head_count_kv", n_blocks) or list(self.heads)
        self.head_k, self.head_v = self._full_heads()
        self.head_k_swa = read_count_or(header, "attention.key_length_swa", self.head_k)
        self.head_v_swa = read_count_or(header, "attention.value_length_swa", self.head_v)
        if self.architecture in ("kimi-k3", "glm5-next"):
            self.head_v = read_count_or(header, "attention.kv_lora_rank", self.head_v)
        # With multi-head latent attention the values are a view of the keys: llama_kv_cache makes no V.
        self.is_latent = self.architecture == "deepseek4" or all(
            read_count(header, f"attention.{name}_length_mla") for name in ("key", "value")
        )
        self.widths = read_per_layer(header, "feed_forward_length", n_blocks) or [0] * n_blocks
        self.recurrent = self._mark_recurrent()
        self.pattern = read_flags(header, "attention.sliding_window_pattern", n_blocks)
        self.window = _find_window(header)
        self.windowed = self._mark_windowed()
        # Layers that look at an image keep its keys and values, once, and nothing per token of text.
        layers = header.hparam("attention.cross_attention_layers")
        self.crossing = frozenset(layers.read() if isinstance(layers, ArrayValue) and layers.data is not None else ())
        self._unroll()

    @property
    def n_layers(self) -> int:
        return len(self.heads)

    @property
    def trouble(self) -> str | None:
        """Why the caches cannot be told, or None."""
        asks_heads = any(self._has_cache(index) and heads for index, heads in enumerate(self.heads_kv))
        has_none = not any(self.heads) and self.architecture not in _RECURRENT
        if has_none or (asks_heads and not self.head_k):
            return "the header does not state attention.head_count"
        is_other = (self.head_k_swa, self.head_v_swa) != (self.head_k, self.head_v)
        needs_pattern = self.architecture in _SLIDING_WINDOW and self.architecture not in {*_WINDOW_PERIODS, "lfm2"}
        if is_other and needs_pattern and self.pattern is None:
            return "its sliding-window layers have other heads, and the header does not say which they are"
        if any(self.recurrent[: self.n_trunk]) and not any(self._state_sizes()):
            return "the header does not state how large its recurrent layers' state is"
        return None

    def _full_heads(self) -> tuple[int, int]:
        """K's and V's head size of layers without a window. Source: src/llama-model.cpp load_hparams; models/plamo2.cpp."""
        if self.heads[0] == 0 and self.architecture != "plamo2":
            return 0, 0
        size = self.n_embd // self.heads[0] if self.heads[0] else 0
        return (
            read_count_or(self.header, "attention.key_length", size),
            read_count_or(self.header, "attention.value_length", size),
        )

    def _mark_recurrent(self) -> list[bool]:
        """Say which layers keep a state. Source: src/models/*.cpp load_arch_hparams (is_recr_impl)."""
        count = len(self.heads)
        if self.architecture in _RECURRENT:
            return [True] * count
        if self.architecture in _INTERVALS:
            stated = self.header.hparam("attention.recurrent_layers")
            if stated is not None and not isinstance(stated, ArrayValue):
                return [bool(stated)] * count
            if flags := read_flags(self.header, "attention.recurrent_layers", count):
                return flags
            period = read_count_or(self.header, "full_attention_interval", _INTERVALS[self.architecture])
            if period == 0:
                raise HarnessError(f"{self.architecture}.full_attention_interval is 0, and llama.cpp divides by it")
            return [index < self.n_trunk and (index + 1) % period != 0 for index in range(count)]
        if self.architecture in _MIXED:
            return [i < self.n_trunk and not self.heads_kv[i] and not self.widths[i] for i in range(count)]
        if self.architecture in _HEADLESS:
            everywhere = self.architecture == "glm5-next"
            return [(everywhere or i < self.n_trunk) and not self.heads_kv[i] for i in range(count)]
        return [self.architecture in _BOTH] * count

    def _mark_windowed(self) -> list[bool]:
        """Say of each layer whether its cache is bounded by the window.

        Source: src/llama-model.cpp load_swa_pattern; llama-hparams.cpp set_swa_pattern; models/lfm2.cpp.
        """
        count = len(self.heads)
        if self.window is None:
            # Heads still differ by the pattern.
            return (self.pattern if self.architecture in _SLIDING_WINDOW else None) or [False] * count
        if self.architecture == "lfm2":
            return [index < self.n_trunk and not recurrent for index, recurrent in enumerate(self.recurrent)]
        if self.pattern is not None:
            return self.pattern
        period = read_count_or(
            self.header, "attention.sliding_window_pattern", _WINDOW_PERIODS.get(self.architecture, 1)
        )
        dense = 0 if self.architecture in _DENSE_FIRST else period - 1
        last = count if self.architecture == "deepseek4" else self.n_trunk
        return [i < last and (period == 0 or i % period != dense) for i in range(count)]

    def _unroll(self) -> None:
        """Repeat looped blocks, and add the router's layer. Source: src/models/nanbeige.cpp, granite-switch.cpp."""
        if self.architecture == "nanbeige":
            times = count_layers(self.header) // len(self.heads)
            for name in ("heads", "heads_kv", "recurrent", "windowed", "n_trunk"):
                setattr(self, name, getattr(self, name) * times)
        if self.architecture == "graniteswitch":
            self.heads, self.heads_kv = [*self.heads, 1], [*self.heads_kv, 1]
            self.recurrent, self.windowed = [*self.recurrent, False], [*self.windowed, False]
            self.n_trunk += 1

    def head_sizes(self, index: int) -> tuple[int, int]:
        """K's and V's head size of a layer."""
        return (self.head_k_swa, self.head_v_swa) if self.windowed[index] else (self.head_k, self.head_v)

    def _has_cache(self, index: int) -> bool:
        """Whether a layer has keys and values of its own. Source: create_memory's filters; llama-hparams.cpp has_kv."""
        if index >= self.n_trunk and self.architecture not in _CACHED_AHEAD:
            return False
        if index in self.crossing or index >= _count_from_start(self.header, self.n_layers):
            return False
        if self.architecture in _MIXED:
            return not self.recurrent[index] and not self.widths[index]
        return self.architecture in _BOTH or not self.recurrent[index]

    def list_rows(self) -> Iterator[KvLayer]:
        """Every layer's row of keys and values, and the rows of an indexer's keys beside them."""
        indexed = self._index_rows()
        widest = max(self.head_sizes(index)[1] * heads for index, heads in enumerate(self.heads_kv))
        for index in range(self.n_layers):
            if not self._has_cache(index):
                continue
            head_k, head_v = self.head_sizes(index)
            heads, heads_kv, windowed = self.heads[index], self.heads_kv[index], self.windowed[index]
            kept_v = 0 if self.is_latent else head_v
            yield KvLayer(
                index, head_k * heads_kv, kept_v * heads_kv, head_k, kept_v,
                self.window if windowed else None, widest, heads * (head_k + head_v),
            )  # fmt: skip
            if index in indexed:
                yield indexed[index]
            if self.architecture == "deepseek4":
                yield from self._list_compressed(index)

    def _index_rows(self) -> dict[int, KvLayer]:
        """The indexer's rows by layer: one key for all its heads.

        Source: llama-kv-cache-dsa.cpp, llama-kv-cache-msa.cpp, llama-memory-hybrid-idx.cpp; create_memory (filter_lid, filter_idx).
        """
        size = read_count_or(self.header, "attention.indexer.key_length", 0)
        if self.architecture not in _INDEXED or not size:
            return {}
        if self.architecture == "hy_v4" and not read_count(self.header, "attention.indexer.top_k"):
            return {}
        is_hybrid = self.architecture in ("qwen4exp", "glm5-next")
        if is_hybrid and read_count(self.header, "attention.indexer.kpool"):
            size *= 3
        # A cache of keys alone where the model is one of latent attention; else the values' head comes along.
        head_v = 0 if is_hybrid or self.is_latent else self.head_v
        n_scored = size * read_count_or(self.header, "attention.indexer.head_count", 0)
        # MiniMax-M3's filter asks only for what is sparse, so its blocks that predict have an indexer's keys too.
        last = self.n_layers if self.architecture == "minimax-m3" else self.n_trunk
        return {
            index: KvLayer(index, size, head_v, size, head_v, widest_v=head_v, n_scored=n_scored, keeping=Keeping.INDEX)
            for index in range(last)
            if self._has_indexer(index)
        }

    def _has_indexer(self, index: int) -> bool:
        if self.recurrent[index] or self.windowed[index]:
            return False
        if self.architecture == "minimax-m3":
            return index >= read_count_or(self.header, "leading_dense_block_count", 0)
        if self.architecture in ("deepseek32", "qwen4exp"):
            return True
        value = self.header.hparam("attention.indexer.types")
        if value is None:
            return self.architecture in ("glm5-next", "glm-dsa")
        flags = value.read() if isinstance(value, ArrayValue) else [value] * self.n_layers
        return index < len(flags) and bool(flags[index])

    def list_states(self) -> Iterator[StateLayer]:
        """The states of the recurrent layers. Source: llama-memory-recurrent.cpp; llama-hparams.cpp n_embd_r, n_embd_s."""
        if self.architecture == "deepseek4":
            yield from self._list_compressors()
            return
        sizes = self._state_sizes()
        for index in range(self.n_trunk):
            if self.recurrent[index]:
                ahead = self._history(index)
                yield StateLayer(index, sizes[0] + ahead, sizes[1])

    def _compress_ratios(self) -> list[int]:
        """How many tokens each layer compresses into a row, 0 for none."""
        return read_array(self.header, "attention.compress_ratios", self.n_layers) or [0] * self.n_layers

    def _list_compressed(self, index: int) -> Iterator[KvLayer]:
        """DeepSeek-V4's compressed rows beside the window's, and their indexer's. Source: llama-kv-cache-dsv4.cpp."""
        ratio = self._compress_ratios()[index]
        if ratio not in (_CSA_RATIO, _HCA_RATIO):
            return
        size, heads_kv = self.head_k_swa, self.heads_kv[index]
        n_scored = 2 * self.heads[index] * size
        yield KvLayer(index, size * heads_kv, 0, size, 0, n_scored=n_scored, tokens_per_row=ratio)
        if ratio == _CSA_RATIO:
            size = read_count_or(self.header, "attention.indexer.key_length", 0)
            n_scored = size * read_count_or(self.header, "attention.indexer.head_count", 0)
            yield KvLayer(index, size, 0, size, 0, n_scored=n_scored, tokens_per_row=ratio, keeping=Keeping.INDEX)

    def _list_compressors(self) -> Iterator[StateLayer]:
        """The inputs and their weights that a compressor holds until it makes a row of them. Source: llama-kv-cache-dsv4.cpp."""
        size = read_count_or(self.header, "attention.indexer.key_length", 0)
        for index, ratio in enumerate(self._compress_ratios()[: self.n_trunk]):
            inputs = {_CSA_RATIO: (4 * self.head_k_swa, 4 * size), _HCA_RATIO: (self.head_k_swa,)}.get(ratio, ())
            yield from (StateLayer(index, width * ratio, width * ratio) for width in inputs)

    def _state_sizes(self) -> tuple[int, int]:
        """(elements of the last inputs, elements of the state) of a layer, for one sequence."""
        read = self.header
        if self.architecture in ("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"):
            shifts = read_count_or(read, "token_shift_count", 2)
            return shifts * self.n_embd, self.n_embd * read_count_or(read, "wkv.head_size", 0)
        if self.architecture in ("lfm2", "lfm2moe"):
            return self.n_embd * max(read_count_or(read, "shortconv.l_cache", 1) - 1, 0), 0
        kernel = read_count_or(read, "ssm.conv_kernel", 0)
        if self.architecture in ("kimi-linear", "kimi-k3", "bailingmoe3", "glm5-next"):
            size = read_count_or(read, "kda.head_dim", 0)
            return 3 * (kernel - 1 if kernel else 3) * self.heads[0] * size, size * size * self.heads[0]
        if self.architecture == "minimax-01":
            return 0, self.head_k * self.head_k * self.heads[0]
        inner, state = read_count_or(read, "ssm.inner_size", 0), read_count_or(read, "ssm.state_size", 0)
        groups = 0 if self.architecture in ("mamba", "jamba") else read_count_or(read, "ssm.group_count", 0)
        return max(kernel - 1, 0) * (inner + 2 * groups * state), state * inner

    def _history(self, index: int) -> int:
        """Elements that a layer with hashed n-gram embeddings keeps of the last tokens. Source: llama-hparams.cpp ple_conv_state."""
        layers = self.header.hparam("ple.layers")
        if self.architecture != "qwen4exp" or not isinstance(layers, ArrayValue) or index not in layers.read():
            return 0
        kernel = read_count_or(self.header, "ple.conv_kernel", 1)
        width = read_count_or(self.header, "hyper_connection.count", 0) * self.n_embd
        return max(kernel - 1, 0) * read_count_or(self.header, "ple.ngram_size", 0) * width


def _count_from_start(header: Header, n_layers: int) -> int:
    """Count the leading layers that may have a cache of their own; later ones use theirs.

    Source: src/models/gemma3n.cpp, gemma4.cpp n_layer_kv_from_start.
    """
    if header.architecture == "gemma3n":
        return 20
    if header.architecture == "gemma4":
        return max(n_layers - (read_count(header, "attention.shared_kv_layers") or 0), 0)
    return n_layers


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
    return read_count(header, "attention.sliding_window") or None


def _collect_notes(plan: _Plan, layers: tuple[KvLayer, ...], states: tuple[StateLayer, ...]) -> Iterator[str]:
    if states:
        size = format_mib(sum(state.size_bytes for state in states))
        n_layers = len({state.layer for state in states})
        yield f"{n_layers} of {plan.n_trunk} layers keep a state, {size} for each sequence, which does not grow"
    if plan.skipped:
        yield describe_skipped(plan.skipped)
    n_windowed = sum(layer.windowed for layer in layers)
    if plan.window and n_windowed:
        yield f"{n_windowed} of {len(layers)} caches look back only {plan.window} tokens and stop growing there"
    shared = plan.n_layers - _count_from_start(plan.header, plan.n_layers)
    if shared > 0:
        yield f"the last {shared} layers use the caches of earlier ones"
    if plan.crossing:
        yield f"{len(plan.crossing)} cross-attention layers keep an image's keys and values instead, not counted"
    if plan.is_latent:
        yield "latent attention: keys only, values are read from them"
    if len({layer.n_embd_v for layer in layers}) > 1:
        yield "without flash attention every layer's V takes the room of the largest"
