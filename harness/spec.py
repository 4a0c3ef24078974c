"""What to run: one cell (`RunSpec`), and all validation of it; `harness.grid` makes many of them.

Every measured parameter is one field of `RunSpec` with one `Parameter`. The command line makes its options from that table and the
native engine reads the field, so that a new parameter touches this file and `harness/native/engine.py` and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.codec import FORMERLY, FilePath, decode, encode, file_name
from harness.errors import UsageError
from harness.parsers import (
    Parser,
    choices,
    is_endpoint,
    parse_devices,
    parse_endpoints,
    parse_masks,
    parse_overrides,
    parse_split,
    parse_switch,
    read_mask,
    split_override,
    whole_numbers,
)

Scope = Literal["load", "context", "test", "run"]

#: Cache types that llama.cpp's own tools accept (common/arg.cpp, kv_cache_types).
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

#: Ten million tokens, the longest context that any released model claims. llama.cpp's own bookkeeping for a context a few hundred times
#: as long took all of 24 GB before it asked for the cache (seen with 2,000,000,000 tokens: the kernel killed the process).
MAX_TOKENS = 10_000_000

#: Context where nobody asks for another, in tokens, or the model's own where that is less: what Ollama and llama.cpp's fitting take.
DEFAULT_N_CTX = 4096

#: Layers that llama.cpp takes at the most. Source: src/llama-hparams.h LLAMA_MAX_LAYERS.
MAX_LAYERS = 512

#: What may be written for "all layers": people write 99, 999, 9999.
MAX_LAYERS_WRITTEN = 1_000_000

#: Devices that ggml takes at the most, a round number above any of its backends' own bounds.
MAX_DEVICES = 256

#: Repetitions, rounds and the like: more would not end.
MAX_REPEATS = 100_000

#: What llama.cpp's seeds hold.
MAX_SEED = 2**32 - 1

#: Sequences that one context holds at the most. Source: src/llama-cparams.h LLAMA_MAX_SEQ.
MAX_SEQUENCES = 256

#: Threads that ggml takes at the most. Source: GGML_MAX_N_THREADS of ggml.h.
MAX_THREADS = 512

#: Ways to read a model's file, by llama.cpp's names of enum llama_load_mode (llama.h).
LOAD_MODES = ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")

#: Strategies of enum ggml_numa_strategy (ggml-cpu.h) that llama.cpp's tools take.
NUMA_STRATEGIES = ("disabled", "distribute", "isolate", "numactl")

#: The mask of CPUs that binds no thread.
NO_MASK = "0x0"


@dataclass(frozen=True, slots=True)
class Parameter:
    """How one field of `RunSpec` is asked for and shown.

    scope says what changes with it: ``load`` the model must be loaded anew, ``context`` only the context, ``test`` only the work,
    ``run`` how often and in what manner it is repeated.
    """

    flags: tuple[str, ...]
    parse: Parser
    scope: Scope
    help: str
    heading: str = ""
    metavar: str = "N"
    bare: str | None = None  # what the option means when it stands without a value


#: What a field was called, and what its values were: older records have it so (`harness.codec.FORMERLY`).
_Former = Mapping[str, Mapping[str, str]]


def _field(
    default: Any, *flags: str, parse: Parser, scope: Scope, help: str, formerly: _Former | None = None, **extra: str
) -> Any:
    parameter = Parameter(flags, parse, scope, help, **extra)
    return field(default=default, metadata={"parameter": parameter, FORMERLY: formerly or {}})


_cache_type = choices(*CACHE_TYPES)
#: Source: is_truthy, is_falsey and is_autoy in llama.cpp's common/arg.cpp.
_FLASH_WORDS = {"1": "on", "true": "on", "enabled": "on", "0": "off", "false": "off", "disabled": "off", "-1": "auto"}
_flash = choices("on", "off", "auto", aliases=_FLASH_WORDS)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One cell: everything that decides what is timed. Names are llama.cpp's, counts are tokens or layers unless said.

    n_threads is None until somebody who knows the machine fills it in (`with_threads`).

    Raises
    ------
    UsageError : the fields contradict each other.
    """

    model: FilePath  #: file, catalog name or other reference; a record has the file name
    numa: str = _field(
        "disabled", "--numa", parse=choices(*NUMA_STRATEGIES), scope="load",
        help="Memory of several processors: disabled, distribute, isolate or numactl.", heading="numa", metavar="MODE",
    )  # fmt: skip
    priority: int = _field(
        0, "--prio", parse=whole_numbers(-1, 3), scope="load",
        help="Priority of process and threads: -1 low, 0 usual, 1 medium, 2 high, 3 realtime.", heading="prio",
    )  # fmt: skip
    n_gpu_layers: int = _field(
        -1, "-ngl", "--n-gpu-layers", "--gpu-layers", scope="load",
        parse=whole_numbers(-1, MAX_LAYERS_WRITTEN, words={"all": -1, "auto": -1}),
        help="Layers to put on the GPU; -1, 'all' or 'auto' is every layer, 0 is CPU only.", heading="ngl",
    )  # fmt: skip
    split_mode: str = _field(
        "layer", "-sm", "--split-mode", parse=choices("none", "layer", "row", "tensor"), scope="load",
        help="How several GPUs share the model: none, layer, row or tensor.", heading="sm", metavar="MODE",
    )  # fmt: skip
    main_gpu: int = _field(
        0, "-mg", "--main-gpu", parse=whole_numbers(0, MAX_DEVICES - 1), scope="load",
        help="The GPU that is used when the model is not split.", heading="mg",
    )  # fmt: skip
    tensor_split: tuple[float, ...] = _field(
        (), "-ts", "--tensor-split", parse=parse_split, scope="load",
        help="Share of each GPU, as 3/1; alternatives are separated by commas.", heading="ts", metavar="A/B",
    )  # fmt: skip
    n_cpu_moe: int = _field(
        0, "-ncmoe", "--n-cpu-moe", parse=whole_numbers(0, MAX_LAYERS_WRITTEN), scope="load",
        help="Layers, from the first, whose experts stay on the CPU.", heading="ncmoe",
    )  # fmt: skip
    override_tensors: tuple[str, ...] = _field(
        (), "-ot", "--override-tensor", parse=parse_overrides, scope="load", heading="ot", metavar="PATTERN=BUFFER;…",
        help="Buffers for tensors whose names match, as exps=CPU; alternatives are separated by commas.",
    )  # fmt: skip
    devices: tuple[str, ...] = _field(
        (), "-dev", "--device", parse=parse_devices, scope="load",
        help="Devices to use, as CUDA0/RPC0, or none; default: all.", heading="dev", metavar="A/B",
    )  # fmt: skip
    rpc: tuple[str, ...] = _field(
        (), "-rpc", "--rpc", parse=parse_endpoints, scope="load",
        help="RPC servers (harness rpc-server) whose devices join in.", heading="rpc", metavar="HOST:PORT,…",
    )  # fmt: skip
    load_mode: str = _field(
        "auto", "-lm", "--load-mode", "-mmp", "--mmap", scope="load", metavar="MODE", heading="lm",
        parse=choices(*LOAD_MODES, aliases={"1": "mmap", "on": "mmap", "0": "none", "off": "none"}),
        help="How the file is read: " + " ".join(LOAD_MODES) + "; on is mmap, off none.",
        formerly={"mmap": {"on": "mmap", "off": "none", "auto": "auto"}},
    )  # fmt: skip
    no_host: bool = _field(
        False, "--no-host", parse=parse_switch, scope="load",
        help="Weights on the CPU go past a GPU's pinned memory, so that they may be repacked.", heading="noh",
        metavar="[on|off]", bare="on",
    )  # fmt: skip
    repack: bool = _field(
        True, "--repack", parse=parse_switch, scope="load",
        help="Let llama.cpp keep a second copy of weights in the CPU's own layout.", heading="repack", metavar="on|off",
    )  # fmt: skip
    n_batch: int = _field(
        2048, "-b", "--batch-size", parse=whole_numbers(1, MAX_TOKENS), scope="context",
        help="Logical batch: tokens handed to one decode.", heading="n_batch",
    )  # fmt: skip
    n_ubatch: int = _field(
        512, "-ub", "--ubatch-size", parse=whole_numbers(1, MAX_TOKENS), scope="context",
        help="Physical batch: tokens computed at once.", heading="n_ubatch",
    )  # fmt: skip
    type_k: str = _field(
        "f16", "-ctk", "--cache-type-k", parse=_cache_type, scope="context",
        help="Type of the K cache: " + " ".join(CACHE_TYPES) + ".", heading="type_k", metavar="TYPE",
    )  # fmt: skip
    type_v: str = _field(
        "f16", "-ctv", "--cache-type-v", parse=_cache_type, scope="context",
        help="Type of the V cache; a quantized one needs flash attention.", heading="type_v", metavar="TYPE",
    )  # fmt: skip
    no_kv_offload: bool = _field(
        False, "-nkvo", "--no-kv-offload", parse=parse_switch, scope="context",
        help="Keep the KV cache in host memory.", heading="nkvo", metavar="[on|off]", bare="on",
    )  # fmt: skip
    swa_full: bool = _field(
        False, "--swa-full", parse=parse_switch, scope="context",
        help="Keep all tokens in the cache of layers with a sliding window too.", heading="swa_full", metavar="[on|off]", bare="on",
    )  # fmt: skip
    kv_unified: bool = _field(
        False, "-kvu", "--kv-unified", parse=parse_switch, scope="context",
        help="One cache for all sequences instead of one each.", heading="kvu", metavar="[on|off]", bare="on",
    )  # fmt: skip
    flash_attn: str = _field(
        "auto", "-fa", "--flash-attn", parse=_flash, scope="context",
        help="Flash attention: on, off or auto.", heading="fa", metavar="on|off|auto", bare="on",
    )  # fmt: skip
    embeddings: bool = _field(
        False, "-embd", "--embeddings", parse=parse_switch, scope="context",
        help="Compute embeddings instead of logits; default: on for embedding models.", heading="embd", metavar="[on|off]", bare="on",
    )  # fmt: skip
    no_op_offload: bool = _field(
        False, "-nopo", "--no-op-offload", parse=parse_switch, scope="context",
        help="Compute large batches where their weights are, and not on the GPU.", heading="nopo", metavar="[on|off]", bare="on",
    )  # fmt: skip
    n_threads: int | None = _field(
        None, "-t", "--threads", parse=whole_numbers(1, MAX_THREADS), scope="context",
        help="CPU threads; default: as many as llama.cpp takes, of the cores that are ours.", heading="threads",
    )  # fmt: skip
    n_threads_batch: int | None = _field(
        None, "-tb", "--threads-batch", parse=whole_numbers(1, MAX_THREADS), scope="context",
        help="CPU threads for prompts; default: as many as -t.", heading="threads_batch",
    )  # fmt: skip
    cpu_mask: str = _field(
        NO_MASK, "-C", "--cpu-mask", parse=parse_masks, scope="context",
        help="CPUs that threads may use, in hex: 0xf is the first four; 0x0 is any.", heading="cpu_mask", metavar="HEX",
    )  # fmt: skip
    cpu_strict: bool = _field(
        False, "--cpu-strict", parse=parse_switch, scope="context",
        help="Give each thread a CPU of its own of -C.", heading="cpu_strict", metavar="[on|off]", bare="on",
    )  # fmt: skip
    poll: int = _field(
        50, "--poll", parse=whole_numbers(0, 100), scope="context",
        help="How long threads spin before they sleep, 0 to 100; nothing where ggml has OpenMP.", heading="poll",
    )  # fmt: skip
    n_depth: int = _field(
        0, "-d", "--n-depth", "--depth", parse=whole_numbers(0, MAX_TOKENS), scope="test",
        help="Tokens that are in the cache before the clock starts.",
    )  # fmt: skip
    n_prefix: int = _field(
        0, "--reuse-prefix", parse=whole_numbers(0, MAX_TOKENS), scope="test",
        help="Tokens before the prompt that the one before began with too; its cache is there.", heading="prefix",
    )  # fmt: skip
    n_parallel: int = _field(
        1, "-np", "-npl", "--n-parallel", parse=whole_numbers(1, MAX_SEQUENCES), scope="test",
        help="Sequences at once, as of so many users; each has its own prompt, depth and tokens.", heading="parallel",
    )  # fmt: skip
    is_prompt_shared: bool = _field(
        False, "-pps", "--prompt-shared", parse=parse_switch, scope="test",
        help="Read prompt and depth once and copy them to all sequences.", heading="pps", metavar="[on|off]", bare="on",
    )  # fmt: skip
    n_prompt: int = 0  #: tokens of the prompt that is timed
    n_gen: int = 0  #: tokens that are generated one by one
    repetitions: int | None = None  #: timed ones; until `precision` is reached if None
    warmup: bool | None = None  #: whether it ran once before the clock started; where that was needed if None
    delay_s: float = 0.0  #: rest before the test
    seed: int = 0  #: of the random tokens, and of the order of cells
    #: How far the median's interval may reach from it, as a share, where repetitions are not numbered.
    precision: float = 0.02
    max_time_s: float = 60.0  #: after which they are not repeated further

    def __post_init__(self) -> None:
        if self.n_prompt + self.n_gen < 1:
            raise UsageError("Nothing to measure: give -p (prompt tokens), -n (generated tokens) or -pg P,N above 0.")
        if self.n_ctx > MAX_TOKENS:
            raise UsageError(
                f"A context of {self.n_ctx} tokens is beyond reason; -p, -n and -d together"
                f"{', times -np,' if self.n_parallel > 1 else ''} may be {MAX_TOKENS}."
            )
        for endpoint in self.rpc:
            if not is_endpoint(endpoint):
                raise UsageError(f"{endpoint!r} is not a server; write host:port, such as 192.168.1.7:50052.")
        if self.repetitions is not None and self.repetitions < 1:
            raise UsageError(f"-r {self.repetitions} measures nothing; give at least 1 (6 for a 95 % interval).")
        if not self.precision > 0 or not self.max_time_s > 0:
            raise UsageError("--precision and --max-time must be above 0; leave them out for 2 % within 60 s.")
        try:
            read_mask(self.cpu_mask)
            list(map(split_override, self.override_tensors))
        except ValueError as error:
            raise UsageError(f"{error}.") from None
        if self.load_mode not in LOAD_MODES:
            raise UsageError(f"There is no load mode {self.load_mode}; there are {', '.join(LOAD_MODES)}.")
        if self.numa not in NUMA_STRATEGIES:
            raise UsageError(f"There is no strategy --numa {self.numa}; there are {', '.join(NUMA_STRATEGIES)}.")
        if self.flash_attn == "off" and self.type_v not in ("f32", "f16", "bf16"):
            raise UsageError(f"A {self.type_v} V cache needs flash attention: say -fa on, or use -ctv f16.")
        self._check_sequences()

    def _check_sequences(self) -> None:
        """A step, in which each sequence gets a token, is one batch here; llama.cpp takes no more sequences than it has room for."""
        if not 1 <= self.n_parallel <= MAX_SEQUENCES:
            raise UsageError(f"llama.cpp holds 1 to {MAX_SEQUENCES} sequences at once, and not {self.n_parallel}.")
        if self.n_prefix and self.n_parallel > 1:
            raise UsageError("--reuse-prefix is about one sequence; leave out --n-parallel.")
        for flag, size in (("-b", self.n_batch), ("-ub", self.n_ubatch)):
            if size < self.n_parallel > 1:
                raise UsageError(
                    f"{flag} {size} holds no token of each of {self.n_parallel} sequences; give at least {flag} {self.n_parallel}."
                )

    @property
    def n_ctx(self) -> int:
        """Context to ask for, in tokens, of all sequences together.

        Source: to_llama_cparams in llama-bench.cpp; n_ctx_req in batched-bench.cpp.
        """
        n_read, is_shared = self.n_depth + self.n_prefix + self.n_prompt, self.is_prompt_shared and self.kv_unified
        return (1 if is_shared else self.n_parallel) * n_read + self.n_parallel * self.n_gen

    @property
    def n_ctx_seq(self) -> int:
        """Tokens that one sequence comes to."""
        return self.n_prompt + self.n_gen + self.n_depth + self.n_prefix

    @property
    def n_filled(self) -> int:
        """Tokens of one sequence that are in the cache before the clock starts: the depth, or all of the prompt before."""
        return self.n_depth + (self.n_prefix + self.n_prompt if self.n_prefix else 0)

    @property
    def serves_one_afresh(self) -> bool:
        """Whether one user alone is served, of whose prompt nothing was read before; there may be a depth."""
        return self.n_parallel == 1 and not self.n_prefix

    @property
    def n_tokens(self) -> int:
        """Tokens that are timed in one repetition, of all sequences together; a prompt that is shared is read once."""
        return (1 if self.is_prompt_shared else self.n_parallel) * self.n_prompt + self.n_parallel * self.n_gen

    @property
    def n_tokens_seq(self) -> int:
        """Those of one sequence: what one user waits for."""
        return self.n_prompt + self.n_gen

    @property
    def kind(self) -> str:
        """What is timed: ``pp``, ``tg``, or ``pp+tg`` in one test."""
        return "pp+tg" if self.n_prompt and self.n_gen else "tg" if self.n_gen else "pp"

    @property
    def test(self) -> str:
        """llama-bench's name of the test, with the sequences where there are several: see `name_test`."""
        return self.name_test_without()

    def name_test_without(self, *told: str) -> str:
        """The same for a table that tells some fields in columns of their own: n_depth, n_parallel, is_prompt_shared."""
        left = {name: getattr(self, name) for name in NAMED_IN_TEST if name not in told}
        return name_test(self.n_prompt, self.n_gen, **left)

    @property
    def test_without_depth(self) -> str:
        """The same for a table that has the depth in a column."""
        return self.name_test_without("n_depth")

    @property
    def seeks_warmups(self) -> bool:
        """Whether first repetitions that still warmed up are left out: where nobody said how many or how to warm up."""
        return self.repetitions is None and self.warmup is None

    @property
    def n_threads_busy(self) -> int | None:
        """CPU threads that compute at once at the most; None where nobody said.

        Those of a prompt may be others than those of a token; a step of several sequences is computed by a prompt's.
        Source: llama-context.cpp (graph_compute, batched).
        """
        if self.n_threads_batch is None:
            return self.n_threads
        of_batch = self.n_threads_of_batch
        of_step = of_batch if self.n_parallel > 1 else self.n_threads
        found = [
            n for n, is_used in ((of_batch, self.n_prompt > 1), (of_step, self.n_gen > 0)) if is_used and n is not None
        ]
        return max(found) if found else self.n_threads

    @property
    def n_threads_of_batch(self) -> int | None:
        """CPU threads that compute a batch; None where nobody said."""
        return self.n_threads if self.n_threads_batch is None else self.n_threads_batch

    @property
    def binds_threads(self) -> bool:
        """Whether its threads are kept to some CPUs."""
        return bool(read_mask(self.cpu_mask))

    @property
    def file_name(self) -> str:
        """The name of the model's file without its folders, whichever system wrote the path."""
        return file_name(self.model)

    def load_key(self) -> tuple[Any, ...]:
        """Two specs with the same key can share one loaded model."""
        return (self.model, *(getattr(self, name) for name in parameters("load")))

    def with_threads(self, n_threads: int) -> RunSpec:
        """Fill in the number of threads where the user left it open."""
        return self if self.n_threads is not None else dataclasses.replace(self, n_threads=n_threads)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values by field name, with the model's whole path: what goes to a worker."""
        values: dict[str, Any] = encode(self, keep_paths=True)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Read what `to_dict` wrote, ignoring fields of another version.

        Raises
        ------
        Malformed : a field has a value of another type.
        UsageError : the fields contradict each other.
        """
        return decode(cls, values)


def name_test(
    n_prompt: int,
    n_gen: int,
    n_depth: int = 0,
    *,
    n_prefix: int = 0,
    n_parallel: int = 1,
    is_prompt_shared: bool = False,
) -> str:
    """llama-bench's name of a test: ``pp512``, ``tg128``, ``pp512+tg128``, ``tg128 @ d4096``; of several sequences, each of which does
    that, ``tg128 x4 @ d4096``, and ``pp512+tg128 x4 shared`` where the prompt is read once; ``pp512 after 4096`` where the cache holds
    a prompt that begins with the same 4096 tokens."""
    parts = [f"pp{n_prompt}"] * (n_prompt > 0) + [f"tg{n_gen}"] * (n_gen > 0)
    several = f" x{n_parallel}" if n_parallel > 1 else ""
    before = (f" @ d{n_depth}" if n_depth else "") + (f" after {n_prefix}" if n_prefix else "")
    return "+".join(parts) + several + before + (" shared" if is_prompt_shared else "")


#: Parameters that a test's name has in it.
NAMED_IN_TEST = ("n_depth", "n_prefix", "n_parallel", "is_prompt_shared")


def parameters(*scopes: Scope) -> dict[str, Parameter]:
    """The measured parameters by field name, in the order in which a change costs most first; all scopes if none is named."""
    table = _parameters()
    return {name: parameter for name, parameter in table.items() if not scopes or parameter.scope in scopes}


@functools.cache
def _parameters() -> dict[str, Parameter]:
    return {
        item.name: item.metadata["parameter"] for item in dataclasses.fields(RunSpec) if "parameter" in item.metadata
    }


#: Fields that say how often and in what manner a cell is repeated. All others decide what is timed.
MANNER = frozenset({"repetitions", "warmup", "delay_s", "seed", "precision", "max_time_s"})

#: Values of fields of `RunSpec` by their names; what is not there is as usual.
Settings = Mapping[str, Any]

CellKey = tuple[tuple[str, Any], ...]


def cell_key(spec: RunSpec, *, but: Collection[str] = ()) -> CellKey:
    """The one key by which two cells are the same, so that their records repeat each other.

    It holds every field but those of `MANNER`; of the model's path only the file's name. Whoever draws a curve over some fields names
    these in `but`: cells with equal keys are then points of one curve.
    """
    kind: Any = type(spec)
    names = _key_names(kind, frozenset(but))
    return tuple([(name, spec.file_name if name == "model" else getattr(spec, name)) for name in names])


def cell_values(*but: str) -> Callable[[RunSpec], tuple[Any, ...]]:
    """What takes of a spec the values that `cell_key` holds, without their names and the model's: equal where the keys are."""
    return operator.attrgetter(*_key_names(RunSpec, frozenset({"model", *but})))


@functools.cache
def _key_names(kind: type[RunSpec], but: frozenset[str]) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(kind) if item.name not in MANNER | but)


def find_varied(specs: Iterable[RunSpec]) -> list[str]:
    """The measured parameters by which some cells differ, in the order of `parameters`."""
    cells = list(specs)
    return [name for name in parameters() if len({getattr(cell, name) for cell in cells}) > 1]


def defaults() -> dict[str, Any]:
    """Each measured parameter's default, by field name."""
    return _defaults().copy()


@functools.cache
def _defaults() -> dict[str, Any]:
    return {item.name: item.default for item in dataclasses.fields(RunSpec) if "parameter" in item.metadata}
