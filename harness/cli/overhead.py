"""`harness overhead`: where a model's memory goes, predicted from its header and measured in a fresh process."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from harness.cli.ollama_options import find_account, ollama_options
from harness.cli.options import (
    SectionedCommand,
    context_option,
    flatten,
    measured_options,
    one_reference,
    results_option,
    save_option,
    single_axes,
    tuned_option,
    vram_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import displayed, end, open_session
from harness.memory.ollama_2024 import Account
from harness.records.memory import MemoryRecord
from harness.runs.memory import account_memory, find_model, make_request, wants_measuring
from harness.runs.tuned import take_settings
from harness.sources.model_file import DEFAULT_MODEL
from harness.views.document import Document
from harness.views.memory import describe_memory

_EXAMPLES = """
\b
Examples:
  harness overhead                              smollm2:135m at 4096 tokens
  harness overhead -m model.gguf --ctx 8192 -ctk q8_0 -ctv q8_0
  harness overhead -m model.gguf --repack off   without the second copy
  harness overhead -m llama3.1:405b:q4_0 --predict-only --vram 8GB
  harness overhead -m llama3.1:8b:q4_0 --ctx 2048-131072*2
  harness overhead -m llama3.2:1b:q4_0 --ctx 8192 -np 4    of four users
  harness overhead -m llama3.1:8b:q4_0 --ollama-2024 --free-vram 7.6GiB
  harness overhead -m synth:llama3.2:1b:q4_0 --plot ledger.png
"""


class _Overhead(SectionedCommand):
    """With --time it is another command, as it was called before that had a name."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if "--time" in args:
            from harness.cli.token_time import command as token_time

            return token_time.make_context(
                token_time.name, [word for word in args if word != "--time"], parent, **extra
            )
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    "overhead",
    cls=_Overhead,
    sections={
        "Options of the run": measured_options("load", "context", also=("n_parallel",)),
        "What Ollama said in 2024": ollama_options,
    },
    epilog=_EXAMPLES,
)
@one_reference()
@context_option("contexts", least=8, many=True)
@click.option("--predict-only", is_flag=True, help="Load nothing: the header is enough, the weights need not be here.")
@vram_option
@tuned_option
@click.option("--force", is_flag=True, help="Measure although memory will not do.")
@output_options()
@save_option
@results_option
@measured_options("load", "context", also=("n_parallel",))
@ollama_options
def command(reference: str | None, output: Output, **options: Any) -> None:
    """Account for every byte that a model takes: weights, their second copy for this CPU's SIMD, KV cache, buffers, libraries.

    What is predicted from the model's header alone stands beside what a fresh process really took, step by step; what nothing explains
    is a line of its own; several contexts give the table of them, --vram how many layers fit, -np what several users take, each with
    a context of that size. Of a model whose weights are not on this disk only the prediction is shown.
    """
    reference, contexts = reference or DEFAULT_MODEL, flatten(options["contexts"])
    with displayed() as on_event:
        weights = wants_measuring(options["predict_only"], contexts)
        model = find_model(reference, weights=weights, on_event=on_event)
        settings = single_axes(options)
        if options["takes_tuned"]:
            settings |= take_settings(model.path, settings, on_event)
    account = find_account(model.header, options)
    wanted = {name: options[name] for name in ("predict_only", "vram_bytes", "force")}
    request = make_request(model, contexts, settings, **wanted)
    with open_session("overhead", {**options, "save": options["save"] and request.is_measured}) as session:
        record = account_memory(request, session)
    show(_describe(record, account), output)
    end(session)


def _describe(record: MemoryRecord, account: Account | None) -> Document:
    """The ledger, with Ollama's account behind it where it was asked for."""
    if account is None:
        return describe_memory(record)
    from harness.views.ollama_2024 import describe_account, ollama_parts

    model = record.model
    told = describe_account(account, model.label, file_bytes=model.file_bytes, synthetic=model.is_synthetic)
    document = describe_memory(record, others={"Ollama's SIZE, 2024": ollama_parts(account)})
    data = {**document.data, **told.data}
    return dataclasses.replace(document, sections=[*document.sections, *told.sections], data=data)
