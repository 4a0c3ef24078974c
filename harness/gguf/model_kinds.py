"""What a GGUF file is, by its header alone, and what may be asked of it.

Not every GGUF file is a language model, and not every language model writes text. This module is the one place that says which is
which; commands ask it before anything is started.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import UsageError
from harness.gguf.header import Header
from harness.gguf.roles import POSITIONS, is_sense
from harness.gguf.settings import name_set
from harness.gguf.types import ForeignType, Origin, extent
from harness.spec import RunSpec

#: Every architecture that llama.cpp 0c1e570 loads. Source: src/llama-arch.cpp LLM_ARCH_NAMES.
KNOWN_ARCHITECTURES = name_set(
    "clip llama llama4 deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bert modern-bert "
    "nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert bloom stablelm qwen qwen2 qwen2moe "
    "qwen2vl qwen3 qwen3moe qwen3next qwen3vl qwen3vlmoe qwen35 qwen35moe qwen4exp phi2 phi3 phimoe plamo plamo2 "
    "plamo3 codeshell orion internlm2 minicpm minicpm3 gemma gemma2 gemma3 gemma3n gemma4 gemma4-assistant "
    "gemma-embedding starcoder2 mamba mamba2 maple jamba falcon-h1 xverse command-r cohere2 cohere2moe dbrx olmo "
    "olmo2 olmoe muse-glimmer openelm arctic deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 chatglm glm4 "
    "glm4moe glm-dsa bitnet t5 t5encoder jais jais2 nemotron nemotron_h nemotron_h_moe exaone exaone4 exaone-moe "
    "rwkv6 rwkv6qwen2 rwkv7 arwkv7 granite granitemoe granitehybrid graniteswitch granite_swa chameleon "
    "wavtokenizer-dec plm bailingmoe bailingmoe2 bailingmoe3 dots1 dots3note arcee afmoe laguna ernie4_5 "
    "ernie4_5-moe hunyuan-moe hunyuan-dense hunyuan_vl hy_v3 hy_v4 smollm3 gpt-oss lfm2 lfm2moe dream "
    "smallthinker llada llada-moe seed_oss grovemoe apertus minimax-01 hrm_text minimax-m2 minimax-m3 cogvlm rnd1 "
    "pangu-embedded mistral3 eagle3 dflash mistral4 paddleocr mimo2 step35 spark2_5 llama-embed maincoder "
    "kimi-linear kimi-k3 glm5-next talkie mellum nanbeige qwen3tts pockettts"
)

#: Encoders: every token looks at every other. Source: src/llama-model.cpp create_memory, the cases without a cache; and t5encoder.cpp.
ENCODERS = name_set(
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert modern-bert gemma-embedding t5encoder"
)
#: Decoders that were trained to embed and have no output matrix. Source: src/models/llama-embed.cpp.
_EMBEDDERS = name_set("llama-embed")
#: Source: src/llama-arch.cpp llm_arch_is_diffusion.
TEXT_DIFFUSION = name_set("dream llada llada-moe rnd1")
#: Architectures that always have a table of positions.
_LEARNED_POSITIONS = name_set("bert gpt2 starcoder")
#: What needs the context of the model that it guesses for. Source: src/models/eagle3.cpp, dflash.cpp, gemma4-assistant.cpp.
_DRAFTS = name_set("eagle3 dflash gemma4-assistant")
#: Source: src/models/wavtokenizer-dec.cpp (takes codes of sound), pockettts.cpp (its latents come from the projector's file).
_SOUND = name_set("wavtokenizer-dec pockettts")
#: Source: loader.py IMG_ARCH_LIST of city96/ComfyUI-GGUF, and "pig" of gguf-connector, which that reads too.
_IMAGE = name_set("flux sd1 sdxl sd3 aura hidream cosmos ltxv hyvid wan lumina2 qwen_image pig")
#: In llama.cpp's list of names and nowhere else in it. Source: src/llama-model.cpp llama_model_create.
_NAMED_ONLY = name_set("gptj")
#: Ollama's own names of architectures that llama.cpp calls otherwise or does not have. Source: model/models of ollama/ollama.
_OLLAMAS = name_set("gptoss mllama qwen25vl")
#: How tensors of image models begin that name no architecture, as stable-diffusion.cpp writes them.
_IMAGE_TENSORS = ("model.diffusion_model.", "first_stage_model.", "double_blocks.", "cond_stage_model.")

#: llama.cpp refuses a language model that has tensors of eyes or ears too ("wrong number of tensors"); Ollama's conversions of gemma3,
#: gemma4, mistral-small3.1 and others have all in one.
_WHOLE = (
    "has its vision or sound part inside, as Ollama's own conversions do; llama.cpp wants that in a file of its own (mmproj): "
    "pull the same model from Hugging Face instead"
)

#: enum llama_pooling_type of llama.h: mean, cls, last, rank; 0 is none.
_POOLING = range(1, 5)

#: Source: src/llama-vocab.cpp llama_vocab::impl::load.
_NO_TOKENIZER = ("no_vocab", "none")


class Question(enum.Enum):
    """What commands ask of a model."""

    MEMORY = "memory by its header"
    SPEED = "speed by its header"
    MEASURE = "measured by llama.cpp"
    TIME = "what a generated token's time goes into"
    TEXT = "a text written by it"


_READS = frozenset({Question.MEMORY, Question.MEASURE})


class Kind(enum.Enum):
    """What a file is.

    title completes "it is …"; advice says what to do instead of what it cannot; answers is what may be asked of it; without_tg why it
    has no tg, after "which".
    """

    TEXT = "a language model", None, frozenset(Question)
    EMBEDDING = (
        "an embedding model", "it generates no text; `harness pp-tg` measures how fast it reads", _READS, "generates no text",
    )  # fmt: skip
    ENCODER_DECODER = (
        "an encoder-decoder model",
        "it writes only about a text that it has encoded before; `harness pp-tg` measures how fast it encodes",
        _READS, "generates only after it has encoded a text",
    )  # fmt: skip
    TEXT_DIFFUSION = (
        "a text diffusion model", "it writes all tokens at once and over again; `harness pp-tg` measures one such pass",
        _READS, "does not generate one token after the other",
    )  # fmt: skip
    DRAFT = "a draft model for speculative decoding", "it only guesses tokens for another model; name that model"
    SOUND = "a model that makes sound", "it is one half of a speech program; name a language model"
    PROJECTOR = (
        "a vision or sound projector (mmproj)", "it only goes with a language model; name the language model's own file",
    )  # fmt: skip
    ADAPTER = "an adapter (LoRA)", "it changes a model and has no weights of one; name the model that it was made for"
    CONTROL_VECTOR = (
        "a control vector",
        "it steers a model and has no weights of one; name the model that it was made for",
    )
    VOCABULARY = (
        "a vocabulary or header without weights", "there is nothing in it to compute with; name the model's own file",
        frozenset({Question.MEMORY}),
    )  # fmt: skip
    IMATRIX = "an importance matrix (imatrix)", "llama-quantize takes it to make a model; name a model that was made"
    IMAGE = (
        "an image or video model",
        "ComfyUI or stable-diffusion.cpp runs it, llama.cpp does not; name a language model",
    )
    UNKNOWN = (
        "of an architecture that this llama.cpp does not know",
        "it belongs to a newer llama.cpp or to another program; take a model of an architecture that this one knows",
        frozenset({Question.MEMORY, Question.SPEED}), "this llama.cpp does not run",
    )  # fmt: skip
    FOREIGN = ("written for another program",)

    def __init__(
        self, title: str, advice: str | None = None, answers: frozenset[Question] = frozenset(), without_tg: str = ""
    ) -> None:
        self.title, self.advice, self.answers, self.without_tg = title, advice, answers, without_tg


#: What may still be asked of a header that states a shape.
_ASK_MEMORY = ", or ask `harness overhead --predict-only` what a cache of this shape takes"


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is, and what bounds the runs of it.

    reads_at_once says that a prompt has to fit into one physical batch; steps that it can add one token after the other to a cache.
    n_positions is the number of learned positions, beyond which there is no token; None where positions are computed. has_shape says
    that the header states how many blocks there are and how wide, by which memory is counted where there are no weights.
    foreign is a tensor type of another program, and trouble what is wrong with this very file.
    """

    kind: Kind
    architecture: str
    reads_at_once: bool = False
    steps: bool = True
    n_positions: int | None = None
    has_weights: bool = True
    has_shape: bool = True
    foreign: ForeignType | None = None
    trouble: str | None = None

    @property
    def answers(self) -> frozenset[Question]:
        """What may be asked of the file."""
        if self.has_weights:
            return self.kind.answers
        return self.kind.answers & Kind.VOCABULARY.answers if self.has_shape else frozenset()

    def describe(self, label: str) -> str:
        """What the file is and what to do, as one sentence without its full stop."""
        if self.kind is Kind.FOREIGN:
            return f"{label} {self.trouble}"
        shown = f" ({self.architecture})" if self.kind.answers and self.kind is not Kind.VOCABULARY else ""
        if self.kind.answers and not self.has_weights:
            words = {Kind.VOCABULARY: "", Kind.UNKNOWN: f" {self.kind.title}{shown}"}
            word = words.get(self.kind, f" of {self.kind.title}{shown}")
            ask = _ASK_MEMORY if self.has_shape else ""
            return f"{label} is {Kind.VOCABULARY.title}{word}: {Kind.VOCABULARY.advice}{ask}"
        advice = self.trouble or self.kind.advice
        return f"{label} is {self.kind.title}{shown}" + (f": {advice}" if advice else "")


