"""The parent of `scripts/fuzz-header`: cuts what is asked for into batches, each a process of its own, and adds up what they say."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import figures

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / ".cache" / "fuzz-header"

#: What is asked for where nothing else is, and in which batches. The seed makes the same headers for everyone.
HEADERS, FILES = 100_000, 1_000
HEADERS_A_BATCH, FILES_A_BATCH = 2_000, 50
SEED = 20_261_128

#: A batch that takes longer than this hangs.
BATCH_TIMEOUT_S = 3600.0


def main(about: str) -> int:
    options = parse(about)
    if options.batch is not None:
        return run_one_batch(options)
    if options.only is not None:
        options.batch, options.batch_size = options.only, 1
        return run_one_batch(options)
    if unreadable := find_unreadable(options.files):
        print(unreadable, file=sys.stderr)
        return 2
    folder = pathlib.Path(options.kept) / f"{'worker' if options.worker else 'headers'}-{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for path in folder.glob("*"):
            path.unlink()
    print(f"{options.count} {'files' if options.worker else 'headers'} of seed {options.seed}", flush=True)
    found = list(run_batches(options, folder))
    return conclude(options, found, folder)


def parse(about: str, words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", metavar="N", nargs="?", type=int, help=f"how many [{HEADERS}; {FILES} with --worker]")
    parser.add_argument("files", metavar="FILE.gguf", nargs="*", help="real headers to spoil too")
    parser.add_argument("--seed", type=int, default=SEED, help=f"other headers than the usual [{SEED}]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once [one a CPU]")
    parser.add_argument("--worker", action="store_true", help="through the real worker and llama.cpp")
    parser.add_argument("--fresh", action="store_true", help="do again what was done")
    parser.add_argument("--only", type=int, metavar="INDEX", help="do this one alone, and show what came of it")
    parser.add_argument(
        "--kept", default=str(KEPT), metavar="FOLDER", help="where batches are kept [.cache/fuzz-header]"
    )
    parser.add_argument("--out", type=pathlib.Path, metavar="FOLDER", help="where the figures go, of a whole run")
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(words)
    if options.count is None:
        options.count = FILES if options.worker else HEADERS
    if options.batch_size is None:
        options.batch_size = FILES_A_BATCH if options.worker else HEADERS_A_BATCH
    return options


def find_unreadable(names: Sequence[str]) -> str | None:
    """Why a file is no good header to start from; None where all are."""
    from harness.errors import HarnessError
    from harness.sources.gguf_file import read_file_header

    for name in names:
        try:
            read_file_header(name, check_size=False)
        except HarnessError as error:
            return f"fuzz-header: {error}"
    return None


# --- a batch, in a process of its own ---------------------------------------------------------------------------------


def run_one_batch(options: argparse.Namespace) -> int:
    """Do a batch here, and say as JSON what came of it."""
    folder = pathlib.Path(options.kept)
    folder.mkdir(parents=True, exist_ok=True)
    # Neither is imported where the other is asked for: what it takes would count.
    module = importlib.import_module("fuzz_workers" if options.worker else "fuzz_headers")
    batch = module.run_batch(options.files, options.seed, options.batch, options.batch_size, folder)
    print(json.dumps(dataclasses.asdict(batch), indent=None if options.only is None else 1))
    return 1 if options.only is not None and batch.wrong else 0


def run_batches(options: argparse.Namespace, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """What came of each batch, those that were done before first; tells how far it is."""
    size, count, seen, told = options.batch_size, options.count, Counter[str](), time.monotonic()
    starts = range(0, count, size)
    left = []
    for first in starts:
        path = folder / f"{first}-{min(size, count - first)}.json"
        if path.exists():
            yield json.loads(path.read_text(encoding="utf-8"))
            seen["n"] += min(size, count - first)
        else:
            left.append((first, path))
    if seen["n"]:
        print(f"{seen['n']} were done before", flush=True)
    with ThreadPoolExecutor(max(options.jobs, 1)) as pool:
        waiting = {pool.submit(_start_batch, options, first, path, folder): first for first, path in left}
        for done in as_completed(waiting):
            batch = done.result()
            seen.update({"n": batch["n"], "wrong": len(batch["wrong"])})
            if batch["wrong"] or time.monotonic() - told > 10 or seen["n"] >= count:
                told = time.monotonic()
                print(f"{seen['n']} of {count} done, {seen['wrong']} wrong", flush=True)
            yield batch


def _start_batch(options: argparse.Namespace, first: int, path: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """Run a batch as a process; its own death or silence is a wrong answer."""
    size = min(options.batch_size, options.count - first)
    script = str(ROOT / "scripts" / "fuzz-header")
    words = [
        sys.executable,
        script,
        str(options.count),
        *options.files,
        "--seed",
        str(options.seed),
        "--kept",
        str(folder),
    ]
    words += ["--batch", str(first), "--batch-size", str(size), *(["--worker"] if options.worker else [])]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        try:
            done = subprocess.run(
                words, stdout=subprocess.PIPE, stderr=said, text=True, timeout=BATCH_TIMEOUT_S, check=False
            )
            batch: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
        except (subprocess.TimeoutExpired, ValueError) as error:
            said.seek(0)
            what = f"the batch itself ended: {error}; {said.read()[-800:]}"
            return {"first": first, "n": size, "by": {}, "wrong": [{"index": first, "what": what, "file": ""}]}
    path.write_text(json.dumps(batch) + "\n", encoding="utf-8")
    return batch


# --- the whole --------------------------------------------------------------------------------------------------------


def conclude(options: argparse.Namespace, batches: Sequence[dict[str, Any]], folder: pathlib.Path) -> int:
    """Say what came of all, keep the figures of a whole run; 1 if anything was wrong."""
    wrong = [item for batch in batches for item in batch["wrong"]]
    for item in wrong[:20]:
        print(f"\nWRONG at index {item['index']}: {item['what']}\n  bytes kept in {folder / item['file']}")
    for what, n in Counter(_last_line(item["what"]) for item in wrong).most_common(30):
        print(f"{n:6} x {what}")
    found, details = add_up_files(batches) if options.worker else add_up_headers(batches)
    for line in tell(found, details):
        print(line)
    promised = FILES if options.worker else HEADERS
    if options.out is not None or sum(batch["n"] for batch in batches) >= promised:
        name = "headers_worker" if options.worker else "headers"
        extra = ["FILE.gguf …"] if options.files else []
        command = ["scripts/fuzz-header", *(["--worker"] if options.worker else []), str(options.count), *extra]
        where = options.out or figures.RELIABILITY_FOLDER
        path = figures.keep(name, found, details={"seed": options.seed, **details}, folder=where, command=command)
        print(f"kept in {path}")
    return 1 if wrong else 0


def _last_line(what: str) -> str:
    return what.strip().rpartition("\n")[2][:150]


Summary = tuple[dict[str, figures.Figure], dict[str, Any]]


def add_up_headers(batches: Sequence[dict[str, Any]]) -> Summary:
    """The figures of headers, and what else was seen."""
    n, wrong = _count(batches)
    slowest = max(batches, key=lambda batch: batch.get("slowest_s", 0.0))
    hungriest = max(batches, key=lambda batch: batch.get("peak_mib", 0.0))
    by = sum((Counter(batch["by"]) for batch in batches), Counter[str]())
    found = {
        "headers.mutations": figures.Figure(n),
        "headers.wrong": figures.Figure(wrong, n=n),
        "headers.slowest_s": figures.Figure(slowest.get("slowest_s", 0.0)),
        "headers.peak_mib": figures.Figure(hungriest.get("peak_mib", 0.0)),
    }
    details = {
        "still_headers": sum(batch.get("n_headers", 0) for batch in batches),
        "by": dict(sorted(by.items())),
        "slowest": [slowest.get("slowest_command", ""), slowest.get("slowest", -1)],
        "longest_of_all_commands_s": max(batch.get("longest_s", 0.0) for batch in batches),
        "hungriest_index": hungriest.get("hungriest", -1),
    }
    return found, details


def add_up_files(batches: Sequence[dict[str, Any]]) -> Summary:
    """The figures of files through the worker."""
    n, wrong = _count(batches)
    by = sum((Counter(batch["by"]) for batch in batches), Counter[str]())
    found = {
        "headers.worker_mutations": figures.Figure(n),
        "headers.worker_wrong": figures.Figure(wrong, n=n),
    }
    return found, {"by": dict(sorted(by.items())), "slowest_s": max(batch.get("slowest_s", 0.0) for batch in batches)}


def _count(batches: Sequence[dict[str, Any]]) -> tuple[int, int]:
    return sum(batch["n"] for batch in batches), sum(len(batch["wrong"]) for batch in batches)


def tell(found: dict[str, figures.Figure], details: dict[str, Any]) -> Iterator[str]:
    """The figures as lines."""
    form: Callable[[float], str] = "{:g}".format
    for name, figure in found.items():
        yield f"{name:26} {form(round(figure.value, 3))}"
    for name, value in details.items():
        yield f"{name:26} {value}"
