"""How values of options are read: lists, ranges, choices, switches, splits, servers, devices, masks and overrides, as llama-bench
writes them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

Parser = Callable[[str], tuple[Any, ...]]

#: A range that expands to more cells than this is a slip of the keyboard, not a plan.
MAX_VALUES = 4096

#: CPUs that a mask may name. Source: GGML_MAX_N_THREADS of ggml.h.
MAX_CPUS = 512

_RANGE = re.compile(r"(-?\d+)(?:-(\d+)(?:([+*])(\d+))?)?")


def parse_range(text: str) -> tuple[int, ...]:
    """Expand llama-bench's lists and ranges: ``0,8,16`` · ``0-32+8`` · ``1-64*2`` · ``4-7``.

    Raises
    ------
    ValueError : the text is neither a number, a list nor a range, or it does not end.

    Source: parse_int_range in llama.cpp's tools/llama-bench/llama-bench.cpp.
    """
    values: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is not a number or a range such as 0-32+8 or 1-64*2")
        first, last = int(match[1]), int(match[2] if match[2] is not None else match[1])
        multiply, step = match[3] == "*", int(match[4] or 1)
        if last < first:
            raise ValueError(f"the range {part.strip()!r} runs backwards")
        if step < 1 or (multiply and (step < 2 or first < 1)):
            raise ValueError(f"the range {part.strip()!r} never ends")
        value = first
        while value <= last:
            values.append(value)
            value = value * step if multiply else value + step
            if len(values) > MAX_VALUES:
                raise ValueError(f"{text!r} gives more than {MAX_VALUES} values")
    return tuple(values)


def whole_numbers(minimum: int, maximum: int, *, words: Mapping[str, int] | None = None) -> Parser:
    """Make a parser of lists and ranges of whole numbers within bounds; `words` name values (``0,all`` is 0 and -1)."""

    def parse(text: str) -> tuple[int, ...]:
        for word, value in (words or {}).items():
            text = re.sub(rf"(?i)(?<![^,]) *{word} *(?![^,])", str(value), text)
        values = parse_range(text)
        for value in values:
            if not minimum <= value <= maximum:
                raise ValueError(f"{value} is out of range; it must be {bounds}")
        return values

    bounds = f"from {minimum} to {maximum}"
    return parse


def choices(*allowed: str, aliases: Mapping[str, str] | None = None) -> Parser:
    """Make a parser of comma lists in which each word is one of `allowed` (or an alias of one)."""

    def parse(text: str) -> tuple[str, ...]:
        words = [word.strip().lower() for word in text.split(",")]
        words = [(aliases or {}).get(word, word) for word in words]
        for word in words:
            if word not in allowed:
                raise ValueError(f"{word!r} is not one of {', '.join(allowed)}")
        return tuple(words)

    return parse


_SWITCH = {"on": True, "1": True, "true": True, "yes": True, "off": False, "0": False, "false": False, "no": False}


def parse_switch(text: str) -> tuple[bool, ...]:
    """Read a comma list of on/off (or 1/0, as llama-bench writes them)."""
    try:
        return tuple(_SWITCH[word.strip().lower()] for word in text.split(","))
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is neither on nor off") from None


def parse_split(text: str) -> tuple[tuple[float, ...], ...]:
    """Read llama-bench's tensor splits: proportions joined by ``/``, alternatives by ``,`` (``3/1,1/1``)."""
    splits = []
    for alternative in text.split(","):
        try:
            parts = tuple(float(part) for part in re.split(r"[/;]", alternative))
        except ValueError:
            raise ValueError(f"{alternative!r} is not a split; write proportions such as 3/1") from None
        if not all(0 <= part < float("inf") for part in parts) or sum(parts) <= 0:
            raise ValueError(f"the split {alternative!r} does not add up: proportions are positive numbers such as 3/1")
        splits.append(parts)
    return tuple(splits)


_ENDPOINT = re.compile(r"([A-Za-z0-9._-]+):(\d{1,5})")


