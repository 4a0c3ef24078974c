"""A model's vocabulary by its header alone, to be held against another's before anything is downloaded."""

from __future__ import annotations

import functools

from harness.gguf.header import ArrayValue, BytesSource, Header
from harness.native.vocabularies import Vocabulary, find_vocabulary_difference
from harness.runs.memory import Model

#: llama.cpp's number of each kind of tokenizer. Source: src/llama-vocab.cpp llama_vocab::impl::load.
_TYPES = {"none": 0, "no_vocab": 0, "llama": 1, "gpt2": 2, "bert": 3, "t5": 4, "rwkv": 5, "plamo2": 6}


def compare_vocabularies(target: Model, draft: Model) -> str | None:
    """What of a draft's vocabulary is not the target's, as `find_vocabulary_difference` says it; None where nothing is.

    A vocabulary that was made up has the real one's size and nothing else of it; a token that a text begins or ends with counts where
    both headers say that it does.
    """
    models = (target, draft)
    if not all(_has_texts(model.header) for model in models):
        return None
    is_made_up = any(model.header.is_synthetic or not model.files for model in models)
    found = [_read(model, is_made_up) for model in models]
    for name in ("bos", "eos"):
        if None in [getattr(one, name) for one in found]:
            found = [_without(one, name) for one in found]
    return find_vocabulary_difference(*found)


def _has_texts(header: Header) -> bool:
    """Whether a header has a vocabulary, which is an array of texts; what else stands there llama.cpp refuses."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return isinstance(tokens, ArrayValue) and tokens.item_type == "str"


def _read(model: Model, is_made_up: bool) -> Vocabulary:
    header = model.header
    kind = _TYPES.get(str(header.metadata.get("tokenizer.ggml.model")), 0)
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, ArrayValue)

    @functools.cache
    def read_texts() -> list[bytes]:
        texts = tokens.read(BytesSource(model.files[0].data))
        return [text.encode("utf-8", "surrogateescape") for text in texts]

    return Vocabulary(
        type_id=0 if is_made_up else kind,
        bos=None if is_made_up else _find_token(header, "bos"),
        eos=None if is_made_up else _find_token(header, "eos"),
        n_tokens=tokens.length,
        text_of=(lambda _token: b"") if is_made_up else (lambda token: read_texts()[token]),
    )


def _find_token(header: Header, name: str) -> int | None:
    """The token that a text gets at one end, where the header says both that it does and which it is."""
    token = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
    is_added = header.metadata.get(f"tokenizer.ggml.add_{name}_token")
    return token if is_added is True and isinstance(token, int) else None


def _without(one: Vocabulary, name: str) -> Vocabulary:
    ends = {"bos": one.bos, "eos": one.eos, name: None}
    return Vocabulary(one.type_id, ends["bos"], ends["eos"], one.n_tokens, one.text_of)
