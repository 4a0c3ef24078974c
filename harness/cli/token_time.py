"""`harness token-time`: where a generated token's time goes."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import (
    Amount,
    SectionedCommand,
    Values,
    WholeNumber,
    flatten,
    measured_options,
    one_reference,
    repetitions_option,
    results_option,
    save_option,
    single_axes,
    tuned_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.terminal import echo_error
from harness.parsers import whole_numbers
from harness.spec import CACHE_TYPES, MAX_TOKENS, parameters

_EXAMPLES = """
\b
Examples:
  harness token-time                            smollm2:135m, up to d8192
  harness token-time -d 0,4096 --plot token.png
  harness token-time -m model.gguf --caches f16,q8_0,q4_0
  harness token-time -m synth:llama3.2:1b:q4_0 --rounds 6 --tokens 6
"""


def _read_caches(text: str) -> tuple[str, ...]:
    kinds = tuple(word.strip().lower() for word in text.split(","))
    for kind in kinds:
        if kind.lower() not in CACHE_TYPES:
            raise ValueError(f"{kind!r} is not a cache type; use one of {', '.join(CACHE_TYPES)}")
    return kinds


@click.command(
    "token-time",
    cls=SectionedCommand,
    sections={"Options of the run": measured_options("load", "context")},
    epilog=_EXAMPLES,
)
@one_reference()
@click.option(*parameters()["n_depth"].flags, "depths", multiple=True, type=Values(whole_numbers(0, MAX_TOKENS), "N"),
              metavar="N", help=parameters()["n_depth"].help + " [0,512,2048,8192]")  # fmt: skip
@click.option("--tokens", "n_tokens", type=WholeNumber(1, MAX_TOKENS), default=8, metavar="N",
              help="Tokens timed in one block. [8]")  # fmt: skip
@repetitions_option("rounds")
@click.option("--caches", "cache_types", type=Values(_read_caches, "TYPES"), metavar="TYPES", default=(),
              help="Cache types; the first is taken apart. [f16,q8_0]")  # fmt: skip
@click.option("--load/--no-load", "with_load", default=True, help="Time loading, cold and warm. [on]")
@click.option("--app/--no-app", "with_application", default=True, help="Time an application's loop beside. [on]")
@click.option("--roof", "roof_bytes_per_s", type=Amount("38GB/s", "/s|ps"), metavar="RATE",
              help="Memory bandwidth to compare with. [what `harness roofline` measured here]")  # fmt: skip
@tuned_option
@output_options()
@save_option
@results_option
@measured_options("load", "context")
def command(reference: str | None, output: Output, **options: Any) -> None:
    """Take a generated token apart: decode, sampling, text; each kind of matrix product with its bytes and bandwidth; what a token in
    the cache costs; loading, cold and warm; and why an application is slower than a benchmark.
    """
    from harness.cli.progress import displayed, end, open_session
    from harness.runs.asking import find_file
    from harness.runs.predict import read_own
    from harness.runs.token_time import DEPTHS, measure_token_time, plan_token_time
    from harness.runs.tuned import take_settings
    from harness.sources.model_file import DEFAULT_MODEL
    from harness.sources.references import parse_reference
    from harness.sources.user_catalog import load_catalog
    from harness.views.token_time import describe_token_time

    label = parse_reference(reference or DEFAULT_MODEL).label()
    with displayed() as on_event:
        path = find_file(reference, on_event)
        settings = single_axes(options)
        if options["takes_tuned"]:
            settings |= take_settings(path, settings, on_event)
    shape = ("cache_types", "rounds", "n_tokens", "with_load", "with_application")
    request = plan_token_time(
        path, settings, label=label, depths=flatten(options["depths"]) or DEPTHS,
        **{name: options[name] for name in shape},
    )  # fmt: skip
    roof = None if options["roof_bytes_per_s"] else read_own(load_catalog(), options["results"], echo_error).roof
    with open_session("time-ledger", options) as session:
        record = measure_token_time(request, session, roof_bytes_per_s=options["roof_bytes_per_s"], roof=roof)
    if record.blocks or record.loads or record.applications:
        show(describe_token_time(record, label), output)
    end(session, with_failure=True)
