"""Have every line to paste read by the program that it is for: llama-server and llama-cli of the same source, and llama-cpp-python.

python scripts/paste_check.py [--programs FOLDER] [--out bench_results/tune/paste.json] [--record tests/recorded/llama_options.json]

The cases are each setting by itself and some together. Of llama.cpp's programs each line is parsed (``--version`` behind its options
ends them when all were read; one that is not known or not right ends them with an error) and the cases that this machine can run are
started: the server until it answers, with what it then says of itself held against what it was told, and the CLI for one token. The
lines of llama-cpp-python are run as they are, and write a token; of the other cases the names are held against those that Llama has.
There is no Ollama and no LM Studio here; what their lines may hold is tested against lists from their sources (tests/test_paste.py).

--programs is where llama-server and llama-cli are; else .cache/llama-*/bin of this checkout. --record writes down which options they
have, which the tests read.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from harness.events import ignore
from harness.runs.asking import find_file
from harness.spec import RunSpec
from harness.views.paste import llama_arguments, python_arguments, write_lines
from harness.views.spellings import Asked

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = ("llama-server", "llama-cli")

#: What this machine can run, whatever it has; each is started.
RUNNABLE: dict[str, dict[str, Any]] = {
    "as usual": {},
    "threads": {"n_threads": 1},
    "threads apart": {"n_threads": 1, "n_threads_batch": 2},
    "batches": {"n_batch": 256, "n_ubatch": 64},
    "flash attention on": {"flash_attn": "on"},
    "flash attention off": {"flash_attn": "off"},
    "quantized cache": {"type_k": "q8_0", "type_v": "q8_0"},
    "bf16 cache": {"type_k": "bf16", "type_v": "bf16"},
    "not repacked": {"repack": False},
    "read": {"load_mode": "none"},
    "mapped": {"load_mode": "mmap"},
    "direct": {"load_mode": "dio"},
    "CPUs": {"n_threads": 1, "cpu_mask": "0x1", "cpu_strict": True, "poll": 0},
    "CPUs, threads apart": {"n_threads": 1, "n_threads_batch": 2, "cpu_mask": "0x3", "poll": 100},
    "NUMA": {"numa": "distribute"},
    "tensors": {"override_tensors": (r"blk\.(1|2)\.ffn_.*=CPU", "output=CPU")},
    "experts": {"n_cpu_moe": 8},
    "cache in memory": {"no_kv_offload": True, "no_op_offload": True, "no_host": True},
    "windows": {"swa_full": True},
    "no device": {"devices": ("none",), "n_gpu_layers": 0},
    "four at once": {"n_parallel": 4, "kv_unified": True},
    "together": {
        "n_threads": 2, "n_ubatch": 256, "flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0", "repack": False, "load_mode": "mmap",
    },
}  # fmt: skip

#: What asks for more than this machine may have: a priority, memory that is locked, several cards. Only parsed.
PARSED: dict[str, dict[str, Any]] = {
    "locked": {"load_mode": "mlock"},
    "mapped and locked": {"load_mode": "mmap+mlock"},
    "priority": {"priority": 2},
    "priority, threads apart": {"priority": 1, "n_threads": 2, "n_threads_batch": 4},
    "low priority": {"priority": -1, "n_threads": 2, "n_threads_batch": 4},
    "layers": {"n_gpu_layers": 20, "n_cpu_moe": 12},
    "cards": {"split_mode": "row", "tensor_split": (3.0, 1.0), "main_gpu": 1},
    "tensors over cards": {"split_mode": "tensor", "tensor_split": (0.5, 0.25, 0.25)},
    "embeddings": {"embeddings": True},
    "NUMA isolated": {"numa": "isolate"},
    "NUMA by numactl": {"numa": "numactl"},
}


def make_case(model: str, settings: dict[str, Any], n_ctx: int) -> Asked:
    """The question of a case."""
    return Asked(RunSpec(model, n_prompt=1, **settings), n_ctx)


def find_programs(folder: pathlib.Path | None) -> dict[str, str]:
    """llama-server and llama-cli by their names, those that are there."""
    folders = [folder] if folder else sorted((ROOT / ".cache").glob("llama-*/bin"))
    return {name: str(place / name) for place in folders for name in PROGRAMS if (place / name).exists()}


def run(command: list[str], timeout_s: float = 60.0) -> tuple[int, str]:
    """(exit status, what was said) of a program."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return 124, f"nothing after {timeout_s:.0f} s"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def parse_line(program: str, words: list[str]) -> str | None:
    """What is wrong with a line; None where all of it was read. --version ends it as soon as everything before was."""
    status, said = run([program, *words, "--version"])
    return (
        None
        if status == 0 and said.startswith("version")
        else said.strip().splitlines()[0]
        if said.strip()
        else str(status)
    )


