"""How much of a file the operating system keeps in memory, and how to make it forget."""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
import sys


def drop_from_memory(path: pathlib.Path) -> bool:
    """Ask the system to forget a file's pages; False where it has no such call.

    The system need not obey: pages that another process maps stay. `resident_share` says what came of it.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def read_into_memory(path: pathlib.Path) -> None:
    """Read a file once, so that it is in memory if it fits there."""
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass


def resident_share(path: pathlib.Path) -> float | None:
    """The share of a file's pages (0…1) that lie in memory; None where the system does not tell.

    Linux tells only about files that this user owns or may write; of others mincore says that all of it is there.

    Source: mincore(2).
    """
    size = path.stat().st_size
    if sys.platform != "linux" or not size or not (os.access(path, os.W_OK) or path.stat().st_uid == os.geteuid()):
        return None
    import numpy

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    n_pages = -(-size // mmap.PAGESIZE)
    states = (ctypes.c_ubyte * n_pages)()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        view = numpy.frombuffer(mapping, dtype=numpy.uint8)
        failed = libc.mincore(view.ctypes.data, size, states)
        del view
    if failed:
        return None
    return float((numpy.frombuffer(bytes(states), dtype=numpy.uint8) & 1).mean())
