"""scripts/*.ps1 do what setup.sh does, in the same order. PowerShell itself is not to be had here, so their text is held to rules."""

import pathlib
import re

import pytest

SCRIPTS = pathlib.Path(__file__).parent.parent / "scripts"
NAMES = ("setup.ps1", "harness.ps1", "test.ps1")

#: Functions of setup.sh, in its order, and those that do the same on Windows.
SAME = {
    "fail": "Stop-Setup", "checksum": "Get-Checksum", "fingerprint": "Get-Fingerprint", "find_python": "Find-Python",
    "require_compiler": "Assert-Compiler", "has_cmake": "Test-CMake", "has_ninja": "Test-Ninja", "step": "Invoke-Step",
    "install_lock": "Install-Lock", "cpu_identity": "Get-CpuIdentity", "install_engine": "Install-Engine",
    "ensure_harness": "Initialize-Harness", "ensure_test_tools": "Initialize-TestTools",
}  # fmt: skip

#: What of setup.sh Windows has as a constant: `winget` is one command on every Windows.
ELSEWHERE = {"install_command": "$GetCompiler ="}


def read(name):
    return (SCRIPTS / name).read_text(encoding="utf-8")


def body_of(text, name):
    """A function's text, of either language."""
    match = re.search(rf"^(?:function )?{name}\b[^\n]*(?:}}$|\n.*?^}}$)", text, re.MULTILINE | re.DOTALL)
    assert match, name
    return match[0]


def without_comments(text):
    return re.sub(r"(?m)(^|\s)#.*$", "", text)


def test_the_same_functions_stand_in_the_same_order():
    shell, power = read("setup.sh"), read("setup.ps1")
    assert list(SAME) == [name for name in re.findall(r"(?m)^(\w+)\(\) \{", shell) if name not in ELSEWHERE]
    there = re.findall(r"(?m)^function ([\w-]+)", power)
    assert [name for name in there if name in SAME.values()] == list(SAME.values())
    assert all(text in power for text in ELSEWHERE.values())


def test_llama_cpp_is_compiled_with_the_same_flags():
    found = [set(re.findall(r"-D(\w+)=(?:O[NF]+|[\w$])", body_of(read(name), engine))) for name, engine in (
        ("setup.sh", "install_engine"), ("setup.ps1", "Install-Engine"),
    )]  # fmt: skip
    assert found[0] == found[1]
    assert "GGML_RPC" in found[0]


@pytest.mark.parametrize("name", ["install_lock", "install_engine", "ensure_harness"])
def test_pip_is_asked_the_same_way(name):
    """Hashes, no dependencies, no cached builds."""
    options = re.compile(r"--[a-z][a-z-]+")
    shell_text = re.sub(r"uv venv.*?;", "", without_comments(body_of(read("setup.sh"), name)))
    shell = set(options.findall(shell_text))
    assert set(options.findall(without_comments(body_of(read("setup.ps1"), SAME[name])))) == shell


def test_the_steps_of_a_set_up_come_in_the_same_order():
    shell, power = body_of(read("setup.sh"), "ensure_harness"), body_of(read("setup.ps1"), "Initialize-Harness")
    steps = [
        ("mkdir -p", "New-Item"), ("printf 'harness: setting up", "WriteLine"), ("find_python", "Find-Python"),
        ("install_lock", "Install-Lock"), ("install_engine", "Install-Engine"), ("pip install", "'pip', 'install'"),
        (">\"$VENV/.engine-flags\"", "Write-Text $flagsFile"), (">\"$VENV/.stamp\"", "Write-Text $stamp"),
    ]  # fmt: skip
    for text, words in ((shell, [step[0] for step in steps]), (power, [step[1] for step in steps])):
        places = [text.index(word) for word in words]
        assert places == sorted(places)


def test_people_read_the_same_sentences():
    said = {
        "setting up .venv and compiling llama.cpp, once; takes 2 to 10 minutes, log in", "installing the test tools",
        "no C++ compiler was found, and llama.cpp is compiled here; install one:", "no Python >= 3.10 was found; install one:",
        "set-up failed:", "The whole log:", "the disk is full", "a download does not have the hash of the lock",
        "the package index cannot be reached", "its last lines are:", "memory ran out; try again with",
        "the CUDA toolkit (nvcc) was not found; install it or leave out -DGGML_CUDA=ON",
    }  # fmt: skip
    for name in ("setup.sh", "setup.ps1"):
        assert [sentence for sentence in said if sentence not in read(name)] == []


def test_the_same_pythons_are_looked_for():
    versions = [re.findall(r"3\.\d+", body_of(read(name), function)) for name, function in (
        ("setup.sh", "find_python"), ("setup.ps1", "Find-Python"),
    )]  # fmt: skip
    assert list(dict.fromkeys(versions[0])) == list(dict.fromkeys(versions[1]))


def test_tests_check_the_same_things_in_the_same_order():
    for name in ("test", "test.ps1"):
        text = without_comments(read(name))
        places = [text.index(word) for word in ("check .", "format --check .", "mypy", "pytest")]
        assert places == sorted(places)


@pytest.mark.parametrize("name", NAMES)
def test_windows_powershell_can_read_it(name):
    """Version 5.1 takes a file without a byte order mark for the system's code page, and knows nothing of version 7's operators."""
    raw = (SCRIPTS / name).read_bytes()
    assert raw.isascii()
    text = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", "''", without_comments(raw.decode()))
    assert not re.search(r"&&|\|\||\?\?|\?\.|-Parallel|\bInvoke-Expression\b|\biex\b", text)
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("name", NAMES)
def test_paths_may_have_blanks(name):
    """A path is made by Join-Path and handed over whole: never a string that is split or run."""
    text = without_comments(read(name))
    assert not re.search(r"cmd /c|Start-Process", text)
    for line in text.splitlines():
        assert not re.search(r"&\s*\"?\$\w+\\", line), line  # & $Venv\x would need no quotes today and break tomorrow
    assert "-LiteralPath" in text or name == "harness.ps1"


def test_every_step_minds_the_exit_code():
    text = read("setup.ps1")
    for line in without_comments(text).splitlines():
        if re.search(r"&\s+\$(Program|vswhere)", line) and "vswhere" not in line:
            assert "2>&1" in line
    assert "if ($LASTEXITCODE -eq 0) { return }" in body_of(text, "Invoke-Step")
    assert re.search(r"&.*harness\.exe'\) @Typed\nexit \$LASTEXITCODE\n$", read("harness.ps1"))


@pytest.mark.parametrize("name", NAMES)
def test_its_syntax_is_powershells(name):
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip("tree_sitter_powershell")
    tree = tree_sitter.Parser(tree_sitter.Language(grammar.language())).parse((SCRIPTS / name).read_bytes())
    assert not tree.root_node.has_error
