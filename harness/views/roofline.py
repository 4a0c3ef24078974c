"""A machine's roof, and what was measured under it, as a table of 80 columns or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.gguf.cost import prompt_roof_tok_per_s, roof_tok_per_s
from harness.records.cells import record_key
from harness.records.roofline import ARITHMETIC, READING, SECOND_METHOD, Roof, RoofTest
from harness.spec import find_varied
from harness.speed.rates import Measured
from harness.units import format_gb, format_mib, format_rate
from harness.untrusted import harmless
from harness.views import page
from harness.views.figures.style import PALETTE, add_legend, new_figure, set_log, set_title
from harness.views.settings import format_settings

#: Above this share of the roof it is the roof that is wrong.
TOO_MUCH = 1.05

_TITLES = {READING: "reading (ggml, matrix × vector)", ARITHMETIC: "multiplying (ggml, matrix × matrix)"}


@dataclass(frozen=True, slots=True)
class UnderRoof:
    """One record against the roof of its device: bytes and operations a token, its rate, and the rate that the roof allows.

    settings tells it from the others of its test; n_prompt is 0 where text was generated.
    """

    model: str
    quantization: str
    is_synthetic: bool
    machine: str
    test: str
    n_threads: int | None
    rate_tok_per_s: float
    bytes_per_token: float
    flops_per_token: float
    roof_tok_per_s: float
    settings: tuple[str, ...] = ()
    n_prompt: int = 0

    @property
    def share(self) -> float:
        return self.rate_tok_per_s / self.roof_tok_per_s


def hold_against(measured: Sequence[Measured], roof: Roof) -> list[UnderRoof]:
    """Hold the generations and prompts of known models against a roof; the latest record of each cell."""
    found: dict[tuple[Any, ...], UnderRoof] = {}
    shown = ("n_threads", "n_depth", "n_gpu_layers")
    settings = [name for name in find_varied(item.record.asked for item in measured) if name not in shown]
    for item in measured:
        device = _find_device(item, roof)
        cost = item.cost()
        if device is None or cost is None or item.test_kind == "pp+tg":
            continue
        best = roof.best(READING if item.test_kind == "tg" else ARITHMETIC, device)
        if best is None:
            continue
        depth = item.mean_depth
        limit = (
            roof_tok_per_s(cost, best.rate_per_s, depth)
            if item.test_kind == "tg"
            else prompt_roof_tok_per_s(cost, best.rate_per_s, round(2 * depth))
        )
        resolved = item.record.resolved
        threads = resolved.n_threads if resolved and item.kind == "cpu" else None
        asked = item.record.asked
        found[item.machine_label, record_key(item.record)] = UnderRoof(
            model=item.model,
            quantization=item.quantization or "?",
            is_synthetic=item.is_synthetic,
            machine=item.machine_label,
            test=asked.test,
            settings=tuple(format_settings(asked, (name,)) for name in settings),
            n_prompt=asked.n_prompt,
            n_threads=threads,
            rate_tok_per_s=item.summary.rate_tok_per_s,
            bytes_per_token=cost.bytes_per_token(depth),
            flops_per_token=cost.flops_per_token(depth),
            roof_tok_per_s=limit,
        )
    return list(found.values())


def _find_device(item: Measured, roof: Roof) -> str | None:
    for test in roof.tests:
        if test.work == READING and (
            test.kind == "cpu" if item.kind == "cpu" else test.description == item.machine_label
        ):
            return test.device
    return None


def render_roofline(roof: Roof, under: Sequence[UnderRoof]) -> str:
    """Both roofs by device, threads and type; the second method beside them; then each record's share of them."""
    wrong = [test for test in roof.tests if not test.is_right]
    parts = [_describe(roof), ""]
    for work, title in _TITLES.items():
        tests = [test for test in roof.tests if test.work == work]
        if tests:
            parts += [f"{title}:", _tests(tests), ""]
    parts += _second_method(roof)
    if under:
        parts += ["Measured here, against the quickest of them:", _under(under), ""]
        if any(item.is_synthetic for item in under):
            parts += ["* random weights in this model's shape"]
        if any(item.share > TOO_MUCH for item in under):
            text = "! more than the roof: it was measured while the machine was busier; run `harness roofline` again"
            parts += [page.fill(text)]
        parts += [
            page.fill("of roof: t/s against bandwidth / bytes a token (tg), and FLOP/s / operations a token (pp)")
        ]
    else:
        parts += [page.fill("No records of known models here yet; `harness pp-tg` makes some.")]
    parts += [
        page.fill(f"! {test.device} {test.type_name} gives wrong results ({_tell_error(test)})") for test in wrong
    ]
    parts += [page.fill(f"! {caution.text}") for caution in roof.warnings]
    return "\n".join(parts) + "\n"


def _tell_error(test: RoofTest) -> str:
    return "not numbers" if test.max_error is None else f"off by {test.max_error:.2g}"


def _describe(roof: Roof) -> str:
    sizes = [test.n_bytes for test in roof.tests if test.work == READING]
    runs = min((len(test.durations_ns) for test in roof.tests), default=0)
    read = f"matrices of {format_mib(max(sizes))} read" if sizes else "nothing read"
    return page.heading([roof.machine.cpu, read, f"medians of {runs} runs"])


