"""`harness devices`: what llama.cpp can compute on here, and why not on more."""

from __future__ import annotations

import click

from harness.cli.options import one_value
from harness.cli.output import Output, output_options, show
from harness.runs.devices import explain_absence, survey_devices
from harness.views.devices import describe_devices

_EXAMPLES = """
\b
Examples:
  harness devices
  harness devices --rpc 192.168.1.7:50052       with another machine's
  harness devices -o json
"""


@click.command("devices", epilog=_EXAMPLES)
@one_value("rpc")
@output_options()
def command(rpc: tuple[str, ...], output: Output) -> None:
    """List every device that llama.cpp sees, with its memory, and what it was built for.

    Where no layer can go to a graphics card, it says why, and the command that may change it.
    """
    survey = survey_devices(rpc)
    show(describe_devices(survey, explain_absence(survey)), output)
