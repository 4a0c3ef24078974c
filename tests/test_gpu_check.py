"""`scripts/gpu-check` on machines that are made up: programs on PATH stand in for the card and its driver, answers of the shape of real ones for
what runs on it. Every judge sees a right answer and wrong ones."""

from __future__ import annotations

import copy
import json
import pathlib
import shlex
import subprocess
import sys

import gpu_check
import gpu_judges
import pytest

MIB = 2**20
CARD = "Made-up Card, 580.1, 8192, 9.0"


def row(count, on_card, **more):
    memory = {"CPU": {"model": 10 * MIB}} | ({"CUDA0": on_card} if on_card else {})
    speed = {"test": "pp512", "joules_per_token": 0.02, "cautions": []}
    usual = {"n_gpu_layers": count, "speeds": [speed], "memory_bytes": memory, "failure": None, "skipped": None}
    return {**usual, "power_sources": ["nvml:0 Made-up Card"], **more}


def ledger(*sizes):
    lines = [{"cause": "weights copied", "device": "CUDA0", "predicted_bytes": size} for size in sizes]
    return {"ledger": [{"cause": "weights mapped", "device": "CPU", "predicted_bytes": 10 * MIB}, *lines]}


def roof_test(work, rate, **more):
    name = "rate_flop_per_s" if work == "multiply" else "rate_bytes_per_s"
    return {"work": work, "device": "CUDA0 Made-up Card", "type": "F16", name: rate, "result": "right", **more}


FOOTNOTE = {"cause": "no-kernel", "text": "flash attention is off: CUDA0 has no kernel for it here"}
SWEEP = {"rows": [row(0, {}), row(4, {"model": 40 * MIB, "kv": 2 * MIB, "compute": 8 * MIB})]}
PREDICTED = {0: ledger(), 4: ledger(40 * MIB, 2 * MIB + 4000, 8 * MIB)}
PARITY = {
    "kind": "parity", "test": "tg128", "harness_samples_ns": [[100, 101, 102]] * 3, "llama_bench_samples_ns": [[100, 102, 103]] * 3,
}  # fmt: skip
BEST = {"fastest": 16, "runs": [{"best_n_gpu_layers": 17, "fair_loss": 0.004, "cost_share_timed": 0.2}]}
ROOF = {
    "tests": [
        roof_test("read", 900e9),
        roof_test("multiply", 5e13),
        {"device": "CPU", "work": "read", "result": "right"},
    ]
}
TUNE = {"decision": "faster", "gain": 1.04, "stop": "over", "n_candidates": 9}


# --- judges -----------------------------------------------------------------------------------------------------------


def changed(found, *path, to):
    """A copy with one value changed."""
    made = copy.deepcopy(found)
    at = made
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return made


