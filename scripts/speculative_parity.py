"""Guessing ahead beside llama.cpp's own llama-speculative-simple, and what three kinds of drafts bring here.

    PYTHONPATH=. .venv/bin/python scripts/speculative_parity.py PATH/llama-speculative-simple

First the same model, draft, prompts and lengths through both: tokens that were drafted and that were right have to be equal, step for
step the same algorithm. The draft is the embedded model once more, quantized anew (Q4_0), so that it is right often and not always.
Then `harness speculate` with three pairs: the model as its own draft, that quantized one, and two sizes of a synthetic shape, of which
only the cost is real. What is found is kept in bench_results/ as it goes.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tempfile

from perplexity_parity import quantize

import harness
from harness.host.machine import describe_machine, machine_slug
from harness.sources.model_file import default_model

RESULTS = pathlib.Path("bench_results")

#: In the model's own chat format, so that each answer ends by itself: where it ends both programs ask for the same drafts.
PROMPTS = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nName three colours and say what each reminds you of.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a haiku about the sea.<|im_end|>\n<|im_start|>assistant\n",
)
LENGTHS, P_MINS, MOST_TOKENS = (1, 3, 4, 8), (0.0, 0.6), 400

#: llama.h's LLAMA_FTYPE_MOSTLY_Q4_0.
Q4_0 = 2

#: Enough rounds for an interval within a minute and a half.
USUAL = ("--n-draft", "1,2,4,8", "-r", "8", "--max-time", "90")

SYNTHETIC = ("synth:gemma3:1b:q8_0", "synth:gemma3:270m:q4_0")


def run_theirs(program: str, model: str, draft: str, prompt: str, n_draft: int, p_min: float) -> tuple[int, int, int]:
    """(drafted, accepted, written) by llama-speculative-simple."""
    done = subprocess.run(
        [
            program, "-m", model, "-md", draft, "-p", prompt, "-n", str(MOST_TOKENS), "-c", "1024", "--spec-type", "draft-simple",
            "--spec-draft-n-max", str(n_draft), "--spec-draft-p-min", str(p_min), "--temp", "0", "--top-k", "1",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = done.stdout + done.stderr
    drafted, accepted, written = (
        int(re.search(rf"{name}\s*=\s*(\d+)", said)[1])  # type: ignore[index]
        for name in ("n_drafted", "n_accept", "n_predict")
    )
    return drafted, accepted, written


def run_ours(model: str, draft: str, prompt: str, n_draft: int, p_min: float) -> tuple[int, int, int]:
    """The same by the job behind `harness speculate`."""
    record = harness.speculate(
        model,
        draft,
        texts=[prompt],
        raw=True,
        n_draft=[n_draft],
        p_min=p_min,
        n_tokens=MOST_TOKENS,
        rounds=1,
        n_ctx=1024,
    )
    assert record is not None
    (passage,) = [one for one in record.passages if one.n_draft]
    drafted, accepted = sum(passage.n_drafted), sum(passage.n_accepted)
    return (
        drafted,
        accepted,
        accepted + len(passage.n_accepted),
    )  # a step's tokens behind the end of the text count there


def compare(program: str, model: str, draft: str, out: pathlib.Path) -> None:
    """Both through every prompt, length and p_min; a line each, and how many are equal."""
    n_equal = n_all = 0
    with out.open("w", encoding="utf-8") as file:
        for number, prompt in enumerate(PROMPTS):
            for n_draft in LENGTHS:
                for p_min in P_MINS:
                    theirs = run_theirs(program, model, draft, prompt, n_draft, p_min)
                    ours = run_ours(model, draft, prompt, n_draft, p_min)
                    n_equal, n_all = n_equal + (ours == theirs), n_all + 1
                    line = f"prompt {number + 1}, draft {n_draft:2}, p_min {p_min:g}: drafted, right, written: {ours} and {theirs}"
                    print(line, "" if ours == theirs else "DIFFERS", file=file, flush=True)
                    print(line, "" if ours == theirs else "DIFFERS", flush=True)
        print(f"{n_equal} of {n_all} equal", file=file)
    print(f"{n_equal} of {n_all} equal")


def measure(*words: str, out: pathlib.Path) -> None:
    """A run of `harness speculate`, and its table in a file."""
    with out.open("w", encoding="utf-8") as file:
        names = (pathlib.Path(word).name if word.endswith(".gguf") else word for word in words)
        print("$ harness speculate", *names, file=file, flush=True)
        subprocess.run([sys.executable, "-m", "harness", "speculate", *words], stdout=file)
    print(out.read_text(encoding="utf-8"))


def main() -> None:
    """Do all of it, some eight minutes on two cores."""
    program = sys.argv[1]
    folder = RESULTS / machine_slug(describe_machine())
    folder.mkdir(parents=True, exist_ok=True)
    model = default_model()
    with tempfile.TemporaryDirectory() as scratch:
        draft = pathlib.Path(scratch) / "SmolLM2-135M-Instruct.Q4_0-again.gguf"
        quantize(model, draft, Q4_0)
        compare(program, str(model), str(draft), folder / "speculative-parity.txt")
        measure(*USUAL, out=folder / "speculate-itself.txt")
        measure("--draft", str(draft), *USUAL, out=folder / "speculate-again.txt")
    target, small = SYNTHETIC
    measure(
        "-m", target, "--draft", small, "-n", "12", "-r", "6", "--n-draft", "1,2,4,8", "--text", "Hello there", "--max-time", "120",
        out=folder / "speculate-synthetic.txt",
    )  # fmt: skip


if __name__ == "__main__":
    main()
