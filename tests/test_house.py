"""The house in small: sizes, names, circles, documentation, and what only its owner may do.

Each rule is a function that finds offences in the source; each is seen to find a planted one.
"""

from __future__ import annotations

import ast
import collections
from collections.abc import Callable, Iterator

import pytest

from .test_layers import MODULES, module_name

Sources = dict[str, str]

SOURCES: Sources = {module_name(path): path.read_text(encoding="utf-8") for path in MODULES}
PACKAGES = {module_name(path) for path in MODULES if path.name == "__init__.py"}

MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_MODULE = 60, 500

#: The rooms of a question's way: a question has one name in all of them.
WAY = (
    "harness.cli",
    "harness.runs",
    "harness.records",
    "harness.views.figures",
    "harness.views.report",
    "harness.views",
    "harness.native.jobs",
)

#: Names that say nothing of what is inside.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "stuff", "base", "core"}

#: Figures of speech: describe_ or echo_, on_event, echo_error, format_, index_, RecordWriter are plain.
ODD_WORDS = {"tell", "hear", "complain", "say", "spell", "recall", "keeper"}

#: What only its owners may use, by the name as it is written in the source.
OWNERS = {
    "json.dumps": {"harness.untrusted.harmless", "harness.records.journal", "harness.runs.worker", "harness.native.worker"},
    "json.dump": set(),
    "tabulate": {"harness.views.page"},
    "wcwidth": {"harness.views.page"},
    "textwrap": {"harness.views.page"},
    "os.get_terminal_size": {"harness.cli.terminal"},
    "shutil.get_terminal_size": {"harness.cli.terminal"},
    "sys.exit": {"harness.cli", "harness.native.worker"},
    "os._exit": {"harness.host.interrupt", "harness.native.worker"},
}  # fmt: skip

#: Who knows exit codes: the errors that carry one, the table from outcomes to them, and the two ends of the process.
EXIT_CODES = {
    "harness.errors",
    "harness.records.failures",
    "harness.runs.session",
    "harness.cli",
    "harness.cli.progress",
    "harness.host.interrupt",
}

#: The edges, where values have no class yet or no more: options of click, JSON, what goes through our own pipe.
EDGES = (
    "harness.api", "harness.arguments", "harness.cli", "harness.codec", "harness.untrusted", "harness.records.kinds", "harness.records.upgrades",
    "harness.records.journal", "harness.spec", "harness.native.worker", "harness.native.jobs", "harness.runs.worker",
    "harness.views.render_json", "harness.views.llama_bench", "harness.sources.ollama_server", "harness.sources.hub", "harness.runs.session",
    "harness.runs.bench", "harness.runs.cells", "harness.runs.text", "harness.runs.rpc_server", "harness.runs.ollama", "harness.host.telemetry",
    "harness.views.ollama_2024",
)  # fmt: skip


