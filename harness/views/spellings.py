"""How other programs spell each setting: one table, a row for each measured parameter, a column for each program.

A speller gets the value and what else is asked, and gives the words to write: none where the program does so by itself, None where it
cannot be told. Sources, by program:

- llama.cpp (llama-server, llama-cli): common/arg.cpp and the defaults in common/common.h of the source that this project is built from;
  that llama-server takes four slots where nobody says how many, in tools/server/server.cpp.
- llama-cpp-python: the arguments of ``Llama.__init__`` in llama_cpp/llama.py, which ignores names that it does not know.
- Ollama: ``Runner`` in api/types.go and envconfig/config.go; that num_batch is both batches and num_thread both numbers of threads, in
  ``NewContextParams`` of llama/llama.go; which cache types there are, in its FAQ.
- LM Studio: the names of its load settings; which values they take, in ``LLMLoadModelConfig`` of lmstudio-js.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.spec import DEFAULT_N_CTX, RunSpec


@dataclass(frozen=True, slots=True)
class Asked:
    """Settings that other programs are to be told, and what of the model and the machine decides how.

    n_ctx is the context in tokens, n_layers the model's layers without the output layer (None where that is not known);
    n_layers_alone is how many fit on the devices where experts cannot be kept back, for programs that cannot be told to (None: not
    known); has_devices says whether there is anything but the CPU.
    """

    spec: RunSpec
    n_ctx: int = DEFAULT_N_CTX
    n_layers: int | None = None
    has_devices: bool = True
    n_layers_alone: int | None = None

    @property
    def n_batch_physical(self) -> int:
        """Tokens that are computed at once: the one batch of programs that have only one."""
        return min(self.spec.n_batch, self.spec.n_ubatch)

    @property
    def gpu_layers(self) -> int | None:
        """Layers on devices, the output layer among them; None for all."""
        asked = self.spec.n_gpu_layers
        return None if asked < 0 or (self.n_layers is not None and asked > self.n_layers) else asked


Words = Sequence[str] | None
Speller = Callable[[Any, Asked], Words]


@dataclass(frozen=True, slots=True)
class Spelling:
    """One parameter's row. instead says why a program cannot be told, by the program's column, where that is worth a word."""

    llama_cpp: Speller
    python: Speller
    ollama: Speller
    studio: Speller
    instead: Mapping[str, str] = field(default_factory=dict)


def _option(flag: str, usual: Any, write: Callable[[Any], str] = str) -> Speller:
    """An option of llama.cpp's programs with its value."""
    return lambda value, asked: [] if value == usual else [flag, write(value)]


def _switch(flag: str, when: bool = True) -> Speller:
    """An option of llama.cpp's programs that stands alone."""
    return lambda value, asked: [flag] if value is when else []


def _argument(name: str, usual: Any, write: Callable[[Any], str] = repr) -> Speller:
    """A keyword argument of ``Llama``."""
    return lambda value, asked: [] if value == usual else [f"{name}={write(value)}"]


def _parameter(name: str, usual: Any, write: Callable[[Any], str] = str) -> Speller:
    """A line of Ollama's Modelfile."""
    return lambda value, asked: [] if value == usual else [f"PARAMETER {name} {write(value)}"]


def _setting(name: str, usual: Any, write: Callable[[Any], str] = str) -> Speller:
    """A field of LM Studio's load settings."""
    return lambda value, asked: [] if value == usual else [f"{name}: {write(value)}"]


def _cannot(usual: Any) -> Speller:
    """Nothing to tell it with; nothing is lost where the value is what the program does by itself."""
    return lambda value, asked: [] if value == usual else None


def _nothing(value: Any, asked: Asked) -> Words:
    """It changes nothing of how a program runs."""
    return []


def _constant(prefix: str) -> Callable[[str], str]:
    """A constant of llama_cpp, by the end of its name."""
    return lambda value: f"llama_cpp.{prefix}{value.upper()}"


def _cache_type(value: str) -> str:
    """A cache type for ``Llama``: llama_cpp has a constant for each but bf16, which is ggml.h's 30."""
    return "30" if value == "bf16" else _constant("GGML_TYPE_")(value)


