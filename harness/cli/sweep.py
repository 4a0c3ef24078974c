"""`harness sweep`: speed and memory over the layers on the GPU, or the best number of layers from few measurements."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import psutil

from harness.cli import terminal
from harness.cli.options import (
    axes,
    cell_timeout_option,
    flatten,
    length_options,
    measured_options,
    reference_options,
    refuse_contradiction,
    repetitions_option,
    results_option,
    save_option,
    seed_option,
)
from harness.cli.picture import check_picture_path, plot_option, theme_option, write_picture
from harness.cli.progress import displayed
from harness.cli.record_writer import Keeper
from harness.errors import HarnessError, UsageError
from harness.events import ignore
from harness.gguf.model_kinds import Kind, Question, find_kind
from harness.host.cpu import choose_threads
from harness.host.machine import machine_slug
from harness.host.memory import available_memory_bytes
from harness.host.telemetry import Station
from harness.memory.fit import check_placement
from harness.memory.forecast import list_rules
from harness.records.cells import Record, is_of
from harness.records.journal import journal_order, read_records
from harness.records.placements import LayerRow
from harness.runs.asking import find_file, read_for, suit
from harness.runs.cells import Course, Plan
from harness.runs.devices import Survey, explain_absence, survey_devices
from harness.runs.memory import find_model, plan_compute
from harness.runs.placements import (
    GOALS,
    Best,
    Goal,
    Search,
    Sweeper,
    Wire,
    estimate_crossing,
    explain_best,
    measure_wire,
    recall,
)
from harness.sources.gguf_file import read_file_header
from harness.sources.model_file import describe_file, is_synthetic
from harness.spec import Grid, RunSpec, parameters
from harness.speed.offload import Blocks, clamp_counts, describe_blocks
from harness.untrusted import harmless
from harness.views.placements import Page, describe_wire, export_rows, flag_lines, render_rows, wrap

_EXAMPLES = """
\b
Examples:
  harness sweep -m model.gguf                   every count of layers
  harness sweep -m model.gguf -ngl 0-33+4 --plot layers.png
  harness sweep -m model.gguf --best            the fastest count, from a few
  harness sweep -m model.gguf --best --for rag  for long prompts
  harness sweep -m moe.gguf -ngl all -ncmoe 0-48+8
  harness sweep -m model.gguf --rpc 127.0.0.1:50052 --resume
