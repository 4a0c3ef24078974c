from harness.evidence.drift import count_warmups


def test_a_decay_is_left_out():
    assert count_warmups([130, 115, 101, 100, 102, 99, 101, 100]) == 2


def test_nothing_to_see():
    assert count_warmups([]) == 0
    assert count_warmups([130, 115]) == 0
    assert count_warmups([100.0] * 20) == 0
    assert count_warmups([100, 101, 99, 100, 102, 99, 101, 100]) == 0


def test_slower_later_is_no_warm_up():
    assert count_warmups([100, 101, 102, 103, 104, 105, 106]) == 0
