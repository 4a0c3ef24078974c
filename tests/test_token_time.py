"""The time ledger on the real engine, and what its command does when things go wrong."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys

import click
import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.codec import decode, encode
from harness.errors import UsageError
from harness.gguf.header import BytesSource, read_header
from harness.gguf.reads import TokenReads
from harness.host.machine import describe_machine
from harness.native.jobs import load_time
from harness.native.page_cache import drop_from_memory, read_into_memory, resident_share
from harness.records.cells import Resolved
from harness.records.failures import describe_end
from harness.records.roofline import Roof
from harness.records.token_time import PARTS, TimePlan
from harness.runs import token_time
from harness.runs.session import Session
from harness.runs.token_time import TimeRequest, choose_depths, measure_token_time
from harness.runs.worker import Worker
from harness.sources.synthetic import write_synthetic
from harness.spec import RunSpec

from .gguf_bytes import llama_like
from .test_synth import TINY

QUICK = ("--rounds", "3", "--tokens", "4", "-t", "1")


def measure(tmp_path, *arguments):
    """Run the command and return (exit code, JSON, record)."""
    done = CliRunner().invoke(cli, ["token-time", *arguments, *QUICK, "-o", "json", "--results", str(tmp_path)])
    assert done.exit_code in (0, 5), done.stderr  # 5 if somebody else is busy here
    (journal,) = tmp_path.rglob("*-time-ledger.jsonl")
    return json.loads(done.stdout), json.loads(journal.read_text())


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    """The embedded model at depths 0 and 64, from a copy that no other process holds in memory."""
    folder = tmp_path_factory.mktemp("time")
    copy = shutil.copy(model, folder / "copy.gguf")
    yield measure(folder / "results", "-m", str(copy), "-d", "0,64", "--plot", str(folder / "token.png"))
    pathlib.Path(copy).unlink()


@pytest.mark.engine
def test_parts_and_shares_add_up(measured):
    data, _ = measured
    parts = {row["part"]: row for row in data["parts"]}
    for depth in (0, 64):
        operations = [row for row in data["operations"] if row["depth"] == depth]
        assert sum(operation["share"] for operation in operations) == pytest.approx(1)
        column = f"d{depth}_ns"
        bare = parts["the bench's token"][column]
        assert sum(operation["duration_ns"] for operation in operations) == pytest.approx(bare)
        names = ("decode", "waiting for it", "finding the logits", "sampling", "token to text", "Python between")
        assert sum(parts[name][column] for name in names) == pytest.approx(
            1e9 / parts["its rate"][f"d{depth}_tok_per_s"]
        )
        assert parts["decode"][column] > parts["sampling"][column] > 0


@pytest.mark.engine
def test_every_operation_of_the_model_is_seen(measured):
    data, _ = measured
    for depth in (0, 64):
        rows = [row for row in data["operations"] if row["depth"] == depth]
        nodes = {row["operation"]: row["n_nodes"] for row in rows}
        for role in ("attn q", "attn k", "attn v", "attn out", "attention", "ffn gate", "ffn up", "ffn down"):
            assert nodes[role] == 30, role
        assert nodes["output head"] == 1
        assert "other matrices" not in nodes
        touched = {row["operation"]: row["touched_bytes"] for row in rows}
        assert touched["attention"] == (depth + 3) * 30 * 2 * 3 * 64 * 2
        # All matrices once: the file without its norms.
        weights = sum(touched[role] for role in touched if role != "attention" and touched[role])
        assert weights == 96_576_768 - 61 * 576 * 4


@pytest.mark.engine
def test_observing_costs_something(measured):
    """By the quickest tokens: a busy machine can slow any, and none is quicker than its work."""
    _, record = measured

    def quickest(variant):
        return min(min(b["token_ns"]) for b in record["blocks"] if b["variant"] == variant and b["cache"] == "f16")

    assert quickest("observing") > quickest("bare")
    assert sum(record["blocks"][0]["token_ns"]) > 0


@pytest.mark.engine
def test_the_record_holds_raw_integers(measured):
    _, record = measured
    assert (record["kind"], record["schema"]) == ("time-ledger", 3)
    assert record["model"]["description"] == "llama 256M Q4_1"
    assert record["asked"]["spec"]["model"] == "copy.gguf", "no path of this machine"
    assert len(record["blocks"]) == 3 * 2 * 6
    for block in record["blocks"]:
        assert len(block["token_ns"]) == 5
        assert all(type(ns) is int for ns in block["token_ns"])
    parts = next(block["parts_ns"] for block in record["blocks"] if block["variant"] == "chain")
    assert set(parts) == set(PARTS)
    turns = [[b["variant"] for b in record["blocks"] if (b["round"], b["depth"]) == (turn, 0)] for turn in range(3)]
    assert len({tuple(turn) for turn in turns}) == 3, "the variants take turns in going first"


@pytest.mark.engine
def test_loading_and_the_application_are_there(measured):
    data, record = measured
    loads = {(load["state"], load["mmap"]): load for load in data["loads"]}
    assert {("warm", "on"), ("warm", "off")} <= set(loads)
    left_out = [remark["n_left_out"] for remark in record["remarks"] if remark["cause"] == "not cold"]
    assert ("cold", "on") in loads or left_out
    assert all(load["load_ns"] > load["context_ns"] > 0 for load in loads.values())
    first, *steps, last = data["application"]
    assert first["duration_ns"] + sum(step["duration_ns"] for step in steps) == pytest.approx(last["duration_ns"])
    assert len(steps) == 5
    assert {event["variant"] for event in record["applications"]} == {"bench", "no pool", "generate", "completion"}
    fits = data["depth_fits"]
    assert [(fit["cache_type"], fit["cached_token_bytes"]) for fit in fits] == [("f16", 23040), ("q8_0", 12240)]


@pytest.mark.engine
def test_the_old_flag_is_the_same_command(tmp_path, model):
    words = ["-m", model, "-d", "0", *QUICK, "--no-load", "--no-app", "-o", "json", "--no-save"]
    old, new = (CliRunner().invoke(cli, [*name, *words]) for name in (["overhead", "--time"], ["token-time"]))
    assert {old.exit_code, new.exit_code} <= {0, 5}
    assert set(json.loads(old.stdout)) == set(json.loads(new.stdout))


def test_the_old_flag_refuses_what_is_about_memory(tmp_path):
    done = CliRunner().invoke(cli, ["overhead", "--time", "--ctx", "4096"], standalone_mode=False)
    assert isinstance(done.exception, click.UsageError)
    done = CliRunner().invoke(cli, ["overhead", "--roof", "1GB/s"], standalone_mode=False)
    assert isinstance(done.exception, click.UsageError)


@pytest.mark.engine
def test_a_synthetic_model_is_measured_and_marked(tmp_path):
    path = write_synthetic(TINY, "Q4_0", tmp_path / "tiny.gguf", name="tiny")
    done = CliRunner().invoke(
        cli, ["token-time", "-m", str(path), "-d", "0,100,9999", *QUICK, "--no-save", "--no-load"]
    )
    assert done.exit_code in (0, 5), done.stderr
    flat = " ".join(done.stdout.split())
    assert "synthetic: random weights" in flat
    assert "depth 9999 is left out: the model was trained for 512 tokens" in flat
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_depths_that_memory_cannot_hold_are_left_out():
    header = read_header(BytesSource(llama_like().build()))
    per_token = 3 * 256 + 2 * 136
    depths, remarks = choose_depths((0, 50, 400, 600), 8, ("f16", "q8_0"), header, 256 * per_token)
    assert depths == (0, 50)
    assert [remark.cause for remark in remarks] == ["beyond memory", "beyond training"]
    assert remarks[1].limit_tokens == 512


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-d", "9999999"), "give a smaller --depth"),
        (("-t", "1,2"), "one value of --threads"),
        (("-m", "a.gguf", "-m", "b.gguf"), "one model at a time"),
        (("-ctk", "f16", "-ctv", "q8_0"), "one type for K and V"),
        (("-ctk", "f16", "--caches", "q8_0"), "leave out -ctk and -ctv"),
        (("--plot", "token.jpg"), "neither a .png nor a .svg"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(model, tmp_path, arguments, words):
    done = CliRunner().invoke(cli, ["token-time", *arguments, "--results", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert words in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_cache_type_is_refused():
    done = CliRunner().invoke(cli, ["token-time", "--caches", "q9"], standalone_mode=False)
    assert isinstance(done.exception, click.UsageError)


#: A worker that says hello, hands over one block, and is killed.
KILLED = """
import json, os, signal, sys
def say(**event): print(json.dumps(event), flush=True)
build = {"llama_cpp_python": "0", "ggml_version": "0", "ggml_commit": "0", "system_info": "", "backends": [], "devices": []}
say(event="hello", build=build)
sys.stdin.readline()
block = {"round": 0, "depth": 0, "cache": "f16", "variant": "bare", "token_ns": [9000, 5000, 5000]}
say(event="phase", phase="d0", index=0, count=1)
say(event="block", **block)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_worker_is_one_sentence_and_nothing_measured_is_lost(model, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.runs.session.Worker", lambda _command, **_: Worker((sys.executable, "-c", KILLED)))
    done = CliRunner().invoke(cli, ["token-time", "-m", model, "-d", "0", *QUICK, "--results", str(tmp_path)])
    assert done.exit_code == 3
    assert "the worker was killed from outside (SIGKILL)" in done.stderr
    assert "the bench's token" in done.stdout
    (journal,) = tmp_path.rglob("*.jsonl")
    record = json.loads(journal.read_text())
    assert record["blocks"][0]["token_ns"] == [9000, 5000, 5000]
    assert (record["failure"]["cause"], record["failure"]["signal"]) == ("killed", 9)


@pytest.mark.engine
def test_a_refusal_is_told(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(llama_like().build(data=True))
    plan = TimePlan(
        RunSpec(str(broken), n_gen=1, n_threads=1), (0,), (str(broken),), rounds=1, load_rounds=0, application_tokens=0
    )
    with Session("time-ledger") as session:
        record = measure_token_time(TimeRequest(plan, TokenReads({}, {})), session)
    assert describe_end(record.failure).startswith("llama.cpp cannot load broken.gguf:")
    assert not session.is_interrupted
    assert record.blocks == ()


@pytest.mark.skipif(sys.platform != "linux", reason="needs mincore and posix_fadvise of Linux")
def test_a_file_can_be_made_cold_and_warm(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(bytes(8 << 20))
        file.flush()
        os.fsync(file.fileno())
    read_into_memory(path)
    assert resident_share(path) == 1.0
    assert drop_from_memory(path)
    cold = resident_share(path)
    if cold is not None and cold > 0.5:
        pytest.skip("this file system keeps pages whatever it is told (tmpfs)")
    assert cold < 0.02


class FakeModel:
    """Stands for a runtime, a model and a session: what loads need of them."""

    load_duration_ns, context_duration_ns = 100, 10

    def load(self, spec):
        return self

    open = load

    def token_batches(self, n_tokens):
        return [None]

    def decode(self, batch):
        pass

    synchronize = clear = close = lambda self: None


@pytest.mark.parametrize(
    ("shares", "n_cold", "remark"),
    [([0.0, 0.0], 2, None), ([0.0, 0.98], 1, ("not cold", 1)), ([1.0, 1.0], 0, ("not cold", 2)), ([None, None], 2, ("cold unknown", None))],
)  # fmt: skip
def test_a_load_that_is_not_cold_is_not_called_so(monkeypatch, model, shares, n_cold, remark):
    cold, heard = iter(shares), []
    monkeypatch.setattr(load_time, "prepare", lambda files, state: next(cold) if state == "cold" else 1.0)
    load_time.time_loads(
        FakeModel(), RunSpec(model, n_gen=1), [], 1, lambda event, body: heard.append({"event": event, **body})
    )
    loads = [event for event in heard if event["event"] == "load"]
    assert [load["state"] for load in loads] == ["cold"] * n_cold + ["warm", "warm"]
    remarks = [(event["cause"], event["n_left_out"]) for event in heard if event["event"] == "remark"]
    assert remarks == ([remark] if remark else [])


def test_the_roof_is_the_one_that_was_measured_here():
    reading = {
        "work": "read", "device": "CPU", "description": "a CPU", "kind": "cpu", "type_name": "Q8_0", "n_threads": 1, "n_bytes": 1000,
        "n_flops": 0, "durations_ns": [100] * 6, "max_error": 0.0, "tolerance": 1.0,
    }  # fmt: skip
    build = {
        "llama_cpp_python": "1", "ggml_version": "1", "ggml_commit": "1", "system_info": "", "backends": [], "devices": [],
    }  # fmt: skip
    line = {
        "time_utc": "2026-11-24T00:00:00Z",
        "machine": encode(describe_machine()),
        "harness_version": "0",
        "build": build,
    }
    roof = decode(Roof, {**line, "tests": [reading]})

    def find(layers):
        values = {
            "n_ctx": 1, "n_batch": 1, "n_ubatch": 1, "n_threads": 1, "flash_attn": None, "load_mode": None, "repacked_bytes": 0, "buffers": (),
        }  # fmt: skip
        return token_time._find_roof(roof, decode(Resolved, {**values, "layers_by_device": layers}))

    assert find({"CPU": 31}) == 1000 / 100e-9
    assert find({"CUDA0": 31}) is None
    assert find({"CPU": 20, "CUDA0": 11}) is None, "two devices have two roofs"
    assert token_time._find_roof(roof, None) is token_time._find_roof(None, None) is None
