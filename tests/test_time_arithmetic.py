"""The time ledger's arithmetic and pages, on made-up times."""

from __future__ import annotations

import json
import math
import pathlib
import random

import pytest

from harness.codec import encode
from harness.gguf.header import BytesSource, read_header
from harness.gguf.nodes import ROLES, anonymize, classify_node
from harness.gguf.reads import count_reads, weights_by_role
from harness.records.failures import describe_end
from harness.records.kinds import read_line
from harness.records.time_ledger import SETUP, divide_token, fit_depth, make_time_ledger, summarize_blocks
from harness.records.token_time import PARTS, TimePlan
from harness.spec import RunSpec
from harness.views.figures.style import to_bytes
from harness.views.figures.token_time import GROUPS, draw_token_time, stack_token
from harness.views.formats import render
from harness.views.page import USUAL as WIDTH
from harness.views.token_time import describe_token_time

from .gguf_bytes import HeaderBytes, llama_like

NODES = json.loads((pathlib.Path(__file__).parent / "recorded" / "nodes.json").read_text())


@pytest.fixture(scope="module")
def header():
    return read_header(BytesSource(llama_like().build()))


# Names.


@pytest.mark.parametrize("model", NODES)
def test_every_recorded_node_is_known_for_what_it_is(model):
    roles = {}
    for name, count in NODES[model].items():
        roles.setdefault(classify_node(name), []).append((name.split("\t"), count))
    n_layers = {"smollm2": 30, "gemma3": 7}.get(model.split(",")[0], 2)
    for role in ("attn q", "attn k", "attn v", "attn out", "ffn gate", "ffn up", "ffn down"):
        assert sum(count for _, count in roles[role]) == n_layers, role
        assert {parts[0] for parts, _ in roles[role]} <= {"MUL_MAT", "MUL_MAT_ID"}
    assert sum(count for _, count in roles["output head"]) == 1
    assert sum(count for _, count in roles["cache write"]) == 2 * n_layers
    flash = sum(count for parts, count in roles["attention"] if parts[0] == "FLASH_ATTN_EXT")
    assert flash in (0, n_layers)
    assert sum(count for _, count in roles["attention"]) == (n_layers if flash else 4 * n_layers)
    assert all(parts[0] in ("RMS_NORM", "MUL") for parts, _ in roles["norms"])
    assert not any(parts[0].startswith("MUL_MAT") for parts, _ in roles["rest"])


def test_experts_weights_are_no_norm():
    assert classify_node("MUL\tffn_moe_weighted-#\tffn_moe_down-#\tffn_moe_weights_norm-# (reshaped)") == "rest"
    assert classify_node("MUL_MAT\tffn_moe_logits-#\tblk.#.ffn_gate_inp.weight\tffn_norm-#") == "other matrices"


@pytest.mark.parametrize("model", NODES)
def test_without_sources_the_names_of_products_do(model):
    """A build whose struct is another one gives operation and node only."""
    for name in NODES[model]:
        op, node, source, _ = name.split("\t")
        if not node.startswith("node_") and op in ("MUL_MAT", "MUL_MAT_ID") and "gate_inp" not in source:
            assert classify_node(f"{op}\t{node}") == classify_node(name)


@pytest.mark.parametrize(
    ("name", "short"),
    [("blk.13.ffn_up.weight", "blk.#.ffn_up.weight"), ("Qcur-29 (view)", "Qcur-# (view)"), ("node_917", "node_#"),
     ("cache_k_l12 (view) (permuted)", "cache_k_l# (view) (permuted)"), ("result_output", "result_output")],
)  # fmt: skip
def test_layers_are_taken_out_of_names(name, short):
    assert anonymize(name) == short


# Bytes.


def test_a_tied_output_reads_the_embeddings(header):
    found = weights_by_role(header)
    assert found["output head"] == 64 * 12 // 32 * 34
    assert found["attn q"] == 2 * 64 * 64 // 32 * 18
    assert "norms" not in found


def test_of_experts_only_the_visited_ones_are_read():
    made = HeaderBytes().add("general.architecture", "str", "qwen3moe")
    made.add("qwen3moe.expert_count", "u32", 8).add("qwen3moe.expert_used_count", "u32", 2)
    made.add_tensor("blk.0.ffn_up_exps.weight", "F16", 32, 16, 8).add_tensor("output.weight", "F16", 32, 10)
    found = weights_by_role(read_header(BytesSource(made.build())))
    assert found == {"ffn up": 2 * 32 * 16 * 2, "output head": 640}


