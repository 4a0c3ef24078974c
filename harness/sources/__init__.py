"""Where models come from: a class for each kind of reference, and what brings and makes files."""

from collections.abc import Callable

#: Called with (bytes there, bytes in all) while something is fetched, made or read.
Progress = Callable[[int, int], None]
#: Told, in words, where a file is not quite what was asked for.
Remark = Callable[[str], None]


def unsaid(remark: str) -> None:
    """The remark that nobody wants to hear."""
