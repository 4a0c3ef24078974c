"""Options are read alike in every command: amounts have units, numbers are finite."""

from __future__ import annotations

import math

import click
import pytest
from click.testing import CliRunner

from harness.cli import COMMANDS, cli
from harness.cli.options import Amount, Number


def options():
    """Every option of every command."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield pytest.param(name, parameter, id=f"{name} {parameter.opts[-1]}")


OPTIONS = list(options())
AMOUNTS = [case for case in OPTIONS if isinstance(case.values[1].type, Amount)]
NUMBERS = [case for case in OPTIONS if isinstance(case.values[1].type, click.types.FloatParamType)]


def test_there_are_some():
    assert len(AMOUNTS) >= 7
    assert len(NUMBERS) >= 5


@pytest.mark.parametrize(("command", "option"), AMOUNTS)
def test_an_amount_without_a_unit_is_refused_with_what_may_be_meant(command, option):
    done = CliRunner().invoke(cli, [command, option.opts[-1], "20"])
    assert done.exit_code == 2
    assert "did you mean 20" in " ".join(done.output.split())


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_no_option_takes_what_is_no_finite_number(command, option):
    assert isinstance(option.type, Number), "a float takes nan"
    for text in ("nan", "inf", "-inf", "1e999", "NaN", "infinity", "1e300"):
        done = CliRunner().invoke(cli, [command, option.opts[-1], text])
        assert done.exit_code == 2, text
        assert "Error" in done.output
    assert option.type.max is not None
    assert math.isfinite(option.type.max)
