"""The script that holds harness quality against llama-perplexity: what it reads, and what it takes for equal."""

from __future__ import annotations

import click
import pytest

from scripts import perplexity_parity as parity

SAID = """
0.10.673.649 I Final estimate: PPL = 22.2075 +/- 2.57716
====== Perplexity statistics ======
Mean PPL(Q)                   :  22.294551 ±   2.589823
Mean PPL(base)                :  22.207472 ±   2.577153
Cor(ln(PPL(Q)), ln(PPL(base))):  99.92%
Mean ln(PPL(Q)/PPL(base))     :   0.003913 ±   0.004656
====== KL divergence statistics ======
Mean    KLD:   0.004109 ±   0.000169
Maximum KLD:   0.040146
99.9%   KLD:   0.035147
90.0%   KLD:   0.007581
Median  KLD:   0.003248
RMS Δp    :  1.382 ± 0.094 %
Same top p: 95.490 ± 0.920 %
"""


def test_what_llama_perplexity_prints_is_read():
    assert parity.read_final(SAID) == {"perplexity": 22.2075, "perplexity_error": 2.57716}
    found = parity.read_statistics(SAID)
    assert (found["perplexity"], found["perplexity_error"], found["log_ratio_error"]) == (22.294551, 2.589823, 0.004656)
    assert (found["kld"], found["kld_median"], found["kld_90"], found["kld_max"]) == (
        0.004109,
        0.003248,
        0.007581,
        0.040146,
    )
    assert found["same_top"] == pytest.approx(0.9549)
    assert found["p_diff_rms"] == pytest.approx(0.01382)


def test_what_is_missing_is_named():
    with pytest.raises(click.ClickException, match="same_top"):
        parity.read_statistics(SAID.replace("Same top", "Another"))
    with pytest.raises(click.ClickException, match="no final estimate"):
        parity.read_final("failed")


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "is_equal"),
    [
        ("perplexity", 22.20754, 22.2075, True),
        ("perplexity", 22.2125, 22.2075, False),
        ("kld", 0.00410942, 0.004109, True),
        ("kld", 0.00411476, 0.004109, False),
        ("kld_median", 0.0033, 0.003248, True),
        ("kld_median", 0.0034, 0.003248, False),
        ("same_top", 0.954902, 0.9549, True),
        ("same_top", 0.9569, 0.9549, False),
    ],
)
def test_equal_is_to_four_digits_or_to_the_last_one_printed(name, ours, theirs, is_equal):
    assert parity.is_equal(name, ours, theirs) == is_equal
