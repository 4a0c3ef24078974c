"""Pictures by name: of what was published, of one's own records, and those of the report's documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.speed.standings import size_models
from harness.views.document import Document, Picture
from harness.views.figures import speed
from harness.views.report.documents import show_memory
from harness.views.report.material import Material
from harness.views.report.speeds import show_layers, show_users


@dataclass(frozen=True, slots=True)
class Kind:
    """A picture: what it shows, what makes it out of the material, in a theme, and whether that takes records."""

    what: str
    draw: Callable[[Material, str], Any]
    needs_records: bool = True


def _draw_sizes(material: Material, theme: str) -> Any:
    rows = material.standings
    return speed.draw_sizes(rows, size_models(rows, material.measured, material.catalog), theme)


def _last_of(make: Callable[[Material], Sequence[Document]], missing: str) -> Callable[[Material, str], Any]:
    """The last picture in a chapter of the report."""

    def draw(material: Material, theme: str) -> Any:
        pictures = [picture for document in make(material) for picture in document.blocks(Picture)]
        if not pictures:
            raise UsageError(missing)
        return pictures[-1].draw(theme)

    return draw


#: Every picture. A new kind is one line here.
KINDS: dict[str, Kind] = {
    "machines": Kind("speed by machine", lambda material, theme: speed.draw_machines(material.standings, "tg", theme)),
    "size": Kind("speed against size", _draw_sizes),
    "bandwidth": Kind(
        "prompts and generation against it, Apple's line", lambda _, theme: speed.draw_bandwidth(theme), False
    ),
    "accuracy": Kind("published scores by model", lambda _, theme: speed.draw_accuracy(theme), False),
    "depth": Kind("speed against a filled cache", lambda material, theme: speed.draw_depth(material.measured, theme)),
    "history": Kind("speed over time", lambda material, theme: speed.draw_history(material.measured, theme)),
    "users": Kind(
        "speed of all users and of each, over their number",
        _last_of(show_users, "No model was measured with several users; run `harness pp-tg -np 1,2,4,8` first."),
    ),
    "ledger": Kind(
        "where the memory goes, by the latest harness overhead",
        _last_of(show_memory, "No memory ledger was kept; run `harness overhead` first."),
    ),
    "layers": Kind(
        "speed and memory over the layers on the device, of the last sweep",
        _last_of(show_layers, "No sweep over layers was found in the journals; run `harness sweep` first."),
    ),
}
