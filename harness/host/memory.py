"""How much memory is ours: the machine's, or what the control groups leave of it."""

from __future__ import annotations

from harness.host import cgroup
from harness.host.system import the_os


def total_memory_bytes() -> int:
    """All memory that this process could ever have."""
    return min([the_os().memory_bytes()[0], *(room.limit_bytes for room in cgroup.read_memory_rooms())])


def available_memory_bytes() -> int:
    """Memory that can be taken without swapping and without being killed for it: as the OS estimates it, and within every limit."""
    rooms = [room.limit_bytes - room.used_bytes for room in cgroup.read_memory_rooms()]
    return max(min([the_os().memory_bytes()[1], *rooms]), 0)


def memory_limit_bytes() -> int | None:
    """The control groups' limit; None where all of the machine's memory may be taken."""
    total, ours = the_os().memory_bytes()[0], total_memory_bytes()
    return ours if ours < total else None
