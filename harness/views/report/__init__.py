"""The report: records of any kind in, one self-contained HTML page out."""

from __future__ import annotations

from harness.views.render_html import Chapter, render_page
from harness.views.report.chapters import CHAPTERS
from harness.views.report.material import Material, read_material

__all__ = ["Material", "read_material", "render_report"]


def render_report(material: Material) -> str:
    """Make the page of everything that the material holds."""
    chapters = [Chapter(title, found) for title, (make, _) in CHAPTERS.items() if (found := make(material))]
    machines = material.machines
    where = machines[0].cpu if len(machines) == 1 else f"{len(machines)} machines"
    about = f"Made by harness {material.harness_version} on {material.made_utc}. A column sorts when its heading is clicked."
    return render_page(f"Language models on {where}", chapters, about)
