"""`harness overhead`: where a model's memory goes, predicted from its header and measured in a fresh process."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from harness.cli import terminal
from harness.cli.ollama_options import Told, ollama_options, tell_ollama
from harness.cli.options import (
    SectionedCommand,
    axes,
    context_option,
    flatten,
    measured_options,
    one_reference,
    option_names,
    refuse_contradiction,
    results_option,
    save_option,
    vram_option,
)
from harness.cli.picture import check_picture_path, plot_option, theme_option, write_picture
from harness.cli.progress import byte_bar
from harness.cli.record_writer import Keeper
from harness.cli.token_time import FORMATS as TIME_FORMATS
from harness.cli.token_time import account_for_time, time_options
from harness.errors import UsageError
from harness.gguf.model_kinds import Question, find_kind, may_be_asked, refuse, refuse_context
from harness.host.rpc import check_servers
from harness.memory.ledger import Report
from harness.records.journal import utc_now
from harness.runs.memory import Model, examine, find_model, make_spec
from harness.sources.model_file import hash_file
from harness.spec import DEFAULT_N_CTX
from harness.untrusted import harmless
from harness.views.memory import FORMATS, export_report
from harness.views.ollama_2024 import ollama_parts

DEFAULT_MODEL = "smollm2:135m"

#: Options by name that say nothing of time.
_MEMORY_ONLY = {
    "contexts": "--ctx",
    "predict_only": "--predict-only",
    "vram_bytes": "--vram",
    "force": "--force",
    "ollama_2024": "--ollama-2024",
}

_EXAMPLES = """
\b
Examples:
  harness overhead                              smollm2:135m at 4096 tokens
  harness overhead -m model.gguf --ctx 8192 -ctk q8_0 -ctv q8_0
  harness overhead -m model.gguf --repack off   without the second copy
  harness overhead -m llama3.1:405b:q4_0 --predict-only --vram 8GB
  harness overhead -m llama3.1:8b:q4_0 --ctx 2048-131072*2
  harness overhead -m llama3.1:8b:q4_0 --ollama-2024 --free-vram 7.6GiB
  harness overhead -m synth:llama3.2:1b:q4_0 --plot ledger.png
  harness overhead --time                       where a token's time goes
  harness overhead --time -d 0,4096 --plot token.png