GOOD = {
    "devices": (gpu_judges.judge_devices, {"devices": [{"name": "CUDA0"}, {"name": "CPU"}]}),
    "parity": (gpu_judges.judge_parity, [PARITY]),
    "best": (gpu_judges.judge_best, BEST),
    "energy": (gpu_judges.judge_energy, {"rows": [row(99, {"model": 1})]}),
    "roofline": (gpu_judges.judge_roofline, ROOF),
    "tune": (gpu_judges.judge_tune, TUNE),
    "footnote": (gpu_judges.judge_footnote, changed(SWEEP, "rows", 0, "speeds", 0, "cautions", to=[FOOTNOTE])),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_right_answer(name):
    judge, found = GOOD[name]
    assert judge(found)
    json.dumps(judge(found))


def test_a_right_ledger():
    found = gpu_judges.judge_ledger(SWEEP, PREDICTED)["allocated_and_predicted_bytes"]
    assert found == {"0": [0, 0], "4": [50 * MIB, 50 * MIB + 4000]}


@pytest.mark.parametrize(
    ("name", "path", "to", "said"),
    [
        (
            "parity",
            (0, "llama_bench_samples_ns"),
            [[98, 98, 98]] * 3,
            "tg128: harness has 0.9703 of llama-bench's speed",
        ),
        ("best", ("runs", 0, "fair_loss"), 0.05, "--best chose 17 layers, 5.0% behind 16"),
        ("energy", ("rows", 0, "power_sources"), ["package-0"], "no energy came from NVML"),
        ("energy", ("rows", 0, "power_sources"), [], "sources: none"),
        ("energy", ("rows", 0, "speeds", 0, "joules_per_token"), None, "no energies"),
        ("energy", ("rows", 0, "speeds", 0, "joules_per_token"), -1.0, "no energies"),
        ("roofline", ("tests", 0, "result"), "WRONG", "multiplies F16 wrongly"),
        ("roofline", ("tests", 0, "rate_bytes_per_s"), 4e9, "reads 4.0 GB/s"),
        ("roofline", ("tests",), [], "reads 0.0 GB/s"),
        ("tune", ("decision",), "slower", "is slower beside the defaults"),
        ("tune", ("decision",), None, "is None"),
        (
            "footnote",
            ("rows", 0, "speeds", 0, "cautions"),
            [{"cause": "few-samples", "text": "x"}],
            "without a footnote",
        ),
    ],
)
def test_a_wrong_answer(name, path, to, said):
    judge, found = GOOD[name]
    with pytest.raises(gpu_judges.Wrong, match=None) as error:
        judge(changed(found, *path, to=to))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("sweep", "predicted", "said"),
    [
        (
            SWEEP,
            {0: ledger(), 4: ledger(40 * MIB)},
            "4 layers take 52428800 bytes on the card, and 41943040 were predicted",
        ),
        (SWEEP, {0: ledger(MIB), 4: PREDICTED[4]}, "0 layers take 0 bytes"),
        (changed(SWEEP, "rows", 1, "failure", to={"cause": "abort"}), PREDICTED, "4 layers were not measured"),
        (changed(SWEEP, "rows", 1, "skipped", to="cannot fit"), PREDICTED, "4 layers were not measured"),
        ({"rows": [row(0, {})]}, PREDICTED, "took anything of the card"),
    ],
)
def test_a_wrong_ledger(sweep, predicted, said):
    with pytest.raises(gpu_judges.Wrong) as error:
        gpu_judges.judge_ledger(sweep, predicted)
    assert said in str(error.value)


def test_no_parity_is_wrong_and_no_device_ends_it_all():
    with pytest.raises(gpu_judges.Wrong, match="kept no record"):
        gpu_judges.judge_parity([])
    with pytest.raises(gpu_judges.Missing, match="no CUDA device"):
        gpu_judges.judge_devices({"devices": [{"name": "CPU"}]})


# --- the whole, on a machine that is made up --------------------------------------------------------------------------

#: In Python's place: says what the test wrote down, by the command.
PYTHON = """
import json, os, pathlib, sys, time
words = sys.argv[1:]
answers = json.loads(pathlib.Path(os.environ["MADE_UP"]).read_text())
if words[0] == "-c":
    print("1.0.0 0.3.36"); sys.exit(answers.get("python", 0))
name = words[2] if words[0] == "-m" else pathlib.Path(words[0]).stem
if name == "sweep" and "-ctk" in words: name = "footnote"
if name == "sweep" and "256" in words: name = "energy"
if name == "overhead": name += words[words.index("-ngl") + 1]
answer = answers[name]
if isinstance(answer, str):
    sys.exit(answer)
if isinstance(answer, int):
    time.sleep(answer)
if name == "best":
    pathlib.Path(words[words.index("--out") + 1]).write_text(json.dumps(answer))
elif name == "parity":
    folder = pathlib.Path(words[words.index("--results") + 1]) / "machine"
    folder.mkdir(parents=True)
    (folder / "x.jsonl").write_text(json.dumps(answer) + "\\n")
else:
    print(json.dumps(answer))
"""

