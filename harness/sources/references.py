"""What `-m` means. A new kind of source is a class of `Reference` in a module of its own, and its line in `KINDS`."""

from __future__ import annotations

import re

from harness.errors import UsageError
from harness.sources.catalog_reference import CatalogReference
from harness.sources.choice import explain_byte_split, is_byte_split
from harness.sources.hub_reference import HubReference
from harness.sources.model_file import is_here
from harness.sources.ollama_reference import OllamaReference
from harness.sources.path_reference import PathReference
from harness.sources.reference import Reference, show_reference
from harness.sources.synthetic_reference import SyntheticReference
from harness.sources.url_reference import UrlReference

#: The first kind that knows what was typed takes it; a name that no other has is the catalog's.
KINDS: tuple[type[Reference], ...] = (
    SyntheticReference,
    HubReference,
    OllamaReference,
    UrlReference,
    PathReference,
    CatalogReference,
)


def parse_reference(text: str) -> Reference:
    """Read what the user named, without asking any other machine.

    Raises
    ------
    UsageError : it is of no known form, or no model of the catalog, with the nearest names.
    """
    if not text.strip():
        raise UsageError("-m names nothing; give a file, or a name that `harness models` lists.")
    scheme = re.match(r"(?!https?:|hf:)([a-z][a-z0-9+.-]*)://", text, re.IGNORECASE)
    if scheme is not None:
        raise UsageError(f"{scheme[0]} is no address that harness fetches; give a path, hf:… or https://….")
    if is_byte_split(text.partition("?")[0]) and not is_here(text):
        raise UsageError(f"{explain_byte_split(show_reference(text))}.")
    return next(reference for kind in KINDS if (reference := kind.parse(text)) is not None)
