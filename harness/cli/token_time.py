"""``harness overhead --time``: where a generated token's time goes."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

import harness
from harness.cli import terminal
from harness.cli.options import (
    Amount,
    Values,
    flatten,
    refuse_contradiction,
    repetitions_option,
)  # fmt: skip
from harness.cli.picture import check_picture_path, write_picture
from harness.cli.progress import byte_bar
from harness.cli.record_writer import Keeper
from harness.cli.terminal import echo_error
from harness.errors import HarnessError, UsageError
from harness.gguf.attention import describe_attention
from harness.gguf.caches import Context
from harness.gguf.header import Header
from harness.gguf.model_kinds import Question, refuse
from harness.gguf.settings import read_count
from harness.gguf.split import part_names, split_count
from harness.host.cpu import choose_threads
from harness.host.memory import available_memory_bytes
from harness.records.cells import Failure
from harness.records.journal import utc_now
from harness.records.token_time import SCHEMA, WARMUP_TOKENS, TimePlan, build_ledger, count_reads
from harness.runs.worker import Worker
from harness.sources.gguf_file import read_file_header
from harness.sources.model_file import default_model, hash_file, is_synthetic
from harness.sources.references import parse_reference
from harness.spec import CACHE_TYPES, MAX_TOKENS, RunSpec, defaults, parameters, whole_numbers
from harness.units import format_gb
from harness.untrusted import harmless
from harness.views.token_time import export_ledger, show_ledger

DEPTHS = (0, 512, 2048, 8192)

#: Where the worker's events go in a record, by their name.
_LISTS = {"block": "blocks", "load": "loads", "application": "applications"}

#: The formats of the time ledger.
FORMATS = ("table", "json")


def time_options(function: Any) -> Any:
    """Add the options of the time ledger to a command, but those of `measured_options("load", "context")`."""
    for option in (
        click.option("--roof", "roof_bytes_per_s", type=Amount("38GB/s", "/s|ps"), metavar="RATE",
                     help="Memory bandwidth to compare with. [what `harness roofline` measured here]"),
        click.option("--app/--no-app", "with_app", default=True, help="Time an application's loop beside. [on]"),
        click.option("--load/--no-load", "with_load", default=True, help="Time loading, cold and warm. [on]"),
        click.option("--caches", type=Values(_read_caches, "TYPES"), metavar="TYPES",
                     help="Cache types; the first is taken apart. [f16,q8_0]"),
        repetitions_option("rounds"),
        click.option("--tokens", type=click.IntRange(1, MAX_TOKENS), default=8, metavar="N", help="Tokens timed in one block. [8]"),
        click.option(*parameters()["n_depth"].flags, "depth", multiple=True, type=Values(whole_numbers(0, MAX_TOKENS), "N"),
                     metavar="N", help=parameters()["n_depth"].help + " [0,512,2048,8192]"),
    ):  # fmt: skip
        function = option(function)
    return function


def _read_caches(text: str) -> tuple[str, ...]:
    kinds = tuple(word.strip().lower() for word in text.split(","))
    for kind in kinds:
        if kind.lower() not in CACHE_TYPES:
            raise ValueError(f"{kind!r} is not a cache type; use one of {', '.join(CACHE_TYPES)}")
    return kinds


def account_for_time(options: dict[str, Any]) -> int:
    """Measure and show the time ledger of one model; returns the exit code.

    Parameters
    ----------
    options : of a command with `model_option`, `measured_options("load", "context")`, `time_options`, ``output``, `plot_option`,
        `theme_option`, `save_option` and `results_option`

    Raises
    ------
    HarnessError : the options cannot be meant, or the model cannot be read.
    """
    check_picture_path(options["plot"])
    label, path = _find_model(options["models"])
    header = read_file_header(path)
    refuse(header, Question.TIME, label)
    plan, remarks = make_plan(path, header, options)
    with Keeper("time-ledger", options["results"], save=options["save"]) as keeper:
        raw, failure, interrupted = collect(plan, keeper)
        raw["remarks"] = [*remarks, *raw["remarks"]]
        # The header and the roof of that day, so that the line can be read without the model.
        raw["reads"] = count_reads(header, plan.cache_types).to_dict()
        raw["roof_bytes_per_s"] = options["roof_bytes_per_s"] or find_roof(raw.get("resolved"), options["results"])
        if raw["blocks"] or raw["loads"] or raw["applications"]:
            keeper.keep_line(raw)
    _show(raw, header, label, options)
    if failure is not None:
        terminal.echo_error(str(failure))
    keeper.say_where()
    distrusted = any(caution["distrust"] for caution in raw["cautions"])
    return keeper.exit_code(interrupted=interrupted, failed=failure is not None, distrusted=distrusted)


def _find_model(references: Sequence[str]) -> tuple[str, pathlib.Path]:
    if not references:
        return "smollm2:135m", default_model()
    asked = parse_reference(references[0])
    with byte_bar(asked.shown) as show:
        return asked.label(), asked.open(show, echo_error)


def make_plan(path: pathlib.Path, header: Header, options: dict[str, Any]) -> tuple[TimePlan, list[str]]:
    """Turn options into a plan, with a remark for each depth that is left out.

    Raises
    ------
    UsageError : a parameter has several values, or no depth is left.
    """
    values = _read_parameters(options)
    caches = flatten([options["caches"]]) if options["caches"] else ()
    if caches:
        refuse_contradiction("type_k" in values or "type_v" in values, "--caches says it all; leave out -ctk and -ctv.")
    else:
        own = values.get("type_k", defaults()["type_k"])
        caches = tuple(dict.fromkeys((own, "q8_0"))) if values.get("flash_attn") != "off" else (own,)
        refuse_contradiction(
            values.get("type_v", own) != own, "The time ledger takes one type for K and V; give -ctk and -ctv the same."
        )
    n_tokens, rounds = options["tokens"], options["rounds"]
    asked = sorted(set(flatten(options["depth"]) or DEPTHS))
    depths, remarks = choose_depths(asked, n_tokens, caches, header, available_memory_bytes() - header.size_bytes)
    if not depths:
        raise UsageError("; ".join(remarks).capitalize() + ". Give a smaller --depth.")
    spec = RunSpec(str(path), n_gen=1, **values).with_threads(choose_threads().count)
    count = split_count(header, str(path))
    plan = TimePlan(
        spec=dataclasses.replace(spec, type_k=caches[0], type_v=caches[0]),
        depths=depths,
        files=tuple(part_names(str(path), count)) if count > 1 else (str(path),),
        rounds=rounds,
        n_tokens=n_tokens,
        cache_types=caches,
        load_rounds=min(rounds, 3) if options["with_load"] else 0,
        application_tokens=32 if options["with_app"] else 0,
    )
    return plan, remarks


def _read_parameters(options: dict[str, Any]) -> dict[str, Any]:
    """The one value of each measured parameter that was given."""
    values = {}
    for name, parameter in parameters("load", "context").items():
        given = flatten(options.get(name) or ())
        if len(given) > 1:
            raise UsageError(f"The time ledger takes one value of {parameter.flags[-1]}; give one.")
        if given:
            values[name] = given[0]
    return values


def choose_depths(
    asked: Sequence[int], n_tokens: int, caches: Sequence[str], header: Header, free_bytes: int
) -> tuple[tuple[int, ...], list[str]]:
    """Leave out what the model was not trained for and what memory cannot hold, with a remark for each.

    Each cache type is held twice (in its context and as a copy to go back to), the first one a third time for the observer.
    """
    trained = read_count(header, "context_length")
    attention = describe_attention(header)
    depths, remarks = [], []
    for depth in asked:
        n_ctx = depth + n_tokens + WARMUP_TOKENS
        held = [attention.size_bytes(Context(n_ctx, kind, kind)) for kind in (*caches, *caches, caches[0])]
        size = sum(known for known in held if known is not None)
        if trained is not None and n_ctx > trained:
            remarks.append(f"depth {depth} is left out: the model was trained for {trained} tokens")
        elif None not in held and depth and size > free_bytes:
            remarks.append(
                f"depth {depth} is left out: its caches take {format_gb(size)} and "
                f"{format_gb(max(free_bytes, 0))} of memory are free"
            )
        else:
            depths.append(depth)
    return tuple(depths), remarks


def collect(
    plan: TimePlan, keeper: Keeper, start: Callable[[], Worker] | None = None
) -> tuple[dict[str, Any], str | None, bool]:
    """Have the worker do it: the record, the sentence of a failure, and whether Ctrl-C ended it. Nothing measured is lost."""
    raw = _blank_record(plan, keeper)
    failure, interrupted = None, False
    worker = (start or Worker)()
    try:
        greeting = worker.hello()
        if isinstance(greeting, Failure):
            return raw, greeting.sentence, False
        raw["build"] = greeting["build"]
        with _Bar() as bar:
            for event in worker.ask("token-time", plan.to_dict()):
                if isinstance(event, Failure):
                    failure = event.sentence
                else:
                    bar.show(event)
                    hear(raw, event)
    except KeyboardInterrupt:
        interrupted = True
        worker.kill()
        raw["remarks"].append("interrupted: what was measured until then is shown")
    finally:
        worker.close()
    if failure:
        raw["failure"] = failure
    return raw, failure, interrupted


def _blank_record(plan: TimePlan, keeper: Keeper) -> dict[str, Any]:
    path = pathlib.Path(plan.spec.model)
    asked = plan.to_dict()
    asked["spec"]["model"] = path.name
    asked["files"] = [pathlib.Path(name).name for name in plan.files]
    return {
        "schema": SCHEMA,
        "kind": "time-ledger",
        "command": "overhead --time",
        "time_utc": utc_now(),
        "harness_version": harness.__version__,
        "machine": dataclasses.asdict(keeper.machine),
        "asked": asked,
        "model": {"file_name": path.name, "file_sha256": hash_file(path), "is_synthetic": is_synthetic(path)},
        "blocks": [],
        "loads": [],
        "applications": [],
        "remarks": [],
        "cautions": [],
    }


def hear(raw: dict[str, Any], event: dict[str, Any]) -> None:
    """File one of the worker's events in the record."""
    body = {name: value for name, value in event.items() if name != "event"}
    kind = event["event"]
    if kind in _LISTS:
        raw[_LISTS[kind]].append(body)
    elif kind == "remark":
        raw["remarks"].append(body["text"])
    elif kind == "copies":
        raw["copies"] = body
    elif kind == "loaded":
        raw["model"] = {
            **body["model"],
            **{name: raw["model"][name] for name in ("file_name", "file_sha256", "is_synthetic")},
        }
    elif kind == "done":
        raw |= {"resolved": body["resolved"], "cautions": body["cautions"]}


