"""Options of the commands that have a model write."""

from __future__ import annotations

import click

from harness.cli.options import Number, WholeNumber, context_option, one_value, seed_option, stack
from harness.spec import MAX_TOKENS

#: Add the options of the sampler, the context and the placement; the latter are those of `harness pp-tg`, with one value each.
text_options = stack(
    one_value("n_gpu_layers"),
    one_value("n_threads"),
    one_value("rpc"),
    context_option(least=2),
    click.option("--max-tokens", type=WholeNumber(1, MAX_TOKENS), metavar="N", help="End the text after N tokens."),
    click.option("--temp", "temperature", type=Number(0, 1000), default=0.8, metavar="T",
                 help="Temperature; 0 always takes the likeliest token. [0.8]"),
    click.option("--top-k", type=WholeNumber(0, MAX_TOKENS), default=40, metavar="K",
                 help="Draw from the K likeliest; 0: from all. [40]"),
    click.option("--top-p", type=Number(0, 1, min_open=True), default=0.9, metavar="P",
                 help="… and of those from the likeliest that make up P. [0.9]"),
    seed_option,
)  # fmt: skip
