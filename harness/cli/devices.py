"""`harness devices`: what llama.cpp can compute on here, and why not on more."""

from __future__ import annotations

import click

from harness.cli.options import Values
from harness.cli.output import Output, output_options, show
from harness.runs.devices import explain_absence, survey_devices
from harness.spec import parse_endpoints
from harness.views.devices import describe_devices

_EXAMPLES = """
\b
Examples:
  harness devices
  harness devices --rpc 192.168.1.7:50052       with another machine's
  harness devices -o json
"""


@click.command("devices", epilog=_EXAMPLES)
@click.option(
    "-rpc", "--rpc", "servers", multiple=True, type=Values(parse_endpoints, "HOST:PORT,…"), metavar="HOST:PORT,…",
    help="RPC servers whose devices join in.",
)  # fmt: skip
@output_options()
def command(servers: tuple[tuple[tuple[str, ...], ...], ...], output: Output) -> None:
    """List every device that llama.cpp sees, with its memory, and what it was built for.

    Where no layer can go to a graphics card, it says why, and the command that may change it.
    """
    rpc = tuple(endpoint for given in servers for endpoints in given for endpoint in endpoints)
    survey = survey_devices(rpc)
    show(describe_devices(survey, explain_absence(survey)), output)
