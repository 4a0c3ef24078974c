"""How many bytes a token reads from memory, by what they are for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.gguf.attention import describe_attention
from harness.gguf.cost import read_weights
from harness.gguf.header import Header
from harness.gguf.roles import find_role

#: Roles that read so few bytes from memory that a bandwidth would say nothing.
_WITHOUT_BYTES = frozenset({"norms", "rope", "rest", "cache write"})


def weights_by_role(header: Header) -> dict[str, int]:
    """Bytes of matrices that one token reads, by role: of experts only those that it visits; a tied output reads the embeddings."""
    found: dict[str, int] = defaultdict(int)
    for read in read_weights(header):
        # What is looked up has no role, and of it only a tied output is read.
        role = find_role(read.tensor.name).work or "output head"
        if role not in _WITHOUT_BYTES:
            found[role] += int(read.size_bytes)
    return dict(found)


@dataclass(frozen=True, slots=True)
class TokenReads:
    """What a token reads from memory, by the model's header: bytes of matrices by role, and of a cached token by cache type.

    A cached token's bytes are None where they are not known; windowed_bytes are those of the layers that look back window_tokens only
    (empty in records of before, where beyond the window nothing is known).
    """

    weights_bytes: Mapping[str, int]
    cache_bytes: Mapping[str, int | None]
    window_tokens: int | None = None
    windowed_bytes: Mapping[str, int | None] = field(default_factory=dict)

    def attention_bytes(self, n_cells: int, cache_type: str) -> int | None:
        """Bytes that one token's attention reads with n_cells tokens in the cache; None where it is not known."""
        per_token, window = self.cache_bytes.get(cache_type), self.window_tokens
        if per_token is None:
            return None
        if window is None or n_cells <= window:
            return per_token * n_cells
        windowed = self.windowed_bytes.get(cache_type)
        return None if windowed is None else (per_token - windowed) * n_cells + windowed * window

    def touched_bytes(self, n_cells: int, cache_type: str) -> dict[str, int | None]:
        """Bytes that one token must read from memory, by role: weights, and for the attention the n_cells tokens in the cache.

        Activations are left out: they stay in the CPU's caches.
        """
        return {**self.weights_bytes, "attention": self.attention_bytes(n_cells, cache_type)}


def count_reads(header: Header, cache_types: Iterable[str]) -> TokenReads:
    """What a token of a model reads, with caches of these types."""
    attention = describe_attention(header)
    costs = {kind: attention.cost(kind) for kind in cache_types}
    return TokenReads(
        weights_by_role(header),
        {kind: None if cost is None else cost.bytes_per_token for kind, cost in costs.items()},
        attention.window_tokens,
        {kind: None if cost is None else cost.windowed_bytes_per_token for kind, cost in costs.items()},
    )
