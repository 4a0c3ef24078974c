"""models.toml: which models there are, where their files are, and what shape they have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's dimensions, in GGUF's names and units (counts of elements), enough to lay out its tensors without its weights.

    head_dim is both the key and the value length of one head; extra metadata (rope scaling, biases) goes by flags.
    """

    architecture: str
    block_count: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int
    head_dim: int
    vocab_size: int
    context_length: int
    tied_embeddings: bool
    rope_freq_base: float
    rms_norm_eps: float = 1e-5
    attention_bias: bool = False
    rope_factors: bool = False  # llama3's rope_freqs.weight tensor
    expert_count: int = 0
    expert_used_count: int = 0
    sliding_window: int = 0
