"""`harness pull`: bring models to this disk."""

from __future__ import annotations

from collections.abc import Sequence

import click

from harness.cli import terminal
from harness.cli.options import complete_models, reference_options
from harness.cli.progress import displayed
from harness.errors import UsageError
from harness.units import format_gb

_EXAMPLES = """
\b
Examples:
  harness pull llama3.2:1b                      as Ollama's name means it
  harness pull llama3.2:1b:q4_0 qwen2.5:0.5b
  harness pull -hf owner/repository:Q4_K_M
  harness pull hf:owner/repository/file.gguf
  HF_HOME=/mnt/disk harness pull llama3.1:8b    into another cache
"""


@click.command("pull", epilog=_EXAMPLES)
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=complete_models)
@reference_options("The same as NAME.", argument="names")
def command(models: Sequence[str]) -> None:
    """Download models: names of the catalog, hf:OWNER/REPO[:QUANT], hf:OWNER/REPO/FILE or addresses; all files of split ones.

    They go into Hugging Face's own cache (HF_HOME), where other programs find them. What stopped half-way goes on when the same
    command runs again; every file is checked against the hub's SHA-256 before it gets its name.
    """
    from harness.sources.references import parse_reference

    if not models:
        raise UsageError("name a model to pull, such as `harness pull llama3.2:1b`; `harness models` lists them")
    for text in models:
        reference = parse_reference(text)
        with displayed() as on_event:
            paths = reference.pull(on_event)
        size_bytes = sum(path.stat().st_size for path in paths)
        files = f"  {len(paths)} files" if len(paths) > 1 else ""
        terminal.show(f"{paths[0]}  {format_gb(size_bytes)}{files}")
