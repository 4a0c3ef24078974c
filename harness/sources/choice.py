"""Which file of a repository is meant: by quantization, by name whatever its case, and what is no model at all. Text only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.untrusted import harmless

_PART = re.compile(r"-([0-9]{5})-of-([0-9]{5})\.gguf$", re.IGNORECASE)
#: A file cut by bytes, as `split` does it and some repositories have large ones: x.gguf.part1of2, x.gguf-split-a.
_BYTE_SPLIT = re.compile(r"\.gguf[.-](?:part|split)[-_.]?[0-9a-z]+$", re.IGNORECASE)

#: Parts of a model for drafts, written before its name (mtp-Qwen3.gguf). "-mtp-" inside a name is a whole model that has such a layer.
#: Source: llama.cpp common/download.cpp gguf_filename_is_model.
_SIDECAR = re.compile(r"(?:mtp|eagle3|dflash|dspark)-", re.IGNORECASE)
_ACCESSORY = re.compile(r"mmproj|imatrix|(?<![a-z0-9])loras?(?![a-z0-9])", re.IGNORECASE)
_DRAFT = re.compile(r"(?<![a-z0-9])drafts?(?![a-z0-9])", re.IGNORECASE)

#: How quantizations are spelled at a name's end. UD- marks unsloth's own mixture, which only shares the name.
_KIND = re.compile(
    r"(?<![a-z0-9])((?:UD[-_])?(?:I?Q[0-9](?:_[A-Z0-9]+)*|TQ[0-9]_[0-9]|BF16|FP?(?:16|32)|MXFP4(?:_[A-Z]+)?|NVFP4))$",
    re.IGNORECASE,
)
_DEFAULTS = ("Q4_K_M", "Q8_0")
_OTHER_SPELLINGS = {"F16": "FP16", "F32": "FP32"}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file's name, and whether it only comes near what was asked: UD-Q4_K_M where there is no Q4_K_M."""

    name: str
    is_near: bool = False


def is_byte_split(name: str) -> bool:
    """Whether a name is that of a piece of a file."""
    return _BYTE_SPLIT.search(name) is not None


def explain_byte_split(name: str) -> str:
    """Say of a piece of a file what it is and what to do."""
    whole = _BYTE_SPLIT.sub(".gguf", name)
    ending = "-split*" if "-split" in name[len(whole) :].lower() else ".part*"
    word = harmless.shell_word(whole)
    join = f"join them with `cat {word}{ending} > {word}`" if word else "join them"
    return (
        f"{name} is a piece of a file that was cut by bytes, which llama.cpp cannot open; download all pieces, {join} "
        f"in the order of their numbers, and name {whole}"
    )


def is_gguf(name: str) -> bool:
    """Whether a file is a model by its name."""
    return name.lower().endswith(".gguf")


def choose(names: Sequence[str], quantization: str | None) -> Chosen | None:
    """Choose the model that llama.cpp's ``-hf owner/repo:Q4_0`` would, by whole words; None where there is none.

    Without a quantization: Q4_K_M, else Q8_0, else the first model.

    Source: common/download.cpp find_best_model, which takes the first name that holds the text, BF16 for F16 too.
    """
    models = list_models(names)
    for wanted in [quantization.upper()] if quantization else _DEFAULTS:
        found = [(key, index) for index, name in enumerate(models) if (key := _closeness(name, wanted)) is not None]
        if found:
            (is_near, *_), index = min(found)
            return Chosen(models[index], is_near)
    return Chosen(models[0]) if quantization is None and models else None


def find_same_name(name: str, names: Iterable[str]) -> str | None:
    """Find a name that differs from this one by case alone; publishers change it (gpt-oss-20b-mxfp4 became gpt-oss-20b-MXFP4)."""
    return next((other for other in names if other.casefold() == name.casefold()), None)


def list_models(names: Sequence[str]) -> list[str]:
    """The models among files, first parts of split ones; a draft model counts only where there is nothing else."""
    found = []
    for name in names:
        part, is_accessory = _PART.search(name), _ACCESSORY.search(name) or _SIDECAR.match(name.rpartition("/")[2])
        if is_gguf(name) and (part is None or int(part[1]) == 1) and not is_accessory:
            found.append(name)
    return [name for name in found if not _DRAFT.search(name)] or found


def _stem(name: str) -> str:
    return _PART.sub("", name) if _PART.search(name) else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def _closeness(name: str, wanted: str) -> tuple[bool, bool, int] | None:
    """How well a name answers for a quantization, best first: (is another mixture of that name, is spelled otherwise, place: the end of
    the name, its folder, elsewhere in either); None where it does not."""
    *folders, inner = _stem(name).split("/")
    for spelling in filter(None, [wanted, _OTHER_SPELLINGS.get(wanted)]):
        # An underscore belongs to a quantization's name, and may stand before one: model_Q4_0.
        before = r"(?<![a-z0-9])" if _KIND.fullmatch(spelling) else r"(?<![a-z0-9_])"
        word = re.compile(rf"{before}{re.escape(spelling)}(?![a-z0-9_])", re.IGNORECASE)
        places = (
            any(match.end() == len(inner) for match in word.finditer(inner)),
            any(word.fullmatch(folder) for folder in folders),
            any(word.search(part) for part in (inner, *folders)),
        )
        if any(places):
            other = re.compile(rf"(?<![a-z0-9])UD[-_]{word.pattern}", re.IGNORECASE)
            return any(other.search(part) for part in (inner, *folders)), spelling != wanted, places.index(True)
    return None


def name_quantization(name: str) -> str | None:
    """The quantization that a file's name, or else its folder's, ends with."""
    found = (_KIND.search(part) for part in reversed(_stem(name).split("/")))
    return next((match[1].upper() for match in found if match), None)


def name_quantizations(names: Sequence[str]) -> list[str]:
    """The quantizations that a repository's models have, as their names say."""
    return sorted({kind for name in list_models(names) if (kind := name_quantization(name))})


def byte_split_of(names: Sequence[str], quantization: str | None) -> str | None:
    """The first piece of a model that a repository has only cut by bytes."""
    pieces = [name for name in names if is_byte_split(name)]
    wholes = {_BYTE_SPLIT.sub(".gguf", name): name for name in reversed(pieces)}
    chosen = choose(list(wholes), quantization)
    return wholes[chosen.name] if chosen else None