#: By general.type. Source: gguf-py's GGUFType; "model" says nothing more.
_STATED = {"adapter": Kind.ADAPTER, "imatrix": Kind.IMATRIX, "mmproj": Kind.PROJECTOR}

_BY_ARCHITECTURE: dict[str, Kind] = {
    "clip": Kind.PROJECTOR,
    "controlvector": Kind.CONTROL_VECTOR,
    **dict.fromkeys(_DRAFTS, Kind.DRAFT),
    **dict.fromkeys(_SOUND, Kind.SOUND),
    **dict.fromkeys(_IMAGE, Kind.IMAGE),
}


def find_kind(header: Header) -> FileKind:
    """Say what a file is, by its stated type, its tensors and its architecture, in this order."""
    architecture = header.architecture
    foreign = next((tensor.foreign for tensor in header.tensors if tensor.foreign), None)
    kind = _find_kind(header)
    is_causal = header.hparam("attention.causal", True) is not False and kind is not Kind.TEXT_DIFFUSION
    reads_at_once = not is_causal or architecture in ENCODERS or kind is Kind.ENCODER_DECODER
    steps = kind in (Kind.TEXT, Kind.EMBEDDING, Kind.UNKNOWN) and not reads_at_once
    has_weights = any(tensor.n_elements for tensor in header.tensors)
    has_shape = all(_number(header.hparam(name)) > 0 for name in ("block_count", "embedding_length"))
    found = FileKind(kind, architecture, reads_at_once, steps, _count_positions(header), has_weights, has_shape)
    if foreign is not None and kind.answers:
        return replace(found, kind=Kind.FOREIGN, foreign=foreign, trouble=_describe_foreign(header, foreign))
    if kind.answers and any(is_sense(tensor.name) for tensor in header.tensors):
        return replace(found, kind=Kind.FOREIGN, trouble=_WHOLE)
    if kind is Kind.UNKNOWN and architecture in _OLLAMAS:
        return replace(found, trouble=f"Ollama writes it for its own engine; {_pull_instead(header)}")
    return found


