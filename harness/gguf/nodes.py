"""What a node of llama.cpp's graph is for, by its name and the names of what it reads.

Source: src/models/*.cpp and src/llama-graph.cpp (cb() calls).
"""

from __future__ import annotations

import re

from harness.gguf.roles import find_role

#: Separates operation, node, first and second source in the name of a kind of node.
NAME_SEPARATOR = "\t"

#: What the operations of a graph are for, in the order in which a token meets them.
ROLES = (
    "attn q", "attn k", "attn v", "attn qkv", "attention", "cache write", "attn out", "ffn gate", "ffn up", "ffn down", "output head",
    "other matrices", "norms", "rope", "rest",
)  # fmt: skip

_NUMBERED = re.compile(r"(?<=blk\.)\d+|(?<=-)\d+|(?<=_l)\d+|(?<=node_)\d+|(?<=leaf_)\d+")


def anonymize(name: str) -> str:
    """Take the layer out of a node's or tensor's name: ``blk.3.ffn_up.weight`` → ``blk.#.ffn_up.weight``, ``Qcur-3`` → ``Qcur-#``."""
    return _NUMBERED.sub("#", name)


#: Matrices that a graph names only by their product. Source: src/models/*.cpp, src/llama-graph.cpp cb() calls.
_PRODUCTS = {
    "Qcur": "attn q", "Kcur": "attn k", "Vcur": "attn v", "wqkv": "attn qkv", "attn_out": "attn out", "ffn_gate": "ffn gate",
    "ffn_up": "ffn up", "ffn_out": "ffn down", "ffn_down": "ffn down", "result_output": "output head",
    "ffn_moe_gate": "ffn gate", "ffn_moe_up": "ffn up", "ffn_moe_down": "ffn down",
}  # fmt: skip
_NORM_OPS = frozenset({"RMS_NORM", "NORM", "L2_NORM", "GROUP_NORM"})
_CACHE = re.compile(r"cache_[kvr](_|\b)")


def classify_node(name: str) -> str:
    """The role of a kind of node: operation, node and, where known, its two sources, joined by `NAME_SEPARATOR`."""
    op, node, source, second = [*name.split(NAME_SEPARATOR), "", "", ""][:4]
    base = node.split("-")[0].split(" ")[0]
    if op == "ROPE":
        return "rope"
    if op == "FLASH_ATTN_EXT" or (op == "SOFT_MAX" and node.startswith("kq")) or base in ("kq", "kqv", "kqv_out"):
        return "attention"
    if op in ("SET_ROWS", "CPY") and _CACHE.search(f"{node} {source} {second}"):
        return "cache write"
    if op in ("MUL_MAT", "MUL_MAT_ID"):
        return _classify_product(base, source)
    return "norms" if op in _NORM_OPS or _scales_norm(op, base, second) else "rest"


def _scales_norm(op: str, base: str, second: str) -> bool:
    """Tell a norm's own factor or bias from the weights of experts, which are normed too."""
    if op not in ("MUL", "ADD"):
        return False
    if second:
        return "norm" in second and second.endswith((".weight", ".bias"))
    return base.endswith("norm") and "moe" not in base


def _classify_product(base: str, source: str) -> str:
    if _CACHE.search(source) or base.startswith("kq"):
        return "attention"
    if (weight := source.removesuffix(" (reshaped)")).endswith(".weight"):
        # The token embeddings as a matrix: a tied output.
        return find_role(weight).work or "output head"
    return _PRODUCTS.get(base, "other matrices" if source.startswith("blk.") else "rest")
