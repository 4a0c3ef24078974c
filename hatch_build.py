"""What a package index shows of the README: the same text, without links to files that are not there.

The index knows neither the repository's folders nor its pictures, and there is no address to send readers to: what is linked stays as
words, and a picture is left out. `pip` runs this while it builds.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: ``[words](docs/page.md#part)``, and the same behind an exclamation mark; what begins with a scheme or ``#`` is an address that works.
_PICTURE = re.compile(r"^!\[[^\]]*\]\((?![a-z]+://)[^)]*\)\n+", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+://|#)[^)]*\)")


def describe_for_index(readme: str) -> str:
    """The README without pictures and with the words alone of links into the repository."""
    return _LINK.sub(r"\1", _PICTURE.sub("", readme))


class ReadmeHook(MetadataHookInterface):
    """Sets the long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling, for a wheel, an sdist and an editable install alike."""
        text = (pathlib.Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": describe_for_index(text)}
