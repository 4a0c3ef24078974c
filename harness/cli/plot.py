"""`harness plot`: pictures of what was published and what was measured."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from harness.catalog import Catalog
from harness.cli.journals import files_argument, read_measured
from harness.cli.options import published_option, results_option
from harness.cli.picture import check_picture_path, theme_option, write_picture
from harness.cli.terminal import echo_error
from harness.errors import UsageError
from harness.records.journal import find_journals, read_records
from harness.speed.rates import Measured
from harness.speed.standings import MachineRow

_EXAMPLES = """
\b
Examples:
  harness plot machines -o machines.png
  harness plot size -o size.svg --theme dark
  harness plot bandwidth -o bandwidth.png
  harness plot depth -o depth.png bench_results/
  harness plot history -o history.png
  harness plot ledger -o ledger.png             the latest harness overhead
  harness plot layers -o layers.png             the last harness sweep
"""


@dataclass(frozen=True)
class Material:
    """What a picture may be made of: the journals that were meant, and the records in them with their models."""

    journals: Sequence[pathlib.Path]
    catalog: Catalog
    published: bool

    @functools.cached_property
    def measured(self) -> Sequence[Measured]:
        """Every record with a number, read when a picture asks for it."""
        return read_measured(self.journals, self.catalog)


def _rows(material: Material) -> list[MachineRow]:
    from harness.speed.standings import measured_rows, published_rows, sort_rows

    rows = published_rows(material.catalog) if material.published else []
    return sort_rows([*rows, *measured_rows(material.measured, "tg")])


def _draw_machines(material: Material, theme: str) -> Any:
    from harness.views.figures.speed import draw_machines

    return draw_machines(_rows(material), "tg", theme)


def _draw_size(material: Material, theme: str) -> Any:
    from harness.errors import HarnessError
    from harness.gguf.cost import cost_of_shape
    from harness.views.figures.speed import draw_sizes

    rows = _rows(material)
    sizes: dict[tuple[str, str | None], int] = {}
    for model, quantization in {(name, cell.quantization) for row in rows for name, cell in row.cells.items()}:
        entry = material.catalog.entries.get(model)
        if entry is not None and quantization is not None:
            try:
                sizes[model, quantization] = cost_of_shape(entry.shape, quantization).size_bytes
            except HarnessError:
                continue
    sizes |= {(i.model, i.quantization): i.record.model.size_bytes for i in material.measured if i.record.model}
    return draw_sizes(rows, sizes, theme)


def _draw_bandwidth(material: Material, theme: str) -> Any:
    from harness.gguf.cost import cost_of_shape
    from harness.speed.published import LLAMA_7B, load_apple_chips, load_bandwidths, load_machines
    from harness.views.figures.speed import Mark, draw_bandwidth

    costs = {kind: cost_of_shape(LLAMA_7B, kind) for kind in ("Q4_0", "Q8_0", "F16")}
    others = [
        Mark(machine.name, load_bandwidths()[machine.name].bandwidth_bytes_per_s, rate)
        for machine in load_machines()
        if machine.kind == "gpu" and (rate := machine.rates_tok_per_s["llama3.1:8b"])
    ]
    return draw_bandwidth(load_apple_chips(), costs, others, theme)


def _draw_accuracy(material: Material, theme: str) -> Any:
    from harness.speed.published import load_accuracy
    from harness.views.figures.speed import draw_accuracy

    return draw_accuracy(load_accuracy(), theme)


def _draw_depth(material: Material, theme: str) -> Any:
    from harness.views.figures.speed import draw_depth

    return draw_depth(material.measured, theme)


def _draw_history(material: Material, theme: str) -> Any:
    from harness.views.figures.speed import draw_history

    return draw_history(material.measured, theme)


def _draw_ledger(material: Material, theme: str) -> Any:
    """The latest memory ledger that was kept."""
    from harness.errors import UsageError
    from harness.records.journal import read_lines
    from harness.records.memory import MemoryRecord
    from harness.views.figures.memory import draw_ledger

    lines = read_lines(material.journals, echo_error, ("overhead",))
    ledgers = [line.content for line in lines if isinstance(line.content, MemoryRecord)]
    if not ledgers:
        raise UsageError("No memory ledger was kept; run `harness overhead` first.")
    return draw_ledger(ledgers[-1], theme=theme)


def _draw_layers(material: Material, theme: str) -> Any:
    from harness.records.placements import collect_results
    from harness.views.figures.placements import draw_layers

    journals = [
        [record for record in read_records([path], echo_error) if record.command == "sweep"]
        for path in material.journals
    ]
    sweeps = [records for records in journals if any(record.timed for record in records)]
    if not sweeps:
        raise UsageError("No sweep over layers was found in the journals; run `harness sweep` first.")
    records = sweeps[-1]
    last = next(record for record in reversed(records) if record.timed)
    devices = [item.name for item in last.build.devices if item.kind in ("gpu", "igpu")] if last.build else []
    synthetic = " (synthetic)" if last.model and last.model.is_synthetic else ""
    name = pathlib.PurePath(last.asked.model).name + synthetic
    return draw_layers(collect_results(records), f"{name} · {', '.join(devices) or 'CPU only'}", theme=theme)


@dataclass(frozen=True, slots=True)
class Kind:
    """A picture: what it shows, for the help, and what makes it out of the material, in a theme."""

    what: str
    draw: Callable[[Material, str], Any]


#: Every picture. A new kind is one line here.
KINDS: dict[str, Kind] = {
    "machines": Kind("speed by machine", _draw_machines),
    "size": Kind("speed against size", _draw_size),
    "bandwidth": Kind("prompts and generation against it, Apple's line", _draw_bandwidth),
    "accuracy": Kind("published scores by model", _draw_accuracy),
    "depth": Kind("speed against a filled cache", _draw_depth),
    "history": Kind("speed over time", _draw_history),
    "ledger": Kind("where the memory goes, by the latest harness overhead", _draw_ledger),
    "layers": Kind("speed and memory over the layers on the device, of the last sweep", _draw_layers),
}

_HELP = f"""Draw KIND: {", ".join(f"{name} ({kind.what})" for name, kind in KINDS.items())}.

FILES are journals (.jsonl) or folders of them; without any, all in the results folder.
"""


@click.command(
    "plot",
    help=_HELP,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("kind", type=click.Choice(list(KINDS)), metavar="KIND")
@files_argument
@click.option(
    "-o", "--output", "picture", required=True, type=click.Path(dir_okay=False, path_type=pathlib.Path), metavar="FILE",
    help="Where to draw it: a .png or .svg file.",
)  # fmt: skip
@published_option
@theme_option
@results_option
def command(
    kind: str,
    files: tuple[pathlib.Path, ...],
    picture: pathlib.Path,
    published: bool,
    theme: str,
    results: pathlib.Path,
) -> None:
    from harness.sources.user_catalog import load_catalog

    check_picture_path(picture)
    catalog = load_catalog()
    journals = find_journals(files, results)
    material = Material(journals, catalog, published)
    write_picture(picture, lambda: KINDS[kind].draw(material, theme))
