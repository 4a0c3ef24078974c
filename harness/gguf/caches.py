"""What layers keep of the tokens before, as values: rows of keys and values, all or in a window, and states; and what they take.

A layer's keys and values grow with the context, unless it looks back through a window, whose cells are bounded; a recurrent layer keeps
a state of fixed size for each sequence. Which layer of which model keeps what is `harness.gguf.attention`'s.

Source: llama.cpp 0c1e570 src/llama-kv-cache*.cpp, src/llama-memory-recurrent.cpp.
"""

from __future__ import annotations

import dataclasses
import enum
import operator
from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.gguf.types import pad, tensor_type
from harness.spec import RunSpec

#: A context is rounded up to this many tokens, and so is a windowed layer's cache.
#: Source: llama-context.cpp llama_context::llama_context; llama-kv-cache-iswa.cpp.
CONTEXT_PAD = 256

#: A state is kept in F32, whatever the cache's type. Source: create_memory (recurrent_type_r, recurrent_type_s).
_STATE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Context:
    """A context of n_ctx tokens with llama.cpp's defaults for the rest."""

    n_ctx: int
    type_k: str = "f16"
    type_v: str = "f16"
    n_batch: int = 2048
    n_ubatch: int = 512
    flash_attn: str = "auto"
    swa_full: bool = False
    n_parallel: int = 1
    kv_unified: bool = False

    @classmethod
    def of(cls, settings: CacheSettings) -> Context:
        """What a run's caches depend on, and nothing else of it."""
        return cls(*_READ_CONTEXT(settings))


_READ_CONTEXT = operator.attrgetter(*(field.name for field in dataclasses.fields(Context)))

#: What a cache's size depends on beside the model.
CacheSettings = Context | RunSpec


def round_context(n_ctx: int) -> int:
    """The cells that llama.cpp makes for a context of n_ctx tokens. Source: llama-context.cpp, GGML_PAD(n_ctx, 256)."""
    return pad(n_ctx, CONTEXT_PAD)


