"""`harness speculate`: what a draft model, which guesses ahead, brings to a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from harness.cli.options import (
    Number,
    Read,
    WholeNumber,
    complete_models,
    context_option,
    max_time_option,
    one_reference,
    one_value,
    repetitions_option,
    results_option,
    save_option,
    seed_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import displayed, end, open_session
from harness.records.speculation import MOST_DRAFTED
from harness.spec import MAX_TOKENS, whole_numbers

_EXAMPLES = """
\b
Examples:
  harness speculate -m llama3.1:8b:q4_0 --draft llama3.2:1b:q4_0
  harness speculate -m big.gguf --draft small.gguf --n-draft 3 --p-min 0.5
  harness speculate -m big.gguf --draft ngram --text report.md
  harness speculate                             smollm2:135m drafts for itself
  harness speculate -m synth:qwen3:1.7b:q8_0 --draft synth:qwen3:0.6b:q4_0
"""

_read_lengths = whole_numbers(1, MOST_DRAFTED)

#: The fields of `RunSpec` that both models share.
_SHARED = ("n_gpu_layers", "n_threads", "n_cpu_moe", "flash_attn", "type_k", "type_v")


def _read_draft_lengths(text: str) -> tuple[int, ...] | None:
    return None if text == "auto" else _read_lengths(text)


@click.command("speculate", epilog=_EXAMPLES)
@one_reference()
@click.option(
    "-md",
    "--draft",
    "--model-draft",
    metavar="REF",
    shell_complete=complete_models,
    help="The small model that guesses, as -m; ngram: the text so far is looked up. [the model itself]",
)
@click.option(
    "--n-draft",
    "--spec-draft-n-max",
    "lengths",
    type=Read(_read_draft_lengths, "N|auto"),
    metavar="N|auto",
    help=f"Tokens of a draft, 1 to {MOST_DRAFTED}: a number, a list, a range; auto: tries several. [auto]",
)
@click.option(
    "--n-draft-min",
    "--spec-draft-n-min",
    "n_min",
    type=WholeNumber(0, MOST_DRAFTED),
    default=0,
    metavar="N",
    help="A draft of fewer tokens is not used. [0]",
)
@click.option(
    "--p-min",
    "--spec-draft-p-min",
    "p_min",
    type=Number(0, 1),
    default=0.0,
    metavar="P",
    help="A draft ends before a token that the small model gives less than P. [0]",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="FILE|PROMPT",
    help="What to go on from: a prompt, or pieces of a file; several are written by turns. [three prompts]",
)
@click.option("--raw", is_flag=True, help="Hand the prompt over without the chat template.")
@click.option(
    "-n",
    "--n-gen",
    "n_tokens",
    type=WholeNumber(1, MAX_TOKENS),
    default=32,
    metavar="N",
    help="Tokens of each text. [32]",
)
@context_option(least=8)
@repetitions_option("rounds")
@max_time_option
@one_value("n_gpu_layers")
@click.option(
    "-ngld",
    "--n-gpu-layers-draft",
    "draft_layers",
    type=WholeNumber(-1, 999),
    metavar="N",
    help="Layers of the small model to put on the GPU. [as -ngl]",
)
@one_value("n_threads")
@one_value("n_cpu_moe")
@one_value("flash_attn")
@one_value("type_k")
@one_value("type_v")
@seed_option
@output_options()
@save_option
@results_option
def command(reference: str | None, draft: str | None, texts: Sequence[str], output: Output, **options: Any) -> None:
    """Measure speculative decoding: how many guesses of a small model are right, and how much faster the text comes.

    Texts are written with drafts of several lengths and without one, by turns, greedily, so that all of them should be the same.
    Acceptance, speed and the best length are shown, what a step costs, and how often a draft must be right to pay.
    """
    from harness.runs.speculate import LENGTHS, measure_speculation, plan_speculation
    from harness.views.speculate import describe_speculation

    lengths = options["lengths"]
    manner = {name: options[name] for name in ("n_min", "p_min", "n_tokens", "rounds", "max_time_s", "seed")}
    shared = {name: options[name] for name in _SHARED}
    own = {} if options["draft_layers"] is None else {"n_gpu_layers": options["draft_layers"]}
    with displayed() as on_event:
        plan = plan_speculation(
            reference, draft, texts, shared, on_event, draft_settings=own, n_ctx=options["n_ctx"], raw=options["raw"],
            lengths=LENGTHS if lengths is None else tuple(sorted(set(lengths))), is_screened=lengths is None, **manner,
        )  # fmt: skip
    with open_session("speculate", options) as session:
        record = measure_speculation(plan, session)
    if record is not None:
        show(describe_speculation(record), output)
    end(session, with_failure=True)
