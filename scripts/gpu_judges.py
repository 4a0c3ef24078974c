"""What the steps of `scripts/gpu-check` must find: a judge gets what a command printed, and gives the figures that are worth keeping.

Nothing is run here, so that every judge is tried without a card (`tests/test_gpu_check.py`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

#: llama.cpp's log rounds each buffer to 0.01 MiB, and so does a plan's.
LOG_STEP_BYTES = 0.022 * 2**20

#: A parity below this, a loss of --best above that, a card that reads slower than any of the last ten years.
LEAST_RATIO, MOST_LOSS, LEAST_BYTES_PER_S = 0.99, 0.03, 50e9


class Wrong(Exception):
    """A step's answer is not what it must be; one sentence."""


class Missing(Exception):
    """Without this nothing else can be tried; one sentence."""


def judge_devices(found: Mapping[str, Any]) -> dict[str, Any]:
    """The card must be one that layers can go to."""
    devices = [item for item in found.get("devices", ()) if str(item.get("name", "")).startswith("CUDA")]
    if not devices:
        raise Missing("the engine that was built sees no CUDA device; look into log.txt.")
    return {"devices": [item["name"] for item in devices]}


def judge_parity(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of llama-bench's time over harness's, of each test."""
    found = {}
    for record in records:
        pairs = zip(record["harness_samples_ns"], record["llama_bench_samples_ns"], strict=True)
        found[record["test"]] = statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)
    if not found:
        raise Wrong("parity kept no record")
    for test, ratio in found.items():
        if ratio < LEAST_RATIO:
            raise Wrong(f"{test}: harness has {ratio:.4f} of llama-bench's speed, below {LEAST_RATIO}")
    return {"ratios": {test: round(ratio, 4) for test, ratio in found.items()}}


def judge_ledger(sweep: Mapping[str, Any], predicted: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The bytes on each card for every number of layers: allocated, and predicted from the header."""
    found = {}
    for row in sweep["rows"]:
        count = row["n_gpu_layers"]
        if row.get("failure") or row.get("skipped"):
            raise Wrong(f"{count} layers were not measured")
        lines = [line for line in predicted[count]["ledger"] if line["device"].startswith("CUDA")]
        expected = sum(line["predicted_bytes"] or 0 for line in lines)
        on_cards = [sizes for device, sizes in (row["memory_bytes"] or {}).items() if device.startswith("CUDA")]
        measured = sum(sum(sizes.values()) for sizes in on_cards)
        found[str(count)] = [measured, expected]
        if abs(measured - expected) > LOG_STEP_BYTES * max(len(lines), 1):
            raise Wrong(f"{count} layers take {measured} bytes on the card, and {expected} were predicted")
    if not any(measured for measured, _ in found.values()):
        raise Wrong("no number of layers took anything of the card")
    return {"allocated_and_predicted_bytes": found}


def judge_best(found: Mapping[str, Any]) -> dict[str, Any]:
    """How far the count that --best chose lies behind the best of the full sweep, and what it cost of that."""
    (run,) = found["runs"]
    said = {name: run[name] for name in ("best_n_gpu_layers", "fair_loss", "cost_share_timed")}
    if run["fair_loss"] > MOST_LOSS:
        raise Wrong(f"--best chose {run['best_n_gpu_layers']} layers, {run['fair_loss']:.1%} behind {found['fastest']}")
    return {**said, "fastest": found["fastest"]}


def judge_energy(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Joules a token by the card's own counter."""
    (row,) = sweep["rows"]
    sources = row.get("power_sources") or []
    joules = {speed["test"]: speed["joules_per_token"] for speed in row["speeds"]}
    if not any("nvml" in str(source).lower() for source in sources):
        raise Wrong(f"no energy came from NVML (sources: {', '.join(map(str, sources)) or 'none'})")
    if not joules or not all(value and 0 < value < 1000 for value in joules.values()):
        raise Wrong(f"energies are no energies: {joules}")
    return {"joules_per_token": joules, "sources": list(sources)}


def judge_roofline(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the card reads and multiplies, rightly."""
    tests = [test for test in found["tests"] if str(test["device"]).startswith("CUDA")]
    best: dict[str, float] = {}
    for test in tests:
        if test["result"] != "right":
            raise Wrong(f"{test['device']} multiplies {test['type']} wrongly")
        rate = test["rate_flop_per_s"] if test["work"] == "multiply" else test["rate_bytes_per_s"]
        best[test["work"]] = max(best.get(test["work"], 0.0), rate)
    reading = best.get("read", 0.0)
    if reading < LEAST_BYTES_PER_S:
        raise Wrong(f"the card reads {reading / 1e9:.1f} GB/s, which no card of these years does")
    return {"best": best}


def judge_tune(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found must not be slower than llama.cpp's defaults."""
    said = {name: found.get(name) for name in ("decision", "gain", "stop", "n_candidates")}
    if said["decision"] not in ("faster", "no_difference", "undecided"):
        raise Wrong(f"what was chosen is {said['decision']} beside the defaults")
    return said


def judge_footnote(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """What ran elsewhere than on the card must be said beside the figure."""
    cautions = [caution for row in sweep["rows"] for speed in row["speeds"] for caution in speed["cautions"]]
    said = [caution["text"] for caution in cautions if caution["cause"] in ("ran-elsewhere", "no-kernel")]
    if not said:
        raise Wrong("attention that the card has no kernel for was measured without a footnote")
    return {"footnotes": sorted(set(said))}
