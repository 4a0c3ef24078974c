"""Whether two models have the same vocabulary, so that one may guess tokens for the other."""

from __future__ import annotations

import enum

from harness.gguf.header import ArrayValue, Header

#: So many tokens may one vocabulary have more than the other. Source: common/speculative.cpp SPEC_VOCAB_MAX_SIZE_DIFFERENCE.
MAX_SIZE_DIFFERENCE = 128


class VocabularyDifference(enum.Enum):
    """What a draft model's vocabulary differs in, by which llama.cpp refuses it."""

    KIND = "kind"
    SIZE = "size"
    FIRST_TOKEN = "first token"


def find_vocabulary_difference(target: Header, draft: Header) -> VocabularyDifference | None:
    """What tells two vocabularies apart by their headers; None where they agree as far as both headers say.

    The texts of the tokens, which llama.cpp compares as well, are not read.

    Source: common/speculative.cpp common_speculative_are_compatible.
    """
    kinds = [header.metadata.get("tokenizer.ggml.model") for header in (target, draft)]
    if None not in kinds and kinds[0] != kinds[1] and "no_vocab" not in kinds:
        return VocabularyDifference.KIND
    sizes = [count_tokens(header) for header in (target, draft)]
    if None not in sizes and abs((sizes[0] or 0) - (sizes[1] or 0)) > MAX_SIZE_DIFFERENCE:
        return VocabularyDifference.SIZE
    first = [header.metadata.get("tokenizer.ggml.bos_token_id") for header in (target, draft)]
    adds = [header.metadata.get("tokenizer.ggml.add_bos_token") for header in (target, draft)]
    if adds == [True, True] and None not in first and first[0] != first[1]:
        return VocabularyDifference.FIRST_TOKEN
    return None


def count_tokens(header: Header) -> int | None:
    """How many tokens a model knows: by its list of them, else by its settings; None where neither is there."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, ArrayValue):
        return tokens.length
    size = header.hparam("vocab_size")
    return size if isinstance(size, int) else None