def _find_kind(header: Header) -> Kind:
    architecture = header.architecture
    said = header.metadata.get("general.type")
    if isinstance(said, str) and said in _STATED:
        return _STATED[said]
    if architecture in _BY_ARCHITECTURE:
        return _BY_ARCHITECTURE[architecture]
    names = [tensor.name for tensor in header.tensors]
    # A model may have adapters built in, and says so. Source: src/models/granite-switch.cpp.
    if not header.hparam("adapters.count") and any(name.endswith((".lora_a", ".lora_b")) for name in names):
        return Kind.ADAPTER
    if any(name.startswith(_IMAGE_TENSORS) for name in names):
        return Kind.IMAGE
    if architecture not in KNOWN_ARCHITECTURES or architecture in _NAMED_ONLY:
        return Kind.UNKNOWN
    kind = _find_language_kind(header)
    is_empty = kind is Kind.TEXT and not any(tensor.n_elements for tensor in header.tensors)
    return Kind.VOCABULARY if is_empty else kind


def _find_language_kind(header: Header) -> Kind:
    """Tell language models apart by what they do with a text."""
    if header.architecture == "t5":
        return Kind.ENCODER_DECODER
    if header.architecture in TEXT_DIFFUSION:
        return Kind.TEXT_DIFFUSION
    pooled = header.hparam("pooling_type") in _POOLING
    if header.architecture in ENCODERS | _EMBEDDERS or pooled or header.hparam("attention.causal") is False:
        return Kind.EMBEDDING
    return Kind.TEXT


