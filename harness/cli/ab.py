"""`harness ab`: which of two settings, models or builds is faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import (
    Percent,
    SectionedCommand,
    WholeNumber,
    cell_timeout_option,
    flatten,
    join_references,
    length_options,
    max_time_option,
    reference_flags,
    refuse_unknown,
    results_option,
    save_option,
    seed_option,
    single_options,
    stack,
    tuned_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import displayed, end, open_session
from harness.errors import UsageError
from harness.events import OnEvent
from harness.spec import MAX_REPEATS, parameters

if TYPE_CHECKING:
    from harness.runs.ab import ArmQuestion

_EXAMPLES = """
\b
Examples:
  harness ab -- -fa on -- -fa off              flash attention or not
  harness ab -m llama3.2:1b -- -t 4 -- -t 8    four threads or eight
  harness ab -p 0 -n 64 -- -ctk f16 -- -ctk q8_0
  harness ab -- -- --tuned                     what harness tune gained
  harness ab -- -m a.gguf -- -m b.gguf         two models
  harness ab -- -- --python other/bin/python   two builds of llama.cpp
  harness ab --margin 3% -- -ngl 0 -- -ngl 99
"""


#: What an arm may say, and both share where it stands before the first ``--``.
_arm_options = stack(
    reference_flags(),
    single_options("test", "load", "context"),
    tuned_option,
    click.option("--python", metavar="PATH", type=click.Path(exists=True, dir_okay=False), help="Run the llama_cpp of this Python."),
)  # fmt: skip


@click.command("ab", add_help_option=False)
@_arm_options
def _arm() -> None:
    """One arm: its options are read, and it is never run."""


@click.command(
    "ab",
    cls=SectionedCommand,
    sections={"Options of both arms, or of one behind its --": _arm_options},
    epilog=_EXAMPLES,
)
@_arm_options
@length_options
@click.option("-r", "--repetitions", type=WholeNumber(1, MAX_REPEATS), metavar="N",
              help="Repetitions of a block. [by what a block costs beside them]")  # fmt: skip
@click.option(
    "--margin", type=Percent(), default="1%", metavar="SHARE", help="A difference within it does not count. [1%]"
)
@click.option(
    "--alpha", type=Percent(), default="5%", metavar="SHARE", help="How often at most a decision may be false. [5%]"
)
@max_time_option
@seed_option
@output_options()
@save_option
@results_option
@cell_timeout_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- A-OPTIONS -- B-OPTIONS")
def command(output: Output, words: Sequence[str], **options: Any) -> None:
    """Decide which of two settings, models or builds is faster, and stop as soon as that is known.

    Options before the first -- hold for both arms, those behind it are A's, and behind the next one B's; an arm may be empty. Both
    arms are measured by turns, in blocks of a few repetitions and in random order, until one is faster for sure or no difference
    larger than the margin is left. Each of -p and -n is decided by itself.
    """
    from harness.runs.ab import measure_ab, plan_ab
    from harness.views.ab import describe_ab, describe_test

    shared, sides = _given(options), _split(words)
    arms = [(shared, _read_arm(side, name)) for side, name in zip(sides, "AB", strict=True)]
    manner = {
        name: options[name] for name in ("margin", "alpha", "max_time_s", "repetitions", "seed", "cell_timeout_s")
    }
    tests = {name: flatten(options[name]) if options[name] else None for name in ("n_prompt", "n_gen")}
    with displayed() as on_event:
        a, b = (_make_arm(*said, on_event) for said in arms)
        request = plan_ab((a, b), on_event, **tests, **manner)
    with open_session("ab", options, describe_test) as session:
        records = measure_ab(request, session)
    if records:
        show(describe_ab(records), output)
    end(session, with_failure=True)


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words of both arms; click has taken the first ``--`` away."""
    if words.count("--") != 1:
        many = "more than two" if "--" in words else "not two"
        raise UsageError(
            f"Two arms are compared, and these are {many}: write harness ab [OPTIONS] -- A-OPTIONS -- B-OPTIONS; an arm may be empty."
        )
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _read_arm(words: Sequence[str], name: str) -> dict[str, Any]:
    """What an arm says, by the names of the options."""
    own = {flag for option in _arm.params for flag in option.opts}
    for word in words:
        if any(word in option.opts for option in command.params) and word not in own:
            raise UsageError(f"{word} is one for both arms; write it before the first --.")
    context = click.get_current_context()
    refuse_unknown(_arm, words)
    return _given(_arm.make_context(f"{context.info_name} {name}", list(words), parent=context.parent).params)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options of an arm that were given."""
    names = {option.name for option in _arm.params}
    return {name: value for name, value in options.items() if name in names and value not in (None, (), False)}


def _make_arm(shared: dict[str, Any], own: dict[str, Any], on_event: OnEvent) -> ArmQuestion:
    """An arm as it was asked for: what it says itself goes before what both say, and that before what was tuned."""
    from harness.runs.ab import ArmQuestion

    named = own if own.get("models") or own.get("hub") else shared
    given = {**shared, **own}
    references = join_references(named.get("models", ()), named.get("hub", ()), given.get("quantization"))
    if len(references) > 1:
        raise UsageError("An arm has one model; give -m once.")
    settings = {name: given[name] for name in parameters() if name in given}
    if given.get("takes_tuned"):
        from harness.runs.asking import find_file
        from harness.runs.tuned import take_settings

        path = find_file(references[0] if references else None, on_event)
        settings |= take_settings(path, settings, on_event)
    return ArmQuestion(references[0] if references else None, settings, given.get("python"))
