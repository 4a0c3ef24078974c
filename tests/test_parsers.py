"""What is written for a parameter is read as llama-bench reads it, and refused in words where it means nothing."""

from __future__ import annotations

import pytest

from harness.arguments import read_axes
from harness.errors import UsageError
from harness.parsers import parse_masks, parse_overrides, read_mask, split_override
from harness.spec import RunSpec, parameters


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0x0", ()), ("0", ()), ("0x3", (0, 1)), ("F", (0, 1, 2, 3)), ("0xA0", (5, 7)), ("0x" + "8" + "0" * 127, (511,))],
)
def test_a_mask_names_cpus_from_its_lowest_bit(text, cpus):
    assert read_mask(text) == cpus


@pytest.mark.parametrize("text", ["", "0x", "12g", "0x3 0x1", "-1", "0x" + "1" + "0" * 128])
def test_what_is_no_mask_is_refused(text):
    with pytest.raises(ValueError, match=r"mask of CPUs|beyond the 512"):
        read_mask(text)
    with pytest.raises(UsageError):
        RunSpec("m", n_gen=1, cpu_mask=text)


def test_masks_come_in_lists_and_stay_as_they_are_written():
    assert parse_masks("0x3,ff, 0x0") == ("0x3", "ff", "0x0")


@pytest.mark.parametrize(
    ("text", "alternatives"),
    [
        ("exps=CPU", (("exps=CPU",),)),
        ("a=CPU;b.*=CUDA0,c=CPU", (("a=CPU", "b.*=CUDA0"), ("c=CPU",))),
        (",a=CPU", ((), ("a=CPU",))),
        ("none,a=RPC0[127.0.0.1:50052]", ((), ("a=RPC0[127.0.0.1:50052]",))),
    ],
)
def test_overrides_are_joined_by_semicolons_and_alternatives_by_commas(text, alternatives):
    assert parse_overrides(text) == alternatives


@pytest.mark.parametrize(
    "text", ["exps", "=CPU", "exps=", "(=CPU", "[a=CPU", r"(?<=a)b=CPU", r"(?i)a=CPU", r"(?P<x>a)=CPU", r"a\Z=CPU"]
)
def test_what_is_no_override_is_refused_before_anything_is_loaded(text):
    with pytest.raises(ValueError, match=r"not an override|not a pattern"):
        parse_overrides(text)
    with pytest.raises(UsageError):
        RunSpec("m", n_gen=1, override_tensors=(text,))


def test_the_first_equals_sign_divides():
    pattern, buffer = split_override(r"blk\.(1|2)\.ffn_.*_exps=CPU")
    assert buffer == "CPU"
    assert pattern.search("blk.2.ffn_up_exps.weight")
    assert not pattern.search("blk.3.ffn_up_exps.weight")


@pytest.mark.parametrize(
    ("text", "modes"),
    [
        ("1", ("mmap",)),
        ("off,on", ("none", "mmap")),
        ("auto,mlock,mmap+mlock,dio", ("auto", "mlock", "mmap+mlock", "dio")),
    ],
)
def test_load_modes_are_llama_cpps_and_a_map_is_still_on_or_off(text, modes):
    assert parameters()["load_mode"].parse(text) == modes


@pytest.mark.parametrize(("older", "mode"), [("on", "mmap"), ("off", "none"), ("auto", "auto")])
def test_an_older_record_says_whether_the_file_is_mapped(older, mode):
    values = {**RunSpec("m", n_gen=1).to_dict(), "mmap": older}
    del values["load_mode"]
    assert RunSpec.from_dict(values).load_mode == mode


def test_an_older_word_that_was_none_is_refused():
    values = {**RunSpec("m", n_gen=1).to_dict(), "load_mode": None, "mmap": "perhaps"}
    with pytest.raises(ValueError, match="perhaps"):
        RunSpec.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "busy"),
    [
        ({"n_prompt": 8}, 2), ({"n_prompt": 8, "n_threads_batch": 4}, 4), ({"n_gen": 8, "n_threads_batch": 4}, 2),
        ({"n_prompt": 8, "n_gen": 8, "n_threads_batch": 1}, 2), ({"n_prompt": 8, "n_threads_batch": 1}, 1),
        ({"n_gen": 8, "n_threads_batch": 4, "n_parallel": 3}, 4), ({"n_gen": 8, "n_parallel": 3}, 2),
    ],
)  # fmt: skip
def test_a_prompt_may_have_other_threads(changes, busy):
    assert RunSpec("m", n_threads=2, **changes).n_threads_busy == busy


def test_overrides_of_a_script_are_those_of_the_command_line():
    several = read_axes({"override_tensors": [("a=CPU", "b=CPU"), ()]})
    assert several == {"override_tensors": (("a=CPU", "b=CPU"), ())}
    assert read_axes({"override_tensors": ("a=CPU", "b=CPU")}) == {"override_tensors": (("a=CPU", "b=CPU"),)}
