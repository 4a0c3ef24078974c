"""Figures as SVG elements that can stand in a page beside each other."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from harness.views.figures.style import THEMES, to_bytes

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"

#: What matplotlib draws with; anything else does not get onto the page.
_ELEMENTS = {
    "svg", "defs", "style", "g", "path", "clipPath", "rect", "use", "text", "tspan", "image", "linearGradient", "stop", "circle",
}  # fmt: skip


def to_svg(figure: Any, prefix: str) -> str:
    """Draw a figure as one ``<svg>`` element whose ids begin with `prefix`; without comments, prolog and metadata.

    A figure in the theme ``page`` takes the colours of the page, whichever they are: its variables back, ink and line.

    Raises
    ------
    ValueError : the drawing holds something that is no drawing.
    """
    root = ElementTree.fromstring(to_bytes(figure, "svg"))
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == f"{{{_SVG}}}metadata"]:
            parent.remove(child)
    for element in root.iter():
        name = str(element.tag).removeprefix(f"{{{_SVG}}}")
        if name not in _ELEMENTS:
            raise ValueError(f"a drawing with a {name} element")
        for key, value in element.attrib.items():
            element.set(key, _prefix_ids(key, _take_colours(value), prefix))
    root.set("role", "img")
    root.attrib.pop("width", None)  # the page sets it
    root.attrib.pop("height", None)
    return ElementTree.tostring(root, encoding="unicode")


def _take_colours(value: str) -> str:
    theme = THEMES["page"]
    for colour, name in ((theme.background, "back"), (theme.ink, "ink"), (theme.grid, "line")):
        value = value.replace(colour, f"var(--{name})")
    return value


def _prefix_ids(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if key in ("href", f"{{{_XLINK}}}href"):
        return re.sub(r"^#", f"#{prefix}", value)
    return value.replace("url(#", f"url(#{prefix}")