def _join(values: Sequence[Any]) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _on_off(value: bool | str) -> str:
    return value if isinstance(value, str) else "on" if value else "off"


# ---- what takes more than one word -----------------------------------------------------------------------------------------------


def _gpu_layers_option(value: int, asked: Asked) -> Words:
    """Always said where there is a device: left alone, llama.cpp fits the model to what is free at that moment."""
    if not asked.has_devices:
        return []
    return ["-ngl", "all" if asked.gpu_layers is None else str(value)]


def _layers_without_experts(value: int, asked: Asked) -> int | None:
    """Layers for a program that cannot keep weights of theirs back: as many as were told would fit do not; None: it has to decide."""
    keeps_back = asked.spec.n_cpu_moe > 0 or bool(asked.spec.override_tensors)
    return asked.n_layers_alone if keeps_back else -1 if asked.gpu_layers is None else value


def _gpu_layers_argument(value: int, asked: Asked) -> Words:
    count = _layers_without_experts(value, asked)
    return [f"n_gpu_layers={count}"] if asked.has_devices and count else []


def _gpu_layers_parameter(value: int, asked: Asked) -> Words:
    """Ollama counts as -ngl does, and estimates a number where none is said. All: one more than any model has."""
    if not asked.has_devices:
        return []
    every = 999 if asked.n_layers is None else asked.n_layers + 1
    count = _layers_without_experts(value, asked)
    return [] if count is None else [f"PARAMETER num_gpu {every if count < 0 else count}"]


def _gpu_layers_setting(value: int, asked: Asked) -> Words:
    """LM Studio's slider has the model's layers, without the output layer."""
    if not asked.has_devices:
        return []
    if asked.gpu_layers is None:
        return ["GPU Offload: max"]
    of = "" if asked.n_layers is None else f" / {asked.n_layers}"
    return [f"GPU Offload: {value}{of}"]


def _both_threads_argument(value: int | None, asked: Asked) -> Words:
    """Left alone, Llama reads prompts with every logical CPU, whatever n_threads is."""
    threads = value if value is not None else asked.spec.n_threads
    return [] if threads is None else [f"n_threads_batch={threads}"]


def _same_threads(value: int | None, asked: Asked) -> Words:
    return [] if value is None or value == asked.spec.n_threads else None


def _cpu_option(flag: str, batch_flag: str, usual: Any, write: Callable[[Any], str] = str) -> Speller:
    """Where threads are numbered apart for prompts, llama.cpp takes nothing else of theirs from the others."""

    def write_words(value: Any, asked: Asked) -> Words:
        if value == usual:
            return []
        apart = getattr(asked.spec, "n_threads_batch", None) is not None
        return [flag, write(value), *([batch_flag, write(value)] if apart else [])]

    return write_words


def _priority_option(value: int, asked: Asked) -> Words:
    """--prio-batch takes no -1, and the process has the priority of --prio anyhow."""
    if value == 0:
        return []
    apart = getattr(asked.spec, "n_threads_batch", None) is not None and value > 0
    return ["--prio", str(value), *(["--prio-batch", str(value)] if apart else [])]


#: Whether a load mode maps the file, and whether it locks it in memory.
_MEMORY = {"none": (False, False), "mmap": (True, False), "mlock": (False, True), "mmap+mlock": (True, True)}


def _load_mode_argument(value: str, asked: Asked) -> Words:
    if value not in _MEMORY:
        return [] if value == "auto" else None
    is_mapped, is_locked = _MEMORY[value]
    return [*(["use_mmap=False"] if not is_mapped else []), *(["use_mlock=True"] if is_locked else [])]


def _load_mode_parameter(value: str, asked: Asked) -> Words:
    if value in ("none", "mmap"):
        return [f"PARAMETER use_mmap {str(value == 'mmap').lower()}"]
    return [] if value == "auto" else None


def _load_mode_setting(value: str, asked: Asked) -> Words:
    if value not in _MEMORY:
        return [] if value == "auto" else None
    is_mapped, is_locked = _MEMORY[value]
    return [f"Try mmap(): {_on_off(is_mapped)}", f"Keep Model in Memory: {_on_off(is_locked)}"]


