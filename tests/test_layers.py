"""The rules of the house (docs/architecture.md), held by reading every import."""

from __future__ import annotations

import ast
import builtins
import pathlib
import subprocess
import sys

import pytest

from .conftest import HERE
from .gguf_bytes import llama_like

PACKAGE = pathlib.Path(__file__).parent.parent / "harness"

#: Floor of each room; a longer name wins. Imports point down, never sideways, siblings of one package aside.
FLOORS = {
    "harness": 0,
    "harness.errors": 0,
    "harness.events": 0,
    "harness.units": 0,
    "harness.codec": 0,
    "harness.untrusted": 1,
    "harness.evidence": 1,
    "harness.parsers": 0,
    "harness.spec": 1,
    "harness.catalog": 1,
    "harness.arguments": 2,
    "harness.grid": 2,
    "harness.gguf": 2,
    "harness.memory": 3,
    "harness.records": 4,
    "harness.host": 5,
    "harness.native": 6,
    "harness.sources": 6,
    "harness.speed": 6,
    "harness.runs": 7,
    "harness.views": 8,
    "harness.api": 9,
    "harness.api_fit": 9,
    "harness.api_quality": 9,
    "harness.api_share": 9,
    "harness.api_tune": 9,
    "harness.cli": 9,
    "harness.__main__": 10,
}

#: Rooms in which one thing rests on another: (who, on whom), each with its reason in docs/architecture.md.
ALLOWED_SIDEWAYS = {
    ("harness.units", "harness.errors"),
    ("harness.api_share", "harness.api"),
    ("harness.api_quality", "harness.api"),
    ("harness.api_fit", "harness.api"),
    ("harness.api_tune", "harness.api"),
}

#: Floors 0-4, speed and views know no clock, file, process or environment; journals of records are files.
PURE_FLOOR = 4
PURE_ROOMS = ("harness.speed", "harness.views")
IMPURE = ("harness.records.journal", "harness.records.journal_files")
IMPURE_MODULES = {
    "os",
    "time",
    "subprocess",
    "tempfile",
    "threading",
    "socket",
    "psutil",
    "shutil",
    "datetime",
    "io",
}
RENDER_MAY = {"io"}  # StringIO


def room_of(module: str) -> str:
    parts = module.split(".")
    return next(name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in FLOORS)


def is_pure(module: str) -> bool:
    room = room_of(module)
    return (FLOORS[room] <= PURE_FLOOR or room in PURE_ROOMS) and module not in IMPURE


def module_name(path: pathlib.Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports_of(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offences(module: str, source: str) -> list[str]:
    room, floor = room_of(module), FLOORS[room_of(module)]
    wrong = []
    for target in imports_of(source):
        top = target.split(".")[0]
        if top == "harness":
            other = room_of(target)
            if other in (room, "harness") or (room, other) in ALLOWED_SIDEWAYS:
                continue
            if FLOORS[other] >= floor:
                wrong.append(f"{module} (floor {floor}) imports {target} (floor {FLOORS[other]})")
        elif top in ("ctypes", "llama_cpp") and room != "harness.native":
            wrong.append(f"{module} imports {target}, which only harness.native may")
        elif top in IMPURE_MODULES and is_pure(module):
            if not (room == "harness.views" and top in RENDER_MAY):
                wrong.append(f"{module} imports {target}, but its floor knows no clock, file, process or environment")
    return wrong


def calls_of(source: str, names: set[str]) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


#: What reads JSON by itself: the owner, and the two ends of our own pipe.
JSON_READERS = {"harness.untrusted.json", "harness.runs.worker", "harness.native.worker"}

MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path):
    assert offences(module_name(path), path.read_text(encoding="utf-8")) == []


SILENT = [path for path in MODULES if room_of(module_name(path)) not in ("harness.cli", "harness.__main__")]


@pytest.mark.parametrize("path", SILENT, ids=module_name)
def test_only_the_command_line_prints(path):
    source = path.read_text(encoding="utf-8")
    assert calls_of(source, {"print"}) == []
    if is_pure(module_name(path)):
        assert calls_of(source, {"open"}) == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_json_from_outside_is_read_by_its_owner(path):
    source = path.read_text(encoding="utf-8")
    reads = any(call in source for call in ("json.loads(", "json.load(", "raw_decode("))
    assert reads <= (module_name(path) in JSON_READERS)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("harness.spec", "import harness.records.cells"),
        ("harness.records.statistics", "from harness.host import machine"),
        ("harness.records.statistics", "import time"),
        ("harness.views.cells", "from harness.cli import terminal"),
        ("harness.views.cells", "import os"),
        ("harness.runs.cells", "import llama_cpp"),
        ("harness.runs.cells", "def f():\n    import ctypes"),
        ("harness.records.journal", "from harness.host.machine import describe_machine"),
    ],
)
def test_a_planted_import_is_found(module, line):
    assert offences(module, line) != []


