"""`harness predict`: how fast a model would be, before it is downloaded or the machine is bought."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from harness.cli.options import (
    Amount,
    Memory,
    complete_machines,
    context_option,
    one_reference,
    one_value,
    refuse_contradictions,
    results_option,
    vram_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.terminal import echo_error
from harness.speed.machines import KINDS

_EXAMPLES = """
\b
Examples:
  harness predict -m llama3.1:8b:q4_0               on this machine
  harness predict -m model.gguf --depth 8192 -ctk q8_0 -ctv q8_0
  harness predict -m hf:OWNER/REPO:Q4_K_M           from its header alone
  harness predict -m llama3.1:8b:q4_0 --machine "M4 Pro"
  harness predict --size 20GB --bandwidth 273GB/s --kind apple
  harness predict -m llama3.1:70b:q4_0 --machine "RTX 3070 Ti" --host i7-8700
  harness predict -m llama3.1:70b:q4_0 --machine "M4 Pro" --memory 48GiB
  harness predict --check                           how far it is wrong
"""


#: Options that say what is asked, by name; None where they are not given.
_QUESTION = {
    "model": "-m",
    "size_bytes": "--size",
    "machine": "--machine",
    "bandwidth": "--bandwidth",
    "host": "--host",
    "vram_bytes": "--vram",
    "memory_bytes": "--memory",
}


@click.command("predict", epilog=_EXAMPLES)
@one_reference("model")
@click.option("--size", "size_bytes", type=Amount("20GB"), metavar="SIZE", help="Any dense model of this size instead.")
@click.option(
    "--machine", metavar="NAME", shell_complete=complete_machines, help="A published machine instead of this one."
)
@click.option(
    "--bandwidth", type=Amount("273GB/s", "/s|ps"), metavar="RATE", help="Any machine with this memory bandwidth."
)
@click.option("--kind", type=click.Choice(KINDS), help="What has that bandwidth; else all kinds are shown.")
@click.option(
    "--flops", type=Amount("20TFLOPS", "flops(/s)?|flop/s"), metavar="RATE", help="What matrix products reach, for pp."
)
@context_option()
@one_value("n_depth")
@one_value("type_k")
@one_value("type_v")
@vram_option
@click.option(
    "--memory", "memory_bytes", type=Memory("48GB"), metavar="SIZE", help="Memory of the machine; 48GB is 48 GiB."
)
@click.option(
    "--host",
    metavar="NAME",
    shell_complete=complete_machines,
    help="Published CPU that takes the layers that a card cannot.",
)
@click.option("--check", is_flag=True, help="Predict every published figure without itself, and show the errors.")
@output_options()
@results_option
def command(check: bool, output: Output, results: pathlib.Path, **options: Any) -> None:
    """Predict how fast a model generates and reads prompts on a machine, and whether it fits.

    Generating is limited by reading the weights: the prediction is the time of reading them, at the share of the bandwidth that
    machines of the kind really have, plus what each layer costs. A machine's own figures (records here, published ones elsewhere)
    move it.
    """
    from harness.views.predict import describe_check, describe_prediction

    _refuse_nonsense(check, options)
    if check:
        from harness.sources.user_catalog import load_catalog
        from harness.speed.crosscheck import check_predictions

        show(describe_check(check_predictions(load_catalog())), output)
        return
    from harness.runs.predict import PredictRequest, predict

    show(describe_prediction(predict(PredictRequest(**options), results, echo_error)), output)


def _refuse_nonsense(check: bool, options: dict[str, Any]) -> None:
    given = [flag for name, flag in _QUESTION.items() if options[name] is not None]
    n_ctx, n_depth = options["n_ctx"], options["n_depth"]
    model, size_bytes, machine, bandwidth, kind = (
        options[name] for name in ("model", "size_bytes", "machine", "bandwidth", "kind")
    )
    refuse_contradictions(
        (check and given, f"--check predicts what was published and asks nothing else; leave out {' '.join(given)}."),
        (model and size_bytes, "-m and --size both name a model; give one of them."),
        (machine and bandwidth, "--machine and --bandwidth both name a machine; give one of them."),
        (kind and not bandwidth, "--kind says what has the --bandwidth; give that too."),
        (
            n_ctx is not None and n_depth > n_ctx,
            f"A context of {n_ctx} tokens holds no {n_depth}; ask for more with --ctx, or leave it out.",
        ),
    )