def _count_positions(header: Header) -> int | None:
    """Rows of the table of learned positions. Source: src/models/bert.cpp, gpt2.cpp, starcoder.cpp, mpt.cpp (LLM_TENSOR_POS_EMBD)."""
    if (table := header.find_tensor(POSITIONS)) is not None:
        return extent(table.shape, 1)
    return (_number(header.hparam("context_length")) or None) if header.architecture in _LEARNED_POSITIONS else None


#: What to say of types that are of no known fork.
_OF_NO_FORK = {
    Origin.REMOVED: "which was removed from llama.cpp; take a newer quantization of the same model (llama.cpp repacks Q4_0 itself)",
    Origin.UNKNOWN: "which this llama.cpp does not know; take another quantization of the same model",
}


def _describe_foreign(header: Header, foreign: ForeignType) -> str:
    if foreign.origin is Origin.OLLAMA:
        return f"was written by Ollama for its own engine (tensors of {foreign.name}); {_pull_instead(header)}"
    fork = f"a type of another program's fork, {foreign.origin.value}; take a quantization that llama.cpp itself writes"
    return f"has tensors of {foreign.name}, {_OF_NO_FORK.get(foreign.origin, fork)}"


def _pull_instead(header: Header) -> str:
    """Where the same model lies as llama.cpp reads it. Source: ggml-org's repositories of gpt-oss (24 and 36 layers)."""
    size = {24: "20b", 36: "120b"}.get(_number(header.hparam("block_count")), "20b")
    if header.architecture in ("gptoss", "gpt-oss"):
        return f"`harness pull hf:ggml-org/gpt-oss-{size}-GGUF` instead"
    if header.architecture == "mllama":
        return "no conversion of it is for llama.cpp"
    if header.architecture in _OLLAMAS:
        return "pull the same model from Hugging Face instead"
    return "pull the same model from Hugging Face instead (gpt-oss is at hf:ggml-org/gpt-oss-20b-GGUF)"


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def may_be_asked(header: Header, question: Question) -> bool:
    """Whether a question may be asked of a file."""
    return question in find_kind(header).answers


def refuse(header: Header, question: Question, label: str) -> None:
    """Make sure that a question may be asked of a file; this is what every command calls first.

    Parameters
    ----------
    label : what the user called the file

    Raises
    ------
    UsageError : it may not; what the file is and what to do is said.
    """
    found = find_kind(header)
    if question not in found.answers:
        raise UsageError(found.describe(label) + ".")
    if question is Question.TEXT and header.metadata.get("tokenizer.ggml.model") in _NO_TOKENIZER:
        raise UsageError(
            f"{label} has no tokenizer and cannot read a prompt; `harness pp-tg` measures how fast it computes."
        )


def refuse_context(header: Header, n_tokens: int, label: str, flag: str) -> None:
    """Make sure that a model has positions for so many tokens; flag is the option that asks for them.

    Raises
    ------
    UsageError : its positions were learned, and there are fewer. llama.cpp would abort.
    """
    limit = find_kind(header).n_positions
    if limit is not None and n_tokens > limit:
        raise UsageError(
            f"{label} has {limit} learned positions and {flag} asks for {n_tokens}; ask for no more than {limit}."
        )


@dataclass(frozen=True, slots=True)
class Suited:
    """The cells that a file can be asked, and what was changed about them, in words."""

    cells: tuple[RunSpec, ...]
    notes: tuple[str, ...] = ()