#: What makes text, and the one place for each: whoever needs it calls the owner, which knows what does harm and how wide a page is.
OWNED = {
    "click.echo": "harness.cli.terminal",
    "click.secho": "harness.cli.terminal",
    "click.confirm": "harness.cli.terminal",
    "click.prompt": "harness.cli.terminal",
    "sys.stdout.write": "harness.cli.terminal",
    "sys.stderr.write": "harness.cli.terminal",
    "textwrap.fill": "harness.views.page",
    "textwrap.wrap": "harness.views.page",
    "textwrap.shorten": "harness.views.page",
    "tabulate": "harness.views.page",
}
SHOWING = [path for path in MODULES if room_of(module_name(path)) in ("harness.cli", "harness.views")]


def owned_calls(source: str) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    shown = [
        call for call in calls if not any(word.arg == "sort_keys" for word in call.keywords)
    ]  # sorted: a key to compare by
    return {ast.unparse(call.func) for call in shown} & {*OWNED, "json.dumps"}


@pytest.mark.parametrize("path", SHOWING, ids=module_name)
def test_text_is_made_by_its_owner(path):
    found = owned_calls(path.read_text(encoding="utf-8"))
    assert {name for name in found if OWNED.get(name) != module_name(path)} == set()


def test_a_planted_echo_is_found():
    assert owned_calls("import click, json\nclick.echo(json.dumps(1))") == {"click.echo", "json.dumps"}


def test_importing_harness_loads_nothing_heavy():
    code = "import sys, harness, harness.cli; print([m for m in ('llama_cpp', 'numpy', 'matplotlib', 'tabulate', 'psutil') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


#: What takes a tenth of a second or more to import, and what needs none of it.
HEAVY = ("llama_cpp", "numpy", "gguf", "matplotlib", "scipy", "jinja2", "huggingface_hub", "httpx", "requests")
LIGHT = [
    ["--help"],
    ["pp-tg", "--help"],
    ["table", "RECORDED", "-o", "json"],
    ["predict", "-m", "llama3.1:8b:q4_0", "--machine", "M4 Pro"],
    ["predict", "--size", "20GB", "--bandwidth", "273GB/s"],
    ["inspect", "MODEL"],
    ["predict", "-m", "MODEL", "--machine", "M4 Pro"],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_a_command_loads_only_what_it_needs(arguments, tmp_path):
    (tmp_path / "a.gguf").write_bytes(llama_like(layers=2, vocab=300).build(data=True))
    named = {"RECORDED": str(HERE / "recorded"), "MODEL": str(tmp_path / "a.gguf")}
    code = (
        "import sys; sys.argv[0] = 'harness'\n"
        "from harness.cli import cli\n"
        "cli.main(standalone_mode=False)\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    words = [named.get(argument, argument) for argument in arguments]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_looking_for_models_that_were_made_up_loads_nothing_that_makes_them(tmp_path):
    code = (
        "import sys, pathlib; from harness.sources.synthetic import list_synthetic\n"
        f"print(list_synthetic(pathlib.Path({str(tmp_path)!r})), [m for m in ('gguf', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "() []"


def test_no_module_has_the_name_of_a_builtin():
    """Once imported it would stand in its package for the built-in."""
    assert [path.stem for path in MODULES if hasattr(builtins, path.stem) and not path.stem.startswith("_")] == []
