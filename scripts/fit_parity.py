"""Hold what `harness fit` proposes against llama-fit-params of the same source (started by scripts/fit-parity).

Two small models, one with experts, are to fit two RPC servers on loopback, of which only some MiB may be taken. For each bound both
programs propose a context and a placement; llama-fit-params then says of both what they take of each device, and that is compared with
the bound and with harness's own figures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import click

from harness.catalog import Shape
from harness.memory.causes import HOST
from harness.memory.packing import Packing
from harness.runs.devices import survey_devices
from harness.runs.fit import FitRequest, fit_model
from harness.runs.memory import find_model
from harness.sources.synthetic import write_synthetic
from harness.units import MIB

ROOT = pathlib.Path(__file__).parent.parent

_DENSE = Shape("llama", 16, 512, 2048, 8, 4, 64, 4096, 16384, True, 10000.0)
SHAPES = {
    "dense": _DENSE,
    "experts": dataclasses.replace(
        _DENSE, architecture="qwen3moe", block_count=12, feed_forward_length=512, expert_count=16, expert_used_count=4
    ),
}
#: MiB that may be taken of each of the two devices.
ROOMS = ((300, 300), (180, 220), (120, 160), (100, 130), (60, 200), (200, 60), (90, 90), (70, 60), (40, 45))

#: llama-fit-params cuts to whole MiB.
STEP_MIB = 1.0


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """An RPC server on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "harness", "rpc-server", "--port", endpoint.rpartition(":")[2], "-t", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield endpoint
        finally:
            process.terminate()


def run(program: str, *words: str) -> str:
    """What llama-fit-params prints."""
    library = {"LD_LIBRARY_PATH": str(pathlib.Path(program).parent)}
    done = subprocess.run([program, *words], capture_output=True, text=True, env={**os.environ, **library}, timeout=120)
    return done.stdout.strip()


def weigh(program: str, model: str, rpc: str, words: list[str]) -> dict[str, tuple[int, ...]]:
    """What llama.cpp says that a placement takes: MiB of weights, cache and computing by device."""
    lines = run(program, "-m", model, "--rpc", rpc, *words, "-fitp", "on").splitlines()
    found = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines if line}
    return {HOST if name == "Host" else name: sizes for name, sizes in found.items()}


def list_words(packing: Packing) -> list[str]:
    """Our placement in llama.cpp's words."""
    spec = packing.spec
    words = ["-c", str(spec.n_ctx), "-ngl", str(packing.n_layers_on_cards), "-ncmoe", str(spec.n_cpu_moe)]
    return [*words, "-ts", ",".join(f"{part:g}" for part in spec.tensor_split)] if spec.tensor_split else words


def compare(program: str, model: str, rpc: str, free: list[int], rooms: tuple[int, int]) -> dict[str, Any]:
    """One bound: both proposals, what each takes by llama.cpp, and how far our own figures are from that."""
    spare = [size // MIB - room for size, room in zip(free, rooms, strict=True)]
    said = run(program, "-m", model, "--rpc", rpc, "-fitt", ",".join(map(str, spare)))
    theirs = [word.strip('"') for word in said.split()]
    options = {"rpc": tuple(rpc.split(","))}
    request = FitRequest(
        find_model(model, weights=False), options, (("f16", "f16"),), spare_bytes=tuple(size * MIB for size in spare)
    )
    (found,) = fit_model(request).fits
    assert found.packing is not None
    ours = list_words(found.packing)
    taken = {"ours": weigh(program, model, rpc, ours), "theirs": weigh(program, model, rpc, theirs) if theirs else {}}
    errors = [
        abs(sum(taken["ours"].get(card.device, (0,))) - card.total_bytes / MIB) for card in found.packing.cards
    ]  # fmt: skip
    names = [card.device for card in found.packing.cards]

    def fits(which: str) -> bool:
        used = [sum(taken[which].get(name, (0,))) for name in names]
        return bool(taken[which]) and all(size <= room for size, room in zip(used, rooms, strict=True))

    return {
        "rooms_mib": rooms, "ours": " ".join(ours), "theirs": re.sub(r"\[[0-9.:]+\]", "", said), "ours_fits": fits("ours"),
        "theirs_fits": fits("theirs"), "ours_mib": taken["ours"], "theirs_mib": taken["theirs"],
        "n_ctx": found.packing.spec.n_ctx, "their_n_ctx": int(theirs[1]) if theirs else None,
        "largest_error_mib": round(max(errors), 2),
    }  # fmt: skip


@click.command()
@click.option("--llama-fit-params", "program", required=True, metavar="PATH", help="The program.")
@click.option(
    "--keep",
    type=click.Path(path_type=pathlib.Path),
    default=ROOT / "bench_results" / "fit" / "parity.json",
    help="Where to.",
)
def main(program: str, keep: pathlib.Path) -> None:
    """Compare over all bounds, and keep what was found."""
    rows: dict[str, list[dict[str, Any]]] = {}
    keep.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serve() as first, serve() as second:
        rpc = f"{first},{second}"
        devices = survey_devices((first, second)).build.devices
        free = [device.memory_free_bytes or 0 for device in devices if device.name.startswith("RPC")]
        for name, shape in SHAPES.items():
            model = str(write_synthetic(shape, "Q4_0", pathlib.Path(folder) / f"{name}.gguf", name=name))
            for rooms in ROOMS:
                row = compare(program, model, rpc, free, rooms)
                rows.setdefault(name, []).append(row)
                keep.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8", newline="\n")
                click.echo(f"{name} {rooms}: {row['ours']} | {row['theirs'][:90]}")
    every = [row for found in rows.values() for row in found]
    exact = sum(row["largest_error_mib"] <= len(SHAPES) * STEP_MIB + 1 for row in every)
    click.echo(
        f"{len(every)} bounds: harness's figures are llama.cpp's in {exact}, its placements fit in "
        f"{sum(row['ours_fits'] for row in every)}, "
        f"llama.cpp's in {sum(row['theirs_fits'] for row in every)}; kept in {keep}"
    )


if __name__ == "__main__":
    main()
