"""`harness models`: the catalog, and what of it is here."""

from __future__ import annotations

import pathlib

import click

from harness.catalog import Catalog, Entry
from harness.errors import UsageError
from harness.render.models import Row, render_models, render_models_json

_EXAMPLES = """
\b
Examples:
  harness models                      every name that -m takes
  harness models -o json
  harness models --catalog mine.toml  with entries of your own
  harness models --prune              free the space of synthetic files
"""


@click.command("models", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--catalog", "extra", type=click.Path(path_type=pathlib.Path), metavar="FILE", help="Lay this catalog over."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format. [table]")
@click.option("--prune", is_flag=True, help="Delete the synthetic files in the cache, after asking.")
def command(extra: pathlib.Path | None, output: str, prune: bool) -> None:
    """List the catalog: names, quantizations, sizes, what is on disk and what fits this machine's memory."""
    from harness.references import load_catalog

    if prune:
        _prune()
        return
    rows = _rows(load_catalog(extra))
    click.echo((render_models_json if output == "json" else render_models)(rows), nl=False)


def _rows(catalog: Catalog) -> list[Row]:
    from harness.machine import describe_machine
    from harness.synth import default_cache_dir, list_synthetic

    memory_bytes = describe_machine().memory_bytes
    synthetic = {(item.name, item.quantization): item.size_bytes for item in list_synthetic(default_cache_dir())}
    rows = []
    for entry in catalog.entries.values():
        known = {files.quantization: files.size_bytes for files in entry.files}
        names = [*filter(None, [entry.embedded]), *known]
        names += [quantization for name, quantization in synthetic if name == entry.name and quantization not in names]
        for quantization in names:
            size = known.get(quantization) or synthetic.get((entry.name, quantization))
            computed = None if size else _compute_size(entry, quantization)
            place = _place(entry, quantization) or ("synthetic" if (entry.name, quantization) in synthetic else "")
            total = size or computed
            fits = None if total is None else total < memory_bytes
            rows.append(
                Row(entry.name, entry.parameters, quantization, total, size is None, place, fits, entry.refused)
            )
        if not names:
            rows.append(Row(entry.name, entry.parameters, "—", None, False, "", None, entry.refused))
    return rows


def _compute_size(entry: Entry, quantization: str) -> int | None:
    """The size of all tensors, from the shape; None where the layout of the architecture is not known."""
    from harness.theory.layout import tensor_table

    try:
        return sum(tensor.size_bytes for tensor in tensor_table(entry.shape, quantization))
    except UsageError:
        return None


def _place(entry: Entry, quantization: str) -> str:
    from harness.references import find_on_disk

    try:
        found = find_on_disk(entry, quantization)
    except UsageError:
        return ""
    return "" if found is None else "embedded" if quantization == entry.embedded else "downloaded"


def _prune() -> None:
    from harness.synth import default_cache_dir, list_synthetic
    from harness.units import format_gb

    files = list_synthetic(default_cache_dir())
    if not files:
        click.echo(f"There are no synthetic files in {default_cache_dir()}.")
        return
    for file in files:
        click.echo(f"{file.name} {file.quantization}  {format_gb(file.size_bytes)}  {file.path}")
    click.confirm(f"Delete these {len(files)} files?", abort=True)
    for file in files:
        file.path.unlink(missing_ok=True)
