"""What a prompt costs whose beginning is in the cache, beside the same prompt read anew, in a sentence each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from harness.records.cells import record_key
from harness.records.statistics import Digest, speaking
from harness.views.values import DURATION, format_value


def describe_reuse(cells: Sequence[Digest]) -> Iterator[str]:
    """A sentence for each cell with a prefix that was measured beside the whole prompt."""
    for cell in cells:
        asked = cell.record.asked
        if not asked.n_prefix:
            continue
        whole = dataclasses.replace(asked, n_prompt=asked.n_prefix + asked.n_prompt, n_prefix=0)
        key = record_key(dataclasses.replace(cell.record, asked=whole))
        anew = speaking(one for one in cells if record_key(one.record) == key)
        if anew is None:
            continue
        took, took_anew = (format_value(one.summary.median_ns, DURATION) for one in (cell, anew))
        saved = 1 - cell.summary.median_ns / anew.summary.median_ns
        if cell.summary.has_lost_prefix:
            yield (
                f"{asked.test}: {took}, and {took_anew} for {whole.test} from an empty cache: nothing was reused, since "
                "the cache could not go back (windows, or states that cannot be taken back in part)."
            )
        else:
            yield (
                f"{asked.test}: {took} where the cache has the first {asked.n_prefix} tokens, {took_anew} where all is read anew "
                f"({whole.test}): {saved * 100:.0f} % saved."
            )
