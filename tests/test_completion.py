"""What a shell offers on Tab, as bash asks for it (with words broken at colons), and by click itself for the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from .test_cli import ROOT

START = "import sys; sys.argv[0] = 'harness'; from harness.__main__ import main; main()"


def ask(tmp_path, *words, shell="bash"):
    """What is offered for the last word, as (kind, text)."""
    done = subprocess.run(
        [sys.executable, "-c", START], capture_output=True, text=True, cwd=tmp_path, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "_HARNESS_COMPLETE": f"{shell}_complete", "HOME": str(tmp_path),
             "HF_HOME": str(tmp_path / "hf"), "OLLAMA_MODELS": str(tmp_path / "none"),
             "COMP_WORDS": "\n".join(("harness", *words)), "COMP_CWORD": str(len(words))},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
    return [tuple(line.split(",", 1)) for line in done.stdout.splitlines()]


def texts(*asked, **options):
    return [text for kind, text in ask(*asked, **options) if kind == "plain"]


def test_commands_and_options(tmp_path):
    assert texts(tmp_path, "pp") == ["pp-tg"]
    assert texts(tmp_path, "table", "--so") == ["--sort"]


def test_models_of_the_catalog(tmp_path):
    assert {"smollm2:135m", "llama3.1:8b"} <= set(texts(tmp_path, "pp-tg", "-m", ""))
    assert "smollm2:135m" in texts(tmp_path, "inspect", "smollm2")
    assert "smollm2:135m" in texts(tmp_path, "pull", "smol")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("-m", "llama3.1", ":", "8"), "8b"),
        (("-m", "llama3.1", ":"), "70b"),
        (("-m", "llama3.1", ":", "8b", ":"), "q4_0"),
        (("-m", "llama3.1", ":", "8b", ":", "q4"), "q4_0"),
        (("-m", "synth", ":", "llama3.1"), "llama3.1:8b"),
        (("--model", "=", "llama3.1"), "llama3.1:8b"),
        (("-m", "llama3.1:8b:q4"), "llama3.1:8b:q4_0"),  # where COMP_WORDBREAKS has no colon
    ],
)
def test_a_shell_that_breaks_words_at_colons_gets_what_follows_the_last(tmp_path, words, offered):
    assert offered in texts(tmp_path, "pp-tg", *words)


def test_where_no_model_is_meant_files_are_offered(tmp_path):
    assert ask(tmp_path, "pp-tg", "-m", "/tmp/mod") == [("file", "/tmp/mod")]


def test_machines_whose_names_have_blanks(tmp_path):
    offered = texts(tmp_path, "predict", "--machine", "m4")
    assert any(text.startswith(r"M4\\ Pro") for text in offered)
    assert not any(" " in text.replace(r"\\ ", "") for text in offered)


def test_a_model_on_this_disk_comes_before_the_catalog(tmp_path):
    blob = tmp_path / "hf" / "hub" / "models--owner--repo" / "snapshots" / ("a" * 40) / "model-Q4_0.gguf"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"GGUF")
    assert "owner" in texts(tmp_path, "pp-tg", "-m", "")[0]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_name_that_a_shell_would_carry_out_is_put_into_the_line_as_a_name(tmp_path):
    from click.shell_completion import CompletionItem

    from harness.cli.completion import _ColonComplete

    one = object.__new__(_ColonComplete)
    one._n_known = 0
    name = "$(touch x);`y` 'z' * \\ &|<>#!{a,b}~\"é"
    script = 'IFS="," read type value <<<"$ANSWER"; IFS=$\'\\n\'; COMPREPLY=($value); eval "printf %s ${COMPREPLY[0]}"'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, timeout=60,
        env={**os.environ, "ANSWER": one.format_completion(CompletionItem(name))},
    )  # fmt: skip
    assert (done.stdout, done.stderr, list(tmp_path.iterdir())) == (name, "", [])


def test_other_shells_are_answered_by_click(tmp_path):
    assert "pp-tg" in [line[0] for line in ask(tmp_path, "pp", shell="zsh")]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_written(shell):
    done = subprocess.run(
        [sys.executable, "-c", START], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "_HARNESS_COMPLETE": f"{shell}_source"},
    )  # fmt: skip
    assert done.returncode == 0
    assert "_HARNESS_COMPLETE" in done.stdout
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0
