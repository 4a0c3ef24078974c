"""What a report of a fault needs: versions and builds, whatever does not start, and nobody's names."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import sys

import pytest
from click.testing import CliRunner

import harness
from harness.cli import cli
from harness.errors import NativeError
from harness.runs import doctor
from harness.runs.doctor import Examination, examine, list_variables, read_versions
from harness.views.doctor import describe_examination
from harness.views.formats import render

from .test_cli import harness as run_harness
from .test_devices import survey

MARKS = ("mark-home", "hf_mark", "mark-host")


def found(**changes):
    known = Examination(
        "1.2.3", doctor.describe_machine(), {"click": "8.1", "numpy": None}, ("HF_TOKEN",), survey=survey()
    )
    return dataclasses.replace(known, **changes)


def test_versions_the_machine_and_the_build_are_there():
    values = json.loads(render(describe_examination(found()), "json"))
    assert (values["harness"], values["llama_cpp_python"], values["ggml_commit"]) == ("1.2.3", "0.3.36", "0c1e570")
    assert values["cpu_features"] == ["AVX2", "REPACK"]
    assert values["variables"] == ["HF_TOKEN"]
    assert values["packages"] == [{"name": "click", "version": "8.1"}, {"name": "numpy", "version": None}]
    text = render(describe_examination(found()), "table")
    assert "AVX2, REPACK" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_missing_is_a_warning():
    assert describe_examination(found()).warnings == ["numpy is not installed, and harness requires it."]


def test_folders_in_flags_are_left_out():
    there = dataclasses.replace(
        survey(), build_flags="-DGGML_CUDA=ON -DCUDAToolkit_ROOT=/home/mark-home/cuda -DX:PATH=C:\\mark-home"
    )
    values = json.loads(render(describe_examination(found(survey=there)), "json"))
    assert values["build_flags"] == "-DGGML_CUDA=ON -DCUDAToolkit_ROOT=… -DX:PATH=…"


@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "GGML_CUDA_NO_PINNED", "HARNESS_RESULTS", "HF_TOKEN"])
def test_of_variables_there_are_names_alone(name, monkeypatch):
    monkeypatch.setenv(name, "mark-home")
    monkeypatch.setenv("MY_SECRET", "mark-home")
    assert name in list_variables()
    assert "MY_SECRET" not in list_variables()
    assert "mark-home" not in str(list_variables())


def test_packages_are_those_that_harness_requires(monkeypatch):
    required = ["click>=8.1", "no-such-package>1", "tomli>=2.0; python_version < '3'", 'pandas>=2; extra == "pandas"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: required)
    found = read_versions()
    assert found["click"] == importlib.metadata.version("click")
    assert found["no-such-package"] is None
    assert found.get("tomli", "there") is not None
    assert "pandas" not in found


def test_harness_that_is_not_installed_has_no_packages(monkeypatch):
    monkeypatch.setattr(doctor, "_DISTRIBUTION", "no-such-package")
    assert read_versions() == {}


def test_a_llama_that_does_not_start_is_a_part_of_the_answer():
    seen = examine([sys.executable, "-c", "import os; os._exit(3)"])
    assert seen.survey is None
    document = describe_examination(seen)
    assert document.warnings[-1] == seen.trouble
    values = json.loads(render(document, "json"))
    assert values["harness"] == harness.__version__
    assert "llama_cpp_python" not in values


def test_then_the_exit_code_is_that_of_llama(monkeypatch):
    def die(command=None):
        raise NativeError("llama.cpp does not start.")

    monkeypatch.setattr(doctor, "survey_devices", die)
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 3
    assert "llama.cpp does not start." in done.output


@pytest.mark.engine
def test_the_command_names_nobody(tmp_path, monkeypatch):
    for name in ("HOME", "HF_TOKEN", "HOSTNAME", "HARNESS_CATALOG"):
        monkeypatch.setenv(name, "/mark-home/hf_mark/mark-host")
    for form in ("table", "md", "csv", "json", "jsonl", "html"):
        code, out, err = run_harness("doctor", "-o", form, cwd=tmp_path)
        assert code == 0, err
        assert not [mark for mark in (*MARKS, str(tmp_path)) if mark in out + err]


def test_version_says_what_comes_first():
    done = CliRunner().invoke(cli, ["--version"])
    engine = importlib.metadata.version("llama-cpp-python")
    assert done.output == (
        f"harness {harness.__version__}, llama-cpp-python {engine}, Python {platform.python_version()}\n"
    )