"""


@click.command(
    "sweep",
    epilog=_EXAMPLES,
    short_help="Measure over layers on the GPU, or find the best number.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@reference_options()
@length_options
@measured_options("test", "load", "context")
@click.option("--best", is_flag=True, help="Find the fastest -ngl, measuring few counts.")
@click.option("--goal", type=click.Choice(["tg", "pp"]), help="What --best makes fast. [tg]")
@click.option(
    "--for", "mix", type=click.Choice(["chat", "rag", "batch"]),
    help="A mix for --best: " + ", ".join(f"{name} {goal.n_prompt}+{goal.n_gen}" for name, goal in GOALS.items() if goal.n_prompt > 1)
    + " tokens of prompt and answer.",
)  # fmt: skip
@click.option("--try-anyway", is_flag=True, help="Measure what is predicted not to fit, too.")
@click.option(
    "--resume", "resume", is_flag=False, flag_value="last", metavar="[JOURNAL]",
    help="Go on with a sweep that was cut off; default: the last one.",
)  # fmt: skip
@click.option("--traffic/--no-traffic", default=True, help="Count what a token sends over --rpc. [on]")
@repetitions_option()
@seed_option
@click.option("-o", "--output", type=click.Choice(["table", "md", "json"]), default="table", help="Format. [table]")
@plot_option
@theme_option
@save_option
@results_option
@cell_timeout_option
def command(models: Sequence[str], **options: Any) -> None:
    """Measure speed and memory over the number of layers on the GPU, or find the best number.

    Without -ngl every count is measured, from none to all. Everything that places the model can be swept: -ngl, -ncmoe, -nkvo, -ts.
    A count that cannot fit is skipped with the reason. Devices of other machines join in with --rpc (see harness rpc-server).
    """
    _refuse_nonsense(models, options)
    check_picture_path(options["plot"])
    resumed = _find_journal(options)
    with displayed() as on_event:
        path = str(find_file(models[0] if models else None, on_event))
    _check_tests(path, options)
    blocks = describe_blocks(read_file_header(path))
    rpc = flatten(options["rpc"])
    survey = survey_devices(rpc[0] if rpc else ())
    _refuse_split(options, survey)
    counts = _choose_counts(options, blocks, survey)
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(Keeper("sweep", options["results"], save=options["save"], resume=resumed))
        station = stack.enter_context(contextlib.closing(Station()))
        known = _recall(resumed, path, keeper) if resumed else {}
        plan = Plan(
            command="sweep",
            machine=keeper.machine,
            cell_timeout_s=options["cell_timeout_s"],
            model_facts=describe_file,
            observe=station.watch,
        )
        run = _Run(path, options, blocks, survey, counts, plan, keeper)
        if known:
            terminal.echo_error(
                f"going on with {resumed}: {len({id(record) for same in known.values() for record in same})} cells are known."
            )
        outcome = run.search(known) if options["best"] else run.sweep(known)
    _show(outcome, run)
    keeper.say_where()
    failed = any(row.failure for row in outcome.rows) or not any(row.speeds for row in outcome.rows)
    distrusted = any(caution.distrust for row in outcome.rows for speed in row.speeds for caution in speed.cautions)
    raise click.exceptions.Exit(keeper.exit_code(interrupted=outcome.interrupted, failed=failed, distrusted=distrusted))


def _refuse_nonsense(models: Sequence[str], options: dict[str, Any]) -> None:
    refuse_contradiction(len(models) > 1, "A sweep is of one model; name one with -m, and sweep the next one after it.")
    refuse_contradiction(
        not options["best"] and bool(options["goal"] or options["mix"]),
        "--goal and --for say what --best looks for; add --best.",
    )
    refuse_contradiction(
        bool(options["goal"] and options["mix"]), "--goal and --for exclude each other; give one of them."
    )
    refuse_contradiction(
        len(flatten(options["rpc"])) > 1, "--rpc is given twice; name all servers in one list, joined by commas."
    )
    if options["best"]:
        given = axes(options)
        lists = [parameters()[name].flags[-1] for name in given if name != "n_gpu_layers" and len(given[name]) > 1]
        tests = {"n_prompt": "--n-prompt", "n_gen": "--n-gen"}
        lists += [flag for name, flag in tests.items() if len(flatten(options[name])) > 1]
        refuse_contradiction(
            bool(lists), f"--best looks for -ngl alone; give one value to {lists[0] if lists else ''}."
        )


def _check_tests(path: str, options: dict[str, Any]) -> None:
    """Say at once what this file cannot be asked, or will not be asked because nobody did expressly."""
    header = read_for(path, Question.MEASURE)
    found = None if header is None else find_kind(header)
    if not options["best"]:
        with displayed() as on_event:
            suit(_grid(path, axes(options), options).cells(), {name for name in options if options[name]}, on_event)
    elif found is not None and found.kind is not Kind.TEXT and _goal(options).n_gen:
        raise UsageError(f"{found.describe(pathlib.Path(path).name)}; look for the best count with --goal pp.")


def _goal(options: dict[str, Any]) -> Goal:
    return GOALS[options["mix"] or options["goal"] or "tg"]


def _tokens(options: dict[str, Any], name: str, default: int) -> tuple[int, ...]:
    return flatten(options[name]) if options[name] else (default,)


def _grid(
    path: str,
    placements: Mapping[str, Sequence[Any]],
    options: dict[str, Any],
    tests: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Grid:
    n_prompt, n_gen = tests or (_tokens(options, "n_prompt", 512), _tokens(options, "n_gen", 128))
    return Grid(
        models=[path],
        axes=placements,
        n_prompt=n_prompt,
        n_gen=n_gen,
        repetitions=options["repetitions"],
        seed=options["seed"],
    )


def _refuse_split(options: dict[str, Any], survey: Survey) -> None:
    """More shares than devices to share among would be dropped by llama.cpp without a word."""
    named = [len(names) for names in flatten(options["devices"]) if names and names != ("none",)]
    n_devices = max(named, default=len(survey.gpus))
    for split in flatten(options["tensor_split"]):
        refuse_contradiction(
            0 < n_devices < len(split),
            f"-ts {'/'.join(f'{share:g}' for share in split)} shares among {len(split)} devices and there "
            f"{'is' if n_devices == 1 else 'are'} {n_devices}; give one share a device.",
        )


def _choose_counts(options: dict[str, Any], blocks: Blocks, survey: Survey) -> tuple[int, ...]:
    """The layer counts to sweep: all, unless asked otherwise; none but 0 where layers have nowhere to go."""
    asked = flatten(options["n_gpu_layers"])
    if not survey.gpus and ("none",) not in flatten(options["devices"]):
        absence = explain_absence(survey)
        change = f" To change that: {absence.command}" if absence and absence.command else ""
        terminal.echo_error(f"no layer can go anywhere: {absence.reason if absence else 'there is no device'}.{change}")
    if not asked:
        others = any(len(values) > 1 for name, values in axes(options).items() if name != "n_gpu_layers")
        asked = (-1,) if others else tuple(range(blocks.max_gpu_layers + 1)) if survey.gpus else (0,)
    counts, beyond = clamp_counts(asked, blocks.max_gpu_layers)
    if beyond:
        terminal.echo_error(
            f"the model has {blocks.n_layers} layers and the output layer: -ngl {', '.join(map(str, beyond))} "
            f"means {blocks.max_gpu_layers}."
        )
    return counts


def _recall(journal: pathlib.Path, path: str, keeper: Keeper) -> dict[Any, list[Record]]:
    """The cells of a journal that need not be repeated: those of this file on this machine."""
    facts = describe_file(pathlib.Path(path))
    records = read_records([journal], terminal.echo_error)
    own = [r for r in records if is_of(r, keeper.machine, facts["file_sha256"], facts["file_size_bytes"])]
    if others := len(records) - len(own):
        terminal.echo_error(f"{others} cells in {journal} are of another file or another machine and do not count.")
    return recall(own, choose_threads().count)


def _find_journal(options: dict[str, Any]) -> pathlib.Path | None:
    """The journal to go on in: the one that is named, else this machine's last sweep."""
    if options["resume"] is None:
        return None
    refuse_contradiction(
        not options["save"], "--resume goes on in a journal, and --no-save keeps none; drop one of them."
    )
    if options["resume"] != "last":
        path = pathlib.Path(options["resume"])
        if not path.is_file():
            raise UsageError(f"There is no journal {path} to go on with; look in {options['results']}.")
        return path
    from harness.host.machine import describe_machine

    found = list((options["results"] / machine_slug(describe_machine())).glob("*-sweep*.jsonl"))
    if not found:
        raise UsageError(f"There is no sweep in {options['results']} to go on with; leave out --resume.")
    return max(found, key=journal_order)