def start_server(program: str, words: list[str], asked: Asked) -> str | None:
    """Start the server until it answers, and hold what it says of itself against what it was told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [program, *words, "--host", "127.0.0.1", "--port", str(port), "--no-warmup"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            props = _wait_for(server, f"http://127.0.0.1:{port}")
        finally:
            server.kill()
    if props is None:
        return "it did not answer"
    n_ctx, slots = props["default_generation_settings"]["n_ctx"], props["total_slots"]
    if slots != asked.spec.n_parallel:
        return f"it has {slots} slots instead of {asked.spec.n_parallel}"
    is_one = asked.spec.kv_unified or slots == 1
    return None if not is_one or n_ctx == asked.n_ctx else f"its context has {n_ctx} tokens instead of {asked.n_ctx}"


def _wait_for(server: subprocess.Popen[bytes], address: str, limit_s: float = 60.0) -> dict[str, Any] | None:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                pass
            with urllib.request.urlopen(f"{address}/props", timeout=2) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return None


def start_cli(program: str, words: list[str]) -> str | None:
    """Have the CLI write one token."""
    status, said = run([program, *words, "-p", "hi", "-n", "1", "--single-turn", "--no-warmup"])
    return None if status == 0 else (said.strip().splitlines() or [str(status)])[-1]


def run_python(asked: Asked) -> str | None:
    """Run the lines for llama-cpp-python as they are, and have the model write a token."""
    told = "llm.n_ctx(), llm.n_threads, llm.n_threads_batch, llm.context_params.n_ubatch"
    call = f'print("found", len(llm("Once", max_tokens=1)["choices"]), {told})'
    status, said = run([sys.executable, "-c", "\n".join([*_python_lines(asked), call])])
    found = next((line.split()[1:] for line in said.splitlines() if line.startswith("found ")), None)
    if status or found is None:
        return (said.strip().splitlines() or [str(status)])[-1]
    spec, n_ubatch = asked.spec, str(min(asked.n_batch_physical, asked.n_ctx))
    threads, batch = spec.n_threads or found[2], spec.n_threads_of_batch or found[3]
    wanted = ["1", str(asked.n_ctx), str(threads), str(batch), n_ubatch]
    return None if found == wanted else f"it has {found} instead of {wanted}"


#: Stands in for Llama, which takes names that it does not know: says them.
_STRICT = """
import inspect, llama_cpp
known = set(inspect.signature(llama_cpp.Llama.__init__).parameters) - {"kwargs"}
llama_cpp.Llama = lambda **named: print("unknown", *sorted(set(named) - known))
"""


def parse_python(asked: Asked) -> str | None:
    """What is wrong with the lines for llama-cpp-python: whether they run, and which names ``Llama`` does not have."""
    status, said = run([sys.executable, "-c", "\n".join([_STRICT, *_python_lines(asked)])])
    return None if status == 0 and said.split() == ["unknown"] else said.strip()


def _python_lines(asked: Asked) -> tuple[str, ...]:
    return next(pasted.lines for pasted in write_lines(asked) if pasted.program == "llama-cpp-python")


def read_options(text: str) -> dict[str, bool]:
    """Options of a program's --help, and whether a value follows each."""
    options: dict[str, bool] = {}
    for line in text.splitlines():
        if not re.match(r"--?[A-Za-z]", line):
            continue
        entry = re.split(r" {2,}(?!-)", line)[0]
        flags = re.findall(r"(?:^|, +)(-[A-Za-z0-9-]+)", entry)
        rest = entry[entry.rindex(flags[-1]) + len(flags[-1]) :]
        options.update({flag: bool(rest.strip()) for flag in flags})
    return options


def check(programs: dict[str, str], model: str, n_ctx: int) -> Iterator[dict[str, Any]]:
    """A row for each case and program: whether it was parsed and started, and what was wrong."""
    for name, settings in {**RUNNABLE, **PARSED}.items():
        asked = make_case(model, settings, n_ctx)
        for program, path in programs.items():
            words = llama_arguments(program, asked)
            row: dict[str, Any] = {
                "case": name,
                "program": program,
                "line": " ".join(words[2:]),
                "parsed": parse_line(path, words),
            }
            if name in RUNNABLE and row["parsed"] is None:
                row["started"] = (
                    start_server(path, words, asked) if program == "llama-server" else start_cli(path, words)
                )
            yield row
        row = {
            "case": name,
            "program": "llama-cpp-python",
            "line": ", ".join(python_arguments(asked)[1:]),
            "parsed": parse_python(asked),
        }
        if name in RUNNABLE and row["parsed"] is None:
            row["started"] = run_python(asked)
        yield row


def main() -> None:
    """Check every line, show what is wrong, and keep it all."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--programs", type=pathlib.Path)
    arguments.add_argument("--out", type=pathlib.Path, default=ROOT / "bench_results" / "tune" / "paste.json")
    arguments.add_argument("--record", type=pathlib.Path)
    arguments.add_argument("-c", type=int, default=1024, dest="n_ctx")
    asked = arguments.parse_args()
    programs = find_programs(asked.programs)
    if missing := [name for name in PROGRAMS if name not in programs]:
        print(
            f"paste_check: {' and '.join(missing)} are not here and are left out; build them, or name their folder with --programs"
        )
    if asked.record:
        options = {name: read_options(run([path, "--help"])[1]) for name, path in programs.items()}
        asked.record.write_text(json.dumps(options, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    rows = []
    for row in check(programs, str(find_file(None, ignore)), asked.n_ctx):
        rows.append(row)
        wrong = row["parsed"] or row.get("started")
        state = wrong or ("started" if "started" in row else "parsed")
        print(f"{row['program']:<17} {row['case']:<24} {state}", flush=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: run([path, "--version"])[1].splitlines()[0] for name, path in programs.items()}
    asked.out.write_text(json.dumps({"programs": versions, "rows": rows}, indent=1) + os.linesep, encoding="utf-8")
    n_wrong = sum(1 for row in rows if row["parsed"] or row.get("started"))
    print(
        f"{len(rows)} lines, {sum('started' in row for row in rows)} of them started, {n_wrong} wrong; kept in {asked.out.name}"
    )
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
