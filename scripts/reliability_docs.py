"""Write the table of docs/reliability.md from what the scripts left in bench_results/reliability."""

from __future__ import annotations

import pathlib

from figure_tables import fill, list_figures
from figures import RELIABILITY, RELIABILITY_FOLDER, ROOT, read

PAGE = ROOT / "docs" / "reliability.md"


def render(text: str, folder: pathlib.Path = RELIABILITY_FOLDER) -> str:
    """The page with its table."""
    return fill(text, {"figures": list_figures(read(folder), RELIABILITY)})


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