def sequence_cells(settings: CacheSettings) -> int:
    """The cells that each sequence has for itself, or all of them together where their cache is one.

    Source: llama-context.cpp (n_ctx_seq).
    """
    n_cells = round_context(settings.n_ctx)
    return n_cells if settings.kv_unified else round_context(n_cells // settings.n_parallel)


def count_streams(settings: CacheSettings) -> int:
    """How many times a layer's cells are kept. Source: llama-kv-cache.cpp (n_stream)."""
    return 1 if settings.kv_unified else settings.n_parallel


def window_cells(settings: CacheSettings, window_tokens: int) -> int:
    """The cells of a layer that looks back window_tokens.

    Source: llama-kv-cache-iswa.cpp (size_swa); llama-context.cpp for n_batch and n_ubatch.
    """
    if settings.swa_full:
        return sequence_cells(settings)
    n_ubatch = min(settings.n_ctx, settings.n_batch, settings.n_ubatch)
    n_windows = settings.n_parallel if settings.kv_unified else 1
    return round_context(min(sequence_cells(settings), n_windows * window_tokens + n_ubatch))


def _count_cells(settings: CacheSettings, rows: KvLayer | CacheRows) -> int:
    """The rows that a cache has room for, of each stream. Source: llama-kv-cache-dsv4.cpp (dsv4_comp_size) for those of several
    tokens."""
    if rows.window_tokens:
        return window_cells(settings, rows.window_tokens)
    return round_context(-(-sequence_cells(settings) // rows.tokens_per_row))


@dataclass(frozen=True, slots=True)
class Kept:
    """What one layer keeps of all sequences, in parts that llama.cpp allocates one by one."""

    keeping: Keeping
    layer: int
    parts_bytes: tuple[int, ...]

    def size_bytes(self, alignment: int = 1) -> int:
        """All parts, each rounded up as a device's buffer rounds it."""
        return sum(pad(part, alignment) for part in self.parts_bytes)


class Keeping(enum.Enum):
    """What a layer keeps; llama.cpp allocates each kind in buffers of its own. A new kind is a line here.

    The value is the word that tells its cache from others in llama.cpp's log, in ``creating … KV cache``; what has none there is kv.
    """

    KEYS_VALUES = "kv"
    STATE = "recurrent"
    INDEX = "indexer"


@dataclass(frozen=True, slots=True)
class KvLayer:
    """One layer's cache row: elements of K and V for one token, and the size of one head (what blocks must divide).

    A layer with window_tokens looks back only so far, and its cache stops growing there; tokens_per_row are compressed into one row.
    widest_v is the widest row of values among all layers, which each takes without flash attention. n_scored counts the
    multiplications that a token does with each row that it looks back on: queries with keys, and weights with values.
    """

    layer: int
    n_embd_k: int
    n_embd_v: int
    head_k: int
    head_v: int
    window_tokens: int | None = None
    widest_v: int = 0
    n_scored: int = 0
    tokens_per_row: int = 1
    keeping: Keeping = Keeping.KEYS_VALUES

    @property
    def windowed(self) -> bool:
        return self.window_tokens is not None


@dataclass(frozen=True, slots=True)
class StateLayer:
    """One layer's state for each sequence: elements of the convolution's last inputs, and of the state itself."""

    layer: int
    n_embd_r: int
    n_embd_s: int

    @property
    def size_bytes(self) -> int:
        return _STATE_BYTES * (self.n_embd_r + self.n_embd_s)


@dataclass(frozen=True, slots=True)
class CacheRows:
    """Rows of keys and values of layers that are alike, added up.

    A row is kept for each tokens_per_row tokens, and only for those in the window where there is one. n_scored counts the
    multiplications of a token with a row.
    """

    bytes_per_row: int
    n_scored: int = 0
    window_tokens: int | None = None
    tokens_per_row: int = 1

    def count(self, depth: float) -> float:
        """The rows that a token looks back on with `depth` tokens before it."""
        return min(depth, self.window_tokens or depth) / self.tokens_per_row

    def mean_count(self, n_tokens: int) -> float:
        """The rows that a prompt's n_tokens look back on, on average: each on those before it."""
        near = min(n_tokens, self.window_tokens or n_tokens)
        return (near * near / 2 + (n_tokens - near) * near) / n_tokens / self.tokens_per_row if n_tokens else 0.0


@dataclass(frozen=True, slots=True)
class CacheCost:
    """All layers' caches and states with certain types, added up; state_bytes is of one sequence."""

    rows: tuple[CacheRows, ...]
    state_bytes: int = 0

    @property
    def bytes_per_token(self) -> int:
        """What a token adds while all layers still grow."""
        return round(sum(row.bytes_per_row / row.tokens_per_row for row in self.rows))

    @property
    def windowed_bytes_per_token(self) -> int:
        """The part of it that stops growing at a window."""
        return sum(row.bytes_per_row for row in self.rows if row.window_tokens)

    @property
    def window_tokens(self) -> int | None:
        return next((row.window_tokens for row in self.rows if row.window_tokens), None)

    def size_bytes(self, context: CacheSettings) -> int:
        """What llama.cpp allocates for all sequences: keys, values and states."""
        rows = sum(_count_cells(context, row) * row.bytes_per_row for row in self.rows)
        return count_streams(context) * rows + context.n_parallel * self.state_bytes

    def read_bytes(self, depth: float) -> float:
        """What one token reads with `depth` tokens before it: their keys and values, and each state, which it also writes again."""
        return sum(row.count(depth) * row.bytes_per_row for row in self.rows) + 2 * self.state_bytes

    def flops(self, depth: float) -> float:
        """Operations of one token's attention, two a multiplication, and of its states: at least a change and a use of each element."""
        return self._add_flops(sum(row.count(depth) * row.n_scored for row in self.rows))

    def prompt_flops(self, n_tokens: int) -> float:
        """The same of an average token of a prompt."""
        return self._add_flops(sum(row.mean_count(n_tokens) * row.n_scored for row in self.rows))

    def _add_flops(self, n_scored: float) -> float:
        return 2.0 * n_scored + 4.0 * self.state_bytes / _STATE_BYTES


@dataclass(frozen=True, slots=True)
class Attention:
    """What the layers of a model keep, and what qualifies that.

    layers is None where this module cannot be exact, and reason then says why; it is empty where llama.cpp makes no cache. states are
    the recurrent layers' (a layer may have both). skipped are blocks of the file that llama.cpp does not load. window_tokens is the
    window of the layers that have one.
    """

    layers: tuple[KvLayer, ...] | None
    reason: str | None = None
    window_tokens: int | None = None
    notes: tuple[str, ...] = ()
    states: tuple[StateLayer, ...] = ()
    skipped: tuple[int, ...] = ()

    @property
    def state_bytes(self) -> int:
        """What all states of one sequence take."""
        return sum(state.size_bytes for state in self.states)

    def list_kept(self, context: CacheSettings) -> Iterator[Kept]:
        """List what each layer keeps in a context; nothing of rows that are not known.

        Raises
        ------
        HarnessError : as `row_bytes`.
        """
        found: dict[KvLayer, tuple[int, ...]] = {}  # most layers keep the same as the one before
        for layer in self.layers or ():
            alike = dataclasses.replace(layer, layer=0)
            if alike not in found:
                cells = count_streams(context) * _count_cells(context, layer)
                found[alike] = tuple(row * cells for row in self.row_bytes(layer, context))
            yield Kept(layer.keeping, layer.layer, found[alike])
        for state in self.states:
            one = _STATE_BYTES * context.n_parallel
            yield Kept(Keeping.STATE, state.layer, (one * state.n_embd_r, one * state.n_embd_s))

    def row_bytes(self, layer: KvLayer, context: CacheSettings) -> tuple[int, int]:
        """The bytes of one token's K and V in one layer.

        Raises
        ------
        HarnessError : llama.cpp refuses the type, because its blocks do not divide a head.

        Source: llama-kv-cache.cpp llama_kv_cache::llama_kv_cache; llama-context.cpp llama_init_from_model.
        """
        # Without flash attention V is stored transposed, and every layer's takes the room of the widest.
        wide = layer.widest_v if layer.head_v and context.flash_attn == "off" else layer.n_embd_v
        sizes = []
        for name, n_embd, head, type_name in (
            ("K", layer.n_embd_k, layer.head_k, context.type_k),
            ("V", wide, layer.head_v, context.type_v),
        ):
            kind = tensor_type(type_name)
            if head % kind.block_elements:
                raise HarnessError(
                    f"a {kind.name.lower()} {name} cache needs heads of a multiple of {kind.block_elements}, and this model's are "
                    f"of {head}; use -ct{name.lower()} f16"
                )
            sizes.append(n_embd // kind.block_elements * kind.block_bytes)
        return sizes[0], sizes[1]

    def cost(self, type_k: str = "f16", type_v: str | None = None) -> CacheCost | None:
        """Add all layers up; None where that is not known or llama.cpp refuses the type."""
        if self.layers is None:
            return None
        context = Context(0, type_k, type_v or type_k)
        alike: dict[tuple[int | None, int], list[int]] = {}
        try:
            for layer in self.layers:
                part = alike.setdefault((layer.window_tokens, layer.tokens_per_row), [0, 0])
                part[0] += sum(self.row_bytes(layer, context))
                part[1] += layer.n_scored
        except HarnessError:
            return None
        rows = (CacheRows(size, scored, *key) for key, (size, scored) in alike.items())
        return CacheCost(tuple(rows), self.state_bytes)

    def bytes_per_token(self, type_k: str, type_v: str | None = None) -> int | None:
        """Count the bytes that one token takes in all layers below the window, with flash attention; None as `cost`."""
        cost = self.cost(type_k, type_v)
        return None if cost is None else cost.bytes_per_token

    def size_bytes(self, context: CacheSettings) -> int | None:
        """What keys, values and states of all sequences take; None as `cost`."""
        if self.layers is None:
            return None
        try:
            return sum(kept.size_bytes() for kept in self.list_kept(context))
        except HarnessError:
            return None
