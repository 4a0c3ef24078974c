"""What qualifies a number: causes and figures as fields, and the one place that makes sentences of them."""

from __future__ import annotations

import enum
import string
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.errors import UsageError
from harness.units import format_mib


class CautionCause(str, enum.Enum):
    """What it is about. sentence: an older record says it in a word that is not known here."""

    BUSY_MACHINE = "busy-machine"
    CPU_STOLEN = "cpu-stolen"
    CPU_THROTTLED = "cpu-throttled"
    THROTTLED = "throttled"
    FEW_SAMPLES = "few-samples"
    INTERRUPTED = "interrupted"
    NO_OFFLOAD = "no-offload"
    LAYERS_CLAMPED = "layers-clamped"
    LAYERS_UNKNOWN = "layers-unknown"
    LAYERS_GUESSED = "layers-guessed"
    CONTEXT_BEYOND_TRAINING = "context-beyond-training"
    NO_CHAT_TEMPLATE = "no-chat-template"
    PROMPT_COUNTS_DIFFER = "prompt-counts-differ"
    SIZE_IN_CACHE = "size-in-cache"
    SLOWED_DOWN = "slowed-down"
    SENTENCE = "sentence"


#: What each cause says; the names in it are the figures that the cause must have.
_SENTENCES = {
    CautionCause.BUSY_MACHINE: (
        "busy machine: other processes used {cpus_lost:.1f} of {n_cpus} CPUs while {n_threads} threads ran here"
    ),
    CautionCause.CPU_STOLEN: "the hypervisor took {cpus_lost:.1f} CPUs away while this was measured",
    CautionCause.CPU_THROTTLED: (
        "a CPU quota (control group) held this back {n_held} times, {held_s:.1f} s of CPU time in all, while it was "
        "measured"
    ),
    CautionCause.THROTTLED: "the card was slowed down while this was measured: {reasons}",
    CautionCause.FEW_SAMPLES: "need >= {n_wanted} samples for a 95 % interval",
    CautionCause.INTERRUPTED: "interrupted after {n_done} of {n_wanted} repetitions",
    CautionCause.NO_OFFLOAD: "no GPU device: every layer ran on the CPU, whatever -ngl asked for",
    CautionCause.LAYERS_CLAMPED: "the model has {n_layers} layers with the output layer; all were offloaded",
    CautionCause.LAYERS_UNKNOWN: (
        "Ollama does not say where its layers are (/api/ps); here all went to the GPU if there is one: set -ngl for "
        "both"
    ),
    CautionCause.LAYERS_GUESSED: (
        "Ollama has {gpu_share} of the model on the GPU, which is taken for {n_layers} layers here: set -ngl for "
        "both to be sure"
    ),
    CautionCause.CONTEXT_BEYOND_TRAINING: (
        "the context of {n_ctx} tokens is longer than the {n_ctx_train} that the model was trained on"
    ),
    CautionCause.NO_CHAT_TEMPLATE: "the model {template}; the prompt is used raw",
    CautionCause.PROMPT_COUNTS_DIFFER: (
        "Ollama counts {ollama_tokens} prompt tokens and llama.cpp {prompt_tokens} of the same prompt: a prefix "
        "cache, or another tokenizer"
    ),
    CautionCause.SIZE_IN_CACHE: (
        "a matrix of {size_bytes} is read from this processor's caches ({cache_bytes}) and not from memory; give a "
        "--size of {wanted_bytes} or more"
    ),
    CautionCause.SLOWED_DOWN: "a test made every decode {slowdown} longer on purpose (HARNESS_TEST_SLOWDOWN)",
    CautionCause.SENTENCE: "{said}",
}
_NEEDED = {cause: [part[1] for part in string.Formatter().parse(text) if part[1]] for cause, text in _SENTENCES.items()}

_TEMPLATES = {"missing": "has no chat template", "failed": "has a chat template that cannot be applied"}


@dataclass(frozen=True, slots=True)
class Caution:
    """A caution that travels with the number it qualifies; None is a figure that does not belong to its cause."""

    cause: CautionCause  #: what it is about
    said: str | None = None  #: the sentence, of older records alone
    distrust: bool = False  #: whether the number is not to be believed
    cpus_lost: float | None = None  #: CPUs' worth of time that others, or the hypervisor, had
    n_cpus: int | None = None  #: CPUs that were ours
    n_threads: int | None = None  #: threads that computed
    is_server_here: bool = False  #: an RPC server on this machine is one of the others
    n_held: int | None = None  #: how often a control group's quota held it back
    held_s: float | None = None  #: CPU time of that
    reasons: tuple[str, ...] = ()  #: that the card's driver gave
    n_done: int | None = None  #: repetitions that were done
    n_wanted: int | None = None  #: repetitions that were asked for or are needed
    n_layers: int | None = None  #: the model's with the output layer, or those put on the GPU
    gpu_share: float | None = None  #: of the model, that Ollama has on the GPU
    n_ctx: int | None = None
    n_ctx_train: int | None = None
    template: Literal["missing", "failed"] | None = None  #: what is wrong with the chat template
    template_error: str | None = None  #: why it could not be applied
    is_system_dropped: bool = False  #: there was a system message
    ollama_tokens: int | None = None  #: the prompt's, by Ollama's count
    prompt_tokens: int | None = None  #: the prompt's, by llama.cpp's count
    size_bytes: int | None = None  #: the matrix
    cache_bytes: int | None = None  #: last-level caches
    wanted_bytes: int | None = None  #: a matrix that is large enough
    slowdown: float | None = None  #: share by which a test made decoding longer

    def __post_init__(self) -> None:
        if self.said is None and (lost := [name for name in _NEEDED[self.cause] if getattr(self, name) is None]):
            raise UsageError(f"A caution of cause {self.cause.value} says nothing of {', '.join(lost)}.")

    @property
    def text(self) -> str:
        """The sentence for people, made of cause and figures; what an older record said."""
        return describe_caution(self)


def describe_caution(caution: Caution) -> str:
    """What is to be known about the number, without a full stop."""
    if caution.said is not None:
        return caution.said
    values: dict[str, Any] = asdict(caution)
    values |= {
        name: format_mib(value) for name, value in values.items() if name.endswith("_bytes") and value is not None
    }
    why = f" ({caution.template_error})" if caution.template_error else ""
    values |= {
        "gpu_share": f"{100 * (caution.gpu_share or 0):.0f} %",
        "slowdown": f"{100 * (caution.slowdown or 0):g} %",
        "reasons": ", ".join(caution.reasons),
        "template": _TEMPLATES.get(caution.template or "", "") + why,
    }
    among = "; an RPC server on this machine is among them" if caution.is_server_here else ""
    dropped = ", and without the system message" if caution.is_system_dropped else ""
    return _SENTENCES[caution.cause].format_map(values) + among + dropped