def test_attention_reads_the_cache(header):
    reads = count_reads(header, ("f16",))
    assert reads.touched_bytes(100, "f16")["attention"] == 100 * 2 * 2 * 32 * 2
    assert reads.touched_bytes(0, "f16")["attention"] == 0


# Dividing a token.


def test_observed_nodes_are_brought_down_to_the_unobserved_token():
    """Each node costs 5 more while it is watched: exactly that is found."""
    true = {"matrix": 900.0, "small": 60.0}
    count = {"matrix": 10, "small": 30}
    seen = {name: ns + 5 * count[name] for name, ns in true.items()}
    held, each, scale = divide_token(1000.0, 40.0, seen, count)
    assert each == pytest.approx(5)
    assert scale == pytest.approx(1)
    assert held == pytest.approx(true)


def test_what_is_taken_off_never_exceeds_the_cheapest_node():
    held, each, scale = divide_token(100.0, 0.0, {"big": 190.0, "small": 10.0}, {"big": 1, "small": 10})
    assert each == 1.0
    assert min(held.values()) >= 0
    assert sum(held.values()) == pytest.approx(100.0)
    assert scale < 1


@pytest.mark.parametrize("seed", range(20))
def test_the_division_always_adds_up(seed):
    rng = random.Random(seed)
    count = {str(i): rng.randrange(1, 60) for i in range(rng.randrange(1, 12))}
    seen = {name: rng.uniform(1, 1e6) for name in count}
    token, outside = rng.uniform(1e3, 1e7), rng.uniform(0, 1e3)
    held, each, _ = divide_token(token, outside, seen, count)
    assert sum(held.values()) == pytest.approx(token - outside)
    assert min(held.values()) >= 0
    assert each >= 0


def test_nothing_observed_divides_into_nothing():
    assert divide_token(10.0, 1.0, {}, {}) == ({}, 0.0, 1.0)


# Medians and fits.


def test_the_first_token_of_a_block_does_not_count():
    figure = summarize_blocks([[1000, 10, 12], [2000, 20, 22], [3000, 30, 32]])
    assert (figure.median_ns, figure.n_blocks, figure.n_tokens) == (21, 3, 6)
    assert figure.low_ns is None, "3 blocks are too few for an interval"
    with pytest.raises(ValueError, match="the median of no values"):
        summarize_blocks([[1000]])


def draw_rounds(rng, slope_ns, n_rounds, noise_ns):
    """Rounds of a machine that drifts between them, with now and then a token that somebody disturbed."""
    for _ in range(n_rounds):
        drift = rng.gauss(0, 20 * noise_ns)
        yield [
            (depth, 5e6 + drift + slope_ns * depth + rng.gauss(0, noise_ns) * (5 if rng.random() < 0.05 else 1))
            for depth in (0, 512, 2048, 8192)
        ]


def test_a_known_slope_is_found():
    fit = fit_depth(draw_rounds(random.Random(1), 250.0, 7, 1e4), "f16", 23040)
    assert fit.low_ns <= 250.0 <= fit.high_ns
    assert fit.slope_ns == pytest.approx(250.0, abs=3)
    assert fit.bandwidth_bytes_per_s == pytest.approx(23040 / 250e-9, rel=0.02)
    assert fit.n_rounds == 7


def test_an_exact_line_is_found_exactly():
    fit = fit_depth([[(0, 100.0), (10, 150.0)]] * 6, "f16")
    assert (fit.slope_ns, fit.intercept_ns, fit.low_ns, fit.high_ns) == (5.0, 100.0, 5.0, 5.0)
    assert fit.bandwidth_bytes_per_s is None


@pytest.mark.parametrize("n_rounds", [6, 7, 12])
def test_the_interval_covers_as_often_as_it_promises(n_rounds):
    rng, trials = random.Random(n_rounds), 500
    covered = 0
    for _ in range(trials):
        fit = fit_depth(draw_rounds(rng, 40.0, n_rounds, 3e4), "f16")
        covered += fit.low_ns <= 40.0 <= fit.high_ns
    # Promised are 95 %; three standard errors below that would be chance.
    assert covered / trials > 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_one_depth_is_no_line():
    assert fit_depth([[(64, 5.0)], [(64, 6.0)]], "f16") is None
    assert fit_depth([], "f16") is None


# The whole, from a made-up record in which every time is known.

TOKEN_NS = 10_000_000


