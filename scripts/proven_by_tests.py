"""Run the tests that prove figures of docs/reliability.md, and keep how many cases each has and how many failed.

    .venv/bin/python scripts/proven_by_tests.py [--only network.wrong ...] [--out FOLDER]

A case is a test, with its parameters; a skipped one is no case. Exits with 1 if a case failed. Nothing is timed.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from xml.etree import ElementTree

from figures import RELIABILITY_FOLDER, ROOT, Figure, keep

#: Which test files prove which figure. A new one is a line here and a goal in scripts/figures.py.
PROOFS: dict[str, tuple[str, ...]] = {
    "storage.wrong": (
        "tests/test_storage.py",
        "tests/test_store.py",
        "tests/test_session.py",
        "tests/test_interrupt.py",
    ),
    "pipes.wrong": ("tests/test_pipes.py", "tests/test_pipes_measured.py"),
    "workers.wrong": ("tests/test_wrong_workers.py", "tests/test_worker.py"),
    "rpc.wrong": ("tests/test_rpc_attacks.py", "tests/test_rpc.py"),
    "network.wrong": (
        "tests/test_hub_faults.py",
        "tests/test_ollama_faults.py",
        "tests/test_redirections.py",
        "tests/test_hub_client.py",
        "tests/test_names_afar.py",
        "tests/test_two_pulls.py",
    ),
    "text.wrong": (
        "tests/test_neutral.py",
        "tests/test_strangers.py",
        "tests/test_harmless.py",
        "tests/test_safe_names.py",
        "tests/test_safe_json.py",
    ),
    "release.wrong": ("tests/test_release.py", "tests/test_surface.py", "tests/test_licences.py"),
    "compatibility.wrong": (
        "tests/test_versions.py",
        "tests/test_wheels.py",
        "tests/test_fallbacks.py",
        "tests/test_platforms.py",
        "tests/test_powershell.py",
    ),
    "privacy.wrong": ("tests/test_privacy.py", "tests/test_share.py"),
}


def run_tests(files: Sequence[str]) -> Figure:
    """How many cases of some test files failed, of how many; RuntimeError where pytest says nothing of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "cases.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}", *files]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if not path.exists():
            raise RuntimeError(f"pytest ended with {done.returncode} and kept nothing")
        return count_cases(path.read_text(encoding="utf-8"))


def count_cases(junit_xml: str) -> Figure:
    """The failed cases of those that ran."""
    suites = list(ElementTree.fromstring(junit_xml).iter("testsuite"))
    n_wrong = sum(int(suite.get(name, 0)) for suite in suites for name in ("failures", "errors"))
    n_run = sum(int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) for suite in suites)
    return Figure(n_wrong, n=n_run)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PROOFS, action="append", help="prove these figures and not all")
    parser.add_argument("--out", type=pathlib.Path, default=RELIABILITY_FOLDER)
    asked = parser.parse_args()
    n_wrong = 0.0
    for name in asked.only or PROOFS:
        figure = run_tests(PROOFS[name])
        n_wrong += figure.value
        print(f"{name}: {figure.value:g} of {figure.n} cases", flush=True)
        command = ["scripts/proven_by_tests.py", "--only", name]
        keep(name, {name: figure}, details={"files": PROOFS[name]}, folder=asked.out, command=command)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
