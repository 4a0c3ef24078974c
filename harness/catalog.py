"""models.toml: which models there are, where their files are, and what shape they have."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.codec import Malformed, decode
from harness.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: What stands for a model where no file of it is known, and what a synthetic one is written in: the quantization that this project
#: began with.
FALLBACK_QUANTIZATION = "Q4_0"


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's dimensions, in GGUF's names and units (counts of elements), enough to lay out its tensors without its weights.

    head_dim is both the key and the value length of one head; extra metadata (rope scaling, biases) goes by flags.
    feed_forward_length is one expert's where there are experts; expert_shared_feed_forward_length that of the expert which every token
    uses. rope_dimension_count is how much of a head is rotated, 0 for all of it. full_attention_interval (qwen35: every so manieth
    block) or attention_blocks (granitehybrid) say which blocks have attention; the others keep a recurrent state, whose dimensions the
    ssm fields give. cross_attention_blocks are the blocks of mllama that look at an image instead of at the text.
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
    expert_shared_feed_forward_length: int = 0
    sliding_window: int = 0
    rope_dimension_count: int = 0
    full_attention_interval: int = 0
    attention_blocks: tuple[int, ...] = ()
    ssm_conv_kernel: int = 0
    ssm_state_size: int = 0
    ssm_group_count: int = 0
    ssm_time_step_rank: int = 0
    ssm_inner_size: int = 0
    cross_attention_blocks: tuple[int, ...] = ()

    def is_recurrent(self, block: int) -> bool:
        """Whether a block (from 0) keeps a state of fixed size instead of keys and values."""
        if self.full_attention_interval:
            return (block + 1) % self.full_attention_interval != 0
        return bool(self.attention_blocks) and block not in self.attention_blocks


@dataclass(frozen=True, slots=True)
class Files:
    """One quantization on Hugging Face: its parts in order.

    size_bytes is of all parts together; sha256 has one digest a part, where they are known. verified says whether the hub itself
    confirmed that the files exist with this size and these digests (`harness models --check`); evidence where else they were seen.
    """

    quantization: str
    repository: str
    files: tuple[str, ...]
    size_bytes: int | None = None
    sha256: tuple[str, ...] = ()
    verified: bool = False
    evidence: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantization", self.quantization.upper())


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalog.

    embedded is the quantization that comes with an installed package; ollama_2024 what Ollama's bare name stood for in autumn 2024;
    refused the sentence that says why it cannot be run, where it cannot.
    """

    name: str
    shape: Shape
    files: tuple[Files, ...] = ()
    parameters: int | None = None
    ollama_2024: str | None = None
    embedded: str | None = None
    refused: str | None = None

    @property
    def default_quantization(self) -> str:
        """What a bare name stands for: Ollama's choice of 2024, the embedded file, Q4_K_M, the first that is listed, else Q4_0."""
        listed = [files.quantization for files in self.files]
        usual = "Q4_K_M" if "Q4_K_M" in listed else next(iter(listed), FALLBACK_QUANTIZATION)
        return self.ollama_2024 or self.embedded or usual

    def refuse(self) -> None:
        """Make sure that the model can be run.

        Raises
        ------
        UsageError : it cannot, with the reason.
        """
        if self.refused:
            raise UsageError(f"{self.refused}.")

    def find_files(self, quantization: str | None) -> Files:
        """The files of a quantization; where none is named, of the default one, else of the first.

        Raises
        ------
        UsageError : the catalog has no such quantization of this model.
        """
        wanted = (quantization or self.default_quantization).upper()
        for files in self.files:
            if files.quantization == wanted:
                return files
        if quantization is None and self.files:
            return self.files[0]
        if not self.files:
            raise UsageError(
                f"The catalog names no file of {self.name}; give one as hf:OWNER/REPO:QUANT, or time its shape with "
                f"-m synth:{self.name}."
            )
        known = ", ".join(files.quantization for files in self.files)
        raise UsageError(f"The catalog has no {wanted} of {self.name}; it has {known}.")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Entries by name."""

    entries: Mapping[str, Entry]

    def merged(self, other: Catalog) -> Catalog:
        """This catalog with another laid over it."""
        return Catalog({**self.entries, **other.entries})

    def find(self, name: str) -> Entry:
        """Look a model up.

        Raises
        ------
        UsageError : there is none, with the nearest names.
        """
        entry = self.entries.get(name.lower())
        if entry is None:
            near = difflib.get_close_matches(name.lower(), self.entries, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`harness models` lists them."
            raise UsageError(f"{name!r} is neither a file nor a model of the catalog; {hint}")
        return entry

    def split(self, text: str) -> tuple[Entry, str | None]:
        """Read ``llama3.2:1b`` or ``llama3.2:1b:q4_0`` as an entry and a quantization.

        Raises
        ------
        UsageError : as `find`.
        """
        name, _, last = text.rpartition(":")
        if name.lower() in self.entries:
            return self.entries[name.lower()], last.upper()
        return self.find(text), None


def parse_catalog(text: str, origin: str) -> Catalog:
    """Read a catalog; origin names it in errors.

    Raises
    ------
    UsageError : it is not TOML, or an entry lacks or misspells something, with the entry and the key.
    """
    try:
        models = tomllib.loads(text).get("models", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is not valid TOML ({error}); correct it there.") from None
    except RecursionError:
        raise UsageError(f"{origin} is nested too deep to be a catalog; correct it there.") from None
    if not isinstance(models, dict):
        raise UsageError(f'In {origin}, models is not a table; entries begin with [models."name"].')
    return Catalog({name.lower(): _parse_entry(name.lower(), values, origin) for name, values in models.items()})


def _parse_entry(name: str, values: Any, origin: str) -> Entry:
    where = f"In {origin}, {name}"
    if not isinstance(values, dict) or not isinstance(values.get("shape"), dict):
        raise UsageError(f'{where} has no shape; give it a table [models."{name}".shape].')
    shape = {key: value for key, value in values["shape"].items() if key != "source"}
    files = values["files"] if isinstance(values.get("files"), list) else []
    for kind, found in ((Entry, values), (Shape, shape), *((Files, item) for item in files if isinstance(item, dict))):
        known = [field.name for field in dataclasses.fields(kind)]
        if unknown := [key for key in found if key not in known]:
            raise UsageError(f"{where} has an unknown key {unknown[0]}; the known ones are {', '.join(known)}.")
    try:
        return decode(Entry, {**values, "name": name, "shape": shape})
    except Malformed as error:
        raise UsageError(f"{where}: {error}; correct it there.") from None
