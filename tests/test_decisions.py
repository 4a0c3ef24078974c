"""Nothing is decided by reading our own sentences: a reworded remark must change what is read, and nothing that is done.

Causes, kinds and states are fields. What others write (llama.cpp's log, a server's answer, the kernel's files) is of course read as
text; the names of its values here do not say that they are sentences of ours.
"""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "harness"

#: Names of values that hold a sentence of ours.
SENTENCES = {
    "message",
    "reason",
    "sentence",
    "remark",
    "remarks",
    "note",
    "notes",
    "caution",
    "failure",
    "skipped",
    "trouble_text",
    "basis",
}
FIELDS = {"message", "sentence", "remark", "remarks", "note", "notes", "text"}

_METHODS = {
    "startswith",
    "endswith",
    "removeprefix",
    "removesuffix",
    "partition",
    "rpartition",
    "split",
    "find",
    "index",
    "count",
}


def is_sentence(node: ast.expr) -> bool:
    """Whether an expression is a text of ours by its name: a message, a remark, str(error)."""
    if isinstance(node, ast.BoolOp):
        return any(is_sentence(value) for value in node.values)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        return isinstance(node.args[0], ast.Name) and node.args[0].id in ("error", "exception", "failure")
    if isinstance(node, ast.Attribute):
        return node.attr in FIELDS or (node.attr in SENTENCES and node.attr not in ("reason", "failure", "skipped"))
    return isinstance(node, ast.Name) and node.id in SENTENCES


def is_wording(node: ast.expr) -> bool:
    """Whether an expression is several words of English, as a literal or a tuple of them."""
    if isinstance(node, ast.Tuple):
        return any(is_wording(item) for item in node.elts)
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    words = node.value.strip().split()
    return len(words) > 1 and sum(word.strip(",.:;").isalpha() for word in words) > 1


def has_letters(node: ast.expr) -> bool:
    """Whether more than punctuation is looked for."""
    return any(
        letter.isalpha() for item in ast.walk(node) if isinstance(item, ast.Constant) for letter in str(item.value)
    )


def is_literal(node: ast.expr) -> bool:
    return isinstance(node, (ast.Constant, ast.JoinedStr, ast.Tuple))


def find_readers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines where a sentence is searched, cut or compared, or where a wording is searched for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
                if isinstance(operator, (ast.In, ast.NotIn)) and (
                    is_literal(left) and (is_sentence(right) or is_wording(left))
                ):
                    yield node.lineno, ast.unparse(node)
                if isinstance(operator, (ast.Eq, ast.NotEq)) and any(
                    (is_sentence(one) and is_literal(other)) or is_wording(one)
                    for one, other in ((left, right), (right, left))
                ):
                    yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            subject, method, first = node.func.value, node.func.attr, node.args[0]
            if method in _METHODS and ((is_sentence(subject) and has_letters(first)) or is_wording(first)):
                yield node.lineno, ast.unparse(node)
            if (
                isinstance(subject, ast.Name)
                and subject.id == "re"
                and any(is_sentence(item) for item in node.args[1:])
            ):
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_decision_reads_our_own_sentences(path):
    found = list(find_readers(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, f"make it a field or an enum: {found}"


@pytest.mark.parametrize(
    "code",
    [
        'is_memory = "out of memory on" in (row.failure or "")',
        'known = "out of memory on" in record.failure.message',
        'kept = [remark for remark in remarks if not remark.startswith("KV cache:")]',
        'whole = not any(remark.startswith(("weights", "KV cache:")) for remark in self.remarks)',
        'if "plans" in remark: pass',
        'if str(error) == "gone": pass',
        'if error.message == "gone": pass',
        'short = message.removeprefix(f"llama.cpp cannot load {name}: ")',
        'if re.search("memory", failure.message): pass',
        'parts = [part for part in parts if not part.startswith("no tokens left")]',
        'if text.endswith("is not known here"): pass',
    ],
)
def test_what_was_done_before_is_refused(code):
    assert list(find_readers(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        'if record.failure.cause == "refused": pass',
        'if name.startswith("CUDA"): pass',
        'if "name" in values: pass',
        'x = text.split(",")',
        'is_whole = sentence.endswith((".", "?", "!"))',
    ],
)
def test_codes_names_and_keys_are_no_sentences(code):
    assert not list(find_readers(ast.parse(code)))
