"""`harness fit` says what `overhead` and `predict` say, in every format, and refuses what cannot be meant."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import UsageError
from harness.gguf.header import BytesSource, read_header
from harness.memory.causes import HOST
from harness.memory.companions import describe_projector
from harness.runs.fit import Bound, FitRequest, fit_model, plan_fit
from harness.runs.memory import Model, find_model
from harness.runs.vocabulary import compare_vocabularies
from harness.sources.references import parse_reference
from harness.sources.sparse import HeaderFile
from harness.units import GIB, MIB
from harness.views import page
from harness.views.figures.style import to_bytes
from harness.views.fit import describe_fit, list_arguments
from harness.views.formats import format_names, render

from .gguf_bytes import HeaderBytes, llama_like
from .hub.fixtures import hub  # noqa: F401
from .rpc_server import rpc_server
from .shapes import SMALL_SHAPES, small_header
from .test_overhead import from_shape
from .test_same_answers import MODELS

#: What CUDA takes, and what computing is estimated at for these models.
BESIDE = 457 * MIB


def run(*arguments, expect=0):
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == expect, done.output
    return json.loads(done.stdout) if "json" in arguments else done.output


@pytest.mark.parametrize("name", MODELS)
def test_fit_overhead_and_predict_draw_the_line_at_the_same_context(name, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(MODELS[name].build(data=True))

    def layers(n_ctx, vram):
        answer = run("overhead", "-m", path, "--predict-only", "--vram", vram, "-c", n_ctx, "-o", "json")
        (card,) = answer["cards"]
        return card

    ends = [layers(n_ctx, "8GiB")["needed_bytes"] for n_ctx in (1024, 8192)]
    vram = f"{sum(ends) // 2}B"
    (best,) = run("fit", "-m", path, "--vram", vram, "-ctk", "f16", "-o", "json")["fits"]
    n_ctx = best["n_ctx"]
    assert best["fits"]
    assert 4096 <= n_ctx <= 8192
    card = layers(n_ctx, vram)
    assert card["n_layers_fitting"] == card["n_layers"] == best["n_gpu_layers"]
    predicted = run(
        "predict", "-m", path, "--bandwidth", "50GB/s", "--kind", "gpu", "--vram", vram, "-c", n_ctx, "-o", "json"
    )
    assert predicted["memory"][0]["fits"] is True
    if n_ctx < 8192:
        assert layers(n_ctx + 256, vram)["n_layers_fitting"] < card["n_layers"]
        more = run(
            "predict",
            "-m",
            path,
            "--bandwidth",
            "50GB/s",
            "--kind",
            "gpu",
            "--vram",
            vram,
            "-c",
            n_ctx + 256,
            "-o",
            "json",
        )
        assert more["memory"][0]["fits"] is False


@pytest.fixture
def model():
    return Model("tiny", small_header("llama"), (), None)


@pytest.fixture
def moe():
    return Model("tiny", small_header("qwen3moe"), (), None)


def test_rows_and_formats_of_a_card(moe):
    fitting = fit_model(FitRequest(moe, vram_bytes=(BESIDE + 22 * MIB,), ram_bytes=GIB))
    assert [(item.type_k, item.fits) for item in fitting.fits] == [("f16", True), ("q8_0", True), ("q4_0", True)]
    contexts = [item.packing.spec.n_ctx for item in fitting.fits]
    assert contexts == sorted(contexts)
    assert fitting.bound is Bound.TRAINED
    document = describe_fit(fitting)
    for form in format_names():
        assert render(document, form)
    for width in (60, 80, 200):
        with page.of_width(width):
            lines = render(document, "table").split("\n")
            # What is pasted is not broken.
            assert max(len(line) for line in lines if "MoE weights" not in line) <= width
    for theme in ("light", "dark"):
        picture = next(document.blocks(type(document.sections[-1].blocks[0])))
        assert to_bytes(picture.draw(theme), "svg").startswith(b"<?xml")


def warnings(fitting):
    return " ".join(json.loads(render(describe_fit(fitting), "json"))["warnings"])


def test_a_card_that_is_filled_to_the_last_is_said_with_what_keeps_some_of_it_free(moe):
    tight = FitRequest(moe, vram_bytes=(BESIDE + 22 * MIB,), ram_bytes=GIB, cache_types=(("f16", "f16"),))
    assert "-fitt 1024" in warnings(fit_model(tight))
    assert "of the card" in warnings(fit_model(tight))
    two = dataclasses.replace(tight, vram_bytes=(BESIDE + 22 * MIB, BESIDE + 23 * MIB))
    assert "of CUDA" in warnings(fit_model(two))
    roomy = dataclasses.replace(tight, vram_bytes=(8 * GIB,))
    assert "-fitt" not in warnings(fit_model(roomy))
    # Who says how much is to be left knows it; the page says that it was heeded.
    kept = dataclasses.replace(tight, spare_bytes=(MIB,))
    assert "-fitt" not in warnings(fit_model(kept))
    assert "1 MiB kept free" in render(describe_fit(fit_model(kept)), "table")
    apart = dataclasses.replace(two, spare_bytes=(MIB, 2 * MIB))
    assert "1 MiB and 2 MiB kept free" in " ".join(render(describe_fit(fit_model(apart)), "table").split())
    # Without a layer on the card nothing of it is taken.
    assert "-fitt" not in warnings(fit_model(dataclasses.replace(tight, options={"n_gpu_layers": 0})))


def test_programs_that_cannot_keep_experts_back_are_told_the_layers_that_fit_with_them(moe):
    tight = FitRequest(moe, vram_bytes=(BESIDE + 12 * MIB,), ram_bytes=GIB, cache_types=(("f16", "f16"),), n_ctx=4096)
    fitting = fit_model(tight)
    (found,) = fitting.fits
    assert found.packing.spec.n_cpu_moe
    alone = dataclasses.replace(tight, options={"n_cpu_moe": 0})
    count = fit_model(alone).fits[0].packing.n_layers_on_cards
    assert found.n_layers_alone == count
    text = render(describe_fit(fitting), "table")
    assert f"PARAMETER num_gpu {count}\n" in text
    assert f"MoE weights onto CPU: {found.packing.spec.n_cpu_moe}" in " ".join(text.split())
    assert fit_model(alone).fits[0].n_layers_alone is None
    # Of a draft only llama-server is told.
    assert "Ollama" not in render(describe_fit(fit_model(dataclasses.replace(tight, draft=moe))), "table")


def test_a_context_beyond_what_the_model_was_trained_for_is_said(model):
    wide = FitRequest(model, vram_bytes=(8 * GIB,), ram_bytes=GIB, cache_types=(("f16", "f16"),))
    trained = model.subject.n_ctx_train
    asked = dataclasses.replace(wide, n_ctx=2 * trained)
    assert f"trained for {trained} tokens of context, and {2 * trained} are asked for" in warnings(fit_model(asked))
    assert "are asked for" not in warnings(fit_model(dataclasses.replace(wide, n_ctx=trained)))


def test_two_cards_have_a_split_and_the_flags_say_it(model):
    needs = fit_model(FitRequest(model, vram_bytes=(8 * GIB, 8 * GIB), ram_bytes=GIB, n_ctx=4096)).fits[0].packing.cards
    working, rest = needs[0].working_bytes, sum(need.weights_bytes + need.cache_bytes for need in needs)
    cards = (working + rest // 6, working + rest)
    fitting = fit_model(FitRequest(model, vram_bytes=cards, ram_bytes=GIB, n_ctx=4096, cache_types=(("f16", "f16"),)))
    (found,) = fitting.fits
    assert found.fits
    assert [card.device for card in found.packing.cards] == ["CUDA0", "CUDA1"]
    words = list_arguments(found.packing, fitting)
    assert words[:6] == ["-m", "model.gguf", "-c", "4096", "-ngl", "all"]
    assert words[words.index("-ts") + 1] == ",".join(f"{card.n_layers}" for card in found.packing.cards)


def test_a_model_that_fits_nowhere_is_told_what_would_help(model, tmp_path):
    fitting = fit_model(FitRequest(model, vram_bytes=(MIB,), ram_bytes=2 * MIB))
    assert not any(item.fits for item in fitting.fits)
    text = " ".join(render(describe_fit(fitting), "table").split())
    assert "It does not fit. What would help:" in text
    assert "no, lacks" in text
    path = tmp_path / "model.gguf"
    path.write_bytes(llama_like().build(data=True))
    assert "It does not fit" in run("fit", "-m", path, "--ram", "0.02MiB")


def test_a_type_that_a_head_does_not_divide_is_a_row_with_the_reason(model):
    header = small_header("llama")
    metadata = {**header.metadata, "llama.attention.key_length": 48, "llama.attention.value_length": 48}
    odd = dataclasses.replace(model, header=dataclasses.replace(header, metadata=metadata))
    fitting = fit_model(FitRequest(odd, ram_bytes=8 * GIB))
    assert [item.packing is not None for item in fitting.fits] == [True, False, False]
    assert "needs heads of a multiple of 32" in render(describe_fit(fitting), "json")


def projector(**settings):
    made = HeaderBytes().add("general.architecture", "str", "clip").add("general.type", "str", "mmproj")
    for key, value in settings.items():
        made.add(f"clip.vision.{key}", "u32", value)
    return made.add_tensor("v.blk.0.attn_q.weight", "F16", 64, 64)


def test_a_projector_counts_with_its_weights_and_the_least_of_its_computing(tmp_path, model):
    sizes = {"image_size": 28, "patch_size": 14, "embedding_length": 64, "feed_forward_length": 256}
    whole = describe_projector(read_header(BytesSource(projector(**sizes).build())), "p")
    assert (whole.weights_bytes, whole.n_patches, whole.working_bytes) == (64 * 64 * 2, 4, 4 * (2 * 64 + 256) * 4)
    assert describe_projector(read_header(BytesSource(projector().build())), "p").working_bytes is None
    fitting = fit_model(FitRequest(model, vram_bytes=(8 * GIB,), ram_bytes=GIB, projector=whole))
    assert fitting.fits[0].packing.cards[0].fixed_bytes == whole.total_bytes
    assert "4 patches" in render(describe_fit(fitting), "table")
    here = fit_model(FitRequest(model, ram_bytes=GIB, projector=whole, options={"n_gpu_layers": 0}))
    assert here.fits[0].packing.host.fixed_bytes == whole.total_bytes


def test_a_draft_takes_its_weights_and_a_cache_of_the_same_context(model):
    alone = fit_model(FitRequest(model, vram_bytes=(8 * GIB,), ram_bytes=GIB, n_ctx=4096)).fits[0].packing
    both = fit_model(FitRequest(model, vram_bytes=(8 * GIB,), ram_bytes=GIB, n_ctx=4096, draft=model)).fits[0].packing
    card = alone.cards[0]
    assert both.cards[0].fixed_bytes == card.total_bytes - BESIDE
    assert both.host.fixed_bytes == alone.host.weights_bytes + alone.host.working_bytes


def of_bytes(made, label):
    data = made.build()
    return Model(label, read_header(BytesSource(data)), (HeaderFile("m.gguf", data, len(data)),), None)


def test_what_tells_vocabularies_apart():
    few, many = of_bytes(llama_like(vocab=12), "few"), of_bytes(llama_like(vocab=512), "many")
    assert compare_vocabularies(few, few) is None
    assert "has 512 tokens and the target's 12" in compare_vocabularies(few, many)
    assert compare_vocabularies(few, of_bytes(llama_like(vocab=20), "some")) is None
    spoilt = llama_like(vocab=12)
    spoilt.keys = [key.replace(b"token7", b"toker7") for key in spoilt.keys]
    assert "its token 7 is 'toker7'" in compare_vocabularies(few, of_bytes(spoilt, "other"))

    def ends(token, is_added):
        made = llama_like(vocab=12).add("tokenizer.ggml.bos_token_id", "u32", token)
        return of_bytes(made.add("tokenizer.ggml.add_bos_token", "bool", is_added), "ends")

    assert "its BOS token is 2 and the target's 1" in compare_vocabularies(ends(1, 1), ends(2, 1))
    assert compare_vocabularies(ends(1, 1), ends(2, 0)) is None
    bert = llama_like(vocab=12)
    bert.keys = [key.replace(b"gpt2", b"bert") for key in bert.keys]
    assert "is WordPiece and the target's BPE" in compare_vocabularies(few, of_bytes(bert, "bert"))
    # A vocabulary that was made up says nothing of the real one but its size.
    made_up = find_model("synth:qwen3:0.6b:q4_0", weights=False)
    assert compare_vocabularies(made_up, find_model("synth:qwen3:1.7b:q4_0", weights=False)) is None
    assert "tokens" in compare_vocabularies(made_up, few)


def test_quantizations_stand_side_by_side_where_a_name_leaves_it_open():
    request = plan_fit("synth:qwen3:0.6b", {}, vram_bytes=[2 * GIB], ram_bytes=4 * GIB, cache_types=[("f16", "f16")])
    fitting = fit_model(request)
    found = {item.variant.quantization: item for item in fitting.variants}
    assert {"Q8_0", "Q4_K_M", "Q4_0"} <= set(found)
    assert found["Q4_0"].is_asked
    assert found["Q4_0"].packing.spec == dataclasses.replace(fitting.fits[0].packing.spec)
    assert found["Q8_0"].packing.spec.n_ctx < found["Q4_0"].packing.spec.n_ctx
    assert plan_fit("synth:qwen3:0.6b:q8_0", {}).variants == ()
    assert len(plan_fit("synth:qwen3:0.6b:q8_0", {}, all_quants=True).variants) == 7


def test_each_kind_of_reference_knows_its_quantizations():
    listed = parse_reference("llama3.2:1b").list_variants()
    assert {"Q8_0", "Q4_0"} <= {item.quantization for item in listed}
    assert all(parse_reference(item.text).label() == item.text for item in listed)
    assert parse_reference("llama3.2:1b").is_open
    assert not parse_reference("llama3.2:1b:q4_0").is_open


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ram", "0GB"), "not above zero"),
        (("--ram", "0"), "not above zero"),
        (("--ram", "16"), "did you mean 16GB?"),
        (("--vram", "8GB,x"), "is not an amount"),
        (("--vram", "99999999999999TB"), "more than there can be"),
        (("-ngl", "1,2"), "takes one value"),
        (("-fitt", "1,2,3", "--vram", "8GB,8GB"), "names 3 devices and there are 2"),
        (("--mmproj", "smollm2:135m"), "no projector"),
        (("--draft", "nosuchmodel"), "neither a file nor a model"),
        (("--all-quants", "-m", "{file}"), "is one file"),
        (("-c", "99999999999"), "out of range"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(arguments, said, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(llama_like().build(data=True))
    done = CliRunner().invoke(cli, ["fit", *(word.format(file=path) for word in arguments)])
    assert done.exit_code in (1, 2)
    text = " ".join(done.output.split()) + str(done.exception)
    assert said in text
    assert done.exit_code == 2 or isinstance(done.exception, UsageError)


def test_a_projector_is_no_model_and_no_draft(tmp_path):
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(projector().build(data=True))
    for arguments in (("-m", path), ("-m", "synth:qwen3:0.6b:q4_0", "--draft", path)):
        done = CliRunner().invoke(cli, ["fit", *map(str, arguments)])
        assert isinstance(done.exception, UsageError)
        assert "projector" in str(done.exception)


@pytest.mark.engine
def test_what_was_found_is_what_llama_cpp_plans():
    """The ledger of the context that was found is within the memory, and that of the next one is not."""
    from harness.runs.memory import find_fits, find_model, forecast, make_spec

    model = find_model("synth:qwen3:0.6b:q4_0", weights=False)
    room = 2 * GIB
    fitting = fit_model(FitRequest(model, ram_bytes=room, options={"n_gpu_layers": 0}, cache_types=(("q8_0", "q8_0"),)))
    n_ctx = fitting.fits[0].packing.spec.n_ctx
    assert n_ctx < fitting.most
    settings = {"type_k": "q8_0", "type_v": "q8_0", "n_gpu_layers": 0}
    specs = [make_spec(model, tokens, settings) for tokens in (n_ctx, n_ctx + 256)]
    forecasts, host = forecast(model, specs)
    needed = [find_fits(model, spec, item, host)[0].needed_bytes for spec, item in zip(specs, forecasts, strict=True)]
    # What the process itself takes differs by some hundred KiB from one to the next.
    assert needed[0] <= room + MIB
    assert needed[1] > room - MIB
    assert fitting.fits[0].packing.taken[-1].device == HOST


def test_the_files_of_a_repository_stand_side_by_side_by_their_headers_alone(hub):  # noqa: F811
    from harness.sources.synthetic import make_header_bytes

    sizes = {}
    for kind in ("Q8_0", "Q4_0"):
        data, size = make_header_bytes(SMALL_SHAPES["llama"], kind, name="small")
        sizes[kind] = size
        hub.add("owner/repo", f"small-{kind}.gguf", data + bytes(size - len(data)))
    hub.add("owner/repo", "mmproj-small-F16.gguf", b"no model")
    repository = "hf:owner/repo"
    variants = parse_reference(repository).list_variants()
    assert {item.quantization: item.size_bytes for item in variants} == sizes
    request = plan_fit(repository, {}, vram_bytes=[GIB], ram_bytes=GIB, cache_types=[("f16", "f16")])
    fitting = fit_model(request)
    assert [(item.variant.quantization, item.fits) for item in fitting.variants] == [("Q4_0", True), ("Q8_0", True)]
    smaller, larger = (item.packing.cards[0].weights_bytes for item in fitting.variants)
    assert smaller < larger


@pytest.mark.engine
def test_a_device_that_is_here_takes_what_llama_cpp_plans_for_the_very_placement():
    """On a real device behind RPC, of which some MiB may be taken: within them, and planned so by a dry run of that placement."""
    from harness.runs.devices import survey_devices
    from harness.runs.memory import compute_on, forecast

    with rpc_server() as served:
        (device,) = [item for item in survey_devices((served.endpoint,)).build.devices if item.name == "RPC0"]
        room = 14 * MIB
        model = Model("tiny", small_header("mixtral"), from_shape("mixtral").files, None)
        request = FitRequest(
            model,
            {"rpc": (served.endpoint,)},
            (("f16", "f16"),),
            spare_bytes=(device.memory_free_bytes - room,),
            ram_bytes=GIB,
        )
        (found,) = fit_model(request).fits
        card = found.packing.cards[0]
        assert found.fits
        assert 0 <= card.left_bytes < room // 2
        ((item,), _) = forecast(model, [found.packing.spec])
        assert card.working_bytes == compute_on(item, "RPC0")
        assert card.total_bytes == item.on("RPC0")


def test_where_only_one_copy_of_the_weights_fits_that_is_said():
    model = find_model("synth:smollm2:135m:q4_0", weights=False)
    wide = FitRequest(model, cache_types=(("f16", "f16"),), ram_bytes=8 * GIB, n_ctx=4096)
    host = fit_model(wide).fits[0].packing.host
    copies = host.weights_bytes - sum(tensor.size_bytes for tensor in model.header.tensors)
    if copies < 8 * MIB:
        pytest.skip("this CPU repacks nothing of it")
    tight = dataclasses.replace(wide, ram_bytes=host.total_bytes - copies // 2)
    fitting = fit_model(tight)
    assert not fitting.fits[0].fits
    assert fitting.one_copy is not None
    said = "--load-mode none, which keeps one copy of the weights: 4096 tokens fit then"
    assert said in " ".join(render(describe_fit(fitting), "table").split())
    assert fit_model(dataclasses.replace(tight, options={"load_mode": "mmap"})).one_copy is None
