"""How far a number may be believed, and why not further."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from harness.records.cautions import Caution


class Trust(str, enum.Enum):
    """quiet: nothing disturbed it. noisy: it holds, but less closely than its digits say. not-to-be-trusted: measure again."""

    QUIET = "quiet"
    NOISY = "noisy"
    NOT_TRUSTED = "not-to-be-trusted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far what was measured may be believed. Each reason is a caution; one with `distrust` forbids to believe it."""

    trust: Trust
    reasons: tuple[Caution, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[Caution]) -> Verdict:
        """The verdict that reasons come to: none is quiet, one that is grave is not to be trusted. The gravest come first."""
        found = tuple(sorted(dict.fromkeys(reasons), key=lambda reason: not reason.distrust))
        if not found:
            return QUIET
        return cls(Trust.NOT_TRUSTED if found[0].distrust else Trust.NOISY, found)


#: Nothing disturbed it.
QUIET = Verdict(Trust.QUIET)
