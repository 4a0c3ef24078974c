"""Settings of a script as `harness.spec` has them: text, numbers, lists and ranges, each checked as the command line checks it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from harness.errors import UsageError
from harness.spec import MAX_TOKENS, Parser, defaults, parameters, whole_numbers

#: One value, several, or a range as llama-bench writes it: 512 · (128, 512) · "0-32+8".
Values = Any


def read_axes(settings: Mapping[str, Values]) -> dict[str, tuple[Any, ...]]:
    """Settings of a script as the axes of a grid, each value checked as the command line checks it; None leaves one as it is.

    Text is read as on the command line; a tuple is one value of what takes several at once (tensor_split, devices, rpc), and several
    values of anything else, as a list always is.

    Raises
    ------
    UsageError : there is no such field, or it takes no such value.
    """
    known, usual = parameters(), defaults()
    refuse_unknown(settings, known)
    return {
        name: read_values(name, known[name].parse, value, takes_several=isinstance(usual[name], tuple))
        for name, value in settings.items()
        if value is not None
    }


def read_counts(name: str, value: Values) -> tuple[int, ...] | None:
    """Numbers of tokens; None stays None. Raises as `read_values`."""
    return None if value is None else read_values(name, whole_numbers(0, MAX_TOKENS), value)


def read_single(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_axes`, for a question that takes one value of each setting."""
    axes = read_axes(settings)
    for name, values in axes.items():
        if len(values) != 1:
            raise UsageError(
                f"{name}={settings[name]!r} is {len(values)} values, and one is meant; ask for each in turn."
            )
    return {name: values[0] for name, values in axes.items()}


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Make sure that each name is one of those that are known.

    Raises
    ------
    UsageError : one is not.
    """
    for name in given:
        if name not in known:
            raise UsageError(f"There is no setting {name}; there are {', '.join(known)}.")


def read_values(name: str, parse: Parser, value: Values, *, takes_several: bool = False) -> tuple[Any, ...]:
    """A value, or each of a list of them, read by a parser of the command line; takes_several: a tuple is one value.

    Raises
    ------
    UsageError : the parser does not take it.
    """
    several = isinstance(value, list if takes_several else list | tuple | range)
    try:
        return tuple(found for item in (value if several else [value]) for found in parse(_write(name, item)))
    except ValueError as error:
        raise UsageError(f"{name}={value!r}: {error}.") from None


def _write(name: str, value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, tuple):
        joint = {"rpc": ",", "override_tensors": ";"}.get(name, "/")
        return joint.join(map(str, value)) or "auto"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