def _flash_argument(value: str, asked: Asked) -> Words:
    """Llama knows on and off; auto is on wherever the device has a kernel for it, and so is this."""
    return [] if value == "off" else ["flash_attn=True"]


def _flash_variable(value: str, asked: Asked) -> Words:
    return [] if value == "auto" else [f"OLLAMA_FLASH_ATTENTION={int(value == 'on')}"]


def _flash_setting(value: str, asked: Asked) -> Words:
    """A quantized V cache needs it, which llama.cpp's auto sees to."""
    needed = asked.spec.type_v not in ("f32", "f16", "bf16")
    return [] if value == "auto" and not needed else [f"Flash Attention: {'on' if needed else value}"]


#: What OLLAMA_KV_CACHE_TYPE takes.
_OLLAMA_TYPES = ("f16", "q8_0", "q4_0")


def _cache_variable(value: str, asked: Asked) -> Words:
    """One type for K and V; said with K."""
    spec = asked.spec
    if spec.type_k != spec.type_v or value not in _OLLAMA_TYPES:
        return [] if value == "f16" else None
    if value == "f16":
        return []
    return [f"OLLAMA_KV_CACHE_TYPE={value}", *(["OLLAMA_FLASH_ATTENTION=1"] if spec.flash_attn == "auto" else [])]


def _cache_setting(name: str) -> Speller:
    def write(value: str, asked: Asked) -> Words:
        if value == "bf16":
            return None
        return [] if value == "f16" else [f"{name} Cache Quantization Type: {value}"]

    return write


def _one_batch(value: int, asked: Asked) -> Words:
    """Of programs with one batch: what is told is the physical one, with n_ubatch."""
    return [] if value in (2048, asked.n_batch_physical) else None


def _one_batch_parameter(value: int, asked: Asked) -> Words:
    return _parameter("num_batch", 512)(asked.n_batch_physical, asked)


def _one_batch_setting(value: int, asked: Asked) -> Words:
    return _setting("Evaluation Batch Size", 512)(asked.n_batch_physical, asked)


_ONE_BATCH = "it has one batch, which is told as n_ubatch"
_ONE_COUNT = "it has one number of threads"
_FEWER = "so fewer layers fit"
_ONE_TYPE = f"it has one type for K and V, of {', '.join(_OLLAMA_TYPES)}"