ANSWERS = {
    "devices": GOOD["devices"][1], "sweep": SWEEP, "overhead0": PREDICTED[0], "overhead4": PREDICTED[4], "energy": GOOD["energy"][1],
    "footnote": GOOD["footnote"][1], "best": BEST, "roofline": ROOF, "tune": TUNE, "parity": PARITY,
}  # fmt: skip


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Runs the check with some answers changed; (exit code, outcomes by name, the table)."""
    if sys.platform == "win32":
        pytest.skip("programs are made up as scripts of a shell")
    for name in ("bin", "engine", "engine/bin", "engine/lib"):
        (tmp_path / name).mkdir()
    script(tmp_path / "engine" / "bin" / "llama-bench", "")
    script(tmp_path / "bin" / "nvidia-smi", f"#!/bin/sh\necho '{CARD}'\n")
    # The first line of a script cannot name a program with a blank in its path.
    (tmp_path / "python.py").write_text(PYTHON, encoding="utf-8")
    python = script(tmp_path / "python", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$0.py" "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("MADE_UP", str(tmp_path / "answers.json"))

    def run(*words, has_engine=True, **answers):
        (tmp_path / "answers.json").write_text(json.dumps({**ANSWERS, **answers}))
        engine = ["--engine", str(tmp_path / "engine")] if has_engine else []
        code = gpu_check.main(["--out", str(tmp_path / "out"), "--python", str(python), *engine, *words])
        lines = (tmp_path / "out" / "gpu-check.jsonl").read_text().splitlines()
        return (
            code,
            {item["name"]: item for item in map(json.loads, lines)},
            (tmp_path / "out" / "summary.txt").read_text(),
        )

    run.folder = tmp_path
    return run


def test_all_is_well(machine, capsys):
    code, outcomes, table = machine()
    assert code == 0, table
    assert [one["status"] for one in outcomes.values()] == ["OK"] * len(gpu_check.STEPS)
    assert outcomes["card"]["found"]["card"] == "Made-up Card"
    assert outcomes["ledger"]["commands"][1].endswith("-c 512 -ngl 0 -o json")
    assert table.count("OK") == len(gpu_check.STEPS)
    files = {path.name for path in (machine.folder / "out").iterdir()}
    assert files == {"gpu-check.jsonl", "records.jsonl", "summary.txt", "log.txt"}
    assert json.loads((machine.folder / "out" / "records.jsonl").read_text())["kind"] == "parity"
    assert str(machine.folder / "out") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answers", "name", "problem"),
    [
        ({"sweep": "llama.cpp died"}, "ledger", "ended with 1: llama.cpp died"),
        ({"sweep": {"rows": "?"}}, "ledger", "cannot be understood"),
        ({"sweep": {}}, "ledger", "cannot be understood: KeyError('rows')"),
        ({"parity": "no such model"}, "parity", "no such model"),
        ({"best": "it failed"}, "best", "it failed"),
        ({"tune": {"decision": "slower"}}, "tune", "slower"),
        ({"roofline": []}, "roofline", "cannot be understood"),
        ({"energy": {"rows": []}}, "energy", "cannot be understood"),
        ({"footnote": SWEEP}, "footnote", "without a footnote"),
    ],
)
def test_a_failed_step_does_not_stop_the_others(answers, name, problem, machine):
    code, outcomes, table = machine(**answers)
    assert code == 1
    assert [one["name"] for one in outcomes.values() if one["status"] != "OK"] == [name]
    assert problem in outcomes[name]["problem"]
    assert "FAILED" in table


def test_without_a_card_it_says_so_in_a_sentence_and_runs_nothing(machine, capsys):
    (machine.folder / "bin" / "nvidia-smi").unlink()
    code, outcomes, _ = machine()
    assert code == 2
    assert "there is no NVIDIA card here" in capsys.readouterr().err
    assert [one["status"] for one in outcomes.values()] == ["OK", "FAILED"] + ["NOT RUN"] * 8
    assert outcomes["tune"]["problem"] == "without card"


@pytest.mark.parametrize("said", ["echo 'No devices were found'", "echo 'driver mismatch' >&2; exit 9", "true"])
def test_a_driver_without_a_card(said, machine):
    script(machine.folder / "bin" / "nvidia-smi", f"#!/bin/sh\n{said}\n")
    code, outcomes, _ = machine()
    assert (code, outcomes["card"]["status"]) == (2, "FAILED")


def test_without_packages_or_an_engine_that_sees_the_card(machine, capsys):
    assert machine(python=1)[0] == 2
    assert "carry them with --site" in capsys.readouterr().err
    code, outcomes, _ = machine(devices={"devices": [{"name": "CPU"}]})
    assert code == 2
    assert outcomes["engine"]["problem"] == "the engine that was built sees no CUDA device; look into log.txt."
    assert {name for name, one in outcomes.items() if one["is_missing"]} == {"engine"}


def test_without_what_the_last_step_looks_for_there_was_nothing_to_try_it_with(machine, capsys):
    code, outcomes, _ = machine("--only", "engine", devices={"devices": [{"name": "CPU"}]})
    assert (code, [*outcomes]) == (2, ["python", "card", "engine"])
    assert "sees no CUDA device" in capsys.readouterr().err


def test_a_step_that_takes_too_long_is_ended_and_time_for_the_others_kept(machine, monkeypatch):
    steps = [
        gpu_check.Step(one.name, one.about, 1.0 if one.name == "parity" else one.limit_s, one.act)
        for one in gpu_check.STEPS
    ]
    monkeypatch.setattr(gpu_check, "STEPS", tuple(steps))
    monkeypatch.setattr(gpu_check.run_steps, "__defaults__", (tuple(steps),))
    code, outcomes, _ = machine("--only", "parity", "--only", "tune", parity=20)
    assert code == 1
    assert "parity ended with None" in outcomes["parity"]["problem"]
    assert outcomes["parity"]["took_s"] < 15
    assert outcomes["tune"]["status"] == "OK"
    assert "best" not in outcomes


def test_what_the_budget_has_no_time_for_is_not_run(machine):
    code, outcomes, _ = machine("--minutes", "0.1")
    assert code == 1
    assert {one["problem"] for one in outcomes.values()} == {"no time was left"}


def test_the_log_stays_below_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "MOST_BYTES", 100)
    for _ in range(10):
        gpu_check.append(tmp_path / "log.txt", "x" * 30)
    assert (tmp_path / "log.txt").stat().st_size == 90


def test_an_engine_is_built_of_the_source_that_is_named(machine, tmp_path):
    """CMake and nvcc are made up: what is asked of them is what is tried."""
    source = tmp_path / "source"
    (source / "ggml").mkdir(parents=True)
    (source / "ggml" / "CMakeLists.txt").write_text("")
    script(tmp_path / "bin" / "nvcc", "#!/bin/sh\n")
    build = 'case "$1" in --build) mkdir -p "$2/bin"; touch "$2/bin/libllama.so" "$2/bin/llama-bench";; *) echo "$@" >"$MADE_UP.cmake";; esac'
    script(tmp_path / "bin" / "cmake", f"#!/bin/sh\n{build}\n")
    done = subprocess.run(
        [gpu_check.ROOT / "scripts" / "build-cuda", "whole", source, tmp_path / "made", "90"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "bin" / "llama-bench").exists()
    assert (tmp_path / "made" / "lib" / "libllama.so").exists()
    asked = pathlib.Path(f"{tmp_path / 'answers.json'}.cmake").read_text()
    assert "-DGGML_CUDA=ON" in asked
    assert "-DCMAKE_CUDA_ARCHITECTURES=90" in asked


def test_without_engine_and_source_nothing_is_tried(machine, monkeypatch):
    monkeypatch.setattr(gpu_check, "find_source", lambda given: None)
    code, outcomes, _ = machine(has_engine=False)
    assert code == 2
    assert "carry one of them" in outcomes["engine"]["problem"]
    assert outcomes["parity"]["problem"] == "without engine"


def test_an_engine_without_llama_bench_is_measured_all_the_same(machine):
    (machine.folder / "engine" / "bin" / "llama-bench").unlink()
    code, outcomes, _ = machine()
    assert code == 1
    assert [one["name"] for one in outcomes.values() if one["status"] != "OK"] == ["parity"]
