"""Base units inside, scaled units only where a person reads them.

Everything in the project is held in bytes, nanoseconds, tokens and tokens per second; these functions are the only place
where a number gets a prefix, and the only place where text with a prefix becomes a number.
"""

from __future__ import annotations

import re

KIB, MIB, GIB = 1024, 1024**2, 1024**3
NS_PER_S = 1_000_000_000

_SIZE_FACTORS = {
    "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024**4,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_LARGEST = 2**63 - 1


def parse_size(text: str, *, example: str = "8GB", ending: str = "", memory: bool = False) -> int:
    """Read an amount with its unit, such as ``8GB`` or ``1.5 GiB``, as bytes (or whatever it is an amount of).

    A number without a unit is refused, since nobody means 8 bytes by ``8``.

    Parameters
    ----------
    example : an amount as it is written, whose unit is proposed where there is none
    ending  : pattern of what may stand behind the unit, such as ``/s``
    memory  : the size of a memory module or a graphics card, which are sold in powers of two: 8GB is 8 GiB

    Raises
    ------
    ValueError : the text is not a number above zero with a known unit (decimal GB or binary GiB).
    """
    match = _SIZE.fullmatch(re.sub(f"(?:{ending})\\s*$", "", text, flags=re.IGNORECASE) if ending else text)
    unit = match[2].lower() if match else ""
    if memory and unit in ("k", "kb", "m", "mb", "g", "gb", "t", "tb"):
        unit = f"{unit[0]}ib"
    factor = _SIZE_FACTORS.get(unit) if match else None
    if match and not unit and float(match[1]):
        unit = example.lstrip("0123456789. ") if float(match[1]) < 10**6 else "B"
        raise ValueError(f"{text.strip()!r} has no unit; did you mean {match[1]}{unit}?")
    if match is None or (factor is None and unit):
        raise ValueError(f"{text!r} is not an amount such as {example}")
    amount = float(match[1]) * (factor or 1)
    if not 0 < amount <= _LARGEST:
        raise ValueError(f"{text!r} is {'not above zero' if amount == 0 else 'more than there can be'}")
    return round(amount)


def format_mib(size_bytes: int) -> str:
    """Show a size as llama-bench does: MiB below one GiB, else GiB, two decimals."""
    if size_bytes < GIB:
        return f"{size_bytes / MIB:.2f} MiB"
    return f"{size_bytes / GIB:.2f} GiB"


def format_gib(size_bytes: int) -> str:
    """Show a size as memory is sold: ``8 GiB``, ``7.6 GiB``."""
    if size_bytes < GIB:
        return f"{size_bytes / MIB:.0f} MiB"
    return f"{size_bytes / GIB:.1f}".removesuffix(".0") + " GiB"


def format_gb(size_bytes: int) -> str:
    """Show a size as download pages and Ollama do: decimal units, one decimal (``1.3 GB``)."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def format_params(count: int) -> str:
    """Show a number of parameters as llama-bench does: ``134.52 M``, ``8.03 B``."""
    if count < 10**9:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e9:.2f} B"


def format_count(count: int, noun: str) -> str:
    """Show how many there are of something: ``1 record``, ``2 records``, ``no records``."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def format_duration(duration_ns: float) -> str:
    """Show a duration with three significant digits and the unit that fits: ns, µs, ms, s, min, h."""
    for unit, factor in (("ns", 1), ("µs", 10**3), ("ms", 10**6), ("s", 10**9)):
        scaled = duration_ns / factor
        if abs(scaled) < 999.5 and (unit != "s" or abs(scaled) < 119.5):
            return f"{scaled:.3g} {unit}"
    minutes = duration_ns / (60 * NS_PER_S)
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def format_rate(rate_tok_per_s: float) -> str:
    """Show tokens per second with two decimals, as every tool of this field does; small rates get four digits."""
    return f"{rate_tok_per_s:.2f}" if rate_tok_per_s >= 10 else f"{rate_tok_per_s:.4g}"


def format_go_duration(duration_ns: int) -> str:
    """Show a duration exactly as Ollama does, which is Go's way: ``1m2.5s``, ``1.234567s``, ``512.3ms``, ``12.5µs``, ``0s``.

    Source: time.Duration.String of Go's standard library (no rounding; trailing zeros are left out).
    """
    sign, rest = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    if rest == 0:
        return "0s"
    for unit, factor in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if rest < factor * 1000:
            return sign + _without_zeros(rest, factor) + unit
    minutes, rest = divmod(rest, 60 * NS_PER_S)
    hours, minutes = divmod(minutes, 60)
    prefix = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "")
    return f"{sign}{prefix}{_without_zeros(rest, NS_PER_S)}s"


def _without_zeros(value: int, factor: int) -> str:
    """value / factor (a power of ten) as a decimal fraction, exact."""
    whole, rest = divmod(value, factor)
    digits = str(rest).zfill(len(str(factor)) - 1).rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
