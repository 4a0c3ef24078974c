"""Measurements in the Go benchmark format, which Go's benchstat reads: a line a repetition.

Source: https://go.dev/design/14313-benchmark-format, and golang.org/x/perf/benchfmt, which reads it. A line is a name without blanks, a
number of iterations, then values with their units; what follows the last dash of a name is the number of threads. ``key: value`` lines
hold for what follows them; ``Unit`` lines say which way is better.

`benchstat -col side FILE` sets the sides of one file side by side; each side in a file of its own is `benchstat FILE FILE`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.records.measurements import MACHINE, MODEL, Evidence, Measurement, Subject
from harness.spec import defaults, name_test, parameters
from harness.speed.comparison import Side, show_facet
from harness.speed.model_names import name_stem
from harness.units import NS_PER_S
from harness.untrusted import harmless
from harness.views.compare import name_side
from harness.views.settings import format_setting

_UNITS = "Unit tok/s better=higher\nUnit ns/op better=lower\n"


def render_benchstat(sides: Sequence[Side]) -> str:
    """Every repetition of every side; of what is known by its mean alone one line, with as many iterations as it is of."""
    everything = [one for side in sides for one in side.measurements]
    agreed = {
        key: values.pop() for key in ("cpu", "commit") if len(values := {_config(one)[key] for one in everything}) == 1
    }
    text = [_UNITS, *(f"{key}: {value}\n" for key, value in agreed.items() if value)]
    for side in sides:
        if len(sides) > 1:
            text.append(f"side: {harmless.line(name_side(side))}\n")
        names: dict[int, str] = {}
        for one in side.measurements:
            place = id(one.subject)
            if place not in names:
                names[place] = _name(one.subject, [name for name, _ in side.values])
            text += _lines(names[place], one)
    return "".join(text)


def _config(one: Measurement) -> dict[str, str]:
    return {"cpu": harmless.line(str(show_facet(one.subject, MACHINE))), "commit": harmless.line(one.subject.commit)}


def _name(subject: Subject, by: Sequence[str]) -> str:
    """The benchmark's name: the test, the model, every setting that is not as usual, and the threads; without what the sides are by."""
    spec, usual = subject.spec, defaults()
    parts = [f"Benchmark{name_test(spec.n_prompt, spec.n_gen).capitalize()}"]
    parts += [] if MODEL in by else [f"model={_word(name_stem(spec.file_name))}"]
    parts += [f"depth={spec.n_depth}"] if spec.n_depth and "n_depth" not in by else []
    for name in parameters():
        value = getattr(spec, name)
        if name not in (*by, "n_threads", "n_depth") and value != usual[name]:
            parts.append(f"{name}={_word(format_setting(value))}")
    threads = f"-{spec.n_threads}" if spec.n_threads and spec.n_threads > 1 and "n_threads" not in by else ""
    return "/".join(parts) + threads


def _word(text: str) -> str:
    """Text without blanks and slashes, and without a dash before digits at its end, which would be threads."""
    return re.sub(r"[\s/]+", "_", harmless.line(text)).replace("-", "_") or "none"


def _lines(name: str, one: Measurement) -> list[str]:
    tokens = one.subject.spec.n_tokens
    if one.evidence is Evidence.SAMPLES:
        return [
            f"{name} 1 {duration} ns/op {tokens * NS_PER_S / duration:.6f} tok/s\n" for duration in one.durations_ns
        ]
    return [f"{name} {one.n or 1} {one.centre_ns:.0f} ns/op {tokens * NS_PER_S / one.centre_ns:.6f} tok/s\n"]
