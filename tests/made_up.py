"""A harness with one parameter more than there is, for tests/test_parameter.py: `python -m tests.made_up SCRIPT` runs a script in it."""

from __future__ import annotations

import importlib.util
import runpy
import sys

import harness

PARAMETER = """
    made_up: int = _field(
        0, "--made-up", parse=whole_numbers(0, 99), scope="context", help="A parameter that no other place knows of.", heading="made_up",
    )
"""


def add_parameter() -> None:
    """Load harness.spec with the parameter in it, before anything else imports it."""
    found = importlib.util.find_spec("harness.spec")
    assert found is not None
    assert found.origin is not None
    with open(found.origin, encoding="utf-8") as file:
        source = file.read()
    before, field, after = source.partition("    n_depth: int = _field(")
    assert field
    module = importlib.util.module_from_spec(found)
    sys.modules["harness.spec"] = harness.spec = module  # type: ignore[attr-defined]
    exec(compile(before + PARAMETER + field + after, found.origin, "exec"), module.__dict__)


if __name__ == "__main__":
    add_parameter()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
