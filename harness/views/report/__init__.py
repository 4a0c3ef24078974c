"""The report: records of any kind in, one self-contained HTML page out."""

from __future__ import annotations

from harness.views.report.material import Material, read_material
from harness.views.report.page import render_page
from harness.views.report.parts import Section
from harness.views.report.sections import SECTIONS

__all__ = ["Material", "read_material", "render_report"]


def render_report(material: Material) -> str:
    """Make the page of everything that the material holds."""
    sections = [Section(title, parts) for title, (make, _) in SECTIONS.items() if (parts := make(material))]
    machines = material.machines
    where = machines[0].cpu if len(machines) == 1 else f"{len(machines)} machines"
    return render_page(
        f"Language models on {where}", sections, made_utc=material.made_utc, version=material.harness_version
    )
