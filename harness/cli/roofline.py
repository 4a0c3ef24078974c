"""`harness roofline`: what this machine can do at best, and how near the records come."""

from __future__ import annotations

import pathlib
from typing import Any

import click

import harness
from harness.cli import terminal
from harness.cli.options import (
    Amount,
    Values,
    flatten,
    one_value,
    refuse_contradiction,
    repetitions_option,
    results_option,
    save_option,
)
from harness.cli.picture import check_picture_path, plot_option, theme_option, write_picture
from harness.cli.record_writer import Keeper
from harness.host.cpu import choose_threads
from harness.host.rpc import check_servers
from harness.records.cells import Build, Caution, Failure, build_from_json, read
from harness.records.journal import utc_now
from harness.records.roofline import Roof, RoofTest, roof_test_from_json
from harness.runs.worker import Worker
from harness.spec import whole_numbers
from harness.untrusted import harmless

_EXAMPLES = """
\b
Examples:
  harness roofline                      bandwidth and FLOP/s, then the records
  harness roofline -t 1-16*2 --size 2GB
  harness roofline --saved              the last one again
  harness roofline --plot roofline.png
"""

#: Types to read: large ones show the memory's limit, small ones what unpacking costs on this CPU; and those that prompts are
#: multiplied in.
READING_TYPES, MULTIPLYING_TYPES = ("F32", "F16", "Q8_0", "Q4_0"), ("F16", "Q4_0")

#: Rows of the matrix that is multiplied: 4096 x 4096, as large as an attention matrix of llama3.1:8b.
N_ROWS = 4096

#: A matrix below this says nothing of a memory.
MINIMUM_BYTES = 1_000_000


@click.command("roofline", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-t", "--threads", multiple=True, type=Values(whole_numbers(1, 512), "N"), metavar="N",
    help="Threads of the CPU, as a list or range. [1 to the physical cores, by powers of two]",
)  # fmt: skip
@click.option(
    "--size", "size_bytes", type=Amount("512MiB"), default=512 * 1024**2, metavar="SIZE",
    help="Matrix to read; several times larger than any cache. [512MiB]",
)  # fmt: skip
@one_value("rpc")
@repetitions_option()
@click.option("--saved", is_flag=True, help="Measure nothing; show the last one that was kept.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format. [table]")
@plot_option
@theme_option
@save_option
@results_option
def command(**options: Any) -> None:
    """Measure how many bytes a second this machine reads and how many operations a second it does, by ggml itself.

    A large matrix times a vector reads as generating does, a matrix times a matrix calculates as prompts do. Each record of this
    machine is then held against that roof.
    """
    check_picture_path(options["plot"])
    refuse_contradiction(
        options["size_bytes"] < MINIMUM_BYTES,
        f"A --size of {options['size_bytes']} bytes fits into any cache; give at least 1MB, better several times the last cache.",
    )
    if options["saved"]:
        _show(_find_saved(options["results"]), options)
        return
    threads = sorted(set(flatten(options["threads"]))) or default_threads(choose_threads().count)
    request = {
        "size_bytes": options["size_bytes"],
        "n_rows": N_ROWS,
        "threads": threads,
        "repetitions": options["repetitions"],
        "rpc": options["rpc"],
        "reading": READING_TYPES,
        "multiplying": MULTIPLYING_TYPES,
    }
    check_servers(options["rpc"])
    with Keeper("roofline", options["results"], save=options["save"]) as keeper:
        run = _Run()
        try:
            run.measure(request)
        except KeyboardInterrupt:
            run.interrupted = True
        if run.build is not None and run.tests:
            roof = Roof(
                utc_now(), keeper.machine, harness.__version__, run.build, tuple(run.tests), tuple(run.cautions)
            )
            keeper.keep(roof)
            _show(roof, options)
    keeper.say_where()
    failed = run.failure is not None or not all(test.is_right for test in run.tests)
    distrusted = any(caution.distrust for caution in run.cautions)
    raise click.exceptions.Exit(keeper.exit_code(interrupted=run.interrupted, failed=failed, distrusted=distrusted))


def default_threads(n_cores: int) -> list[int]:
    """1, 2, 4 … and all of them."""
    return sorted({*(1 << power for power in range(n_cores.bit_length()) if 1 << power <= n_cores), n_cores})


class _Run:
    """What the worker has said so far; a death keeps the tests that were finished."""

    def __init__(self) -> None:
        self.build: Build | None = None
        self.tests: list[RoofTest] = []
        self.cautions: list[Caution] = []
        self.failure: Failure | None = None
        self.interrupted = False

    def measure(self, request: dict[str, Any]) -> None:
        """Have the worker do everything; a line on a terminal says what it is at."""
        from tqdm import tqdm

        worker = Worker()
        try:
            with tqdm(bar_format="{desc}", disable=None, leave=False) as line:
                self._hear(worker.hello(), line)
                if self.failure is None:
                    for event in worker.ask("roofline", request):
                        self._hear(event, line)
        except KeyboardInterrupt:
            worker.kill()
            raise
        finally:
            worker.close()

    def _hear(self, event: dict[str, Any] | Failure, line: Any) -> None:
        if isinstance(event, Failure):
            self.failure = event
            terminal.echo_error(f"{event.message.rstrip('.')}.")
        elif event["event"] in ("hello", "build"):
            self.build = build_from_json(event["build"])
        elif event["event"] == "phase":
            line.set_description_str(harmless.line(event["phase"]))
        elif event["event"] == "test":
            self.tests.append(roof_test_from_json(event["test"]))
        elif event["event"] == "done":
            self.cautions = [read(Caution, item) for item in event["cautions"]]


def _find_saved(results: pathlib.Path) -> Roof:
    from harness.cli.journals import own_journals, read_roofs
    from harness.errors import UsageError
    from harness.records.roofline import latest

    roof = latest(read_roofs(own_journals(results)))
    if roof is None:
        raise UsageError(f"No roofline of this machine is kept in {results}; run `harness roofline` without --saved.")
    return roof


def _show(roof: Roof, options: dict[str, Any]) -> None:
    from harness.cli.journals import own_journals, read_measured
    from harness.sources.user_catalog import load_catalog
    from harness.views.roofline import draw_roofline, hold_against, render_roofline, render_roofline_json

    under = hold_against(read_measured(own_journals(options["results"]), load_catalog()), roof)
    render = render_roofline_json if options["output"] == "json" else render_roofline
    terminal.show(render(roof, under), nl=False)
    if options["plot"]:
        write_picture(options["plot"], lambda: draw_roofline(roof, under, options["theme"]))