class _Bar:
    """One bar on a terminal, by phases of the worker."""

    def __enter__(self) -> _Bar:
        self._bar: Any = None
        if terminal.is_watched():
            from tqdm import tqdm

            tqdm.monitor_interval = 0
            self._bar = tqdm(total=1, leave=False, file=sys.stderr, bar_format="{desc}  {elapsed}", dynamic_ncols=True)
        return self

    def show(self, event: dict[str, Any]) -> None:
        if self._bar is not None and event["event"] == "phase":
            where = f"{event['phase']}: {event['index'] + 1}/{event['count']}"
            self._bar.set_description_str(harmless.line(where).ljust(28), refresh=True)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _show(raw: dict[str, Any], header: Header, label: str, options: dict[str, Any]) -> None:
    ledger = build_ledger(raw, header, raw["roof_bytes_per_s"])
    cautions = [caution["text"] for caution in raw["cautions"]]
    if options["output"] == "json":
        data = {
            "model": raw["model"] | {"label": label},
            "asked": raw["asked"],
            "resolved": raw.get("resolved"),
            "machine": raw["machine"],
            "time_ledger": export_ledger(ledger),
            "remarks": raw["remarks"],
            "cautions": raw["cautions"],
            "failure": raw.get("failure"),
        }
        terminal.show(harmless.json_text(data))
    elif ledger.depths or ledger.loads or ledger.gap:
        terminal.show(show_ledger(ledger, label, _state_facts(raw), [*raw["remarks"], *cautions]), nl=False)
    if options["plot"] is not None:
        _draw(ledger, label, options)


