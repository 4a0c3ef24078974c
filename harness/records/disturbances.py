"""What disturbed a repetition, by what the operating system counted around it (`cells.Conditions`).

A repetition is disturbed where what was counted explains a change of its duration that matters: numbers are wanted within ± 2 %, so
2 % is what everything is held against. Where a cost is not counted but events are, the cost of one is taken from what such an event
usually takes, and said below. More threads than CPUs wait for each other, which is nobody else's doing.
"""

from __future__ import annotations

import enum

from harness.records.cells import Conditions, Sample
from harness.units import NS_PER_S


class Disturbance(str, enum.Enum):
    """What it was, in the order in which it is told."""

    OTHERS = "others"  # other programs ran on our CPUs
    STEAL = "steal"  # the hypervisor had them
    QUOTA = "quota"  # a control group's quota held us back
    PAGE_INS = "page-ins"  # our pages were read from disk
    SWAP = "swap"  # anybody's pages went to or came from swap
    HEAT = "heat"  # the processor was slowed for its heat
    CLOCK = "clock"  # its clock was below what it usually was in this cell
    SWITCHES = "switches"  # threads had to leave their CPUs, where nothing else tells of others


#: The share of a repetition's time that matters: the precision that is wanted of a median (`RunSpec.precision`). Threads meet at a
#: barrier after every operation, so that all of them lose what one of them waits: the waits of all threads are added up.
NOTICED_SHARE = 0.02

#: CPUs' worth of other programs' time, beyond what idle cores can give, that is noticed.
CROWDED_CPUS = 0.10

#: The kernel counts the CPUs' time in ticks (USER_HZ, proc(5)); a count between two readings is off by up to one at either end, so
#: that one tick alone says nothing.
TICK_S = 0.01

#: What a page from disk costs: 0.1 ms is a read of a few pages from an SSD over NVMe; a hard disk takes a hundred times as long.
PAGE_READ_S = 1e-4

#: A clock that fell by so much tells of a limit of power or heat; the clocks of one state differ by less from one reading to the next.
CLOCK_SHARE = 0.05

#: Involuntary switches a second and thread. The scheduler's own tick and the system's services make a few tens.
SWITCHES_PER_S = 200.0


def find_disturbances(sample: Sample, n_threads: int, usual_mhz: float | None = None) -> tuple[Disturbance, ...]:
    """What disturbed a repetition; empty where nothing did, or where nothing is known.

    Parameters
    ----------
    n_threads : threads that computed
    usual_mhz : the clock that the cell's repetitions usually had
    """
    seen = sample.conditions
    if seen is None:
        return ()
    wall_s, took_s = seen.wall_ns / NS_PER_S, sample.duration_ns / NS_PER_S
    found = []  # plain questions one by one: half a million repetitions are asked at once
    if _did_others(seen, wall_s, took_s, n_threads):
        found.append(Disturbance.OTHERS)
    if seen.stolen_s and seen.stolen_s > max(1.5 * TICK_S, NOTICED_SHARE * wall_s):
        found.append(Disturbance.STEAL)
    if seen.n_held and seen.n_held > 0:
        found.append(Disturbance.QUOTA)
    if seen.n_major_faults and seen.n_major_faults * PAGE_READ_S > NOTICED_SHARE * took_s:
        found.append(Disturbance.PAGE_INS)
    if seen.n_swapped_pages and seen.n_swapped_pages * PAGE_READ_S > NOTICED_SHARE * took_s:
        found.append(Disturbance.SWAP)
    if seen.n_thermal and seen.n_thermal > 0:
        found.append(Disturbance.HEAT)
    if usual_mhz is not None and seen.clock_mhz is not None and seen.clock_mhz < (1 - CLOCK_SHARE) * usual_mhz:
        found.append(Disturbance.CLOCK)
    if seen.waited_ns is None and seen.busy_s is None and _did_switch(seen, took_s, n_threads):
        found.append(Disturbance.SWITCHES)
    return tuple(found)


def _did_switch(seen: Conditions, took_s: float, n_threads: int) -> bool:
    return not is_own_crowd(seen, n_threads) and (seen.n_switched or 0) > SWITCHES_PER_S * took_s * n_threads


def _did_others(seen: Conditions, wall_s: float, took_s: float, n_threads: int) -> bool:
    """Whether threads waited, which is known to the nanosecond, or others were busy, which is known in ticks."""
    if seen.is_server_here:
        return False
    waited_s = lost_wait_s(seen, n_threads)
    others_s = excess_s(seen, n_threads)
    return waited_s > NOTICED_SHARE * took_s or exceeds(others_s, CROWDED_CPUS, wall_s)


def exceeds(cpu_s: float, cpus: float, wall_s: float) -> bool:
    """Whether CPU time, which is counted in ticks, is surely more than so many CPUs had in a time."""
    return cpu_s > cpus * wall_s + 2 * TICK_S


def is_own_crowd(seen: Conditions, n_threads: int) -> bool:
    """Whether more threads computed than CPUs were ours."""
    return n_threads > seen.n_cpus


def lost_wait_s(seen: Conditions, n_threads: int) -> float:
    """Seconds for which our threads waited for CPUs that others had, all threads together; 0 where that is not known."""
    return 0.0 if seen.waited_ns is None or is_own_crowd(seen, n_threads) else seen.waited_ns / NS_PER_S


def excess_s(seen: Conditions, n_threads: int) -> float:
    """CPU seconds of other programs beyond what cores without a thread of ours could give them; below 0 where there was room left.

    A second hardware thread on a core that computes slows it down, so that only cores without a thread of ours are room.
    """
    if seen.busy_s is None or seen.own_s is None:
        return 0.0
    return seen.busy_s - seen.own_s - max(seen.n_cores - n_threads, 0) * seen.wall_ns / NS_PER_S
