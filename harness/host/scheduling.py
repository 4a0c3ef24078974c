"""What the operating system's scheduler is asked for this process: a priority, and the CPUs that its threads may have.

What is asked of a process stays with it: a lowered priority cannot be raised again without the right to, so whoever needs another one
starts another process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

import psutil

#: Niceness by llama.cpp's priorities. Source: set_process_priority in common/common.cpp.
_NICE = {-1: 5, 1: -5, 2: -10, 3: -20}

#: The same by the names of Windows' classes.
_CLASSES = {
    -1: "BELOW_NORMAL_PRIORITY_CLASS",
    1: "ABOVE_NORMAL_PRIORITY_CLASS",
    2: "HIGH_PRIORITY_CLASS",
    3: "REALTIME_PRIORITY_CLASS",
}

#: What ggml asks for a thread of a raised priority. Source: ggml_thread_apply_priority in ggml-cpu.c (SCHED_FIFO).
_THREAD_LEVELS = {1: 40, 2: 80, 3: 90}

#: Whether threads that were kept to some CPUs can be given all of them again from outside (`free_threads`).
CAN_FREE_THREADS = sys.platform == "linux"


def set_priority(level: int) -> str | None:
    """Give this process and its main thread a priority of llama.cpp's, -1…3; the system's reason where it does not allow that.

    Source: set_process_priority in llama.cpp's common/common.cpp, ggml_thread_apply_priority in ggml-cpu.c.
    """
    if level == 0:
        return None
    try:
        if sys.platform == "win32":
            psutil.Process().nice(getattr(psutil, _CLASSES[level]))
            return None
        os.setpriority(os.PRIO_PROCESS, 0, _NICE[level])
        if level in _THREAD_LEVELS and hasattr(os, "sched_setscheduler"):
            # ggml would ask the same for every thread at every graph, and complain each time.
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_THREAD_LEVELS[level]))
    except psutil.AccessDenied:
        return "access denied"
    except OSError as error:
        return error.strerror or "not permitted"
    return None


def read_cpus() -> frozenset[int]:
    """The CPUs that this process may use; empty where the system does not say."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def free_threads(cpus: Collection[int], *, all_threads: bool) -> None:
    """Let this thread, or all threads of this process, use these CPUs again; does nothing where `CAN_FREE_THREADS` is not so."""
    if not CAN_FREE_THREADS or not cpus:
        return
    for thread in os.listdir("/proc/self/task") if all_threads else ("0",):
        try:
            os.sched_setaffinity(int(thread), cpus)
        except ProcessLookupError:
            continue  # it has just ended
