"""All that the commands do with a model's file before anything is measured, and every view of it in every format of ``-o``.

The runs themselves are called, as the commands call them; in the engine's place stands a fake that plans, refuses or dies as it is told,
and a file is not hashed. What is left out: drawing with matplotlib (`--plot`), which `tests/test_plots.py` tries; fetching a header from a
server, which `tests/hub` tries; and everything that loads the file (`scripts/fuzz-header --worker`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from unittest.mock import patch

from harness.errors import HarnessError, UsageError
from harness.gguf.model_kinds import Question, find_kind, refuse
from harness.gguf.split import split_count
from harness.grid import Grid
from harness.host.cpu import choose_threads
from harness.memory.fit import check_placement
from harness.memory.forecast import list_rules
from harness.memory.ollama_2024 import Request, give_account
from harness.memory.ollama_graph import read_figures
from harness.memory.repack import CpuFeatures, find_repacked_types
from harness.records.cells import Buffer, Build, Device
from harness.records.kinds import read_line, to_json
from harness.records.placements import find_columns, skipped_result
from harness.records.tuning import Quality
from harness.runs import needs
from harness.runs.asking import plan_cells, read_for
from harness.runs.devices import Cards, Survey
from harness.runs.dry_run import DryRun, Plan
from harness.runs.fit import find_projector, fit_model, plan_fit
from harness.runs.inspection import inspect_model
from harness.runs.memory import account_memory, find_model, make_request
from harness.runs.placements import Sweep, SweepRequest
from harness.runs.predict import PredictRequest, predict
from harness.runs.session import Session
from harness.runs.speculate import plan_speculation
from harness.runs.token_time import plan_token_time
from harness.runs.tune import TuneRequest, make_room
from harness.runs.tune_space import choose_base, lay_out, list_factors
from harness.sources import gguf_file
from harness.sources.user_catalog import load_catalog
from harness.spec import RunSpec
from harness.speed.offload import describe_blocks
from harness.views.document import Code, Document
from harness.views.fit import describe_fit
from harness.views.formats import format_names, render
from harness.views.inspect import describe_inspection
from harness.views.memory import describe_memory
from harness.views.ollama_2024 import describe_account, ollama_parts
from harness.views.placements import describe_sweep
from harness.views.predict import describe_prediction
from harness.views.report import Material, render_report

GB = 10**9

Asked = TypeVar("Asked")

_SYSTEM = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 1 | REPACK = 1 | OPENMP = 1 | "
_ARM = CpuFeatures(frozenset({"REPACK", "NEON", "DOTPROD", "MATMUL_INT8"}))
_DEVICES = (
    Device("CUDA0", "Made-up Card", "gpu", 7 * GB, 8 * GB),
    Device("CPU", "Made-up CPU", "cpu", 16 * GB, 16 * GB),
)
BUILD = Build("0.3.36", "0.9", "0123456", _SYSTEM, ("CUDA", "CPU"), _DEVICES)
SURVEY = Survey(BUILD, {"CUDA0": "CUDA", "CPU": "CPU"}, ("CUDA", "CPU"), Cards(), None)

#: What the fake engine says: a plan, that it refuses, that it died.
ENGINES = ("plans", "refuses", "dies")

#: Formats beside the usual one.
OTHERS = tuple(name for name in format_names() if name != "table")


def _run_dry(how: str, specs: Sequence[RunSpec]) -> DryRun:
    if how == "dies":
        return DryRun(trouble="llama.cpp died")
    if how == "refuses":
        return DryRun(BUILD, trouble="llama.cpp refused the file")
    buffers = (
        Buffer("compute", "CUDA0", 300 * 2**20), Buffer("compute", "CUDA_Host", 9 * 2**20), Buffer("kv", "CUDA0", 64 * 2**20),
        Buffer("kv", "CPU", 32 * 2**20), Buffer("output", "CPU", 2**19),
    )  # fmt: skip
    return DryRun(BUILD, {index: Plan(buffers, flash_attn=True) for index in range(len(specs))})


@contextlib.contextmanager
def fake_engine(how: str = "plans") -> Iterator[None]:
    """In the engine's place whatever `how` says, no hashes of files, and a machine and a file that are asked
    once."""
    with (
        patch("harness.runs.memory.run_dry", lambda _files, specs: _run_dry(how, specs)),
        patch("harness.sources.gguf_file._read_one", functools.cache(_read_one)),
        patch("harness.runs.needs._look_at", _look_at),
        patch("harness.runs.predict.hash_file", lambda _path: None),
        patch("harness.runs.predict.load_catalog", _load_catalog),
        patch("harness.runs.tune.read_tuning", lambda: _NoTuning()),
        patch("harness.runs.memory.choose_threads", _choose_threads),
        patch("harness.runs.memory.available_memory_bytes", lambda: 16 * GB),
        patch("harness.runs.predict.available_memory_bytes", lambda: 16 * GB),
        patch("harness.runs.tune.available_memory_bytes", lambda: 16 * GB),
    ):
        yield


_read_one, _look_at = gguf_file._read_one, needs._look_at.__wrapped__  # type: ignore[attr-defined]  # the next file has the same name
_load_catalog, _choose_threads = functools.cache(load_catalog), functools.cache(choose_threads)


class _NoTuning:
    core_cpus = ()


class Asker:
    """Asks everything of one file; each document is made in the format `form` as well as in the usual one, or in all if that is None.

    A context manager, which makes an empty folder for records. report says whether a whole page is made of the ledger.
    """

    def __init__(self, form: str | None = None, *, report: bool = True) -> None:
        self.form, self.report, self._turn = form, report, 0
        self.spent_s: dict[str, float] = {}
        self._session = Session("overhead")
        self._folder = tempfile.TemporaryDirectory(prefix="harness-asked-")
        self.results = pathlib.Path(self._folder.name)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()
        self._session.__exit__(None, None, None)

    def ask(self, path: pathlib.Path, *, only_if: bool = True) -> int:
        """Ask everything, or one command where all would refuse the same; how much was answered, the rest with a HarnessError. Anything
        else escapes. spent_s then has the CPU time of each command."""
        n_answered, self.spent_s = 0, {}
        self._turn += 1
        for act in ACTS if only_if else ACTS[:1]:
            if act in DEAR and self.form is not None and self._turn % 3:
                continue
            begun = time.process_time()
            try:
                act(self, path)
                n_answered += 1
            except HarnessError as error:
                said = str(error)
                assert len(said) >= 10, f"an error that says nothing: {said!r}"
                assert "\n" not in said, f"an error of several lines: {said!r}"
            finally:
                self.spent_s[act.__name__] = time.process_time() - begun
        return n_answered

    def show(self, document: Document) -> None:
        to_paste = {
            line
            for section in document.sections
            for block in section.blocks
            if isinstance(block, Code)
            for line in block.lines
        }
        for line in render(document, "table").splitlines():
            assert len(line) <= 80 or line.strip() in to_paste, f"a line of {len(line)}: {line!r}"
        for form in OTHERS if self.form is None else (self.form,):
            text = render(document, form)
            if form == "json":
                json.loads(text)

    def by_turns(self, asked: Sequence[Asked]) -> Sequence[Asked]:
        """One of several ways to ask, all where everything is shown."""
        return asked if self.form is None else (asked[self._turn // 3 % len(asked)],)

    # --- the commands, without what loads the file ----------------------------------------------------------------------

    def inspect(self, path: pathlib.Path) -> None:
        inspection = inspect_model(str(path))
        self.show(describe_inspection(inspection))

    def look_closer(self, path: pathlib.Path) -> None:
        header = read_for(path, Question.MEMORY)
        split_count(header)
        find_kind(header).describe("model")
        find_repacked_types(header, _ARM)

    def overhead(self, path: pathlib.Path) -> None:
        model = find_model(str(path), weights=False)
        asked = ((), {}), ((512, 8192), {"n_gpu_layers": 3, "n_parallel": 2, "type_k": "q8_0"})
        for contexts, options in self.by_turns(asked):
            request = make_request(model, contexts, options, predict_only=True, vram_bytes=8 * GB)
            record = account_memory(request, self._session)
            line = read_line(json.loads(json.dumps(to_json(record))))
            assert to_json(line.content) == to_json(record), "the record is another one when it was kept and read"
            self.show(describe_memory(record))
        if self.report:
            render_report(Material([line], made_utc="2026-01-01T00:00:00Z", harness_version="1"))

    def ollama(self, path: pathlib.Path) -> None:
        model = find_model(str(path), weights=False)
        refuse(model.header, Question.MEMORY, model.label)
        asked = Request(), Request(free_vram_bytes=4 * GB, num_ctx=512, parallel=2), Request(num_gpu=1)
        for request in self.by_turns(asked):
            account = give_account(read_figures(model.header), request)
            self.show(describe_account(account, model.label, file_bytes=model.file_bytes))
            ollama_parts(account)

    def fit(self, path: pathlib.Path) -> None:
        alone = {"vram_bytes": (8 * GB, GB), "ram_bytes": 16 * GB, "cache_types": (("q8_0", "f16"),)}
        asked: tuple[dict[str, Any], ...] = (
            {"draft": str(path), "n_ctx": 8192},
            {"vram_bytes": (GB,)},
            alone,
            {"ram_bytes": GB},
        )
        for options in self.by_turns(asked):
            self.show(describe_fit(fit_model(plan_fit(str(path), {}, **options))))

    def project(self, path: pathlib.Path) -> None:
        find_projector(str(path))

    def predict(self, path: pathlib.Path) -> None:
        on = {"machine": "RTX 3070 Ti"}, {"bandwidth": 50e9, "n_depth": 100, "memory_bytes": 16 * GB, "type_v": "q8_0"}
        for where in self.by_turns(on):
            self.show(describe_prediction(predict(PredictRequest(str(path), **where), self.results)))

    def sweep(self, path: pathlib.Path) -> None:
        header = read_for(path, Question.MEASURE)
        request = SweepRequest(str(path), {"n_gpu_layers": (0, 3, -1)})
        cells, blocks, rules = request.cells(), describe_blocks(header), list_rules(BUILD.devices)
        blocks.work_by_count()
        fits = [(cell, check_placement(blocks.header, cell, rules, {}, GB)) for cell in cells]
        varied = find_columns(cells)
        results = tuple(skipped_result(cell, varied, fit.reason or "not measured") for cell, fit in fits)
        self.show(describe_sweep(Sweep(path.name, header.is_synthetic, blocks, BUILD.devices, results)))

    def measure(self, path: pathlib.Path) -> None:
        grid = Grid([str(path)], {"n_parallel": (1, 2), "n_depth": (512,)}, n_prompt=(512,), n_gen=())
        cells = plan_cells(grid, ("n_parallel",), lambda _event: None)
        try:
            found = [(cell, needs.estimate_needs(cell)) for cell in cells]
        except HarnessError as error:  # it would cost the cells of other files
            raise AssertionError(f"what a cell takes cannot be refused: {error}") from None
        needs.fit_together(found, GB, BUILD)

    def take_time_apart(self, path: pathlib.Path) -> None:
        plan_token_time(path).reads.touched_bytes(512, "f16")

    def speculate(self, path: pathlib.Path) -> None:
        plan_speculation(
            str(path), str(path), (), {}, lambda _event: None, draft_settings={}, lengths=(4,), n_tokens=64
        )

    def tune(self, path: pathlib.Path) -> None:
        header, spec = read_for(path, Question.MEASURE), RunSpec(str(path), n_prompt=512, n_gen=128).with_threads(2)
        room = make_room(TuneRequest(str(path)), header, SURVEY, spec, 4096)
        if (base := choose_base(spec, room)) is None:
            raise UsageError("it fits nowhere; take a smaller one")
        for factor in list_factors():
            lay_out(factor, room, base, Quality.KEEP)


ACTS: tuple[Callable[[Asker, pathlib.Path], None], ...] = (
    Asker.inspect, Asker.look_closer, Asker.overhead, Asker.ollama, Asker.fit, Asker.project, Asker.predict, Asker.sweep,
    Asker.measure, Asker.take_time_apart, Asker.speculate, Asker.tune,
)  # fmt: skip


#: Searches, which are asked of every third file: they weigh what `overhead` weighs, some hundred times.
DEAR = (Asker.fit, Asker.tune)


def write_file(path: pathlib.Path, data: bytes, size_bytes: int) -> None:
    """Write a header, and behind it as much of a hole as it says that there are weights; not where no file can be so long."""
    with open(path, "wb") as file:
        file.write(data)
        with contextlib.suppress(OSError, OverflowError, ValueError):
            file.truncate(max(size_bytes, len(data)))
