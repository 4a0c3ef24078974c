"""Runs the commands in the console blocks of a document and writes what they print under them.

.venv/bin/python scripts/transcribe.py docs/article.md [WORD]     only blocks whose commands contain WORD

A block is fenced by ```console and holds lines that begin with ``$ ``, each followed by its output. Commands run in bash at the top of
the project, with harness on the PATH, 80 columns and no terminal; only stdout is kept.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(command: str) -> str:
    """Run one command and return its stdout, failing loudly where it fails."""
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    print(f"{done.returncode}  {command}", file=sys.stderr)
    if done.returncode not in (0, 5):
        raise SystemExit(done.stderr)
    return done.stdout.rstrip() + "\n"


def transcribe(block: str, word: str) -> str:
    """A block's text with fresh output, where one of its commands contains the word."""
    commands = re.findall(r"^\$ (.+)$", block, re.MULTILINE)
    if not commands or not any(word in command for command in commands):
        return block
    return "\n".join(f"$ {command}\n{run(command)}" for command in commands)


def main(path: str, word: str = "") -> None:
    document = pathlib.Path(path)
    text = document.read_text(encoding="utf-8")
    text = _BLOCK.sub(lambda match: f"```console\n{transcribe(match[1], word)}```", text)
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
