"""The one table of tensor names."""

import pathlib
import re

import pytest

from harness.gguf.roles import Place, find_role, is_sense

HARNESS = pathlib.Path(__file__).parent.parent / "harness"


@pytest.mark.parametrize(
    ("name", "work"),
    [("blk.0.attn_q.weight", "attn q"), ("blk.0.attn_q_norm.weight", "norms"), ("blk.3.attn_qkv.weight", "attn qkv"),
     ("blk.0.attn_output.weight", "attn out"), ("blk.0.ffn_gate_inp.weight", "other matrices"),
     ("blk.0.ffn_gate_exps.weight", "ffn gate"), ("blk.0.ffn_down.weight", "ffn down"), ("output.weight", "output head"),
     ("output_norm.weight", "norms"), ("token_embd.weight", None), ("blk.0.attn_q.bias", "rest"),
     ("blk.0.attn_kv_a_mqa.weight", "attn k"), ("blk.0.ffn_gate.0.weight", "ffn gate"), ("rope_freqs.weight", "rope"),
     ("blk.0.ssm_in.weight", "other matrices"), ("blk.#.ffn_up.weight", "ffn up"), ("enc.blk.1.attn_v.weight", "attn v"),
     ("cls.weight", "other matrices"), ("token_embd_norm.weight", "norms")],
)  # fmt: skip
def test_the_time_of_a_product_counts_as_one_work(name, work):
    assert find_role(name).work == work


@pytest.mark.parametrize(
    ("name", "place", "block"),
    [("token_embd.weight", Place.INPUT, None), ("per_layer_token_embd.weight", Place.INPUT, None),
     ("token_embd_norm.weight", Place.FIRST_LAYER, None), ("blk.7.attn_q.weight", Place.OWN_LAYER, 7),
     ("dec.blk.7.attn_q.weight", Place.OWN_LAYER, 7), ("blk.#.attn_q.weight", Place.OWN_LAYER, None),
     ("rope_freqs.weight", Place.EVERY_LAYER, None), ("output.weight", Place.OUTPUT, None), ("whatever", Place.OUTPUT, None)],
)  # fmt: skip
def test_a_tensor_lies_with_a_layer(name, place, block):
    assert (find_role(name).place, find_role(name).block) == (place, block)


@pytest.mark.parametrize(
    ("name", "is_stack", "is_expert"),
    [("blk.0.ffn_gate_exps.weight", True, True), ("blk.0.ffn_up_chexps.weight", True, True),
     ("blk.0.ffn_gate_up_exps.scale", True, True), ("blk.0.ffn_down.3.weight", False, True),
     ("blk.0.ffn_down_shexp.weight", False, False), ("blk.0.ffn_norm_exps.weight", False, False)],
)  # fmt: skip
def test_experts_come_in_stacks_or_one_by_one(name, is_stack, is_expert):
    """What -ncmoe keeps back is what counts as experts' bytes; arctic's norm before its experts is neither."""
    role = find_role(name)
    assert (role.is_stack, role.is_expert, role.part == "experts") == (is_stack, is_expert, is_expert)


@pytest.mark.parametrize(
    ("name", "is_multiplied"),
    [("blk.0.attn_q.weight", True), ("output.weight", True), ("token_embd.weight", False), ("blk.0.ssm_conv1d.weight", False),
     ("blk.0.ssm_conv1d_q.weight", False), ("dec.blk.0.cross_attn_rel_b.weight", False), ("blk.0.attn_q.bias", False),
     ("blk.0.attn_norm.weight", False), ("blk.0.ssm_a", False), ("blk.0.nextn.embed_tokens.weight", False),
     ("blk.0.shortconv.conv.weight", False), ("blk.0.shortconv.in_proj.weight", True), ("rope_freqs.weight", False)],
)  # fmt: skip
def test_not_every_matrix_is_multiplied_with(name, is_multiplied):
    assert find_role(name).is_multiplied == is_multiplied


def test_a_part_of_an_eye_is_named():
    assert is_sense("v.blk.0.attn_q.weight")
    assert not is_sense("a.weight")


#: Who else knows tensors by name: what lays out files that are not there, ports of two programs' own rules, and nodes of graphs.
_NAMING = {"gguf/roles.py", "gguf/layout.py", "gguf/blocks.py", "memory/ollama_graph.py", "gguf/nodes.py"}


@pytest.mark.parametrize("path", sorted(HARNESS.rglob("*.py")), ids=lambda path: path.stem)
def test_nobody_else_reads_tensors_names(path):
    if path.relative_to(HARNESS).as_posix() in _NAMING:
        return
    code = re.sub(r'"""(.|\n)*?"""|#.*', "", path.read_text(encoding="utf-8"))
    assert re.findall(r"(?<![_a-z])(?:attn_[qkv]|ffn_(?:up|down|gate)|blk\\?\.|token_embd|output\.weight)", code) in (
        [],
        ["blk\\."],  # the engine's overrides, made of the table's own pattern
    )
