"""`harness doctor`: what a report of a fault needs, and what is wrong with this installation."""

from __future__ import annotations

import click

from harness.cli.output import Output, output_options, show
from harness.cli.progress import end_with
from harness.runs.doctor import examine
from harness.views.doctor import describe_examination

_EXAMPLES = """
\b
Examples:
  harness doctor
  harness doctor -o md                          for an issue
"""


@click.command("doctor", epilog=_EXAMPLES)
@output_options()
def command(output: Output) -> None:
    """Say which versions run here, what llama.cpp was built with, and what does not start.

    Meant for a report of a fault: no user, host or folder is named, and of variables only their names. Where llama.cpp does not
    start, the answer says why and the exit code is 3.
    """
    found = examine()
    show(describe_examination(found), output)
    end_with(found.outcome)
