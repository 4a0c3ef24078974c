"""Every option that takes a whole number has a bound above, and a number beyond it is refused in a sentence with exit code 2."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.cli.options import Pair, Values, WholeNumber
from harness.spec import MAX_LAYERS, RunSpec, parameters

#: Larger than anything that an option may mean, and small enough to fill a memory if it is believed.
BEYOND = "2000000000"


def commands():
    with click.Context(cli, **cli.context_settings) as context:
        for name in cli.list_commands(context):
            yield name, cli.get_command(context, name)


def numbers():
    """(command, flag) of every option that takes whole numbers."""
    for name, command in commands():
        for option in command.params:
            if not isinstance(option, click.Option):
                continue
            flag = max(option.opts, key=len)
            kind = option.type
            takes = isinstance(kind, (click.types.IntParamType, Pair)) or (
                isinstance(kind, Values) and option.metavar == "N"
            )
            if takes and option.name != "seed":
                yield name, flag, "1,2000000000" if isinstance(kind, Pair) else BEYOND


@pytest.mark.parametrize(("command", "flag", "value"), sorted(set(numbers())))
def test_a_number_beyond_reason_is_refused(command, flag, value):
    result = CliRunner().invoke(cli, [command, flag, value])
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert "Invalid value for" in text
    assert "2000000000" in text


def test_every_seed_is_one_that_llama_cpp_can_take():
    for name, command in commands():
        for option in command.params:
            if option.name == "seed":
                assert isinstance(option.type, WholeNumber), name
                assert option.type.max is not None


@pytest.mark.parametrize("name", [name for name, item in parameters().items() if item.metavar == "N"])
def test_every_measured_number_is_bounded(name):
    parse = parameters()[name].parse
    with pytest.raises(ValueError, match="out of range"):
        parse(BEYOND)
    assert parse("1") == (1,)


def test_all_experts_may_be_asked_for_as_people_do():
    (many,) = parameters()["n_cpu_moe"].parse("999")
    assert min(RunSpec("m", n_gen=1, n_cpu_moe=many).n_cpu_moe, MAX_LAYERS) == MAX_LAYERS == 512
