"""Cautions: every cause has its sentence, made of its figures; older records keep the sentences that they were given."""

import dataclasses
import json

import pytest

from harness.codec import decode, encode
from harness.errors import UsageError
from harness.records.cautions import Caution, CautionCause, describe_caution
from harness.records.kinds import read_line, to_json

FIGURES = {
    CautionCause.BUSY_MACHINE: {"cpus_lost": 0.26, "n_cpus": 2, "n_threads": 1},
    CautionCause.CPU_STOLEN: {"cpus_lost": 1.0},
    CautionCause.CPU_THROTTLED: {"n_held": 3, "held_s": 0.5},
    CautionCause.THROTTLED: {"reasons": ("power cap", "heat")},
    CautionCause.FEW_SAMPLES: {"n_wanted": 6},
    CautionCause.PREFIX_LOST: {"n_ctx": 4096},
    CautionCause.INTERRUPTED: {"n_done": 6, "n_wanted": 10},
    CautionCause.LAYERS_CLAMPED: {"n_layers": 33},
    CautionCause.LAYERS_GUESSED: {"gpu_share": 0.5, "n_layers": 16},
    CautionCause.CONTEXT_BEYOND_TRAINING: {"n_ctx": 4096, "n_ctx_train": 2048},
    CautionCause.NO_CHAT_TEMPLATE: {"template": "missing"},
    CautionCause.PROMPT_COUNTS_DIFFER: {"ollama_tokens": 5, "prompt_tokens": 6},
    CautionCause.SIZE_IN_CACHE: {"size_bytes": 2**20, "cache_bytes": 2**25, "wanted_bytes": 2**27},
    CautionCause.SLOWED_DOWN: {"slowdown": 0.03},
    CautionCause.RAN_ELSEWHERE: {"part": "SOFT_MAX", "other_part": "CPU", "n_layers": 28, "size_bytes": 2**20},
    CautionCause.MORE_PIECES: {"n_pieces": 62, "n_expected": 2},
    CautionCause.NO_KERNEL: {"part": "Flash Attention", "device": "CUDA0", "other_part": "CPU"},
    CautionCause.NOT_REPACKED: {"device": "CUDA0"},
    CautionCause.LEFT_OUT: {"part": "AVX-512"},
    CautionCause.UNTRIED_VERSION: {"part": "0.4.1"},
    CautionCause.OTHER_PROGRAMS: {"cpus_lost": 0.6, "n_cpus": 2, "n_disturbed": 9, "n_timed": 10},
    CautionCause.THREADS_WAITED: {"lost_share": 0.3, "n_disturbed": 9, "n_timed": 10},
    CautionCause.TIME_STOLEN: {"cpus_lost": 0.6, "n_cpus": 2, "n_disturbed": 9, "n_timed": 10},
    CautionCause.QUOTA_HELD: {"n_held": 12, "n_disturbed": 9, "n_timed": 10},
    CautionCause.CLOCK_FELL: {"lost_share": 0.2, "n_disturbed": 9, "n_timed": 10},
    CautionCause.CLOCK_LOW: {"clock_mhz": 1400.0, "clock_limit_mhz": 4700.0},
    CautionCause.HEAT: {"n_disturbed": 9, "n_timed": 10},
    CautionCause.PAGES_READ: {"n_pages": 300, "n_disturbed": 9, "n_timed": 10},
    CautionCause.PAGES_SWAPPED: {"n_pages": 300, "n_disturbed": 9, "n_timed": 10},
    CautionCause.SWITCHED_AWAY: {"n_switched": 300, "n_disturbed": 9, "n_timed": 10},
    CautionCause.WIDE_INTERVAL: {"lost_share": 0.14},
    CautionCause.PRECISION_MISSED: {
        "lost_share": 0.041,
        "wanted_share": 0.02,
        "n_done": 48,
        "limit_s": 60.0,
        "timed_s": 41.0,
    },
    CautionCause.TWO_SPEEDS: {"lost_share": 0.08},
    CautionCause.OWN_CROWD: {"n_threads": 8, "n_cpus": 2},
    CautionCause.ROUNDS_DISAGREE: {"part": "bare", "share": 0.4},
    CautionCause.SAME_WORK_DIFFERS: {"part": "ffn up", "other_part": "ffn gate", "times": 7.1},
    CautionCause.BELOW_ZERO: {"part": "step decode", "share": 0.45},
    CautionCause.WATCHING_DEAR: {"share": 1.31},
    CautionCause.WATCHING_CHEAP: {"share": 0.05},
    CautionCause.PARTS_MISS_WHOLE: {"times": 2.13},
    CautionCause.PARTS_EXCEED_WHOLE: {"part": "decoding", "other_part": "writing", "share": 0.1},
    CautionCause.ABOVE_ROOF: {"part": "output head", "times": 4.0},
    CautionCause.DEEPER_IS_CHEAPER: {"share": 0.4},
    CautionCause.WARM_SLOWER: {"times": 2.5},
    CautionCause.STALLED: {"n_stalled": 1, "n_timed": 20, "share": 0.6},
    CautionCause.THREADS_HINDER: {"part": "read F16", "n_threads": 2, "share": 0.3},
    CautionCause.RATE_SENSELESS: {"part": "read F16", "rate_per_s": 1e18},
    CautionCause.WRONG_RESULT: {"part": "read F16"},
    CautionCause.SWAPPED_OUT: {"size_bytes": 2**20},
    CautionCause.UNEXPLAINED: {"share": 0.3},
    CautionCause.LEFT_MEMORY: {"size_bytes": 2**20},
    CautionCause.NOT_FINITE: {"n_done": 1, "n_wanted": 9},
    CautionCause.WINDOWS_LEFT_OUT: {"n_done": 3, "n_wanted": 9},
    CautionCause.SENTENCE: {"said": "as it was"},
}