def suit_cells(header: Header, cells: Sequence[RunSpec], asked: Collection[str], label: str) -> Suited:
    """Adapt cells to what the file is: what nobody asked for expressly is left out or changed, with a note.

    Encoders get embeddings, and a physical batch that holds their prompt (llama.cpp asserts n_ubatch >= n_tokens for them); they
    generate nothing. Learned positions bound the default lengths.

    Parameters
    ----------
    asked : the fields of `RunSpec` that the user gave; n_pg where a test of prompt and generation was given

    Raises
    ------
    UsageError : what was asked expressly cannot be done with this file, or nothing is left.
    """
    found = find_kind(header)
    suited: list[RunSpec] = []
    notes: dict[str, None] = {}
    for cell in cells:
        if _leaves_out(found, cell, asked, label):
            notes[f"{label} is {found.kind.title}, which {found.kind.without_tg}: {cell.test} is left out"] = None
            continue
        short = _shorten(found, cell, asked, label)
        if short.n_ctx_seq < cell.n_ctx_seq:
            notes[f"{label} has {found.n_positions} learned positions: {short.test} instead of {cell.test}"] = None
        fitted, note = suit_batches(found, short, asked, label)
        notes |= {note: None} if note else {}
        suited.append(fitted)
    if not suited:
        raise UsageError(
            f"Nothing is left to measure: {found.describe(label)}; give -p, the tokens that it is to read."
        )
    return Suited(tuple(dict.fromkeys(suited)), tuple(notes))


def _leaves_out(found: FileKind, cell: RunSpec, asked: Collection[str], label: str) -> bool:
    """Whether a cell generates where nothing is generated; an embedding model that could do it does it when asked."""
    if cell.n_depth and not found.steps:
        raise UsageError(
            f"{label} is {found.kind.title}, which reads a text from its start: it takes no depth; leave out -d."
        )
    if cell.n_parallel > 1 and not found.steps:
        raise UsageError(
            f"{label} is {found.kind.title}, which keeps no sequences to go on with; leave out --n-parallel."
        )
    if not cell.n_gen or found.kind is Kind.TEXT:
        return False
    expressly = "n_pg" in asked if cell.n_prompt else "n_gen" in asked
    if expressly and not found.steps:
        raise UsageError(
            f"{label} is {found.kind.title}, which {found.kind.without_tg} ({cell.test}); leave out -n and -pg."
        )
    return not expressly


def _shorten(found: FileKind, cell: RunSpec, asked: Collection[str], label: str) -> RunSpec:
    """Cut a default length to the positions that were learned."""
    limit = found.n_positions
    if limit is None or cell.n_ctx_seq <= limit:
        return cell
    name = "n_prompt" if cell.n_prompt else "n_gen"
    room = limit - cell.n_depth
    if name in asked or "n_pg" in asked or room < 1:
        raise UsageError(
            f"{label} has {limit} learned positions and {cell.test} needs {cell.n_ctx_seq}; ask for no more than {limit}."
        )
    return replace(cell, n_prompt=room) if cell.n_prompt else replace(cell, n_gen=room)


def suit_batches(found: FileKind, spec: RunSpec, asked: Collection[str], label: str) -> tuple[RunSpec, str | None]:
    """Give a run of an encoder its embeddings and a physical batch that holds its prompt; says what was raised.

    Raises
    ------
    UsageError : a smaller batch was asked for expressly.
    """
    if found.kind is Kind.EMBEDDING and "embeddings" not in asked:
        spec = replace(spec, embeddings=True)
    n_tokens = spec.n_prompt
    if not found.reads_at_once or n_tokens <= min(spec.n_batch, spec.n_ubatch):
        return spec, None
    name, flag = next((pair for pair in (("n_ubatch", "-ub"), ("n_batch", "-b")) if pair[0] in asked), (None, None))
    if name and n_tokens > getattr(spec, name):
        raise UsageError(
            f"{label} reads a prompt at once ({spec.test}), and {flag} is smaller; give at least {flag} {n_tokens}, or leave it out."
        )
    spec = replace(spec, n_batch=max(spec.n_batch, n_tokens), n_ubatch=max(spec.n_ubatch, n_tokens))
    return spec, f"{label} reads a prompt at once: n_ubatch is {spec.n_ubatch} for {spec.test}"
