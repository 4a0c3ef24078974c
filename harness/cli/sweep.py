"""`harness sweep`: speed and memory over the layers on the GPU, or the best number of layers from few measurements."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.journals import own_journals
from harness.cli.options import (
    MANNER_NAMES,
    axes,
    cell_timeout_option,
    flatten,
    length_options,
    manner_options,
    measured_options,
    reference_options,
    refuse_contradictions,
    results_option,
    save_option,
    seed_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import displayed, end, open_session
from harness.errors import UsageError
from harness.runs.asking import find_file
from harness.runs.placements import SweepRequest, sweep_placements
from harness.runs.search import GOALS
from harness.spec import parameters
from harness.views.placements import describe_result, describe_sweep

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


@click.command("sweep", epilog=_EXAMPLES)
@reference_options()
@length_options
@measured_options("test", "load", "context")
@click.option("--best", is_flag=True, help="Find the fastest -ngl, measuring few counts.")
@click.option("--goal", type=click.Choice(["tg", "pp"]), help="What --best makes fast. [tg]")
@click.option(
    "--for", "mix", type=click.Choice(["chat", "rag", "batch", "coding"]),
    help="A mix for --best: " + ", ".join(f"{name} {goal.n_prompt}+{goal.n_gen}" for name, goal in GOALS.items() if goal.n_prompt > 1)
    + " tokens of prompt and answer.",
)  # fmt: skip
@click.option("--try-anyway", is_flag=True, help="Measure what is predicted not to fit, too.")
@click.option(
    "--resume", "resume", is_flag=False, flag_value="last", metavar="[JOURNAL]",
    help="Go on with a sweep that was cut off; default: the last one.",
)  # fmt: skip
@click.option("--traffic/--no-traffic", default=True, help="Count what a token sends over --rpc. [on]")
@manner_options
@seed_option
@output_options()
@save_option
@results_option
@cell_timeout_option
def command(models: Sequence[str], output: Output, **options: Any) -> None:
    """Measure speed and memory over the number of layers on the GPU, or find the best number.

    Without -ngl every count is measured, from none to all. Everything that places the model can be swept: -ngl, -ncmoe, -nkvo, -ts.
    A count that cannot fit is skipped with the reason. Devices of other machines join in with --rpc (see harness rpc-server).
    """
    _refuse_nonsense(models, options)
    resumed = _find_journal(options)
    with displayed() as on_event:
        model = str(find_file(models[0] if models else None, on_event))
    request = SweepRequest(
        model=model,
        axes=axes(options),
        n_prompt=flatten(options["n_prompt"]) or None,
        n_gen=flatten(options["n_gen"]) or None,
        goal=GOALS[options["mix"] or options["goal"] or "tg"] if options["best"] else None,
        counts_traffic=options["traffic"],
        **{name: options[name] for name in (*MANNER_NAMES, "interleave", "try_anyway", "cell_timeout_s")},
    )
    with open_session("sweep", options, describe_result, resume=resumed) as session:
        sweep = sweep_placements(request, session)
    show(describe_sweep(sweep), output)
    end(session)


def _refuse_nonsense(models: Sequence[str], options: dict[str, Any]) -> None:
    best, goal, mix = options["best"], options["goal"], options["mix"]
    refuse_contradictions(
        (len(models) > 1, "A sweep is of one model; name one with -m, and sweep the next one after it."),
        (not best and (goal or mix), "--goal and --for say what --best looks for; add --best."),
        (goal and mix, "--goal and --for exclude each other; give one of them."),
        (len(flatten(options["rpc"])) > 1, "--rpc is given twice; name all servers in one list, joined by commas."),
    )
    if best:
        given = axes(options)
        lists = [parameters()[name].flags[-1] for name in given if name != "n_gpu_layers" and len(given[name]) > 1]
        tests = {"n_prompt": "--n-prompt", "n_gen": "--n-gen"}
        lists += [flag for name, flag in tests.items() if len(flatten(options[name])) > 1]
        refuse_contradictions((lists, f"--best looks for -ngl alone; give one value to {''.join(lists[:1])}."))


def _find_journal(options: dict[str, Any]) -> pathlib.Path | None:
    """The journal to go on in: the one that is named, else this machine's last sweep."""
    if options["resume"] is None:
        return None
    if not options["save"]:
        raise UsageError("--resume goes on in a journal, and --no-save keeps none; drop one of them.")
    if options["resume"] != "last":
        path = pathlib.Path(options["resume"])
        if not path.is_file():
            raise UsageError(f"There is no journal {path} to go on with; look in {options['results']}.")
        return path
    found = [path for path in own_journals(options["results"]) if "-sweep" in path.name]
    if not found:
        raise UsageError(f"There is no sweep in {options['results']} to go on with; leave out --resume.")
    return found[-1]