"""


@click.command(
    "overhead",
    cls=SectionedCommand,
    sections={
        "Options of the run": measured_options("load", "context"),
        "What Ollama said in 2024": ollama_options,
        "Time instead of memory": time_options,
    },
    epilog=_EXAMPLES,
    short_help="Account for every byte, and with --time every microsecond, that a model takes.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@one_reference()
@context_option("contexts", least=8, many=True)
@click.option("--predict-only", is_flag=True, help="Load nothing: the header is enough, the weights need not be here.")
@vram_option
@click.option("--force", is_flag=True, help="Measure although memory will not do.")
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="table", help="Format. [table]")
@plot_option
@theme_option
@save_option
@results_option
@measured_options("load", "context")
@ollama_options
@click.option("--time", "time", is_flag=True, help="Account for a generated token's time.")
@time_options
def command(reference: str | None, **options: Any) -> None:
    """Account for every byte that a model takes: weights, their second copy for this CPU's SIMD, KV cache, buffers, libraries.

    What is predicted from the model's header alone stands beside what a fresh process really took, step by step; what nothing explains
    is a line of its own. Several contexts give the table of them, and --vram how many layers fit. Of a model
    whose weights are not on this disk only the prediction is shown. With --time the same is done for the time of a generated token.
    """
    check_picture_path(options["plot"])
    if options["time"]:
        _refuse_memory_options(options)
        raise click.exceptions.Exit(account_for_time({**options, "models": (reference,) if reference else ()}))
    _refuse_time_options()
    raise click.exceptions.Exit(_account_for_memory(reference or DEFAULT_MODEL, options))


def _refuse_memory_options(options: dict[str, Any]) -> None:
    """Options that say nothing of time, beside --time."""
    for name, flag in _MEMORY_ONLY.items():
        refuse_contradiction(
            bool(options[name]), f"{flag} is about memory and not about --time; leave one of them out."
        )
    refuse_contradiction(options["output"] not in TIME_FORMATS, f"--time gives {' or '.join(TIME_FORMATS)} with -o.")


def _refuse_time_options() -> None:
    """Options that mean something only with --time."""
    context = click.get_current_context()
    for name in option_names(time_options):
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        refuse_contradiction(
            given, f"--{name.removeprefix('with_').replace('_bytes_per_s', '')} means something only with --time."
        )


def _account_for_memory(reference: str, options: dict[str, Any]) -> int:
    """Show the memory ledger, keep it if something was measured, draw it if asked; returns the exit code."""
    wants_weights = not options["predict_only"] and _count(options["contexts"]) < 2
    with byte_bar(reference) as show:
        model = find_model(reference, weights=wants_weights, progress=show)
    refuse(model.header, Question.MEMORY, model.label)
    if not may_be_asked(model.header, Question.MEASURE):
        wants_weights = False
        model = dataclasses.replace(model, remarks=(*model.remarks, find_kind(model.header).describe(model.label)))
    subject = model.subject
    told = tell_ollama(
        model.header, model.label, options, file_bytes=subject.file_bytes, synthetic=subject.is_synthetic
    )
    predict_only = not wants_weights or model.path is None
    # A forecast is not a measurement, and is made again in a moment: it is not kept.
    with Keeper("overhead", options["results"], save=options["save"] and not predict_only) as keeper:
        report = _examine(model, options, predict_only=predict_only)
        terminal.show(_write(report, told, options["output"]), nl=False)
        if report.measurement or report.failure:
            facts = {"time_utc": utc_now(), "machine": dataclasses.asdict(keeper.machine)}
            keeper.keep_line({**export_report(report), **facts, **_name_file(model)})
    keeper.say_where()
    code = keeper.exit_code(failed=report.failure is not None)
    if options["plot"]:
        from harness.views.figures.memory import draw_ledger

        others = {"Ollama's SIZE, 2024": ollama_parts(told.account)} if told else None
        write_picture(options["plot"], lambda: draw_ledger(report, theme=options["theme"], others=others))
    return code


def _name_file(model: Model) -> dict[str, Any]:
    """Which file it was, whatever the user called it."""
    return {} if model.path is None else {"file_name": model.path.name, "file_sha256": hash_file(model.path)}


def _write(report: Report, told: Told | None, output: str) -> str:
    """The report in a format, with Ollama's account behind it where it was asked for."""
    if told is None:
        return FORMATS[output](report)
    if output == "csv":
        terminal.echo_error("note: -o csv holds the ledger alone; -o json has Ollama's account too.")
        return FORMATS[output](report)
    if output == "json":
        return harmless.json_text({**export_report(report), "ollama_2024": told.data}) + "\n"
    account = f"```\n{told.text.rstrip()}\n```" if output == "md" else told.text.rstrip()
    return f"{FORMATS[output](report).rstrip()}\n\n{account}\n"


def _examine(model: Model, options: dict[str, Any], *, predict_only: bool) -> Report:
    trained = model.subject.n_ctx_train
    usual = min(DEFAULT_N_CTX, trained or DEFAULT_N_CTX)
    contexts = sorted(set(flatten(options["contexts"]))) or [max(usual, 8)]
    refuse_context(model.header, contexts[-1], model.label, "--ctx")
    single = _single_values(options)
    specs = [make_spec(model, n_ctx, single) for n_ctx in contexts]
    check_servers(specs[0].rpc)
    with _narrator() as watch:
        return examine(
            model,
            specs,
            predict_only=predict_only,
            vram_bytes=options["vram_bytes"],
            force=options["force"],
            watch=watch,
        )


def _count(groups: Any) -> int:
    return len(set(flatten(groups)))


def _single_values(options: dict[str, Any]) -> dict[str, Any]:
    """The run's parameters, one value each: a ledger is about one configuration."""
    for name, values in axes(options).items():
        if len(set(values)) > 1:
            raise UsageError(
                f"a ledger is about one {name}, and {len(set(values))} are given; only --ctx takes a list."
            )
    return {name: values[0] for name, values in axes(options).items()}


@contextlib.contextmanager
def _narrator() -> Iterator[Callable[[str], None]]:
    """Say on a terminal which step is on."""
    if not terminal.is_watched():
        yield lambda _step: None
        return
    from tqdm import tqdm

    with tqdm(bar_format="{desc}  {elapsed}", leave=False, file=sys.stderr) as bar:
        yield lambda step: bar.set_description_str(harmless.line(step))
