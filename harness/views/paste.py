"""Settings as lines to paste: what llama-server, llama-cli, llama-cpp-python, Ollama and LM Studio are told to run a model likewise.

Only what differs from the program's own default is written; what a program cannot be told is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.spec import defaults, parameters
from harness.untrusted import harmless
from harness.views.document import Block, Code, Prose, Section
from harness.views.settings import format_setting, heading
from harness.views.spellings import SPELLINGS, Asked, Spelling

#: Fields of `RunSpec` that are of a test and not of a program.
OF_TESTS = frozenset({"n_depth", "n_prefix", "is_prompt_shared"})


@dataclass(frozen=True, slots=True)
class Pasted:
    """What one program is told: lines to paste, and sentences about what it cannot be told. where says where the lines belong."""

    program: str
    lines: tuple[str, ...]
    where: str = ""
    untold: tuple[str, ...] = ()


def write_lines(asked: Asked) -> list[Pasted]:
    """The lines of every program, in the order in which people ask for them."""
    return [
        _write_command("llama-server", asked),
        _write_command("llama-cli", asked),
        _write_python(asked),
        *_write_ollama(asked),
        _write_studio(asked),
    ]


def paste_section(asked: Asked, title: str = "to paste", programs: Collection[str] | None = None) -> Section:
    """The same as a section of a Document, of these programs alone where some are named."""
    blocks: list[Block] = []
    for pasted in write_lines(asked):
        if programs is not None and pasted.program not in programs:
            continue
        where = f", {pasted.where}" if pasted.where else ""
        untold = f" — {'; '.join(pasted.untold)}" if pasted.untold else ""
        blocks += [Prose([f"{pasted.program}{where}{untold}"]), Code(pasted.lines)]
    return Section(title, blocks)


def llama_arguments(program: str, asked: Asked) -> list[str]:
    """The arguments of llama-server or llama-cli, without the program's name, as a process gets them."""
    words = ["-m", asked.spec.model, "-c", str(asked.n_ctx)]
    for name, spelling, value in _each(asked):
        if program == "llama-cli" and (name in _SERVER_ALONE or (name == "n_parallel" and value == 1)):
            continue
        words += spelling.llama_cpp(value, asked) or ()
    return words


def python_arguments(asked: Asked) -> list[str]:
    """The arguments of ``Llama`` as they are written."""
    words = [f"model_path={asked.spec.model!r}", f"n_ctx={asked.n_ctx}"]
    for _, spelling, value in _each(asked):
        words += spelling.python(value, asked) or ()
    return words


def _each(asked: Asked) -> Iterator[tuple[str, Spelling, Any]]:
    for name in parameters():
        if name not in OF_TESTS:
            yield name, SPELLINGS[name], getattr(asked.spec, name)


#: Options of llama-server that llama-cli does not take, by field, and what stands in for them.
_SERVER_ALONE = {"embeddings": "llama-embedding is the program for that", "kv_unified": "it has one sequence"}


_WITHHELD = f"in place of {harmless.WITHHELD} write what holds characters that a shell would not leave alone"


def explain_withheld(words: Iterable[str]) -> tuple[str, ...]:
    """What to say beside a command line in which `harmless.shell_line` withheld a word."""
    return (_WITHHELD,) if any(harmless.shell_word(word) is None for word in words) else ()


def _write_command(program: str, asked: Asked) -> Pasted:
    words = [program, *llama_arguments(program, asked)]
    cannot = [
        f"{_name(name, asked)} cannot be told: {why}"
        for name, why in _SERVER_ALONE.items()
        if program == "llama-cli" and getattr(asked.spec, name) != defaults()[name]
    ]
    return Pasted(program, (harmless.shell_line(words),), untold=(*cannot, *explain_withheld(words)))


def _write_python(asked: Asked) -> Pasted:
    call = f"Llama({', '.join(python_arguments(asked))})"
    module = "import llama_cpp" if "llama_cpp." in call else "from llama_cpp import Llama"
    prefix = "llama_cpp." if "llama_cpp." in call else ""
    return Pasted("llama-cpp-python", (module, f"llm = {prefix}{call}"), untold=_untold("python", asked))


def _write_ollama(asked: Asked) -> Iterator[Pasted]:
    """A Modelfile, and the variables of its server where there are any."""
    words = [word for _, spelling, value in _each(asked) for word in spelling.ollama(value, asked) or ()]
    model = asked.spec.model
    is_plain = harmless.line(model) == model and '"' not in model  # a quote would take in the lines below
    file = [f"FROM {model if is_plain else harmless.WITHHELD}", f"PARAMETER num_ctx {asked.n_ctx}"]
    file += [word for word in words if word.startswith("PARAMETER")]
    variables = [word for word in dict.fromkeys(words) if not word.startswith("PARAMETER")]
    untold = (*_untold("ollama", asked), *(() if is_plain else (_WITHHELD,)))
    yield Pasted("Ollama", tuple(file), "a Modelfile", untold)
    if variables:
        yield Pasted("Ollama", (f"{' '.join(variables)} ollama serve",), "its server's environment")


def _write_studio(asked: Asked) -> Pasted:
    words = [word for _, spelling, value in _each(asked) for word in spelling.studio(value, asked) or ()]
    lines = (f"Context Length: {asked.n_ctx}", *words)
    return Pasted("LM Studio", lines, "the model's load settings, all of them shown", _untold("studio", asked))


def _untold(column: str, asked: Asked) -> tuple[str, ...]:
    """What a program cannot be told, in one sentence; reasons behind, where there is one."""
    plain: list[str] = []
    reasons: list[str] = []
    for name, spelling, value in _each(asked):
        if getattr(spelling, column)(value, asked) is None:
            why = spelling.instead.get(column)
            (reasons if why else plain).append(f"{_name(name, asked)} ({why})" if why else _name(name, asked))
    return (f"it cannot be told {', '.join([*plain, *reasons])}",) if plain or reasons else ()


def _name(name: str, asked: Asked) -> str:
    return f"{heading(name)} {format_setting(getattr(asked.spec, name))}"
