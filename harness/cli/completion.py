"""What a shell offers when somebody presses Tab: names of models and machines; click offers the rest."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from harness.errors import HarnessError
from harness.untrusted import harmless

#: Journals that say which models were used last.
_LATEST = 5


def complete_models(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Models by name: those measured last, those on this disk, the catalog's; where none is meant, files."""
    prefix = "synth:" if incomplete.startswith("synth:") else ""
    offered = _catalog_names(incomplete.removeprefix(prefix))
    return _offer((prefix + name for name in offered) if prefix else (*_local_names(ctx), *offered), incomplete)


def complete_machines(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Known machines by name, in capitals or not."""
    from harness.sources.user_catalog import load_catalog
    from harness.speed.machines import known_machines

    names = [machine.hardware.name for machine in known_machines(load_catalog())]
    return [CompletionItem(name) for name in names if name.lower().startswith(incomplete.lower())]


def _offer(names: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    # A line end would be a name of its own to the shell; whoever called a model so has to type it.
    names = (name for name in dict.fromkeys(names) if name.startswith(incomplete) and harmless.line(name) == name)
    found = [CompletionItem(name) for name in names]
    return found or [CompletionItem(incomplete, type="file")]


def _local_names(ctx: click.Context) -> list[str]:
    from harness.records.journal import read_lines
    from harness.records.journal_files import find_journals
    from harness.records.kept import summarize_line
    from harness.sources.local import list_local

    try:
        journals = find_journals((), pathlib.Path(ctx.params.get("results") or "bench_results"))[-_LATEST:]
        used = [summarize_line(line).model for line in read_lines(journals, lambda _: None)]
        order = {name: place for place, name in enumerate(reversed(used))}
        local = sorted(list_local(), key=lambda one: order.get(one.path.name if one.path else one.name, len(order)))
        return [one.name for one in local]
    except (HarnessError, OSError):
        return []


def _catalog_names(incomplete: str) -> Iterator[str]:
    """Names of the catalog, and quantizations of the one that is written already."""
    from harness.sources.user_catalog import load_catalog

    try:
        entries = load_catalog().entries.values()
    except HarnessError:
        return
    for entry in entries:
        yield entry.name
        if incomplete.startswith(f"{entry.name}:"):
            yield from (f"{entry.name}:{file.quantization.lower()}" for file in entry.files)


@add_completion_class
class _ColonComplete(BashComplete):
    """bash ends words at colons and equals signs, which names of models hold; it wants to know what follows the last of them only."""

    def get_completion_args(self) -> tuple[list[str], str]:
        words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
        joined = words[:1]
        for before, word in zip(words, words[1:], strict=False):
            if ":" in (word[:1], before[-1:]) or "=" in (word, before):
                joined[-1] += word
            else:
                joined.append(word)
        *args, incomplete = joined[1:] or [""]
        value = incomplete.partition("=")[2] if incomplete.startswith("--") else incomplete
        self._n_known = len(value) - (0 if words[-1] in (":", "=") else len(words[-1]))
        return args, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        value = item.value[max(self._n_known, 0) :]
        if item.type == "plain":  # bash inserts it as it is, once click's script has read half of the backslashes away
            value = re.sub(r"[^\w./:=+,@%-]", r"\\\g<0>", value).replace("\\", "\\\\")
        return f"{item.type},{value}"
