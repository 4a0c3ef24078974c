"""Settings of a cell as tables and sentences show them: each measured parameter by its heading, its value as it is asked for.

Everything that shows records asks here which parameters there are, so that a new one is shown by being a field of `RunSpec`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from harness.spec import RunSpec, parameters
from harness.views.document import Column
from harness.views.values import SETTING, format_value


def heading(name: str) -> str:
    """A parameter's column heading."""
    return parameters()[name].heading or name.removeprefix("n_")


def format_setting(value: Any) -> str:
    """A parameter's value as a table shows it."""
    return format_value(value, SETTING)


def format_settings(spec: RunSpec, names: Sequence[str]) -> str:
    """Some parameters of a cell with their headings, ``nkvo on, type_k q8_0``."""
    return ", ".join(f"{heading(name)} {format_setting(getattr(spec, name))}" for name in names)


def format_cache(type_k: str, type_v: str) -> str:
    """The types of a cache, ``q8_0`` or ``q8_0 and f16``."""
    return type_k if type_k == type_v else f"{type_k} and {type_v}"


def setting_columns(
    names: Iterable[str], shown: Collection[str] | None = None, hoisted: Mapping[str, str] | None = None
) -> list[Column]:
    """A column for each parameter; for programs only where it is not among `shown`. hoisted: how some read above a table."""
    return [
        Column(
            name, heading(name), SETTING, align="l" if name in _WORDS else "r", shared=(hoisted or {}).get(name, ""),
            is_shown=shown is None or name in shown,
        )
        for name in names
    ]  # fmt: skip


#: Parameters whose values are words, which stand to the left.
_WORDS = {"split_mode", "load_mode", "numa", "cpu_mask", "override_tensors"}
