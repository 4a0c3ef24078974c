"""`harness devices`: what llama.cpp can compute on here, and why not on more."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import one_value
from harness.runs.devices import explain_absence, survey_devices
from harness.untrusted import harmless
from harness.views.devices import export_devices, render_devices

_EXAMPLES = """
\b
Examples:
  harness devices
  harness devices --rpc 192.168.1.7:50052       with another machine's
  harness devices -o json
"""


@click.command(
    "devices",
    epilog=_EXAMPLES,
    short_help="List what llama.cpp can compute on, and why not.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@one_value("rpc")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format. [table]")
def command(rpc: tuple[str, ...], output: str) -> None:
    """List every device that llama.cpp sees, with its memory, and what it was built for.

    Where no layer can go to a graphics card, it says why, and the command that may change it.
    """
    survey = survey_devices(rpc)
    absence = explain_absence(survey)
    about: dict[str, Any] = {
        "compiled": survey.compiled,
        "driver": survey.cards.driver,
        "build_flags": survey.build_flags,
    }
    if output == "json":
        missing = dataclasses.asdict(absence) if absence else None
        terminal.show(harmless.json_text(export_devices(survey.build, survey.backend_of, missing, **about)))
        return
    notes = []
    if absence:
        notes.append(f"No GPU: {absence.reason}.")
        if absence.command:
            notes.append(f"To change that: {absence.command}")
    terminal.show(render_devices(survey.build, survey.backend_of, notes, **about), nl=False)
