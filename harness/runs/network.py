"""What crosses the network for a token where layers lie on other machines: counted, and estimated from the speeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.host.rpc import CountingProxy, Traffic
from harness.records.cells import Failure
from harness.records.placements import PlacementResult
from harness.runs.cells import Plan, run_cells
from harness.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Wire:
    """What one generated token sends to an RPC server and waits for, counted in a run of its own that nothing is timed in."""

    endpoint: str
    n_gpu_layers: int
    sent_bytes_per_token: float
    received_bytes_per_token: float
    round_trips_per_token: float


#: Tokens by which two runs differ that are compared to count what a token sends.
WIRE_TOKENS = 16


def measure_wire(spec: RunSpec, plan: Plan) -> tuple[list[Wire], Failure | None]:
    """Generate tokens through counting proxies; (what each server saw a token, why there is nothing to see).

    Two cells that differ by `WIRE_TOKENS` tokens and in nothing else send everything else alike: context, warm-up and depth cancel out.
    A cell before them takes the load.
    """
    proxies = [CountingProxy(endpoint) for endpoint in spec.rpc]
    counts: list[list[Traffic]] = []
    cells = [
        dataclasses.replace(
            spec, rpc=tuple(proxy.endpoint for proxy in proxies), n_prompt=0, n_gen=n_gen, repetitions=1
        )
        for n_gen in (1, WIRE_TOKENS, 2 * WIRE_TOKENS)
    ]
    try:
        records = []
        for record in run_cells(
            cells, dataclasses.replace(plan, observe=None, interleave=False), on_step=lambda _step: None
        ):
            records.append(record)
            counts.append([proxy.read() for proxy in proxies])
    finally:
        for proxy in proxies:
            proxy.close()
    failure = next((record.failure for record in records if record.failure), None)
    if failure is not None:
        return [], failure
    found = []
    for endpoint, before, between, after in zip(spec.rpc, *counts, strict=True):
        passed = (after - between) - (between - before)
        found.append(
            Wire(
                endpoint,
                spec.n_gpu_layers,
                passed.sent_bytes / WIRE_TOKENS,
                passed.received_bytes / WIRE_TOKENS,
                passed.round_trips / WIRE_TOKENS,
            )
        )
    return found, None


def estimate_crossing(rows: Sequence[PlacementResult], work: Mapping[int, float]) -> float | None:
    """Seconds a token that crossing to the devices costs, whatever the number of layers; None where the rows cannot tell.

    A straight line over the work moved, through the rows with layers on a device, is drawn back to none; what it is above the
    measured time without layers is the price of the crossing. Needs that row and three others, and says nothing where the line does not
    carry it: within twice its standard error, or more than a token with layers was measured to take.
    """
    times = {row.n_gpu_layers: speed.token_s for row in rows if (speed := row.find("tg")) and not row.failure}
    beyond = {count: value for count, value in times.items() if count > 0}
    if 0 not in times or len(beyond) < 3:
        return None
    xs, ys = [work[count] for count in beyond], list(beyond.values())
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    crossing = mean_y - slope * mean_x - times[0]
    squares = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    spread = sum((x - mean_x) ** 2 for x in xs)
    error = math.sqrt(squares / (len(xs) - 2) * (1 / len(xs) + mean_x**2 / spread))
    return crossing if 2 * error < crossing < min(ys) else None
