"""Which names the JSON of each Document has: commands are run, and kept records described, on a machine of tests/machines/.

CSV and JSON lines have the names of the Document's main table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from click.testing import CliRunner
from figures import RESULTS, ROOT

from harness.cli import cli
from harness.host import system as host_os
from harness.records.cells import Record, Sample
from harness.records.journal import read_lines
from harness.records.ollama import Answer, Comparison, DirectText, Loaded, Round, Task
from harness.records.placements import make_result
from harness.records.score import TESTS, score_cells
from harness.records.text import Figures, TextRun
from harness.runs.devices import Cards, Survey
from harness.runs.placements import Sweep
from harness.sources.references import parse_reference
from harness.sources.user_catalog import load_catalog
from harness.speed.offload import describe_blocks
from harness.views.devices import describe_devices
from harness.views.document import Document
from harness.views.ollama import describe_comparison
from harness.views.placements import describe_sweep
from harness.views.render_json import plain_values
from harness.views.report import Material, read_material
from harness.views.report.chapters import CHAPTERS
from harness.views.score import describe_score
from harness.views.text import describe_text
from tests import machines

#: Journals that hold a line of every kind; they do not change.
JOURNALS = (
    ROOT / "tests" / "recorded" / "pp-tg.jsonl",
    ROOT / "tests" / "strangers" / "kinds.jsonl",
    *(
        RESULTS / "amd-epyc-2c-24g" / f"{name}.jsonl"
        for name in (
            "20261128T144644Z-pp-tg", "20261128T143130Z-pp-tg", "20261124T231718Z-overhead", "20261124T231721Z-roofline",
            "20261124T232203Z-sweep", "20261124T232905Z-time-ledger", "20261128T141534Z-parity", "20261128T182550Z-speculate",
        )
    ),
)  # fmt: skip

#: Commands that measure nothing, each with words that need no network and no engine; {…} are journals.
COMMANDS = (
    ("table", "{pp_tg}"),
    ("list", "{pp_tg}"),
    ("list",),
    ("history", "{pp_tg}", "{again}"),
    ("compare", "{pp_tg}", "{again}"),
    ("predict", "-m", "llama3.1:8b:q4_0", "--machine", "M4 Pro"),
    ("predict", "--machine", "M4 Pro"),
    ("predict", "--check"),
    ("fit", "-m", "llama3.1:8b:q4_0", "--vram", "8GB"),
    ("overhead", "-m", "llama3.1:8b:q4_0", "--predict-only", "--ollama-2024"),
    ("inspect", "llama3.1:8b:q4_0"),
    ("models",),
    ("models", "--local"),
)


def shape_of(value: Any) -> Any:
    """The names in a JSON value, down to what kind of value stands there; of a list, what its items have together."""
    if isinstance(value, dict):
        return {name: shape_of(item) for name, item in value.items()}
    if isinstance(value, list):
        shapes = [shape_of(item) for item in value]
        return {"each": _merge(shapes)} if shapes else "null"
    if value is None:
        return "null"
    return "truth value" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _merge(shapes: list[Any]) -> Any:
    """One shape for all: every name that any has; ``number or null`` where they differ."""
    tables = [shape for shape in shapes if isinstance(shape, dict)]
    if tables:
        names = dict.fromkeys(name for table in tables for name in table)
        return {name: _merge([table[name] for table in tables if name in table]) for name in names}
    words = sorted({word for shape in shapes for word in shape.split(" or ")})
    return " or ".join(words)


def describe_documents() -> dict[str, Any]:
    """Kind of a Document → its schema, its names in JSON, and those of a line of CSV."""
    with _fixed_place() as folder:
        found: dict[str, Any] = {}
        for words in COMMANDS:
            values = _run(words, folder)
            _add(found, values, None)
        for document in _describe_kept():
            _add(found, plain_values(document), document)
        rows = json.loads((ROOT / "tests" / "golden" / "pp-tg.json").read_text(encoding="utf-8"))
        found["llama-bench"] = {"names": shape_of(rows)}
    return found


#: Documents of the report and of scripts, which no command writes as JSON.
_NOT_WRITTEN = ("report", "parity", "placements", "users", "predictions")


def _add(found: dict[str, Any], values: dict[str, Any], document: Document | None) -> None:
    if values["kind"] in _NOT_WRITTEN:
        return
    names = shape_of({name: value for name, value in values.items() if name not in ("schema", "kind")})
    known = found.setdefault(values["kind"], {"schema": values["schema"], "names": names})
    known["names"] = _merge([known["names"], names])
    if document and (tables := document.main_tables()):
        known["lines"] = tables[0].name


def _run(words: tuple[str, ...], folder: pathlib.Path) -> dict[str, Any]:
    places = {"pp_tg": JOURNALS[2], "again": JOURNALS[3]}
    asked = [word.format(**places) for word in words]
    done = CliRunner().invoke(cli, [*asked, "-o", "json"])
    if done.exit_code:
        raise RuntimeError(f"harness {' '.join(words)}: {done.output}{done.exception or ''}")
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def _refuse(trouble: str) -> None:
    raise RuntimeError(trouble)


def _describe_kept() -> Iterator[Document]:
    """What is shown of every kind of record, and of devices."""
    lines = list(read_lines(JOURNALS, _refuse))
    material = Material(read_material(lines), catalog=load_catalog(), with_published=True)
    for make, _ in CHAPTERS.values():
        yield from make(material)
    text = next(line.content for line in lines if isinstance(line.content, TextRun))
    cells = [line.content for line in lines if isinstance(line.content, Record) and line.content.model]
    yield describe_text(text, "A text.")
    yield _describe_sweep([cell for cell in cells if cell.command == "sweep"])
    yield _describe_score(cells[0])
    yield _describe_ollama(cells[0])
    assert cells[0].build is not None
    yield describe_devices(Survey(cells[0].build, {}, (), Cards(), None), None)


def _describe_sweep(cells: list[Record]) -> Document:
    """A sweep of kept cells, with a best count that nobody searched for."""
    by_count: dict[int, list[Record]] = {}
    for cell in cells:
        by_count.setdefault(cell.asked.n_gpu_layers, []).append(cell)
    results = tuple(make_result(found, ["n_gpu_layers"]) for found in by_count.values())
    header = parse_reference("llama3.2:1b:q4_0").header().header
    return describe_sweep(Sweep("model.gguf", False, describe_blocks(header), (), results))


def _describe_score(cell: Record) -> Document:
    """The score of one of its tests."""
    tokens = (10**7,) * TESTS[0].n_gen
    sample = Sample(10**9 + sum(tokens), 10**9, tokens, is_warmup=False)
    asked = dataclasses.replace(cell.asked, n_prompt=TESTS[0].n_prompt, n_gen=TESTS[0].n_gen, repetitions=1)
    records = [dataclasses.replace(cell, command="score", asked=asked, samples=(sample,))]
    score = score_cells(records)
    assert score is not None
    return describe_score(score, records)


def _describe_ollama(cell: Record) -> Document:
    """Two sides of one round."""
    task = Task("tiny", "m", 2048, 2, None, 8, 4, 1)
    figures = Figures(10**9, 50_000_000, 100, 100_000_000, 11, 100_000_000, 1)
    answer = Answer(10**9, 0, 100, 200_000_000, 11, 200_000_000, wall_ns=402_000_000)
    rounds = (Round(DirectText(figures, sample_ns=10**6, decode_ns=10**7), answer, 10**8, False),)
    return describe_comparison(
        Comparison(
            task, rounds, cell.machine, cell.time_utc, ollama_version="0.3.14", resolved=cell.resolved,
            ollama_loaded=Loaded(3 * 10**9, 0, None), model=cell.model, build=cell.build,
        )
    )  # fmt: skip


@contextlib.contextmanager
def _fixed_place() -> Iterator[pathlib.Path]:
    """An empty folder for results and settings, no network, and a machine that is always the same."""
    before, system = dict(os.environ), host_os._system
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        results = folder / "results" / "machine"
        results.mkdir(parents=True)
        for hour, path in enumerate(JOURNALS):
            (results / f"20261124T{hour:02}0000Z-{path.stem.rpartition('-')[2]}.jsonl").write_bytes(path.read_bytes())
        os.environ.update(
            HARNESS_RESULTS=str(folder / "results"), HF_HUB_OFFLINE="1", XDG_CONFIG_HOME=made, XDG_CACHE_HOME=made,
            HF_HUB_CACHE=made, LLAMA_CACHE=made, OLLAMA_MODELS=made,
        )  # fmt: skip
        host_os._system = machines.Identity(machines.DEFAULT)
        try:
            yield folder
        finally:
            host_os._system = system
            os.environ.clear()
            os.environ.update(before)