#: Each measured parameter; of those that place a token in time (n_depth) a program has nothing.
SPELLINGS: Mapping[str, Spelling] = {
    "n_gpu_layers": Spelling(_gpu_layers_option, _gpu_layers_argument, _gpu_layers_parameter, _gpu_layers_setting),
    "split_mode": Spelling(
        _option("-sm", "layer"), _argument("split_mode", "layer", _constant("LLAMA_SPLIT_MODE_")),
        _cannot("layer"), _cannot("layer"),
    ),
    "main_gpu": Spelling(
        _option("-mg", 0), _argument("main_gpu", 0), _parameter("main_gpu", 0), _cannot(0),
        {"studio": "choose it under Hardware"},
    ),
    "tensor_split": Spelling(
        _option("-ts", (), _join), _argument("tensor_split", (), lambda value: repr(list(value))), _cannot(()), _cannot(()),
    ),
    "n_cpu_moe": Spelling(
        _option("-ncmoe", 0), _cannot(0), _cannot(0),
        _setting("Number of layers for which to force MoE weights onto CPU", 0),
        {"python": _FEWER, "ollama": _FEWER},
    ),
    "override_tensors": Spelling(_option("-ot", (), _join), _cannot(()), _cannot(()), _cannot(())),
    "devices": Spelling(
        _option("-dev", (), _join), _cannot(()), _cannot(()), _cannot(()),
        {
            "python": "hide the others, as with CUDA_VISIBLE_DEVICES",
            "ollama": "hide the others, as with CUDA_VISIBLE_DEVICES",
            "studio": "switch the others off under Hardware",
        },
    ),
    "rpc": Spelling(_option("--rpc", (), _join), _cannot(()), _cannot(()), _cannot(())),
    "load_mode": Spelling(_option("-lm", "auto"), _load_mode_argument, _load_mode_parameter, _load_mode_setting),
    "repack": Spelling(_switch("-nr", False), _cannot(True), _cannot(True), _cannot(True)),
    "no_host": Spelling(_switch("--no-host"), _cannot(False), _cannot(False), _cannot(False)),
    "no_op_offload": Spelling(
        _switch("--no-op-offload"), lambda value, asked: ["op_offload=False"] if value else [], _cannot(False), _cannot(False)
    ),
    "n_batch": Spelling(
        _option("-b", 2048), _argument("n_batch", 512), _one_batch, _one_batch, {"ollama": _ONE_BATCH, "studio": _ONE_BATCH}
    ),
    "n_ubatch": Spelling(_option("-ub", 512), _argument("n_ubatch", 512), _one_batch_parameter, _one_batch_setting),
    "type_k": Spelling(
        _option("-ctk", "f16"), _argument("type_k", "f16", _cache_type), _cache_variable, _cache_setting("K"),
        {"ollama": _ONE_TYPE},
    ),
    "type_v": Spelling(
        _option("-ctv", "f16"), _argument("type_v", "f16", _cache_type),
        lambda value, asked: [] if _cache_variable(value, asked) is not None else None, _cache_setting("V"),
        {"ollama": _ONE_TYPE},
    ),
    "no_kv_offload": Spelling(
        _switch("-nkvo"), lambda value, asked: ["offload_kqv=False"] if value else [], _cannot(False),
        lambda value, asked: ["Offload KV Cache to GPU Memory: off"] if value else [],
    ),
    # Llama leaves swa_full to llama.cpp's library, whose default is on; llama.cpp's programs have it off.
    "swa_full": Spelling(_switch("--swa-full"), _argument("swa_full", None), _cannot(False), _cannot(False)),
    "flash_attn": Spelling(
        _option("-fa", "auto"), _flash_argument, _flash_variable, _flash_setting
    ),
    "embeddings": Spelling(
        _switch("--embeddings"), lambda value, asked: ["embedding=True"] if value else [], _nothing, _nothing
    ),
    "n_threads": Spelling(
        _option("-t", None), _argument("n_threads", None), _parameter("num_thread", None), _setting("CPU Thread Pool Size", None)
    ),
    "n_threads_batch": Spelling(
        _option("-tb", None), _both_threads_argument, _same_threads, _same_threads,
        {"ollama": _ONE_COUNT, "studio": _ONE_COUNT},
    ),
    "cpu_mask": Spelling(_cpu_option("-C", "-Cb", "0x0"), _cannot("0x0"), _cannot("0x0"), _cannot("0x0")),
    "cpu_strict": Spelling(
        _cpu_option("--cpu-strict", "--cpu-strict-batch", False, lambda value: str(int(value))),
        _cannot(False), _cannot(False), _cannot(False),
    ),
    "poll": Spelling(_cpu_option("--poll", "--poll-batch", 50), _cannot(50), _cannot(50), _cannot(50)),
    "priority": Spelling(
        _priority_option, _cannot(0), _cannot(0), _cannot(0),
        {"python": "start it under nice", "ollama": "start its server under nice"},
    ),
    "numa": Spelling(
        _option("--numa", "disabled"), _argument("numa", "disabled", _constant("GGML_NUMA_STRATEGY_")),
        _cannot("disabled"), _cannot("disabled"),
    ),
    # llama-server takes four slots of one cache where it is not told how many, and LM Studio four at once.
    "n_parallel": Spelling(
        _option("-np", None), _cannot(1), lambda value, asked: [f"OLLAMA_NUM_PARALLEL={value}"],
        _setting("Max Concurrent Predictions", None),
    ),
    "kv_unified": Spelling(
        _switch("-kvu"), _cannot(False), _cannot(False), lambda value, asked: ["Unified KV Cache: on"] if value else []
    ),
}  # fmt: skip
