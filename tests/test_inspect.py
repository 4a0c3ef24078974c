"""The page and the data that describe a model, and the command that prints them."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from click.testing import CliRunner

from harness.cli import inspect
from harness.errors import HarnessError, UsageError
from harness.gguf.anatomy import Anatomy, LayerSize, Share, describe_model
from harness.gguf.caches import Attention
from harness.gguf.header import BytesSource, Fetched, read_header
from harness.memory.repack import RepackedType
from harness.runs import inspection
from harness.runs.inspection import Inspection
from harness.sources.headers import Found
from harness.sources.hub_reference import HubReference
from harness.views.formats import format_names, render
from harness.views.inspect import describe_inspection
from tests.gguf_bytes import llama_like

GOLDEN = pathlib.Path(__file__).parent / "golden" / "inspect.txt"


def tiny() -> Anatomy:
    return describe_model(read_header(BytesSource(llama_like().build())))


def large() -> Anatomy:
    """A model with everything at its widest."""
    parts = {"attention": 10**12, "ffn": 10**12, "experts": 10**13, "norms": 10**9, "other": 10**10}
    layers = tuple(LayerSize(i, sum(parts.values()) + i % 2, parts | {"other": 10**10 + i % 2}) for i in range(512))
    share = Share(123456, 10**13, 10**13)
    return dataclasses.replace(
        tiny(),
        name="x" * 200, architecture="y" * 100, architecture_known=False, n_params=10**13, n_params_active=10**12,
        n_experts=1024, n_experts_used=(16,), n_heads=(8, 128), n_heads_kv=(1, 64), layers=layers, file_bytes=10**14, n_parts=163,
        by_type=dict.fromkeys(("IQ2_XXS", "Q4_K", "F32"), share),
        by_part=dict.fromkeys(("token embeddings", "attention", "ffn", "experts", "norms", "output", "other"), share),
        context_length=10**7, kv_bytes_per_token={"IQ4_NL": 10**7}, cache_contexts=(4096, 32768, 10**7), cache_bytes={"IQ4_NL": (10**11, 10**12, 10**14)}, tokenizer="z" * 100, synthetic=True,
        attention=Attention((), None, 4096, ("note " * 30,)),
    )  # fmt: skip


def show_anatomy(anatomy, label, **facts) -> str:
    return render(describe_inspection(Inspection(label, anatomy, **facts)), "table")


def export_anatomy(anatomy, label, **facts) -> dict:
    return json.loads(render(describe_inspection(Inspection(label, anatomy, **facts)), "json"))


@pytest.mark.parametrize("form", format_names())
@pytest.mark.parametrize("make", [tiny, large])
def test_every_format_has_it(make, form):
    assert "Q4_0" in render(describe_inspection(Inspection("m", make())), form) or make is large


def test_the_page_of_a_small_model():
    assert show_anatomy(tiny(), "tiny.gguf") == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [tiny, large])
def test_the_page_fits_80_columns(make):
    repacked = [RepackedType("Q4_0", "q4_0_8x8 (AVX2)", 10**12)]
    page = show_anatomy(make(), "/long/path" * 20, fetched=Fetched(10**9, 12), repacked=repacked)
    assert max(len(line) for line in page.splitlines()) <= 80
    assert not any(line != line.rstrip() for line in page.splitlines())


def test_layers_of_one_size_share_a_row():
    page = show_anatomy(large(), "m")
    assert "0,2,4,6,8,10,12…" in page
    assert "1,3,5,7,9,11,13…" in page


def test_what_a_file_says_cannot_drive_the_terminal():
    page = show_anatomy(dataclasses.replace(tiny(), name="evil\x1b[2J\nline"), "m\x07.gguf")
    assert "\x1b" not in page
    assert "\x07" not in page
    assert "evil�[2J line" in page


def test_the_cost_and_the_repacking_are_shown_where_known():
    page = show_anatomy(tiny(), "m", fetched=Fetched(9 * 2**20, 4), repacked=[RepackedType("Q4_0", "q4_0_8x8", 2**20)])
    assert "fetched           9.00 MiB\nin requests       4" in page
    assert page.endswith(
        "repacked on this CPU\ntype    layout        size\n------  --------  --------\nQ4_0    q4_0_8x8  1.00 MiB\n"
    )
    assert show_anatomy(tiny(), "m", repacked=()).endswith("repacked on this CPU\nnothing\n")


def test_an_unknown_cache_says_why():
    unknown = dataclasses.replace(tiny(), attention=Attention(None, "it is recurrent"))
    assert "KV cache by type of K and V\nnot known: it is recurrent" in show_anatomy(unknown, "m")


def test_the_data_is_json_and_says_the_same():
    data = export_anatomy(tiny(), "m", fetched=Fetched(5, 1), repacked=[RepackedType("Q4_0", "x", 7)])
    assert (data["n_params"], data["file_type"], data["n_layers"]) == (tiny().n_params, "Q4_0", 2)
    assert {row["type"]: row["per_token_bytes"] for row in data["cache"]}["f16"] == 2 * 2 * 32 * 2
    assert (data["fetched_bytes"], data["n_requests"]) == (5, 1)
    assert data["repacked"] == [{"type": "Q4_0", "layout": "x", "size_bytes": 7}]
    assert export_anatomy(tiny(), "m")["repacked"] is None
    assert sum(item["size_bytes"] for item in data["by_part"]) == data["weights_bytes"]


@pytest.fixture
def model(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(llama_like().build(data=True))
    return str(path)


@pytest.mark.parametrize("options", [[], ["-m"], ["--model"], ["--gguf"]])
def test_the_command_prints_the_page(model, options):
    done = CliRunner().invoke(inspect.command, [*options, model], catch_exceptions=False)
    assert done.exit_code == 0
    assert "parameters        0.04 M" in done.stdout


def test_the_command_prints_json_and_nothing_else(model):
    done = CliRunner().invoke(inspect.command, [model, "-o", "json"], catch_exceptions=False)
    assert json.loads(done.stdout)["architecture"] == "llama"
    assert done.stderr == ""


def test_the_command_takes_one_model_at_a_time():
    with pytest.raises(UsageError, match="one model at a time"):
        CliRunner().invoke(inspect.command, ["a", "-m", "b"], catch_exceptions=False)


def test_the_command_lets_errors_through_in_one_sentence(tmp_path):
    with pytest.raises(HarnessError, match=r"There is no file .*none\.gguf"):
        CliRunner().invoke(inspect.command, [str(tmp_path / "none.gguf")], catch_exceptions=False)


def test_finding_the_header_is_one_step_that_can_be_replaced(monkeypatch):
    header = read_header(BytesSource(llama_like().build()))
    monkeypatch.setattr(HubReference, "header", lambda reference: Found(header, Fetched(1000, 2)))
    monkeypatch.setattr(inspection, "find_repacked", lambda header: ())
    done = CliRunner().invoke(inspect.command, ["hf:owner/repo/m.gguf"], catch_exceptions=False)
    assert done.stdout.startswith("hf:owner/repo/m.gguf\n")
    assert "in requests       2" in done.stdout
    assert done.stdout.endswith("nothing\n")


def test_the_help_has_examples():
    assert "harness inspect model.gguf -o json" in CliRunner().invoke(inspect.command, ["--help"]).stdout