@pytest.mark.parametrize("cause", CautionCause)
def test_every_cause_has_its_sentence_and_figures(cause):
    caution = Caution(cause, **FIGURES.get(cause, {}))
    assert describe_caution(caution) == caution.text
    assert "None" not in caution.text
    assert "{" not in caution.text
    assert decode(Caution, json.loads(json.dumps(encode(caution)))) == caution
    if cause in FIGURES and cause is not CautionCause.THROTTLED:
        with pytest.raises(UsageError, match=f"cause {cause.value} says nothing of"):
            Caution(cause)


@pytest.mark.parametrize(
    ("caution", "sentence"),
    [
        (
            Caution(CautionCause.BUSY_MACHINE, is_server_here=True, cpus_lost=1.0, n_cpus=2, n_threads=1),
            "busy machine: other processes used 1.0 of 2 CPUs while 1 threads ran here; an RPC server on this machine is among them",
        ),
        (
            Caution(CautionCause.THROTTLED, reasons=("power cap", "heat")),
            "the card was slowed down while this was measured: power cap, heat",
        ),
        (
            Caution(CautionCause.SIZE_IN_CACHE, size_bytes=2**20, cache_bytes=2**25, wanted_bytes=2**27),
            "a matrix of 1.00 MiB is read from this processor's caches (32.00 MiB) and not from memory; give a --size of 128.00 MiB or "
            "more",
        ),
        (
            Caution(CautionCause.NO_CHAT_TEMPLATE, template="failed", template_error="line 1", is_system_dropped=True),
            "the model has a chat template that cannot be applied (line 1); the prompt is used raw, and without the system message",
        ),
        (
            Caution(CautionCause.LAYERS_GUESSED, gpu_share=0.5, n_layers=16),
            "Ollama has 50 % of the model on the GPU, which is taken for 16 layers here: set -ngl for both to be sure",
        ),
    ],
)
def test_the_words_of_a_sentence(caution, sentence):
    assert caution.text == sentence


@pytest.mark.parametrize(("code", "cause"), [("busy-machine", "busy-machine"), ("of another day", "sentence")])
def test_an_older_sentence_is_kept_and_shown_as_it_was(recorded, code, cause):
    warning = {"code": code, "text": "busy as a bee", "distrust": True}
    older = {**to_json(recorded[0]), "schema": 2, "warnings": [warning]}
    (caution,) = read_line(older).content.warnings
    assert (caution.cause.value, caution.text, caution.distrust) == (cause, "busy as a bee", True)
    again = to_json(dataclasses.replace(recorded[0], warnings=(caution,)))
    assert read_line(again).content.warnings == (caution,)


def test_no_new_sentence_is_stored(recorded):
    caution = Caution(CautionCause.INTERRUPTED, n_done=6, n_wanted=10)
    (stored,) = to_json(dataclasses.replace(recorded[0], warnings=(caution,)))["warnings"]
    assert stored["said"] is None
    assert "text" not in stored