def make_raw(depths=(0, 512), rounds=7, caches=("f16", "q8_0")) -> dict:
    """A token takes 10 ms and 1 µs a cached token; watching adds 2 µs a node."""
    blocks, names = [], {"MUL_MAT\tffn_up-#\tblk.#.ffn_up.weight\tx": 2, "FLASH_ATTN_EXT\tnode_#": 2, "ROPE\tQcur-#": 4}
    for index in range(rounds):
        for depth in depths:
            token = TOKEN_NS + 1000 * depth
            repeated = [50 * TOKEN_NS, token, token]
            base = {"round": index, "depth": depth}
            for cache in caches:
                blocks.append(base | {"cache": cache, "variant": "bare", "token_ns": repeated})
            parts = {"decode": token, "wait": 100, "logits": 200, "sampling": 3000, "text": 400}
            for variant in ("greedy", "chain"):
                whole = {name: [ns] * 3 for name, ns in parts.items()}
                total = [sum(parts.values()) + 50] * 3
                blocks.append(base | {"cache": caches[0], "variant": variant, "token_ns": total, "parts_ns": whole})
            blocks.append(base | {"cache": caches[0], "variant": "declining", "token_ns": [token + 500] * 3})
            in_graph = token - 200_000
            share = {"MUL_MAT": 0.7, "FLASH_A": 0.2, "ROPE\tQc": 0.1}
            seen = {name: [round(in_graph * share[name[:7]]) + 2000 * n] * 3 for name, n in names.items()}
            watched = {"outside_ns": [200_000] * 3, "node_ns": seen, "node_count": names}
            blocks.append(
                base | {"cache": caches[0], "variant": "observing", "token_ns": [token + 40_000] * 3, **watched}
            )
    load = {"load_ns": 10**9, "context_ns": 10**7, "first_token_ns": 2 * 10**7, "second_token_ns": 10**7}
    application = {
        "token_ns": [13_000] * 9, "calls": {"text": 27, "sampling": 9},
        "parts_ns": {"decode": [10_500] * 9, "sampling": [1000] * 9, "text": [100] * 5 + [300] * 4},
    }  # fmt: skip
    plan = TimePlan(RunSpec("tiny.gguf", n_gen=1, n_threads=1), depths, ("tiny.gguf",), cache_types=caches)
    return {
        "asked": encode(plan),
        "blocks": blocks,
        "loads": [
            {"round": 0, "state": state, "mmap": mapped, "resident_share": share, **load}
            for state, share in (("cold", 0.0), ("warm", None))
            for mapped in ("on", "off")
        ],
        "applications": [
            {"round": 0, "variant": "bench", "token_ns": [10_000] * 9},
            {"round": 0, "variant": "no pool", "token_ns": [10_400] * 9},
            {"round": 0, "variant": "generate", **application},
            {"round": 0, "variant": "completion", **application},
        ],
        "copies": {"logits_copy_ns": [5, 6, 7], "call_ns": [1, 2, 3], "dispatch_ns": 150},
    }


#: What a line says beside its times.
AROUND = {
    "schema": 2, "kind": "time-ledger", "time_utc": "2026-11-24T12:00:00Z", "model": {"file_name": "tiny.gguf"},
    "machine": {
        "cpu": "a CPU", "n_cores_physical": 1, "n_cores_logical": 1, "memory_bytes": 10**9, "os": "Linux", "arch": "x86_64", "python": "3",
    },
}  # fmt: skip


def make_record(raw=None, header=None, roof=None):
    """The record of made-up times, with what a token reads by a header."""
    raw = raw or make_raw()
    reads = encode(count_reads(header, raw["asked"]["cache_types"])) if header else None
    line = {**AROUND, **raw, "reads": reads, "roof_bytes_per_s": roof}
    return read_line(json.loads(json.dumps(line))).content


def build_ledger(raw, header=None, roof=None):
    return make_time_ledger(make_record(raw, header, roof))


def show(record, label="tiny"):
    return render(describe_token_time(record, label), "table")


@pytest.fixture(scope="module")
def ledger(header):
    return build_ledger(make_raw(), header, 12e9)


def test_the_parts_of_a_token_add_up(ledger):
    for depth in ledger.depths:
        for whole in depth.whole:
            assert set(whole.parts_ns) == {*PARTS, "dispatch"}
            assert whole.parts_ns["dispatch"] == 50
            assert whole.total_ns == TOKEN_NS + 1000 * depth.depth + 3750


