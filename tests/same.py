"""Whether values are the same down to their types, whatever class holds them."""

from __future__ import annotations

import dataclasses


def plain(value):
    """A value with its types, whatever stands for a dataclass."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__struct_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else (type(value), repr(value))