def find_roof(resolved: dict[str, Any] | None, results: pathlib.Path) -> float | None:
    """The quickest reading that `harness roofline` has found on the one device that ran the model; None where there is none."""
    from harness.cli.journals import own_journals, read_roofs
    from harness.records.roofline import READING, latest

    devices = [] if resolved is None else list(resolved["layers_by_device"])
    roof = latest(read_roofs(own_journals(results)))
    best = roof.best(READING, devices[0]) if roof is not None and len(devices) == 1 else None
    return None if best is None else best.rate_per_s


def _draw(ledger: Any, label: str, options: dict[str, Any]) -> None:
    from harness.views.figures.token_time import draw_token_time

    if not any(depth.operations for depth in ledger.depths):
        raise HarnessError("There is nothing to draw: no token was taken apart.")
    write_picture(options["plot"], lambda: draw_token_time(ledger, label, theme=options["theme"]))


def _state_facts(raw: dict[str, Any]) -> list[str]:
    """What the numbers hold for, in short phrases."""
    n_threads = raw["asked"]["spec"]["n_threads"]
    facts = [f"{n_threads} thread{'s' if n_threads > 1 else ''}"]
    resolved = raw.get("resolved")
    if resolved:
        flash = resolved["flash_attn"]
        facts += [] if flash is None else [f"flash attention {'on' if flash else 'off'}"]
        facts.append(" + ".join(f"{n} layers on {device}" for device, n in resolved["layers_by_device"].items()))
        if resolved["repacked_bytes"]:
            facts.append(f"{format_gb(resolved['repacked_bytes'])} of weights repacked")
    if raw["model"].get("is_synthetic"):
        facts.append("synthetic: random weights")
    return facts