def test_the_operations_add_up_to_the_bench_token(ledger):
    for depth in ledger.depths:
        token = TOKEN_NS + 1000 * depth.depth
        assert depth.bare.median_ns == token
        assert sum(operation.duration_ns for operation in depth.operations) == pytest.approx(token)
        assert sum(operation.share for operation in depth.operations) == pytest.approx(1)
        durations = {operation.role: operation.duration_ns for operation in depth.operations}
        assert durations["ffn up"] == pytest.approx(0.7 * (token - 200_000), abs=2)
        assert durations["rope"] == pytest.approx(0.1 * (token - 200_000), abs=2)
        assert durations[SETUP] == 200_000
        assert [operation.role for operation in depth.operations] == ["attention", "ffn up", "rope", SETUP]
        assert set(durations) <= {*ROLES, SETUP}


def test_the_observer_is_charged(ledger):
    observer = ledger.depths[0].observer
    assert observer.cost_ns == 40_000
    assert observer.declining.median_ns - observer.absent.median_ns == 500
    assert observer.n_nodes == 8
    assert observer.inside_ns == pytest.approx(2000, abs=1)
    assert observer.scale == pytest.approx(1, abs=1e-4)


def test_bytes_give_bandwidth_and_its_share_of_the_roof(ledger, header):
    attention = {operation.role: operation for operation in ledger.depths[1].operations}["attention"]
    assert attention.touched_bytes == (512 + 1 + 1) * 256
    assert attention.bandwidth_bytes_per_s == pytest.approx(attention.touched_bytes / attention.duration_ns * 1e9)
    assert attention.roof_share == pytest.approx(attention.bandwidth_bytes_per_s / 12e9)
    rope = {operation.role: operation for operation in ledger.depths[1].operations}["rope"]
    assert rope.touched_bytes is rope.bandwidth_bytes_per_s is rope.roof_share is None
    without = build_ledger(make_raw(), header)
    assert all(operation.roof_share is None for depth in without.depths for operation in depth.operations)


def test_both_caches_are_fitted(ledger):
    assert [(fit.cache_type, fit.slope_ns, fit.bytes_per_token) for fit in ledger.fits] == [
        ("f16", 1000.0, 256),
        ("q8_0", 1000.0, 136),
    ]


def test_the_gap_is_explained_step_by_step(ledger):
    gap = ledger.gap
    assert gap.bench_ns + sum(gap.steps_ns.values()) == gap.completion_ns == 13_000
    assert gap.steps_ns == {"threads": 400, "decode": 100, "sampling": 1000, "text": 200, "python": 1300}
    assert (gap.text_first_ns, gap.text_last_ns, gap.text_calls_per_token) == (100, 300, 3)


def test_loading(ledger):
    assert [(load.state, load.mmap, load.resident_share) for load in ledger.loads] == [
        ("cold", "on", 0.0), ("cold", "off", 0.0), ("warm", "on", None), ("warm", "off", None),
    ]  # fmt: skip
    assert ledger.loads[0].ready_ns == 10**9 + 3 * 10**7


def test_whatever_is_missing_the_rest_stands(header):
    raw = make_raw()
    for gone in ("loads", "applications", "copies"):
        part = build_ledger({name: value for name, value in raw.items() if name != gone}, header)
        assert len(part.depths) == 2
    only_bare = raw | {"blocks": [block for block in raw["blocks"] if block["variant"] == "bare"]}
    part = build_ledger(only_bare, header)
    assert part.depths[0].operations == part.depths[0].whole == ()
    assert part.depths[0].observer is None
    assert show(make_record(only_bare, header))
    nothing = make_record({"asked": raw["asked"]}, header)
    ledger = make_time_ledger(nothing)
    assert ledger.depths == ledger.fits == ledger.loads == ()
    assert show(nothing).startswith("Where a token's time goes: tiny")
    one_depth = build_ledger(raw | {"blocks": [block for block in raw["blocks"] if block["depth"] == 0]}, header)
    assert one_depth.fits == ()


# What is shown.


@pytest.mark.parametrize("roof", [None, 12e9])
def test_the_page_fits_80_columns(header, roof):
    raw = make_raw(depths=(0, 512, 2048, 8192), rounds=3)
    for block in raw["blocks"]:
        block["token_ns"] = [ns * 113 + 17 for ns in block["token_ns"]]
    remarks = [{"cause": "sentence", "said": "a remark " * 20}]
    text = show(make_record(raw | {"remarks": remarks}, header, roof))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert ("of roof" in text) == (roof is not None)
    assert ("run `harness roofline` once" in " ".join(text.split())) == (roof is None)
    for heading in ("a generated token", "inside the decode at depth 2048", "what observing costs", "one more token",
                    "getting ready", "why an application is slower"):  # fmt: skip
        assert heading in text


