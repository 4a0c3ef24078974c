"""Whether a draft's tokens are the target's: two vocabularies held against each other as llama.cpp does before it guesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: How many tokens one may have more than the other, and the first one whose text is compared. Source: SPEC_VOCAB_MAX_SIZE_DIFFERENCE
#: and SPEC_VOCAB_CHECK_START_TOKEN_ID in common/speculative.cpp.
MOST_MORE, FIRST_COMPARED = 128, 5

#: enum llama_vocab_type of llama.h.
TYPES = {0: "none", 1: "SentencePiece", 2: "BPE", 3: "WordPiece", 4: "Unigram", 5: "RWKV", 6: "PLaMo-2"}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is compared of a vocabulary; bos and eos are None where a text gets none, text_of gives a token's text."""

    type_id: int
    bos: int | None
    eos: int | None
    n_tokens: int
    text_of: Callable[[int], bytes]


def find_vocabulary_difference(target: Vocabulary, draft: Vocabulary) -> str | None:
    """What differs, as "its vocabulary has …"; None where the draft's tokens are the target's.

    Source: common_speculative_are_compatible in common/speculative.cpp.
    """
    if target.type_id != draft.type_id:
        kinds = [TYPES.get(one.type_id, f"type {one.type_id}") for one in (draft, target)]
        return f"its vocabulary is {kinds[0]} and the target's {kinds[1]}"
    for name, ours, theirs in (("BOS", draft.bos, target.bos), ("EOS", draft.eos, target.eos)):
        if ours != theirs:
            return f"its {name} token is {_describe_id(ours)} and the target's {_describe_id(theirs)}"
    if abs(target.n_tokens - draft.n_tokens) > MOST_MORE:
        return f"its vocabulary has {draft.n_tokens:,} tokens and the target's {target.n_tokens:,}"
    for token in range(FIRST_COMPARED, min(target.n_tokens, draft.n_tokens)):
        text, other = draft.text_of(token), target.text_of(token)
        if text != other:
            return f"its token {token} is {_quote(text)} and the target's {_quote(other)}"
    return None


def _describe_id(token: int | None) -> str:
    return "none" if token is None else str(token)


def _quote(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "replace"))