def is_endpoint(text: str) -> bool:
    """Whether a text is a host name or IPv4 address with a port."""
    match = _ENDPOINT.fullmatch(text)
    return match is not None and 0 < int(match[2]) < 65536


def parse_endpoints(text: str) -> tuple[tuple[str, ...], ...]:
    """Read a comma list of RPC servers, ``host:port,host:port``, as one value: all of them at once, as llama-bench has it.

    Raises
    ------
    ValueError : an item is not a host name or IPv4 address with a port (ggml's RPC knows no IPv6).
    """
    endpoints = tuple(part.strip() for part in text.split(","))
    for endpoint in endpoints:
        if not is_endpoint(endpoint):
            raise ValueError(f"{endpoint!r} is not a server; write host:port, such as 192.168.1.7:50052")
    if len(set(endpoints)) < len(endpoints):
        raise ValueError(f"{text!r} names a server twice")
    return (endpoints,)


def parse_devices(text: str) -> tuple[tuple[str, ...], ...]:
    """Read llama-bench's device lists: names joined by ``/``, alternatives by ``,``; ``auto`` is llama.cpp's own choice.

    Raises
    ------
    ValueError : a name is empty.
    """
    lists = []
    for alternative in text.split(","):
        names = tuple(name.strip() for name in alternative.split("/"))
        if not all(names):
            raise ValueError(f"{alternative!r} is not a list of devices; join their names with /, such as CUDA0/RPC0")
        lists.append(() if names == ("auto",) else names)
    return tuple(lists)


_MASK = re.compile(r"(?:0x)?([0-9a-fA-F]+)")


@functools.cache
def read_mask(text: str) -> tuple[int, ...]:
    """The CPUs that a mask in hex names, the lowest bit being CPU 0; none for ``0x0``, which binds no thread.

    Raises
    ------
    ValueError : it is no hex number, or names a CPU beyond the 512 that ggml knows.

    Source: parse_cpu_mask in llama.cpp's common/common.cpp.
    """
    match = _MASK.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a mask of CPUs; write it in hex, such as 0xf for the first four")
    bits = int(match[1], 16)
    if bits.bit_length() > MAX_CPUS:
        raise ValueError(f"{text!r} names a CPU beyond the {MAX_CPUS} that ggml knows")
    return tuple(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def parse_masks(text: str) -> tuple[str, ...]:
    """Read a comma list of masks of CPUs as llama-bench writes them; each stays as it is written.

    Raises
    ------
    ValueError : as `read_mask`.
    """
    masks = tuple(part.strip() for part in text.split(","))
    for mask in masks:
        read_mask(mask)
    return masks


#: What Python's patterns have and C++'s ECMAScript ones do not.
_FOREIGN = re.compile(r"\(\?(?![:=!])|\\[AZ]")


@functools.cache
def split_override(text: str) -> tuple[re.Pattern[str], str]:
    """The pattern of tensor names and the buffer type of an override, ``blk\\.1\\..*=CPU``.

    Raises
    ------
    ValueError : it is none, or its pattern is none that std::regex takes.

    Source: parse_cmd_params in llama-bench.cpp (the first ``=`` divides); llama-model-loader.cpp create_tensor (std::regex).
    """
    pattern, _, buffer = text.partition("=")
    if not pattern or not buffer:
        raise ValueError(
            f"{text!r} is not an override; write a pattern of tensor names and a buffer type, such as exps=CPU"
        )
    try:
        if _FOREIGN.search(pattern):
            raise re.error("unknown to std::regex")
        return re.compile(pattern), buffer
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a pattern of tensor names ({error})") from None


def parse_overrides(text: str) -> tuple[tuple[str, ...], ...]:
    """Read llama-bench's overrides: ``PATTERN=BUFFER`` joined by ``;``, alternatives by ``,``; empty, ``none``, ``auto``: none.

    Raises
    ------
    ValueError : as `split_override`.
    """
    alternatives = []
    for alternative in text.split(","):
        words = () if alternative.strip() in ("", "none", "auto") else tuple(filter(None, alternative.split(";")))
        for word in words:
            split_override(word)
        alternatives.append(words)
    return tuple(alternatives)
