"""Hold `harness quality` against the llama-perplexity of the same source (started by scripts/perplexity-parity).

The embedded model, the same quantized anew (Q8_0, Q2_K) and its quantized caches read the text that comes with harness, through both.
Perplexities have to agree to four digits, and so have KL divergences once the base's log-probabilities are rounded as llama-perplexity
rounds them; how far the exact ones are from those is kept beside them. What is found is in ``bench_results/quality/``, as it goes.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from harness.codec import encode
from harness.host.cpu import choose_threads
from harness.host.machine import describe_machine
from harness.records.journal import utc_now
from harness.records.quality import QualityRecord
from harness.records.quality_figures import QualityFigures, find_figures
from harness.runs.quality import QualityRequest, measure_quality
from harness.runs.session import Session
from harness.sources.model_file import default_model
from harness.sources.texts import OWN_TEXT
from harness.spec import RunSpec
from harness.views.formats import render
from harness.views.quality import describe_quality

RESULTS = pathlib.Path("bench_results") / "quality"

#: Models that are made of the embedded one: llama.h's LLAMA_FTYPE_MOSTLY_Q8_0 and _Q2_K.
QUANTIZED = {"q8_0": 7, "q2_k": 10}

#: What is held against each other besides the base, the embedded model with an f16 cache: (model, type of keys and values).
VARIANTS = (("embedded", "q8_0"), ("embedded", "q4_0"), ("q8_0", "f16"), ("q2_k", "f16"))

#: How far apart figures may be: as a share of them (four digits), and by what their last printed digit hides.
WITHIN = {"kld_median": 0.02, "kld_90": 0.02}  # ours are in the middle of a bin, theirs between two tokens
FOUR_DIGITS = 1e-4
HIDDEN = {"same_top": 6e-6, "p_diff_rms": 6e-6, "perplexity": 6e-5, "perplexity_error": 6e-6}
SIX_DECIMALS = 6e-7

#: What llama-perplexity prints, and what of ours it is held against: relative unless the bound is of shares.
LINES = {
    "perplexity": r"Mean PPL\(Q\) *: *(\S+)",
    "perplexity_error": r"Mean PPL\(Q\) *: *\S+ ± *(\S+)",
    "log_ratio": r"Mean ln\(PPL\(Q\)/PPL\(base\)\) *: *(\S+)",
    "log_ratio_error": r"Mean ln\(PPL\(Q\)/PPL\(base\)\) *: *\S+ ± *(\S+)",
    "kld": r"Mean +KLD: *(\S+)",
    "kld_error": r"Mean +KLD: *\S+ ± *(\S+)",
    "kld_median": r"Median +KLD: *(\S+)",
    "kld_90": r"90\.0% +KLD: *(\S+)",
    "kld_max": r"Maximum KLD: *(\S+)",
    "p_diff_rms": r"RMS Δp *: *(\S+)",
    "same_top": r"Same top p: *(\S+)",
}


@dataclass(frozen=True)
class Tool:
    """llama-perplexity with what all its runs share."""

    program: str
    n_chunks: int
    n_threads: int

    def run(self, model: pathlib.Path, *options: str) -> str:
        """What it said, in all.

        Raises
        ------
        click.ClickException : it failed.
        """
        shared = ["-f", str(OWN_TEXT), "-c", "512", "-t", str(self.n_threads), "--chunks", str(self.n_chunks)]
        done = subprocess.run(
            [self.program, "-m", str(model), *shared, *options], capture_output=True, text=True, encoding="utf-8"
        )
        if done.returncode:
            raise click.ClickException(f"llama-perplexity failed:\n{done.stderr[-2000:]}")
        return done.stdout + done.stderr


def quantize(source: pathlib.Path, target: pathlib.Path, file_type: int) -> None:
    """Quantize a quantized model once more, in a process of its own: it prints, and may abort."""
    code = (
        "import llama_cpp, sys; p = llama_cpp.llama_model_quantize_default_params(); p.ftype = int(sys.argv[3]); "
        "p.allow_requantize = True; sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(source), str(target), str(file_type)], check=True, capture_output=True
    )


def read_final(said: str) -> dict[str, float]:
    """The perplexity of a run without a base, and its ±."""
    found = re.search(r"Final estimate: PPL = (\S+) \+/- (\S+)", said)
    if found is None:
        raise click.ClickException(f"llama-perplexity gave no final estimate:\n{said[-2000:]}")
    return {"perplexity": float(found[1]), "perplexity_error": float(found[2])}


def read_statistics(said: str) -> dict[str, float]:
    """The figures of a run with a base; shares of 0…1."""
    found = {name: float(match[1]) for name, line in LINES.items() if (match := re.search(line, said))}
    if missing := sorted(set(LINES) - set(found)):
        raise click.ClickException(f"llama-perplexity said nothing of {', '.join(missing)}:\n{said[-2000:]}")
    return found | {name: found[name] / 100 for name in ("p_diff_rms", "same_top")}


def state(figures: QualityFigures) -> dict[str, float]:
    """Ours by the same names."""
    found = {"perplexity": figures.perplexity.value, "perplexity_error": figures.perplexity.error or 0.0}
    apart = figures.departure
    if apart is None:
        return found
    percentiles = dict(apart.kld_percentiles)
    return found | {
        "log_ratio": apart.log_ratio.value, "log_ratio_error": apart.log_ratio.error or 0.0, "kld": apart.kld.value,
        "kld_error": apart.kld.error or 0.0, "kld_median": percentiles[0.5], "kld_90": percentiles[0.9], "kld_max": apart.kld_max,
        "p_diff_rms": apart.p_diff_rms.value, "same_top": apart.same_top.value,
    }  # fmt: skip


def is_equal(name: str, ours: float, theirs: float) -> bool:
    """Whether two figures agree, as far as theirs was printed."""
    return abs(ours - theirs) <= WITHIN.get(name, FOUR_DIGITS) * abs(theirs) + HIDDEN.get(name, SIX_DECIMALS)


def measure(cells: Sequence[RunSpec], base: RunSpec, n_chunks: int, *, is_rounded: bool) -> list[QualityRecord]:
    """Ours, the base first."""
    request = QualityRequest(tuple(cells), base=base, n_chunks=n_chunks, is_rounded=is_rounded, with_memory=False)
    with Session("quality") as session:
        records = measure_quality(request, session)
    if session.failure:
        raise click.ClickException(f"harness quality failed: {session.failure.message}")
    return records


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Write what was found so far."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"command": "scripts/perplexity-parity", "time_utc": utc_now(), **found}, indent=1, ensure_ascii=False
    )
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


@click.command()
@click.option("--llama-perplexity", "program", required=True, hidden=True)
@click.option("--chunks", "n_chunks", default=6, type=click.IntRange(2), help="Windows of 512 tokens. [6]")
def main(program: str, n_chunks: int) -> None:
    """Read the text that comes with harness through harness and llama-perplexity, and end with 1 where a figure differs."""
    tool = Tool(program, n_chunks, choose_threads().count)
    embedded = default_model()
    found: dict[str, Any] = {
        "machine": encode(describe_machine()),
        "n_chunks": n_chunks,
        "text": OWN_TEXT.name,
        "pairs": {},
    }
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        models = {"embedded": embedded} | {name: pathlib.Path(folder) / f"{name}.gguf" for name in QUANTIZED}
        for name, file_type in QUANTIZED.items():
            quantize(embedded, models[name], file_type)
        theirs = _run_theirs(tool, models, pathlib.Path(folder) / "base.kld")
        cells = {
            f"{name}, {cache} cache": RunSpec(
                str(models[name]), n_prompt=512, n_batch=512, n_threads=tool.n_threads, type_k=cache, type_v=cache, flash_attn="on"
            )
            for name, cache in VARIANTS
        }  # fmt: skip
        base = RunSpec(str(embedded), n_prompt=512, n_batch=512, n_threads=tool.n_threads, flash_attn="on")
        ours: dict[bool, dict[str, dict[str, float]]] = {}
        for is_rounded in (True, False):
            records = measure(list(cells.values()), base, n_chunks, is_rounded=is_rounded)
            ours[is_rounded] = {
                name: state(figures)
                for name, record in zip(("base", *cells), records, strict=True)
                if (figures := find_figures(record))
            }
            click.echo(render(describe_quality(records), "table"))
    worst = _compare(theirs, ours, found)
    keep("perplexity_parity", found)
    click.echo(f"kept in {RESULTS / 'perplexity_parity.json'}", err=True)
    sys.exit(1 if worst else 0)


def _run_theirs(tool: Tool, models: Mapping[str, pathlib.Path], base: pathlib.Path) -> dict[str, dict[str, float]]:
    """The base's perplexity and file, then every variant beside it; and the base with four windows at once, as by default."""
    one = ["-b", "512", "-fa", "on", "--kl-divergence-base", str(base)]
    theirs = {"base": read_final(tool.run(models["embedded"], *one))}
    for name, cache in VARIANTS:
        said = tool.run(models[name], *one, "--kl-divergence", "-ctk", cache, "-ctv", cache)
        theirs[f"{name}, {cache} cache"] = read_statistics(said)
    theirs["base, four windows at once"] = read_final(tool.run(models["embedded"], "-fa", "on"))
    return theirs


