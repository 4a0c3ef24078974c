"""Durations as Go prints them."""

import pytest

from harness.units import format_go_duration


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