def definitions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def find_long_functions(sources: Sources) -> set[str]:
    return {
        f"{module}.{node.name}"
        for module, source in sources.items()
        for node in definitions(source)
        if (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION
    }


def find_long_modules(sources: Sources) -> set[str]:
    return {module for module, source in sources.items() if len(source.splitlines()) > MOST_LINES_OF_A_MODULE}


def imported_modules(source: str, known: Sources) -> set[str]:
    """The modules of ours that are imported anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & set(known) or {node.module}
    return found & set(known)


def find_circles(sources: Sources) -> set[str]:
    """The modules that lie on a circle of imports: what is left when what imports nothing, or is imported by nothing, is taken away."""
    left = {module: imported_modules(source, sources) - {module} for module, source in sources.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        kept = {
            module: targets & set(left)
            for module, targets in left.items()
            if module in imported and targets & set(left)
        }
        if kept == left:
            return set(left)
        left = kept


def find_names(sources: Sources) -> set[str]:
    """Names that say nothing, and names that are used twice outside of a question's way."""
    found, by_name = set(), collections.defaultdict(list)
    for module in set(sources) - PACKAGES:
        room, _, name = module.rpartition(".")
        if name in EMPTY_NAMES:
            found.add(module)
        place = "views" if room in ("harness.views", "harness.views.report") else room if room in WAY else "elsewhere"
        by_name[place, name].append(module)
    return found | {" ".join(sorted(same)) for same in by_name.values() if len(same) > 1}


def find_undocumented(sources: Sources) -> set[str]:
    """Public modules, functions and classes without a docstring; a module's only one may leave it to the module."""
    found = set()
    for module, source in sources.items():
        tree = ast.parse(source)
        public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
        found |= {f"{module}.{node.name}" for node in public if not ast.get_docstring(node) and len(public) > 1}
        if not ast.get_docstring(tree):
            found.add(module)
    return found


def find_owned(sources: Sources) -> set[str]:
    """Uses of what belongs to others. Sorted JSON is a key to compare by, and no text."""
    found = set()
    for module, source in sources.items():
        tree = ast.parse(source)
        keys = {
            id(node.func)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and any(word.arg == "sort_keys" for word in node.keywords)
        }
        for node in ast.walk(tree):
            used = set()
            if isinstance(node, ast.Attribute) and id(node) not in keys:
                used = {ast.unparse(node)}
            elif isinstance(node, ast.Import):
                used = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            found |= {f"{module} {name}" for name in used if name in OWNERS and module not in OWNERS[name]}
    return found


def find_exit_codes(sources: Sources) -> set[str]:
    found = set()
    for module in set(sources) - EXIT_CODES:
        for node in ast.walk(ast.parse(sources[module])):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name.startswith("EXIT_") or name == "Exit" or (name == "exit_code" and isinstance(node, ast.Attribute)):
                found.add(module)
    return found


def find_loose_dicts(sources: Sources) -> set[str]:
    """Public functions and methods between the rooms that take or give a dictionary of anything."""
    found = set()
    for module in sources:
        if module.startswith(EDGES):
            continue
        for node in definitions(sources[module]):
            hints = [argument.annotation for argument in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
            loose = any(hint is not None and "[str, Any]" in ast.unparse(hint) for hint in hints)
            if loose and not node.name.startswith("_"):
                found.add(f"{module}.{node.name}")
    return found


def find_odd_words(sources: Sources) -> set[str]:
    """Functions and parameters whose names are figures of speech: plain words say what is done."""
    found = set()
    for module, source in sources.items():
        for node in definitions(source):
            names = [node.name, *(argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))]
            found |= {f"{module}.{name}" for name in names if set(name.split("_")) & ODD_WORDS}
    return found


RULES: dict[str, Callable[[Sources], set[str]]] = {
    "function": find_long_functions,
    "module": find_long_modules,
    "circle": find_circles,
    "name": find_names,
    "docstring": find_undocumented,
    "owner": find_owned,
    "exit code": find_exit_codes,
    "loose dict": find_loose_dicts,
    "odd word": find_odd_words,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_in_order(rule):
    assert sorted(RULES[rule](SOURCES)) == []


LONG = "def f():\n" + "    x = 1\n" * MOST_LINES_OF_A_FUNCTION


@pytest.mark.parametrize(
    ("rule", "sources"),
    [
        ("function", {"harness.a": LONG}),
        ("module", {"harness.a": "x = 1\n" * (MOST_LINES_OF_A_MODULE + 1)}),
        ("circle", {"harness.a": "import harness.b", "harness.b": "def f():\n    from harness import a"}),
        ("circle", {"harness.a": "from harness.b import x", "harness.b": "from harness.c import x", "harness.c": "import harness.a"}),
        ("name", {"harness.gguf.utils": ""}),
        ("name", {"harness.gguf.models": "", "harness.speed.models": ""}),
        ("name", {"harness.views.page": "", "harness.views.report.page": ""}),
        ("docstring", {"harness.a": '"""A."""\ndef f(): pass\ndef g():\n    "G."'}),
        ("docstring", {"harness.a": '"""A."""\nclass F: pass\nclass G:\n    "G."'}),
        ("docstring", {"harness.a": "x = 1"}),
        ("owner", {"harness.cli.a": "import json\njson.dumps(1)"}),
        ("owner", {"harness.cli.a": "from json import dumps"}),
        ("owner", {"harness.views.a": "from tabulate import tabulate"}),
        ("owner", {"harness.views.a": "import textwrap"}),
        ("exit code", {"harness.cli.a": "raise click.exceptions.Exit(3)"}),
        ("exit code", {"harness.cli.a": "from harness.errors import EXIT_INTERRUPTED\nx = EXIT_INTERRUPTED"}),
        ("exit code", {"harness.cli.a": "x = error.exit_code"}),
        ("odd word", {"harness.runs.a": "def _tell_it(): pass"}),
        ("odd word", {"harness.runs.a": "def f(complain): pass"}),
        ("loose dict", {"harness.runs.a": "def f(x: dict[str, Any]): pass"}),
        ("loose dict", {"harness.views.a": "class A:\n    def f(self) -> list[Mapping[str, Any]]: pass"}),
    ],
)  # fmt: skip
def test_a_planted_offence_is_found(rule, sources):
    assert RULES[rule](sources) != set()


@pytest.mark.parametrize(
    ("rule", "sources"),
    [
        ("circle", {"harness.a": "import harness.b", "harness.b": "import harness.c", "harness.c": "", "harness.d": "import harness.a"}),
        ("name", {"harness.cli.roofline": "", "harness.runs.roofline": "", "harness.records.roofline": ""}),
        ("owner", {"harness.cli.a": "import json\nkey = json.dumps(1, sort_keys=True)"}),
        ("exit code", {"harness.runs.a": "Failure(exit_code=3)"}),
        ("loose dict", {"harness.cli.a": "def f(x: dict[str, Any]): pass", "harness.runs.a": "def _f(x: dict[str, Any]): pass"}),
    ],
)  # fmt: skip
def test_what_is_in_order_passes(rule, sources):
    assert RULES[rule](sources) == set()
