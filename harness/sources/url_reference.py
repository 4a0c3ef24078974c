"""``https://…/model.gguf``: a file at an address, kept in harness's own cache once it was fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.events import OnEvent, ignore
from harness.sources.addresses import split_url
from harness.sources.choice import is_gguf
from harness.sources.headers import Found, read_remote
from harness.sources.looking import is_there
from harness.sources.model_file import open_model
from harness.sources.reference import Reference, show_reference


@dataclass(frozen=True, slots=True)
class UrlReference(Reference):
    """A GGUF file anywhere; the address may hold a signature and is shown without it."""

    url: str
    is_free = True

    @classmethod
    def parse(cls, text: str) -> UrlReference | None:
        if not text.lower().startswith(("https://", "http://")):
            return None
        parts = split_url(text)
        if not parts.hostname or not is_gguf(parts.path):
            raise UsageError(f"{show_reference(text)} is not the address of a GGUF file; it should end with .gguf.")
        return cls(text, text=text)

    def find(self, on_event: OnEvent = ignore) -> Path | None:
        from harness.sources.downloads import downloads_dir, list_part_urls, place_of

        paths = [place_of(part, downloads_dir()) for part in list_part_urls(self.url)]
        return open_model(paths[0]) if all(map(is_there, paths)) else None

    def open(self, on_event: OnEvent = ignore) -> Path:
        return self.pull(on_event)[0]

    def pull(self, on_event: OnEvent = ignore) -> list[Path]:
        from harness.sources.downloads import downloads_dir, fetch, list_part_urls

        return [fetch(part, downloads_dir(), on_event, self.shown) for part in list_part_urls(self.url)]

    def _read_afar(self, on_event: OnEvent) -> Found:
        from harness.sources.downloads import list_part_urls, open_url

        urls = list_part_urls(self.url)
        return read_remote([show_reference(url) for url in urls], [open_url(url) for url in urls])