def _compare(
    theirs: Mapping[str, Mapping[str, float]],
    ours: Mapping[bool, Mapping[str, Mapping[str, float]]],
    found: dict[str, Any],
) -> list[str]:
    """Note every pair of figures, and name those that are too far apart."""
    too_far = []
    for name, figures in theirs.items():
        key = "base" if name.startswith("base") else name
        rounded, exact = ours[True][key], ours[False][key]
        found["pairs"][name] = {"llama_perplexity": figures, "harness_rounded": rounded, "harness": exact}
        is_held = key == name
        worst = [what for what in figures if is_held and not is_equal(what, rounded[what], figures[what])]
        told = [f"perplexity {figures['perplexity']:.4f} and {rounded['perplexity']:.4f}"]
        if "kld" in figures:
            told.append(f"KLD {figures['kld']:.6f} and {rounded['kld']:.6f} (exact {exact['kld']:.6f})")
        verdict = (
            f"differ in {', '.join(worst)}" if worst else "equal" if is_held else "not held, for the work is another"
        )
        click.echo(f"{name}: {', '.join(told)}: {verdict}")
        too_far += [f"{name}: {what} {rounded[what]!r} and {figures[what]!r}" for what in worst]
    found["too_far_apart"] = too_far
    return too_far


if __name__ == "__main__":
    main()
