"""harness table, roofline, predict and plot as a user meets them."""

import dataclasses
import json
import os
import pathlib

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import HarnessError
from harness.host.machine import describe_machine, machine_slug
from harness.records.kinds import to_json
from harness.records.roofline import Roof
from harness.runs.roofline import default_threads
from harness.speed.rates import name_host
from harness.views.gallery import KINDS

from .conftest import HERE
from .gguf_bytes import llama_like
from .test_bandwidth import made
from .test_ollama_store import add


@pytest.fixture
def own(results):
    """The recorded run, filed as this machine's."""
    folder = results / machine_slug(describe_machine())
    folder.mkdir(parents=True)
    lines = (HERE / "recorded" / "pp-tg.jsonl").read_text(encoding="utf-8").splitlines()
    here = dataclasses.asdict(describe_machine())
    text = "".join(json.dumps({**json.loads(line), "machine": here}) + "\n" for line in lines)
    (folder / "20261124T123432Z-pp-tg.jsonl").write_text(text, encoding="utf-8")
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def refused(*arguments):
    """The sentence of a refusal."""
    result = run(*arguments)
    assert result.exception is not None
    if isinstance(result.exception, HarnessError):
        return str(result.exception)
    assert result.exit_code == 2, result.output
    return result.output


def test_the_table_has_published_and_own_machines(own):
    result = run("table")
    assert result.exit_code == 0
    assert "RTX 3060 Ti" in result.output
    assert "» " + name_host(describe_machine())[:20] in result.output
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_table_of_own_machines_only(own):
    (row,) = json.loads(run("table", "--no-published", "-o", "json").output)["figures"]
    assert (row["is_published"], row["model"]) == (False, "smollm2:135m")


