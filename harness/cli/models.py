"""`harness models`: the catalog, and what of it is here."""

from __future__ import annotations

import pathlib

import click

from harness.catalog import Catalog, Entry
from harness.cli import terminal
from harness.cli.options import refuse_contradiction
from harness.cli.output import Output, output_options, show
from harness.cli.progress import end_with
from harness.errors import Outcome, UsageError
from harness.views.models import Row, describe_check, describe_local, describe_models

_EXAMPLES = """
\b
Examples:
  harness models                      every name that -m takes
  harness models -o json
  harness models --catalog mine.toml  with entries of your own
  harness models --local              whatever is on this disk already
  harness models --check              are these files at the hub?
  harness models --prune              free the space of synthetic files
"""


@click.command("models", epilog=_EXAMPLES)
@click.option(
    "--catalog", "extra", type=click.Path(path_type=pathlib.Path), metavar="FILE", help="Lay this catalog over."
)
@output_options()
@click.option(
    "--local", is_flag=True, help="List the models on this disk: Hugging Face's, llama.cpp's, LM Studio's, Ollama's."
)
@click.option("--check", is_flag=True, help="Ask the hub for each file's existence, size and SHA-256.")
@click.option("--prune", is_flag=True, help="Delete synthetic files and files from addresses, after asking.")
def command(extra: pathlib.Path | None, output: Output, local: bool, check: bool, prune: bool) -> None:
    """List the catalog: names, quantizations, sizes, what is on disk and what fits this machine's memory.

    --check ends with exit code 1 if anything at the hub is not as the catalog says.
    """
    from harness.sources.user_catalog import load_catalog

    refuse_contradiction(
        local + check + prune > 1, "--local, --check and --prune are different things; give one of them"
    )
    if prune:
        _prune()
    elif local:
        _list_local(output)
    elif check:
        _check(load_catalog(extra), output)
    else:
        rows = _rows(load_catalog(extra))
        show(describe_models(rows), output)


def _rows(catalog: Catalog) -> list[Row]:
    from harness.host.memory import total_memory_bytes
    from harness.sources.synthetic import default_cache_dir, list_synthetic

    memory_bytes = total_memory_bytes()
    synthetic = {(item.name, item.quantization): item.size_bytes for item in list_synthetic(default_cache_dir())}
    rows = []
    for entry in catalog.entries.values():
        names = [*filter(None, [entry.embedded]), *(files.quantization for files in entry.files)]
        names += [kind for name, kind in synthetic if name == entry.name and kind not in names]
        # Where no file is known of what Ollama's name stood for, there still is its size.
        names += [kind for kind in [entry.ollama_2024] if kind and kind not in names]
        for quantization in names or ["Q4_0"]:
            rows.append(_row(entry, quantization, synthetic.get((entry.name, quantization)), memory_bytes))
    return rows


def _row(entry: Entry, quantization: str, synthetic_bytes: int | None, memory_bytes: int) -> Row:
    files = next((files for files in entry.files if files.quantization == quantization), None)
    found = _find(entry, quantization)
    known = sum(path.stat().st_size for path in found) if found else None
    known = known or (files.size_bytes if files else None) or synthetic_bytes
    size_bytes = known or _compute_size(entry, quantization)
    place = "embedded" if quantization == entry.embedded else "downloaded"
    return Row(
        entry.name,
        entry.parameters,
        quantization,
        size_bytes,
        is_computed=known is None,
        place=place if found else "synthetic" if synthetic_bytes else "",
        fits=None if size_bytes is None else size_bytes < memory_bytes,
        refused=entry.refused,
        has_file=files is not None or quantization == entry.embedded,
        is_usual=quantization == entry.ollama_2024,
        verified=files.verified if files else None,
    )


def _compute_size(entry: Entry, quantization: str) -> int | None:
    """The size of all tensors, from the shape; None where the layout of the architecture is not known."""
    from harness.gguf.layout import tensor_table

    try:
        return sum(tensor.size_bytes for tensor in tensor_table(entry.shape, quantization))
    except UsageError:
        return None


def _find(entry: Entry, quantization: str) -> list[pathlib.Path] | None:
    from harness.sources.catalog_reference import CatalogReference

    try:
        return CatalogReference(entry, quantization).find_all()
    except UsageError:
        return None


def _list_local(output: Output) -> None:
    from harness.sources.local import list_local

    show(describe_local(list_local()), output)


def _check(catalog: Catalog, output: Output) -> None:
    from harness.sources.catalog_check import check_catalog

    verdicts = list(check_catalog(catalog))
    show(describe_check(verdicts), output)
    if any(verdict.problems for verdict in verdicts):
        end_with(Outcome.OTHER)


def _prune() -> None:
    from harness.sources.downloads import downloads_dir, list_downloads
    from harness.sources.synthetic import default_cache_dir, list_synthetic
    from harness.units import format_gb

    synthetic = list_synthetic(default_cache_dir())
    found = [(f"{file.name} {file.quantization}", file.path) for file in synthetic]
    found += [("from an address", path) for path in list_downloads(downloads_dir())]
    if not found:
        terminal.show(f"There are no synthetic files and none from addresses in {default_cache_dir().parent}.")
        return
    for what, path in found:
        terminal.show(f"{what}  {format_gb(path.stat().st_size)}  {path}")
    total = sum(path.stat().st_size for _, path in found)
    these = "this file" if len(found) == 1 else f"these {len(found)} files"
    if not terminal.confirm(f"Delete {these} ({format_gb(total)})?"):
        terminal.show("Nothing was deleted.")
        return
    for _, path in found:
        path.unlink(missing_ok=True)
