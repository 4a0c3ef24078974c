import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.grid import Grid
from harness.parsers import parse_range, parse_split, parse_switch, whole_numbers
from harness.spec import RunSpec, parameters
from harness.views.settings import format_setting


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", (7,)),
        ("0,8,16", (0, 8, 16)),
        ("4-7", (4, 5, 6, 7)),
        ("0-32+8", (0, 8, 16, 24, 32)),
        ("0-33+10", (0, 10, 20, 30)),
        ("1-64*2", (1, 2, 4, 8, 16, 32, 64)),
        ("-1", (-1,)),
        ("0,4-6,100", (0, 4, 5, 6, 100)),
    ],
)
def test_ranges_expand_as_llama_bench_expands_them(text, values):
    assert parse_range(text) == values


@pytest.mark.parametrize("text", ["", "a", "1-", "8-4", "1-9+0", "0-9*2", "1-9*1", "1..3", "0-99999999", "1,,2"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ValueError):
        parse_range(text)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 50))
def test_an_additive_range_is_pythons(first, length, step):
    assert parse_range(f"{first}-{first + length}+{step}") == tuple(range(first, first + length + 1, step))


def test_bounds_are_named_in_the_refusal():
    with pytest.raises(ValueError, match="-5 is out of range; it must be from -1 to 9"):
        whole_numbers(-1, 9)("-5")


def test_switches_and_splits():
    assert parse_switch("on,0") == (True, False)
    assert parse_split("3/1,1/1") == ((3.0, 1.0), (1.0, 1.0))
    for bad in ("3/-1", "0/0", "a/b", "nan/1"):
        with pytest.raises(ValueError):
            parse_split(bad)


def test_test_names_are_llama_benchs():
    assert RunSpec("m", n_prompt=512).test == "pp512"
    assert RunSpec("m", n_gen=128, n_depth=4096).test == "tg128 @ d4096"
    assert RunSpec("m", n_prompt=512, n_gen=128).test == "pp512+tg128"


def test_grid_loads_each_model_and_layer_count_once():
    grid = Grid(
        ["a", "b"], {"n_threads": (1, 2), "n_gpu_layers": (0, 8), "n_ubatch": (64,)}, n_prompt=(16, 32), n_gen=(4,)
    )
    cells = grid.cells()
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 3
    changes = sum(a.load_key() != b.load_key() for a, b in zip(cells, cells[1:], strict=False))
    assert changes == 2 * 2 - 1
    assert {cell.n_ubatch for cell in cells} == {64}


def test_grid_drops_empty_and_repeated_tests():
    assert Grid(["a"], {}, n_prompt=(0, 16, 16), n_gen=(0,), n_pg=((16, 4),)).tests() == [(16, 0), (16, 4)]
    with pytest.raises(UsageError, match="Nothing to measure"):
        Grid(["a"], {}, n_prompt=(0,), n_gen=(0,)).cells()


def test_contradictions_are_refused():
    with pytest.raises(UsageError, match="flash attention"):
        RunSpec("m", n_gen=1, flash_attn="off", type_v="q8_0")
    with pytest.raises(UsageError, match="beyond reason"):
        RunSpec("m", n_prompt=9_999_999, n_gen=2)
    with pytest.raises(UsageError, match="-r 0"):
        RunSpec("m", n_gen=1, repetitions=0)


def test_a_spec_survives_its_dictionary():
    spec = RunSpec("m", n_gen=1, tensor_split=(3.0, 1.0), n_threads=2)
    values = {**spec.to_dict(), "tensor_split": [3.0, 1.0], "of_a_later_version": 1}
    assert RunSpec.from_dict(values) == spec


def test_every_load_parameter_is_in_the_load_key():
    base = RunSpec("m", n_gen=1)
    for name in parameters("load"):
        checked = {"rpc": ("host:1",), "numa": "isolate", "load_mode": "dio", "override_tensors": ("exps=CPU",)}
        changed = dataclasses.replace(base, **{name: checked.get(name, "something else")})
        assert changed.load_key() != base.load_key(), name


def test_words_stand_in_lists_of_layers():
    parse = parameters()["n_gpu_layers"].parse
    for text, values in [("all", (-1,)), ("0,all,auto", (0, -1, -1)), ("AUTO, 3", (-1, 3)), ("0-2,all", (0, 1, 2, -1))]:
        assert parse(text) == values
    for text in ("alle", "0-all", "al l", ",all", "all,"):
        with pytest.raises(ValueError, match="not a number or a range"):
            parse(text)


@pytest.mark.parametrize(
    ("value", "written"),
    [(("exps=CPU", "blk=CUDA0"), "exps=CPU;blk=CUDA0"), (("CUDA0", "RPC0"), "CUDA0/RPC0"), ((3.0, 1.0), "3/1"), ((), "auto")],
)  # fmt: skip
def test_values_are_written_as_their_options_take_them(value, written):
    assert format_setting(value) == written
