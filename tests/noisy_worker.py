"""A worker without an engine, whose repetitions take what a kind of noise makes of them: `python -m tests.noisy_worker KIND`.

quiet, tunable (a fifth faster without flash attention, and it dies where the file is not mapped), cached (a fifth
faster with a q8_0 cache), bimodal (every third block of time is 8 % slower), drifting (6 % over half a minute), stolen (a third of the repetitions lose
15 % to a hypervisor), crowded (other programs have the CPUs), dying (it ends in its fourth block).
"""

from __future__ import annotations

import json
import pathlib
import random
import sys

TOKEN_NS = {"n_gen": 6_000_000, "n_prompt": 1_500_000}


def scale(kind: str, at_ns: int, chance: random.Random) -> tuple[float, bool]:
    """How much longer a repetition takes at a time, and whether the hypervisor took it."""
    noise = chance.gauss(1, 0.003)
    if kind == "bimodal":
        return noise * (1.08 if at_ns // 3_000_000_000 % 3 == 0 else 1), False
    if kind == "drifting":
        return noise * (1 + 0.06 * at_ns / 30e9), False
    if kind == "crowded":
        return noise * 10, False
    if kind == "stolen" and chance.random() < 0.33:
        return noise * 1.15, True
    return noise, False


def main(kind: str) -> None:
    lines = (pathlib.Path(__file__).parent / "recorded" / "pp-tg.jsonl").read_text(encoding="utf-8").splitlines()
    told = json.loads(lines[0])

    def emit(event: str, **body: object) -> None:
        print(json.dumps({"event": event, **body}), flush=True)

    emit("hello", build=told["build"])
    chance, at_ns, n_blocks = random.Random(1), 0, 0
    for line in sys.stdin:
        command = json.loads(line)
        if not command:
            return
        n_blocks += 1
        if kind == "dying" and n_blocks == 4:
            sys.exit(9)
        spec = command["measure"]
        if kind == "tunable" and spec["load_mode"] == "none":
            sys.exit(9)
        is_faster = (kind == "tunable" and spec["flash_attn"] == "off") or (
            kind == "cached" and spec["type_k"] == "q8_0"
        )
        share = 0.8 if is_faster else 1.0
        emit("loaded", model=told["model"])
        for repetition in range(-1, command.get("repetitions") or spec["repetitions"]):
            emit("phase", phase="repetition", index=max(repetition, 0), count=spec["repetitions"])
            longer, is_stolen = scale(kind, at_ns, chance)
            duration_ns = round(share * longer * sum(spec[name] * ns for name, ns in TOKEN_NS.items()))
            at_ns += duration_ns
            seen = {
                "wall_ns": duration_ns,
                "n_cpus": 2,
                "n_cores": 2,
                "stolen_s": 0.3 * duration_ns / 1e9 if is_stolen else 0.0,
            }
            if kind == "crowded":
                seen |= {"busy_s": 1.9 * duration_ns / 1e9, "own_s": 0.2 * duration_ns / 1e9}
            emit(
                "sample",
                duration_ns=duration_ns,
                prompt_ns=None,
                token_ns=[],
                is_warmup=repetition < 0,
                conditions=seen,
            )
        emit("done", resolved=told["resolved"], load=told["load"], cautions=[], dispatch_ns_per_token=None)


if __name__ == "__main__":
    main(sys.argv[1])