def _age_s() -> float:
    """Seconds that this process has lived."""
    return max(time.time() - psutil.Process().create_time(), 0.0)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is to be shown."""

    rows: Sequence[LayerRow]
    best: Best | None = None
    wires: Sequence[Wire] = ()
    wire_trouble: str | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """The choices of one call, and the ways to carry them out."""

    path: str
    options: dict[str, Any]
    blocks: Blocks
    survey: Survey
    counts: tuple[int, ...]
    plan: Plan
    keeper: Keeper

    @property
    def work(self) -> dict[int, float]:
        return {count: self.blocks.work(count) for count in range(self.blocks.max_gpu_layers + 1)}

    def cells(self, counts: Sequence[int], tests: tuple[Sequence[int], Sequence[int]] | None = None) -> list[RunSpec]:
        placements = {**axes(self.options), "n_gpu_layers": counts}
        asked = {name for name in self.options if self.options[name]}
        return list(suit(_grid(self.path, placements, self.options, tests).cells(), asked, ignore))

    @contextlib.contextmanager
    def _sweeper(self, cells: Sequence[RunSpec], known: dict[Any, Any]) -> Iterator[Sweeper]:
        course = Course(cells)
        with displayed() as on_event:
            sweeper = Sweeper(
                plan=self.plan,
                keep=self.keeper.keep,
                watch=lambda step: on_event(course.at(step, f"-ngl {step.spec.n_gpu_layers}, ")),
                blocks=self.blocks,
                devices=self.survey.build.devices,
                known=known,
                compute_bytes=self._plan_compute(cells),
                host_bytes=available_memory_bytes(),
                try_anyway=self.options["try_anyway"],
            )
            with contextlib.closing(sweeper):
                yield sweeper

    def _plan_compute(self, cells: Sequence[RunSpec]) -> dict[str, int]:
        """What computing needs on each device, from one dry run with all layers and the longest context.

        It takes as long as a start, so it is left out where nothing of it matters: no device says what it has free, or weights and
        cache of the largest placement take less than half of that.
        """
        largest = max(cells, key=lambda cell: (cell.n_ctx, cell.n_gpu_layers))
        rules = list_rules(self.survey.build.devices)
        half = [dataclasses.replace(item, memory_bytes=item.memory_bytes and item.memory_bytes // 2) for item in rules]
        if check_placement(self.blocks.header, largest, half).fits:
            return {}
        try:
            sizes, trouble = plan_compute(find_model(self.path, weights=False), largest)
        except HarnessError as error:
            sizes, trouble = {}, str(error)
        if trouble:
            terminal.echo_error(
                f"what computing needs on a device is not known ({trouble.rstrip('.')}): what is said to fit may not; "
                "weights and cache are a lower bound."
            )
        return sizes

    def sweep(self, known: dict[Any, Any]) -> _Outcome:
        cells = self.cells(self.counts)
        rows: list[LayerRow] = []
        interrupted = False
        with self._sweeper(cells, known) as sweeper:
            try:
                for row in sweeper.sweep(cells):
                    rows.append(row)
            except KeyboardInterrupt:
                interrupted = True
        rows.sort(key=lambda row: row.n_gpu_layers)
        good = [row for row in rows if row.find("tg") and row.n_gpu_layers]
        fastest = max(good, key=lambda row: row.speeds[-1].rate_tok_per_s, default=None)
        wires, trouble = self._count_traffic(fastest, interrupted)
        return _Outcome(rows, None, wires, trouble, interrupted)

    def search(self, known: dict[Any, Any]) -> _Outcome:
        goal = _goal(self.options)
        tests = (
            _tokens(self.options, "n_prompt", 512) if goal.n_prompt else (),
            _tokens(self.options, "n_gen", 128) if goal.n_gen else (),
        )
        with self._sweeper(self.cells(self.counts, tests), known) as sweeper:
            search = Search(
                sweeper,
                goal,
                self.counts,
                lambda count: self.cells((count,), tests),
                self.work,
                before_s=_age_s(),
            )
            try:
                best = search.run()
            except KeyboardInterrupt:
                return _Outcome(search.rows, None, interrupted=True)
        row = next((row for row in search.rows if best and row.n_gpu_layers == best.best_n_gpu_layers), None)
        wires, trouble = self._count_traffic(row, False)
        return _Outcome(search.rows, best, wires, trouble)

    def _count_traffic(self, row: LayerRow | None, interrupted: bool) -> tuple[Sequence[Wire], str | None]:
        if row is None or not row.n_gpu_layers or not self.options["rpc"] or not self.options["traffic"] or interrupted:
            return (), None
        spec = dataclasses.replace(self.cells((row.n_gpu_layers,))[-1], **dict(row.varied))
        return measure_wire(spec, self.plan)


def _show(outcome: _Outcome, run: _Run) -> None:
    rows = outcome.rows
    crossing = estimate_crossing(rows, run.work)
    notes = [_tell_wire(wire, rows, crossing) for wire in outcome.wires]
    if outcome.wire_trouble:
        notes.append(f"what goes over the network could not be counted: {outcome.wire_trouble}")
    reasons = explain_best(outcome.best, run.blocks, run.survey.build.devices, crossing) if outcome.best else []
    if run.options["output"] == "json":
        terminal.show(harmless.json_text(_export(outcome, run, crossing, reasons)))
    elif rows:
        page = Page(_heading(run, rows), [*_energy_notes(rows), *notes])
        terminal.show(render_rows(rows, page, form="github" if run.options["output"] == "md" else "simple"), nl=False)
        if outcome.best:
            terminal.show(_tell_best(outcome.best, reasons), nl=False)
    if run.options["plot"] and any(row.speeds for row in rows):
        from harness.views.figures.placements import draw_layers

        best = outcome.best.best_n_gpu_layers if outcome.best else None
        title = " · ".join(_heading(run, rows)[:2])
        write_picture(run.options["plot"], lambda: draw_layers(rows, title, best=best, theme=run.options["theme"]))


def _heading(run: _Run, rows: Sequence[LayerRow]) -> list[str]:
    path = pathlib.Path(run.path)
    name = path.name + (" (synthetic)" if is_synthetic(path) else "")
    devices = [device.name for device in run.survey.build.devices if device.kind in ("gpu", "igpu")]
    heading = [name, ", ".join(devices) or "CPU only"]
    reps = {speed.n_samples for row in rows for speed in row.speeds}
    if not reps:
        return heading
    return [*heading, f"{'–'.join(map(str, sorted({min(reps), max(reps)})))} repetition{'s' if max(reps) > 1 else ''}"]


def _energy_notes(rows: Sequence[LayerRow]) -> list[str]:
    sources = list(dict.fromkeys(source for row in rows for source in row.power_sources))
    shares = [row.sampler_share for row in rows if row.sampler_share]
    if not sources:
        return []
    cost = f"; watching took {max(shares):.2%} of one CPU" if shares else ""
    return [f"J per token by {', '.join(sources)}{cost}"]


def _tell_wire(wire: Wire, rows: Sequence[LayerRow], crossing: float | None) -> str:
    speed = next((row.find("tg") for row in rows if row.n_gpu_layers == wire.n_gpu_layers), None)
    return describe_wire(
        f"{wire.endpoint} at -ngl {wire.n_gpu_layers}",
        wire.sent_bytes_per_token,
        wire.received_bytes_per_token,
        wire.round_trips_per_token,
        speed.token_s if speed else None,
        crossing,
    )


def _tell_best(best: Best, reasons: Sequence[str]) -> str:
    which = "best" if best.is_proven else "best of what was measured"
    lines = ["", f"{which} for {best.goal.text}: {best.best_n_gpu_layers} layers", ""]
    lines += [f"  {line}" for line in flag_lines(best.best_n_gpu_layers)]
    lines += ["", *(wrap(f"- {reason}") for reason in reasons)]
    return "\n".join(lines) + "\n"


def _export(outcome: _Outcome, run: _Run, crossing: float | None, reasons: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if outcome.best:
        values = {
            "best_n_gpu_layers": outcome.best.best_n_gpu_layers,
            "is_proven": outcome.best.is_proven,
            "measured_counts": list(outcome.best.measured),
            "cost_share": round(outcome.best.cost_share, 4),
            "cost_share_is_lower_bound": bool(outcome.best.reused_s),
            "looks": {str(count): n for count, n in outcome.best.looks.items()},
            "confirmed_cost_s": {str(count): cost for count, cost in outcome.best.confirmed.items()},
            "reason": " ".join(f"{reason[0].upper()}{reason[1:]}." for reason in reasons),
            "goal": dataclasses.asdict(outcome.best.goal),
            "spent_s": outcome.best.spent_s,
            "spent_before_resume_s": outcome.best.reused_s,
            "full_sweep_s_estimated": outcome.best.full_sweep_s,
            "failed": {str(count): text for count, text in outcome.best.failed.items()},
            "skipped": {str(count): text for count, text in outcome.best.skipped.items()},
        }
    path = pathlib.Path(run.path)
    return {
        **values,
        "model": path.name,
        "is_synthetic": is_synthetic(path),
        "max_n_gpu_layers": run.blocks.max_gpu_layers,
        "rows": export_rows(outcome.rows),
        "network": [dataclasses.asdict(wire) for wire in outcome.wires],
        "network_crossing_s_per_token": crossing if outcome.wires else None,
        "interrupted": outcome.interrupted,
    }
