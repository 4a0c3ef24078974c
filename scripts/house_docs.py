"""Write the list of modules at the end of docs/architecture.md: each with the first line of its docstring."""

from __future__ import annotations

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
HEADING = "## Every module\n"


def say_first_line(path: pathlib.Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split("\n\n")[0].split())).rstrip(".")


def list_modules() -> str:
    """A table a room, and a line a module."""
    modules = sorted((ROOT / "harness").rglob("*.py"))
    rooms = sorted({path.parent for path in modules}, key=lambda folder: (folder.relative_to(ROOT).as_posix(),))
    lines = [HEADING, "By `scripts/house_docs.py`, from the modules themselves."]
    for room in rooms:
        name = room.relative_to(ROOT).as_posix()
        lines += [
            "",
            f"**`{name}/`** {say_first_line(room / '__init__.py')}",
            "",
            "| module | what it is |",
            "|---|---|",
        ]
        own = [path for path in modules if path.parent == room and path.name != "__init__.py"]
        lines += [f"| `{path.stem}` | {say_first_line(path)} |" for path in own]
    return "\n".join(lines) + "\n"


def render() -> str:
    """The page with the list of today."""
    return PAGE.read_text(encoding="utf-8").partition(HEADING)[0] + list_modules()


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8", newline="\n")