def test_a_restless_machine_is_told(header):
    raw = make_raw()
    for block in raw["blocks"]:
        if block["variant"] == "observing":
            block["token_ns"] = [ns // 2 for ns in block["token_ns"]]
    assert "the shares are doubtful" in " ".join(show(make_record(raw, header)).split())
    assert "doubtful" not in show(make_record(header=header))


def test_json_has_everything(header):
    data = json.loads(render(describe_token_time(make_record(header=header, roof=12e9), "tiny"), "json"))
    assert (data["kind"], data["schema"], data["warnings"]) == ("token-time", 1, [])
    assert {"parts", "operations", "observer", "depth_fits", "loads", "application", "asked", "machine"} <= set(data)
    assert {row["depth"] for row in data["operations"]} == {0, 512}
    assert set(data["operations"][0]) == {
        "depth", "operation", "n_nodes", "duration_ns", "observed_ns", "share", "touched_bytes", "bandwidth_bytes_per_s", "roof_share",
    }  # fmt: skip
    assert data["depth_fits"][0]["slope_ns"] == 1000.0
    assert data["application"][-1]["rate_tok_per_s"] == pytest.approx(1e9 / 13_000)


def test_what_does_not_add_up_is_no_record():
    for spoil in (
        lambda block: block.update(token_ns=[5]),
        lambda block: block.update(token_ns=[5, 0, 5]),
        lambda block: block.get("parts_ns", block).pop("wait", None) or block.update(variant="chain"),
        lambda block: block.update(outside_ns=[1]) or block.update(variant="observing"),
    ):
        raw = make_raw()
        spoil(raw["blocks"][2])
        with pytest.raises(ValueError, match=r"block|tokens"):
            make_record(raw)


@pytest.mark.parametrize(
    ("remark", "words"),
    [
        ({"cause": "beyond training", "depth": 9, "limit_tokens": 8}, "depth 9 is left out: the model was trained for 8 tokens"),
        ({"cause": "beyond memory", "depth": 9, "needed_bytes": 10**9, "free_bytes": 10**8}, "its caches take 1.0 GB and 100.0 MB"),
        ({"cause": "cache refused", "cache_type": "q8_0", "said": "no."}, "no q8_0 cache: no."),
        ({"cause": "not cold", "n_left_out": 1, "n_asked": 2, "share": 0.98}, "1 of 2 cold loads are left out: up to 98 %"),
        ({"cause": "cold unknown"}, "could not be checked here"),
        ({"cause": "no application", "said": "why"}, "no application to compare with: why."),
        ({"cause": "interrupted"}, "what was measured until then is shown"),
    ],
)  # fmt: skip
def test_each_remark_is_a_sentence(remark, words):
    assert words in " ".join(show(make_record(make_raw() | {"remarks": [remark]})).split())


def test_a_line_of_the_first_schema_is_read():
    old = {
        "schema": 1,
        "remarks": ["depth 9 is left out"],
        "failure": "it died",
        "cautions": [{"code": "x", "text": "busy"}],
    }
    record = make_record(make_raw() | old)
    assert (record.remarks[0].said, describe_end(record.failure), record.warnings[0].text) == (
        "depth 9 is left out",
        "it died.",
        "busy",
    )


def test_the_picture_stacks_the_whole_token(ledger):
    depth = ledger.depths[1]
    pieces = stack_token(depth)
    assert list(pieces) == [name for name, _ in GROUPS]
    assert sum(pieces.values()) == pytest.approx(depth.bare.median_ns + 200 + 3000 + 400 + 50)
    drawn = {role for _, roles in GROUPS for role in roles}
    assert drawn == {*ROLES, SETUP}, "every role has a place in the picture"
    assert to_bytes(draw_token_time(ledger, "tiny", theme="dark"), "svg").startswith(b"<?xml")


def test_the_page_on_time_shows_what_is_printed_today():
    root = pathlib.Path(__file__).parent.parent
    journal = root / "bench_results" / "amd-epyc-2c-24g" / "20261124T232905Z-time-ledger.jsonl"
    record = read_line(json.loads(journal.read_text(encoding="utf-8"))).content
    page = (root / "docs" / "time.md").read_text(encoding="utf-8")
    assert f"```\n{show(record, 'synth:llama3.2:1b:q4_0')}```" in page
