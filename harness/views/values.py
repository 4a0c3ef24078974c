"""How values are written for people: the one owner of rates, sizes, durations, percent, intervals and their units.

A value is held in its base unit; its `Unit` says what it is called in the names of JSON and CSV, and how it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.units import MIB, format_duration, format_gb, format_gib, format_mib, format_params, format_rate

#: What a cell may hold; a tuple is a list of settings.
Value = str | int | float | bool | tuple[Any, ...] | None

#: Stands between the ends of an interval.
DASH = " – "

#: The heading of a column of intervals of a median, as `records.statistics` makes them.
INTERVAL = "95 % interval"


@dataclass(frozen=True, slots=True)
class Unit:
    """A base unit and how it is written.

    suffix : what names of JSON and CSV end in, such as ``tok_per_s``; empty for what has no unit
    form   : writes a value
    sign   : the unit's sign where `form` writes the number alone: a column says it in its heading, anything else beside the number
    """

    suffix: str
    form: Callable[[Any], str]
    sign: str = ""


def full_name(name: str, unit: Unit | None) -> str:
    """A name as programs read it: it ends in the unit."""
    return f"{name.removesuffix(f'_{unit.suffix}')}_{unit.suffix}" if unit and unit.suffix else name


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        if any("=" in str(item) for item in value):  # overrides of tensors, as -ot takes them
            return ";".join(map(str, value))
        return "/".join(_plain(item) for item in value) or "auto"
    return str(value)


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _duration(value: float) -> str:
    return f"-{format_duration(-value)}" if value < 0 else format_duration(value)


def _scaled(factor: float, digits: int, sign: str = "") -> Callable[[Any], str]:
    def form(value: float) -> str:
        text = f"{value / factor:{sign}.{digits}f}"
        return text.lstrip("+-") if float(text) == 0 else text

    return form


def _percent(sign: str = "", digits: int = 1) -> Callable[[Any], str]:
    number = _scaled(0.01, digits, sign)
    return lambda share: f"{number(share)} %"


PLAIN = Unit("", _plain)
SETTING = Unit("", _setting)
#: Names that JSON has one by one.
LIST = Unit("", ", ".join)
COUNT = Unit("", lambda count: f"{count:,}")
PARAMS = Unit("", format_params)
RATIO = Unit("", _scaled(1, 2))
#: Where a hundredth matters.
FINE_RATIO = Unit("", _scaled(1, 4))
#: Of two measured speeds, which intervals of a percent tell apart.
SPEED_RATIO = Unit("", _scaled(1, 3))
#: A p; smaller ones are as good as that.
PROBABILITY = Unit("", lambda p: "<0.001" if p < 0.001 else f"{p:.3f}")
SHARE = Unit("", _percent())
#: In a sentence.
ROUND_SHARE = Unit("", _percent(digits=0))
#: For shares that somebody gave: with the digits that they have.
GIVEN_SHARE = Unit("", lambda share: f"{100 * share:g} %")
CHANGE = Unit("", _percent("+"))
#: Where a hundredth of a percent matters.
FINE_SHARE = Unit("", _percent(digits=2))
RATE = Unit("tok_per_s", format_rate, "t/s")
#: For what is predicted, which has no more than three digits.
ROUND_RATE = Unit("tok_per_s", _three_digits, "t/s")
#: For figures that others published: with the digits that they gave.
GIVEN_RATE = Unit("tok_per_s", lambda rate: f"{rate:g}", "t/s")
#: For measured rates beside those.
BESIDE_GIVEN_RATE = Unit("tok_per_s", lambda rate: f"{rate:.{2 if rate < 2 else 1}f}")
DURATION = Unit("ns", _duration)
NS = Unit("ns", _scaled(1, 1), "ns")
#: Memory, and files as llama-bench shows them: MiB or GiB.
BYTES = Unit("bytes", lambda size: f"-{format_mib(-size)}" if size < 0 else format_mib(size))
#: Memory as it is sold.
MODULE = Unit("bytes", format_gib)
#: Files as download pages and Ollama show them: MB or GB.
FILE = Unit("bytes", lambda size: f"-{format_gb(-size)}" if size < 0 else format_gb(size))
MIB_ALONE = Unit("bytes", _scaled(MIB, 2), "MiB")
MIB_CHANGE = Unit("bytes", _scaled(MIB, 2, "+"), "MiB")
BYTES_ALONE = Unit("bytes", lambda size: f"{size:,}", "bytes")
MB = Unit("bytes", _scaled(1e6, 2), "MB")
BANDWIDTH = Unit("bytes_per_s", _scaled(1e9, 2), "GB/s")
GB_ALONE = Unit("bytes", _scaled(1e9, 2), "GB")
GFLOP = Unit("flop", _scaled(1e9, 2), "GFLOP")
ARITHMETIC = Unit("flop_per_s", _scaled(1e9, 2), "GFLOP/s")
ENERGY = Unit("j_per_token", lambda joules: f"{joules:.3g}", "J/token")
MINUTE = Unit("", lambda time_utc: str(time_utc)[:16].replace("T", " "))


def format_value(value: Value, unit: Unit | None = None, *, with_sign: bool = True) -> str:
    """A value as people read it; `with_sign` is for places that say the unit nowhere else."""
    if value is None:
        return ""
    if isinstance(value, str) and unit is not MINUTE:
        return value
    unit = unit or PLAIN
    text = unit.form(value)
    return f"{text} {unit.sign}" if with_sign and unit.sign else text


def format_interval(low: float, high: float, unit: Unit | None = None, *, with_sign: bool = True) -> str:
    """Both ends of an interval, the unit once where it is the same."""
    first, last = (format_value(end, unit, with_sign=with_sign) for end in (low, high))
    number, blank, sign = first.rpartition(" ")
    return f"{number if blank and last.endswith(f' {sign}') else first}{DASH}{last}"


def note_energy(what: str, sources: Iterable[str], sampler_shares: Iterable[float | None]) -> list[str]:
    """Whose energy is shown, and what watching took; nothing without a source."""
    named, shares = list(dict.fromkeys(sources)), [share for share in sampler_shares if share]
    cost = f"; watching took {format_value(max(shares), FINE_SHARE)} of one CPU" if shares else ""
    return [f"{what} by {', '.join(named)}{cost}"] if named else []


def format_layers(by_device: Mapping[str, int], between: str = " ") -> str:
    """Layers on each device, ``16 CPU + 17 CUDA0``; empty where they are not known."""
    return " + ".join(f"{count}{between}{device}" for device, count in by_device.items())


def format_list(names: list[str] | tuple[str, ...], last: str = "and") -> str:
    """Names in a sentence: ``a, b and c``."""
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
