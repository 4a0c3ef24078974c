"""What a header says is the same in every command: cache and state, what is in memory, what a token reads."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import UsageError
from harness.gguf.attention import describe_attention
from harness.gguf.blocks import loaded_tensors
from harness.gguf.cost import cost_of_header
from harness.gguf.reads import count_reads
from harness.memory.causes import Cause, Part
from harness.memory.fit import check_placement, price_layers
from harness.memory.forecast import Host, device_rules, predict_memory
from harness.runs.asking import suit
from harness.sources.gguf_file import read_file_header
from harness.spec import RunSpec
from harness.speed.offload import describe_blocks
from tests.gguf_bytes import HeaderBytes

GB = 10**9
N_CTX = 2048


def make(arch: str, n_layers: int = 4, **settings: object) -> HeaderBytes:
    """A model of 256 wide layers whose file states these settings; two underscores stand for a dot."""
    made = HeaderBytes().add("general.architecture", "str", arch).add("general.name", "str", "Tiny")
    common = {
        "block_count": n_layers, "context_length": 8192, "embedding_length": 256, "feed_forward_length": 512,
        "attention__head_count": 4, "attention__head_count_kv": 2,
    }  # fmt: skip
    for key, value in {**common, **settings}.items():
        name = f"{arch}.{key.replace('__', '.')}"
        made.add_array(name, "u32", value) if isinstance(value, list) else made.add(name, "u32", value)
    made.add_tensor("token_embd.weight", "F16", 256, 1000)
    for layer in range(n_layers):
        made.add_tensor(f"blk.{layer}.attn_q.weight", "F16", 256, 256)
        if "expert_count" in settings:
            made.add_tensor(f"blk.{layer}.ffn_up_exps.weight", "F16", 256, 512, settings["expert_count"])
        else:
            made.add_tensor(f"blk.{layer}.ffn_up.weight", "F16", 256, 512)
    return made.add_tensor("output.weight", "F16", 256, 1000)


SSM = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 512,
    "ssm__state_size": 16,
    "ssm__time_step_rank": 16,
    "ssm__group_count": 1,
}
MODELS = {
    "plain": make("llama"),
    "windowed": make("gemma3", 6, attention__sliding_window=512),
    "hybrid": make("qwen35", **SSM),
    "recurrent": make("mamba", **SSM),
    "mtp": make("glm4moe", nextn_predict_layers=1),
    "experts by layer": make("llama", expert_count=8, expert_used_count=[2, 2, 1, 4]),
    "hybrid by heads": make("granitehybrid", attention__head_count_kv=[0, 2, 0, 0], **SSM),
    "latent": make("deepseek2", attention__key_length_mla=64, attention__value_length_mla=64, attention__head_count_kv=1),
}  # fmt: skip

ROW = 2 * 2 * 64 * 2
STATE = 4 * (3 * (512 + 2 * 16) + 16 * 512)

#: Bytes that layers keep in a context of N_CTX tokens, and layers that a file has and memory has not.
KEPT = {
    "plain": 4 * ROW * N_CTX, "windowed": ROW * (5 * 1024 + N_CTX), "hybrid": ROW * N_CTX + 3 * STATE,
    "recurrent": 4 * 4 * (3 * 512 + 16 * 512), "mtp": 3 * ROW * N_CTX, "experts by layer": 4 * ROW * N_CTX,
    "hybrid by heads": ROW * N_CTX + 3 * STATE, "latent": 4 * 64 * 2 * N_CTX,
}  # fmt: skip


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def path(name, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(MODELS[name].build(data=True))
    return file


def run(*arguments: object):
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def spec_of(path, **changes) -> RunSpec:
    return RunSpec(str(path), n_prompt=512, n_gen=0, n_depth=N_CTX - 512, load_mode="none", repack=False, **changes)


def test_every_command_says_the_same_of_what_layers_keep(name, path):
    header = read_file_header(path)
    inspected = run("inspect", path, "-o", "json")
    of_contexts = {item["n_ctx"]: item["f16"] for item in inspected["cache_bytes"]}
    predicted = run(
        "predict", "-m", path, "--bandwidth", "50GB/s", "--kind", "gpu", "--vram", "8GiB", "-c", N_CTX, "-o", "json"
    )
    at_most = run(
        "predict", "-m", path, "--bandwidth", "50GB/s", "--kind", "gpu", "--vram", "8GiB", "-c", 8192, "-o", "json"
    )
    memory = predict_memory(header, spec_of(path), Host(None))
    card = price_layers(header, spec_of(path), device_rules("CUDA0"))[-1]
    assert memory.of(Part.CACHE) == KEPT[name]
    assert predicted["memory"][0]["cache_bytes"] == KEPT[name]
    assert card.device_cache_bytes == pytest.approx(KEPT[name], abs=128 * 8)
    assert at_most["memory"][0]["cache_bytes"] == of_contexts[8192]
    assert predicted["cost"]["cache"]["state_bytes"] == inspected["state_bytes"]


def test_every_command_says_the_same_of_what_is_in_memory(name, path):
    header = read_file_header(path)
    weights = sum(tensor.size_bytes for tensor in loaded_tensors(header))
    on_device = weights - 256 * 1000 * 2  # the token embeddings stay on the host
    predicted = run(
        "predict", "-m", path, "--bandwidth", "50GB/s", "--kind", "gpu", "--vram", "8GiB", "-c", N_CTX, "-o", "json"
    )
    assert predicted["memory"][0]["weights_bytes"] == on_device
    memory = predict_memory(header, spec_of(path), Host(None))
    assert memory.of(Cause.COPIED) == weights
    fit = check_placement(header, spec_of(path, n_gpu_layers=99), [device_rules("CUDA0", memory_bytes=8 * GB)])
    assert fit.needed_bytes["CUDA0"] == pytest.approx(on_device + KEPT[name], abs=128 * 8)


def test_every_command_says_the_same_of_what_a_token_reads(name, path):
    header = read_file_header(path)
    depth = 4000
    predicted = run("predict", "-m", path, "--bandwidth", "50GB/s", "--kind", "cpu", "-d", depth, "-o", "json")
    attention = describe_attention(header)
    reads = count_reads(header, ("f16",))
    assert sum(reads.weights_bytes.values()) == predicted["cost"]["read_bytes"]
    from_cache = reads.attention_bytes(depth, "f16") or 0
    assert predicted["read_per_token_bytes"] == predicted["cost"]["read_bytes"] + from_cache + 2 * attention.state_bytes
    blocks = describe_blocks(header)
    assert sum(blocks.read_bytes) + blocks.output_bytes == predicted["cost"]["read_bytes"]


def test_experts_count_as_used_a_layer_at_a_time(tmp_path):
    file = tmp_path / "experts.gguf"
    file.write_bytes(MODELS["experts by layer"].build(data=True))
    header = read_file_header(file)
    expert, attention = 256 * 512 * 2, 256 * 256 * 2
    assert describe_blocks(header).read_bytes == tuple(attention + used * expert for used in (2, 2, 1, 4))
    assert cost_of_header(header, "F16", "experts").read_bytes == 4 * attention + 9 * expert + 256 * 1000 * 2
    assert "used by a token 1 to 4" in " ".join(CliRunner().invoke(cli, ["inspect", str(file)]).stdout.split())


def test_the_work_that_layers_move_is_what_a_token_reads_of_them(tmp_path):
    """15.0 GB where 1.66 GB are used, when all experts counted: the output layer then looks like nothing."""
    made = make("llama", 2, expert_count=128, expert_used_count=8)
    file = tmp_path / "many.gguf"
    file.write_bytes(made.build())
    blocks = describe_blocks(read_file_header(file, check_size=False))
    read = 2 * (256 * 256 * 2 + 8 * 256 * 512 * 2)
    output = 256 * 1000 * 2
    assert blocks.work(1) == pytest.approx(output / (output + read))
    assert blocks.work(3) == 1


def test_blocks_that_only_predict_are_said_in_words(tmp_path):
    file = tmp_path / "mtp.gguf"
    file.write_bytes(MODELS["mtp"].build(data=True))
    for arguments in (["inspect", file], ["predict", "-m", file, "--bandwidth", "50GB/s", "--kind", "cpu"]):
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        said = " ".join(done.stdout.split())
        assert "the last block predicts further tokens (MTP): in the file, not in memory, not read by a token" in said


def test_a_cache_that_is_not_known_does_not_fit(tmp_path):
    file = tmp_path / "odd.gguf"
    file.write_bytes(make("mamba").build(data=True))
    done = CliRunner().invoke(
        cli, ["predict", "-m", str(file), "--bandwidth", "50GB/s", "--kind", "gpu", "--vram", "8GiB"]
    )
    said = " ".join(done.stdout.split())
    assert "the cache is not known, and not counted" in said
    assert "does not state how large its recurrent layers' state is" in said


def test_a_context_beyond_what_a_model_was_trained_for_is_said(tmp_path):
    file = tmp_path / "plain.gguf"
    file.write_bytes(MODELS["plain"].build(data=True))
    done = CliRunner().invoke(cli, ["predict", "-m", str(file), "--bandwidth", "50GB/s", "--kind", "cpu", "-d", "9000"])
    assert "trained for 8192 tokens of context, and 9000 are asked for" in " ".join(done.stdout.split())
    said = []
    suit([RunSpec(str(file), n_prompt=0, n_gen=1, n_depth=9000), RunSpec(str(file), n_prompt=512)], {}, said.append)
    assert "trained for 8192 tokens of context, and 9001 are asked for" in said[0].text
    suit([RunSpec(str(file), n_prompt=512, n_gen=0)], {}, said.append)
    assert len(said) == 1


def test_a_window_bounds_the_roof_at_depth():
    header_bytes = MODELS["windowed"]
    from harness.gguf.header import BytesSource, read_header

    cost = cost_of_header(read_header(BytesSource(header_bytes.build())), "F16", "windowed")
    assert cost.bytes_per_token(8000) - cost.bytes_per_token(7000) == ROW * 1000, "one layer of six still grows"
    unbound = dataclasses.replace(
        cost.cache, rows=tuple(dataclasses.replace(row, window_tokens=None) for row in cost.cache.rows)
    )
    assert dataclasses.replace(cost, cache=unbound).bytes_per_token(8000) > cost.bytes_per_token(8000)


def test_a_header_without_weights_has_a_cache_in_every_command(tmp_path):
    """Gemma 3 27B's shape and nothing else: 52 of its 62 layers look back 1024 tokens, so 10.61 GiB at 131072 tokens and not 62."""
    made = HeaderBytes().add("general.architecture", "str", "gemma3")
    for key, value in {
        "block_count": 62, "context_length": 131072, "embedding_length": 5376, "feed_forward_length": 21504,
        "attention.head_count": 32, "attention.head_count_kv": 16, "attention.key_length": 128,
        "attention.value_length": 128, "attention.sliding_window": 1024,
    }.items():  # fmt: skip
        made.add(f"gemma3.{key}", "u32", value)
    path = tmp_path / "shape.gguf"
    path.write_bytes(made.build())
    asked = ["predict", "-m", str(path), "--ctx", "131072", "--machine", "RTX 3070 Ti"]
    refused = CliRunner().invoke(cli, asked)
    assert isinstance(refused.exception, UsageError)
    assert "without weights" in str(refused.exception)
    assert str(refused.exception).endswith("A cache of this shape takes 10.61 GiB for 131072 tokens.")
    assert "10.61 GiB" in CliRunner().invoke(cli, ["inspect", str(path)]).stdout
    planned = CliRunner().invoke(cli, ["overhead", "-m", str(path), "--predict-only", "-c", "131072", "-o", "table"])
    assert "10864.00" in planned.stdout, "MiB"