def test_folders_of_several_machines_together(own, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    text = (own / "20261124T123432Z-pp-tg.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["machine"]["cpu"] = "Intel(R) Xeon(R) CPU E5-2696 v3 @ 2.30GHz"
    (other / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = json.loads(run("table", own, other, "--no-published", "-o", "json").output)["figures"]
    names = {row["machine"] for row in rows}
    assert names == {
        name_host(describe_machine()),
        name_host(dataclasses.replace(describe_machine(), cpu="E5-2696 v3")),
    }


def test_a_damaged_line_is_told_and_skipped(own):
    with open(own / "20261124T123432Z-pp-tg.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "result", "asked"')
    result = run("table", "--no-published")
    assert result.exit_code == 0
    assert "the line is skipped" in result.stderr


def test_troubles_of_the_table(results, tmp_path):
    assert "harness pp-tg" in refused("table", "--no-published")
    assert "no published ones either" in refused("table", "--test", "pp")
    assert "There is no file" in refused("table", tmp_path / "nothing.jsonl")
    assert "--sort takes" in refused("table", "--sort", "beauty")
    assert "neither a .png nor a .svg" in refused("table", "--plot", "x.jpg")


def test_predict_checks_itself():
    result = run("predict", "--check")
    assert result.exit_code == 0
    assert "All bounds are met." in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    values = json.loads(run("predict", "--check", "-o", "json").output)
    assert [bound["is_met"] for bound in values["bounds"]] == [True, True, True, None]
    assert len(values["claims"]) == 9


def test_commands_that_the_check_names_run(results):
    import shlex

    for claim in json.loads(run("predict", "--check", "-o", "json").output)["claims"]:
        result = run(*shlex.split(claim["command"])[1:])
        assert result.exit_code == 0, (claim["command"], result.output, result.exception)


def test_predict_by_own_records(own):
    found = json.loads(run("predict", "-m", "llama3.2:1b:q8_0", "-o", "json").output)
    (answer,) = found["answers"]
    assert found["basis"][0]["models"] == ["smollm2:135m Q4_1"]
    assert answer["tg_rate_low_tok_per_s"] < answer["tg_rate_tok_per_s"] < answer["tg_rate_high_tok_per_s"]
    assert answer["pp_rate_tok_per_s"] is None or answer["pp_rate_tok_per_s"] > 0
    text = run("predict", "-m", "llama3.2:1b:q8_0").output
    assert "fits" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "has_experts"), [("qwen3:30b", True), ("gpt-oss:20b", True), ("llama3.1:70b:q4_0", False)]
)
def test_of_a_model_with_experts_that_is_split_it_is_said_what_may_be_faster(name, has_experts):
    asked = ("predict", "-m", name, "--machine", "RTX 3070 Ti", "--ctx", "2048", "-o", "json")
    warnings = " ".join(json.loads(run(*asked).output)["warnings"])
    assert "layers on the card" in warnings
    assert ("experts" in warnings) == has_experts


def test_predict_of_a_file_on_disk(own, model):
    found = json.loads(run("predict", "-m", model, "--depth", "2048", "-ctk", "q8_0", "-o", "json").output)
    assert found["cost"]["n_layers"] == 30
    assert found["read_per_token_bytes"] > found["cost"]["read_bytes"]


@pytest.fixture
def ways(own, model, tmp_path, monkeypatch):
    """The embedded model by each kind of name that needs no network."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    add(tmp_path / "ollama", "registry.ollama.ai/library/tiny/1b", model)
    return {"path": str(model), "ollama": "ollama:tiny:1b", "synth": "synth:smollm2:135m:q4_1"}


@pytest.mark.parametrize("way", ["path", "ollama", "synth"])
def test_predict_takes_every_kind_of_name(ways, way):
    cost = json.loads(run("predict", "-m", ways[way], "-o", "json").output)["cost"]
    by_name = json.loads(run("predict", "-m", "smollm2:135m:q4_1", "-o", "json").output)["cost"]
    assert {**cost, "name": ""} == {**by_name, "name": ""}, "the catalog's shape is that of the file"
    assert "Q4_1" not in cost["name"], "the quantization is told beside it"


def test_predict_reads_the_header_of_a_file_that_is_not_here(own, model, monkeypatch):
    from harness.sources.headers import read_local
    from harness.sources.hub_reference import HubReference

    asked = []
    monkeypatch.setattr(
        HubReference,
        "header",
        lambda reference: (
            asked.append(reference.text) or dataclasses.replace(read_local(pathlib.Path(model)), path=None)
        ),
    )
    result = run("predict", "-m", "hf:owner/tiny-GGUF:Q4_1")
    assert asked == ["hf:owner/tiny-GGUF:Q4_1"]
    assert result.output.startswith("hf:owner/tiny-GGUF Q4_1\n")


def test_predict_of_what_is_nowhere_is_one_sentence(own, tmp_path, monkeypatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    assert "ollama pull" in refused("predict", "-m", "ollama:none")
    assert "There is no file" in refused("predict", "-m", "nothing.gguf")


def test_the_latest_memory_ledger_is_drawn(own, tmp_path):
    assert "harness overhead" in refused("plot", "ledger", "-o", tmp_path / "a.svg")
    row = {
        "cause": "KV cache",
        "device": "CPU",
        "predicted_bytes": 2**24,
        "measured_bytes": 2**25,
        "resident_bytes": 2**25,
    }
    line = {
        "schema": 1, "kind": "overhead", "model": "old $x$", "n_ctx": 512, "ledger": [row], "steps": [{"rss_bytes": 2**26}],
        "time_utc": "2026-11-24T12:00:00Z", "machine": dataclasses.asdict(describe_machine()),
    }  # fmt: skip
    lines = [line, {**line, "model": "new $x$", "time_utc": "2026-11-25T12:00:00Z"}]
    (own / "x-overhead.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    assert run("plot", "ledger", "-o", tmp_path / "a.svg").exit_code == 0
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "new $x$, context 512" in drawn
    assert "in memory now" in drawn
    del lines[1]["steps"]
    (own / "x-overhead.jsonl").write_text(json.dumps(lines[1]) + "\n", encoding="utf-8")
    assert run("plot", "ledger", "-o", tmp_path / "a.svg").exit_code == 0
    assert "measured" not in (tmp_path / "a.svg").read_text(encoding="utf-8"), (
        "of a failure there is only the prediction"
    )


@pytest.mark.parametrize("name", ["M4 Pro", "RTX 3070 Ti", "i7-8700", "M1 Ultra 64"])
def test_predict_for_published_machines_fits_eighty_columns(results, name):
    result = run("predict", "-m", "llama3.1:70b:q4_0", "--machine", name, "--memory", "64GiB")
    assert result.exit_code == 0, result.exception
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "n_ctx", "cache"),
    [
        ("qwen3:14b", 65536, "q8_0"),
        ("phi4:14b", 8192, "f16"),
        ("gpt-oss:20b", 8192, "f16"),
    ],
)
def test_predict_counts_layers_and_bytes_as_overhead_does(results, monkeypatch, name, n_ctx, cache):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = ("-m", name, "--ctx", n_ctx, "-ctk", cache, "-ctv", cache, "--vram", "4GB", "-o", "json")
    (room,) = json.loads(run("predict", "--bandwidth", "600GB/s", "--kind", "gpu", *asked).stdout)["memory"]
    (card,) = (
        c for c in json.loads(run("overhead", "--predict-only", *asked).stdout)["cards"] if c["device"] == "a card"
    )
    assert (room["n_layers_gpu"], room["needed_bytes"]) == (card["n_layers_fitting"], card["needed_bytes"])


@pytest.mark.engine
def test_of_a_vision_model_predict_and_overhead_differ_by_the_encoder_that_overhead_names(results):
    asked = ("-m", "llama3.2-vision:11b", "--vram", "8GB", "-o", "json")
    (room,) = json.loads(run("predict", "--bandwidth", "600GB/s", "--kind", "gpu", *asked).stdout)["memory"]
    data = json.loads(run("overhead", "--predict-only", "-c", 4096, *asked).stdout)
    (encoder,) = (note["size_bytes"] for note in data["notes"] if note["remark"] == "encoder")
    assert data["cards"][0]["needed_bytes"] + encoder == pytest.approx(room["needed_bytes"], rel=1e-3)


@pytest.mark.engine
def test_a_working_memory_that_llama_cpp_cannot_plan_is_said_to_be_estimated(results, tmp_path):
    file = tmp_path / "odd.gguf"
    file.write_bytes(llama_like().build(data=True))  # it says less than llama.cpp wants to know
    result = run("predict", "-m", file, "--bandwidth", "600GB/s", "--kind", "gpu", "--vram", "8GB", "-ctk", "q8_0")
    assert "working memory is estimated: " in result.stdout


def test_a_memory_that_is_sold_in_powers_of_two_is_known_again(results):
    asked = ("predict", "-m", "llama3.1:70b:q4_0", "--machine")
    assert "\nwhat is sold as 8 GB has 8.6 GB\n" in run(*asked, "RTX 3070 Ti").stdout
    text = run(*asked, "M4 Pro", "--memory", "48GB").stdout
    assert "Metal gives 3/4 of such a memory by default; what is sold as 48 GB has 51.5 GB\n" in text
    data = json.loads(run(*asked, "RTX 3070 Ti", "-o", "json").stdout)
    assert (data["pp_basis"], data["interval_level"]) == (["two-devices"], 0.9)


def test_troubles_of_predict(results):
    assert "the nearest are" in refused("predict", "--machine", "RTX 3070")
    assert "harness roofline" in refused("predict", "-m", "llama3.1:8b")
    assert "give one of them" in refused("predict", "-m", "llama3.1:8b", "--size", "3GB")
    assert "give one of them" in refused("predict", "--machine", "M1", "--bandwidth", "3GB/s")
    assert "give that too" in refused("predict", "--kind", "cpu")
    assert "did you mean" in refused("predict", "-m", "llama3:8b", "--machine", "M1")
    assert "not an amount" in refused("predict", "--bandwidth", "quick")
    for machine in ("M4 Pro", "E5-2696 v3"):
        assert "goes with a card" in refused("predict", "-m", "llama3.1:8b", "--machine", machine, "--vram", "8GB")
    assert "goes with a card" in refused("predict", "--size", "20GB", "--machine", "M4 Pro", "--host", "i7-8700")
    assert "not above zero" in refused("predict", "--bandwidth", "0GB/s")
    assert "the nearest are" in refused("predict", "-m", "llama3.1:70b", "--machine", "RTX 3070 Ti", "--host", "i7-870")
    assert "'q9' is not one of f32" in refused("predict", "-m", "llama3.1:8b", "--machine", "M1", "-ctk", "q9")
    assert "asks nothing else" in refused("predict", "--check", "--machine", "M1")
    assert "holds no 9000" in refused("predict", "-m", "llama3.1:8b", "--machine", "M1", "-c", "100", "-d", "9000")


def test_the_context_grows_with_the_depth(results):
    asked = ("-m", "llama3.1:8b", "--machine", "i7-8700", "--memory", "16GiB", "--n-depth", "9000", "-o", "json")
    assert json.loads(run("predict", *asked).output)["memory"][0]["cache_bytes"] == 9216 * 128 * 1024


def test_prompts_of_five_digits_fit_eighty_columns(results):
    text = run("predict", "-m", "smollm2:135m", "--machine", "M4 Pro").output
    assert max(map(len, text.splitlines())) <= 80
    assert "–" in text


def test_troubles_of_roofline(results):
    assert "from 1 to 512" in refused("roofline", "-t", "9999")
    assert "fits into any cache" in refused("roofline", "--size", "1B")


@pytest.mark.engine
def test_roofline_measures_keeps_and_shows_again(own, results):
    result = run("roofline", "--size", "2MB", "-r", "6", "-t", "1")
    assert result.exit_code in (0, 5), (result.output, result.exception)
    assert "right" in result.output
    assert "WRONG" not in result.output
    assert "smollm2:135m Q4_1" in result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    (journal,) = own.glob("*-roofline.jsonl")
    assert json.loads(journal.read_text(encoding="utf-8"))["kind"] == "roofline"
    again = json.loads(run("roofline", "--saved", "-o", "json").output)
    assert {record["test"] for record in again["records"]} == {"pp64", "tg16"}
    found = json.loads(run("predict", "-m", "llama3.2:1b:q8_0", "-o", "json").output)
    assert found["basis"][0]["roofline_bytes_per_s"] > 0
    assert found["answers"][0]["tg_roof_tok_per_s"] > 0


def test_no_roofline_is_a_sentence(results):
    assert "run `harness roofline`" in refused("roofline", "--saved")


def test_threads_by_powers_of_two_and_all():
    assert default_threads(1) == (1,)
    assert default_threads(6) == (1, 2, 4, 6)
    assert default_threads(16) == (1, 2, 4, 8, 16)


def test_plots_are_written(own, tmp_path):
    for kind in ("machines", "size", "bandwidth", "accuracy"):
        path = tmp_path / f"{kind}.svg"
        result = run("plot", kind, "-o", path, "--theme", "dark")
        assert result.exit_code == 0, result.exception
        assert path.read_bytes().startswith(b"<?xml")


def test_the_help_of_plot_names_each_kind_once():
    text = " ".join(run("plot", "--help").output.split())
    for kind in KINDS.values():
        assert text.count(f"({kind.what})") == 1


def test_troubles_of_plot(results, tmp_path):
    assert "measured twice" in refused("plot", "history", "-o", tmp_path / "h.png")
    assert "no folder" in refused("plot", "size", "-o", tmp_path / "no" / "s.png")
    if os.name == "posix" and os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert "Cannot write the picture" in refused("plot", "accuracy", "-o", tmp_path / "a.png")


def test_what_shows_a_machine_does_so_on_every_one(identity, own, recorded):
    """A name of any length, in every command that tells a machine: whole lines, and no failure."""
    roof = Roof("2026-01-01T00:00:00Z", describe_machine(), "0.1.0", recorded[0].build, (made(), made(n_threads=2)))
    (own / "20260101T000000Z-roofline.jsonl").write_text(json.dumps(to_json(roof)) + "\n", encoding="utf-8")
    shown = {
        name: run(*arguments)
        for name, arguments in {
            "table": ("table", "--no-published"),
            "predict": ("predict", "-m", "llama3.2:1b:q8_0"),
            "roofline": ("roofline", "--saved"),
            "models": ("models",),
        }.items()
    }
    for name, result in shown.items():
        assert result.exit_code == 0, (name, result.output, result.exception)
        assert max(map(len, result.stdout.splitlines())) <= 80, name
    assert name_host(describe_machine())[:12] in shown["table"].stdout
    assert describe_machine().cpu[:12] in " ".join(shown["roofline"].stdout.split())