def _tests(tests: Sequence[RoofTest]) -> str:
    unit = "GFLOP/s" if tests[0].work == ARITHMETIC else "GB/s"
    rows = []
    for test in tests:
        interval = test.interval
        rows.append(
            {
                "device": test.device if test.kind == "cpu" else f"{test.device} {test.description}",
                "type": test.type_name + (" repacked" if test.is_repacked else ""),
                "threads": "—" if test.n_threads is None else str(test.n_threads),
                unit: f"{test.rate_per_s / 1e9:.2f}",
                "95 % interval": f"{interval.low / 1e9:.2f} – {interval.high / 1e9:.2f}" if interval else "—",
                "result": "right" if test.is_right else "WRONG",
            }
        )
    return page.table(rows, "llrrrl")


def _second_method(roof: Roof) -> list[str]:
    """What numpy reads with as many threads, and the ratio."""
    lines = []
    for test in roof.tests:
        if test.work != SECOND_METHOD:
            continue
        same = [t for t in roof.tests if t.work == READING and t.kind == "cpu" and t.n_threads == test.n_threads]
        if same:
            best = max(same, key=lambda t: t.rate_per_s)
            lines.append(
                page.fill(
                    f"numpy.max with {test.n_threads} thread{'s' * (test.n_threads != 1)}: {test.rate_per_s / 1e9:.2f} GB/s; "
                    f"ggml's best is {best.rate_per_s / test.rate_per_s:.2f} times that"
                )
            )
    return [*lines, ""] if lines else []


def _under(under: Sequence[UnderRoof]) -> str:
    rows = []
    for item in under:
        is_tg = not item.n_prompt
        used = (item.bytes_per_token if is_tg else item.flops_per_token) * item.rate_tok_per_s
        rows.append(
            {
                "model": f"{item.model} {item.quantization}{'*' if item.is_synthetic else ''}",
                "test": "\n".join((item.test, *item.settings)),
                "thr.": "—" if item.n_threads is None else str(item.n_threads),
                "t/s": format_rate(item.rate_tok_per_s),
                "a token": format_gb(round(item.bytes_per_token))
                if is_tg
                else f"{item.flops_per_token / 1e9:.2f} GFLOP",
                "used a s": f"{used / 1e9:.1f} {'GB' if is_tg else 'GFLOP'}",
                "of roof": f"{item.share:.0%}",
            }
        )
    return page.table(rows, "llr")


def render_roofline_json(roof: Roof, under: Sequence[UnderRoof]) -> str:
    tests = [{**asdict(test), "rate_per_s": test.rate_per_s, "is_right": test.is_right} for test in roof.tests]
    records = [{**asdict(item), "share_of_roof": item.share} for item in under]
    return harmless.json_text({**asdict(roof), "tests": tests, "records": records}) + "\n"


def draw_roofline(roof: Roof, under: Sequence[UnderRoof], theme: str = "light") -> Any:
    """The roofline itself: operations a second against operations a byte, each device's two roofs, and every record under them."""
    figure, axis = new_figure(8.0, 4.8, theme=theme)
    set_log(axis, "x", subs=(1.0,))
    set_log(axis, "y")
    lows = [item.flops_per_token / item.bytes_per_token for item in under if not item.n_prompt]
    x_low = min([*lows, 1.0]) / 3
    ends = []
    for number, device in enumerate(roof.devices()):
        read, done = roof.best(READING, device), roof.best(ARITHMETIC, device)
        if read is None or done is None:
            continue
        ridge = done.rate_per_s / read.rate_per_s
        x_high = max(ridge, 512) * 8
        ends.append(x_high)
        label = f"{device}: {read.rate_per_s / 1e9:.1f} GB/s, {_scale(done.rate_per_s)}FLOP/s"
        axis.plot(
            [x_low, ridge, x_high],
            [x_low * read.rate_per_s, done.rate_per_s, done.rate_per_s],
            color=PALETTE[number % len(PALETTE)],
            linewidth=2,
            label=label,
        )
    _mark_records(axis, under)
    axis.set_xlabel("operations for each byte of weights read")
    axis.set_ylabel("operations a second")
    set_title(axis, "What was measured, under the machine's roof", theme)
    axis.yaxis.set_major_formatter(lambda value, _: f"{_scale(value)}FLOP/s")
    add_legend(axis, theme=theme, loc="lower right")
    return figure


def _mark_records(axis: Any, under: Sequence[UnderRoof]) -> None:
    """One mark a model and kind of test; prompts share the reading among their tokens."""
    series: dict[tuple[str, bool], list[UnderRoof]] = {}
    for item in under:
        name = f"{item.model} {item.quantization}{'*' if item.is_synthetic else ''}"
        series.setdefault((name, item.n_prompt > 0), []).append(item)
    colours = {
        name: PALETTE[(number + 1) % len(PALETTE)] for number, name in enumerate(dict.fromkeys(k[0] for k in series))
    }
    for (name, is_prompt), items in series.items():
        shared = [max(item.n_prompt, 1) for item in items]
        axis.plot(
            [min(n, 512) * i.flops_per_token / i.bytes_per_token for n, i in zip(shared, items, strict=True)],
            [item.flops_per_token * item.rate_tok_per_s for item in items],
            "s" if is_prompt else "o",
            color=colours[name],
            markersize=7,
            label=f"{name}, {'prompts' if is_prompt else 'generation'}",
        )


def _scale(value: float) -> str:
    for unit, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} "
