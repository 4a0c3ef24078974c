"""Durations as Go prints them."""

import re

import pytest

from harness.units import format_go_duration, parse_size


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        # As Go 1.x prints time.Duration: documented examples and the borders between units.
        (0, "0s"),
        (1, "1ns"),
        (999, "999ns"),
        (1_000, "1µs"),
        (1_100, "1.1µs"),
        (999_999, "999.999µs"),
        (1_000_000, "1ms"),
        (512_300_000, "512.3ms"),
        (999_999_999, "999.999999ms"),
        (1_000_000_000, "1s"),
        (1_234_567_000, "1.234567s"),
        (4_935_886_791, "4.935886791s"),
        (60_000_000_000, "1m0s"),
        (62_500_000_000, "1m2.5s"),
        (3_600_000_000_000, "1h0m0s"),
        (5_025_000_000_000, "1h23m45s"),
        (-1_500_000, "-1.5ms"),
    ],
)
def test_go_durations(duration_ns, text):
    assert format_go_duration(duration_ns) == text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8GB", 8 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("4096B", 4096),
        ("20g", 20 * 10**9),
        (" 7.6gib ", round(7.6 * 2**30)),
    ],
)
def test_an_amount_with_its_unit_is_read(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "example", "ending", "meant"),
    [("20", "20GB", "", "20GB"), ("273", "273GB/s", "/s|ps", "273GB/s"), ("7.6", "7.6GiB", "", "7.6GiB"),
     ("20", "20TFLOPS", "flops(/s)?|flop/s", "20TFLOPS"), ("8589934592", "8GB", "", "8589934592B")],
)  # fmt: skip
def test_a_bare_number_is_refused_with_what_may_be_meant(text, example, ending, meant):
    with pytest.raises(ValueError, match=f"has no unit; did you mean {re.escape(meant)}?"):
        parse_size(text, example=example, ending=ending)


@pytest.mark.parametrize("text", ["", "GB", "-8GB", "8XB", "nan", "inf", "0GB", "9" * 400 + "GB", "8 GB GB", "１GB"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError):
        parse_size(text)
