"""Records and what they are about: the model's name in the catalog, the quantization, the machine, the record that speaks for it."""

import dataclasses

import pytest

from harness.records.cells import Device
from harness.sources.user_catalog import load_catalog
from harness.speed.rates import (
    ROPE_PARAMS,
    collect,
    find_entry,
    is_default,
    name_machine,
    read_quantization,
    speaks_for,
)

CATALOG = load_catalog()


def with_model(record, **changes):
    return dataclasses.replace(record, model=dataclasses.replace(record.model, **changes))


@pytest.mark.parametrize(
    ("file_name", "n_params", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", 134515008, "smollm2:135m"),
        ("Meta-Llama-3.1-8B-Instruct-Q4_0.gguf", 8030261312, "llama3.1:8b"),
        ("Llama-3.2-1B-Instruct-Q8_0.gguf", 1235814432, "llama3.2:1b"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", 630167424, "qwen2.5:0.5b"),  # Qwen's own, with a separate output
        ("llama3.2-3b-q4_0-synthetic.gguf", 3212749952, "llama3.2:3b"),
        ("blob-of-ollama", 1235814432 + 32, "llama3.2:1b"),  # by its parameters, rope_freqs counted or not
        ("my-own-finetune.gguf", 8030261312, "llama3.1:8b"),
        ("llama-3.2-11b-vision.gguf", 123, None),  # 1b is in no way in it
        ("something-else.gguf", 7000000000, None),
    ],
)
def test_a_file_is_known_by_its_name_or_its_parameters(recorded, file_name, n_params, expected):
    entry = find_entry(with_model(recorded[0], file_name=file_name, n_params=n_params).model, CATALOG)
    assert (entry.name if entry else None) == expected


def test_parameters_must_agree_but_for_rope_freqs(recorded):
    near = with_model(recorded[0], file_name="x.gguf", n_params=8030261312 + ROPE_PARAMS + 1)
    assert find_entry(near.model, CATALOG) is None


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("llama 256M Q4_1", "Q4_1"),
        ("llama 3B Q4_K - Medium", "Q4_K_M"),
        ("qwen2 1B Q3_K - Large", "Q3_K_L"),
        ("llama 8B all F32", "F32"),
        ("llama 8B (guessed) Q8_0", "Q8_0"),
        ("llama 8B IQ4_XS - 4.25 bpw", "IQ4_XS"),
        ("llama 8B", None),
    ],
)
def test_the_quantization_is_read_from_the_description(description, expected):
    assert read_quantization(description) == expected


def test_failed_cells_have_no_rate(recorded):
    assert len(collect(recorded, CATALOG)) == 2
    assert [item.test_kind for item in collect(recorded, CATALOG)] == ["pp", "tg"]


def test_the_cost_counts_the_cache_types(recorded):
    item = collect(recorded[:1], CATALOG)[0]
    asked = dataclasses.replace(item.record.asked, type_k="q8_0", type_v="q8_0")
    small = dataclasses.replace(item, record=dataclasses.replace(item.record, asked=asked))
    assert small.cost().kv_bytes_per_token < item.cost().kv_bytes_per_token
    assert dataclasses.replace(item, entry=None).cost() is None
    assert dataclasses.replace(item, quantization="NVFP4").cost() is None


def test_the_latest_default_record_speaks(recorded):
    record = dataclasses.replace(recorded[1], threads_source="physical cores")
    assert is_default(record)
    others = [
        record,
        dataclasses.replace(record, time_utc="2026-12-01T00:00:00Z"),
        dataclasses.replace(record, time_utc="2027-01-01T00:00:00Z", threads_source="asked"),
    ]
    assert speaks_for(collect(others, CATALOG)).record.time_utc == "2026-12-01T00:00:00Z"
    assert speaks_for(collect(others[2:], CATALOG)).record.time_utc == "2027-01-01T00:00:00Z"
    assert speaks_for([]) is None


@pytest.mark.parametrize("change", [{"n_depth": 512}, {"type_k": "q8_0"}, {"n_batch": 64}, {"flash_attn": "off"}])
def test_other_settings_are_not_default(recorded, change):
    record = dataclasses.replace(recorded[1], threads_source="physical cores")
    assert not is_default(dataclasses.replace(record, asked=dataclasses.replace(record.asked, **change)))


def test_a_machine_is_the_device_that_held_the_layers(recorded):
    record = recorded[0]
    assert name_machine(record) == ("AMD EPYC (2c, 24G)", "cpu")
    card = Device("CUDA0", "NVIDIA GeForce RTX 3060 Ti", "gpu", None, None)
    build = dataclasses.replace(record.build, devices=(*record.build.devices, card))
    whole = dataclasses.replace(
        record, build=build, resolved=dataclasses.replace(record.resolved, layers_by_device={"CPU": 1, "CUDA0": 30})
    )
    assert name_machine(whole) == ("NVIDIA GeForce RTX 3060 Ti", "gpu")
    part = dataclasses.replace(
        whole, resolved=dataclasses.replace(whole.resolved, layers_by_device={"CPU": 20, "CUDA0": 11})
    )
    assert name_machine(part)[0] == "NVIDIA GeForce RTX 3060 Ti + CPU"
