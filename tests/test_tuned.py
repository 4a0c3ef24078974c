"""Settings that were tuned: kept for one model, build and machine, told apart from those of others, dropped when asked."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import UsageError
from harness.host.machine import describe_machine
from harness.records.cells import Build, Machine
from harness.records.tuned import Change, make_tuned
from harness.runs.tuned import take_settings, take_tuned
from harness.sources.model_file import hash_file, model_size_bytes
from harness.sources.tuned_settings import find_tuned, forget_tuned, keep_tuned, tuned_path
from harness.spec import RunSpec

BUILD = Build("0.3.36", "0.25.3", "5b2a9fd", "AVX2 = 1", ("CPU",), ())
MACHINE = Machine("a CPU", 2, 4, 2**34, "Linux", "x86_64", "3.12")
SPEC = RunSpec("/models/a.gguf", n_prompt=512, n_threads=4, n_ubatch=1024, flash_attn="on", repack=False, swa_full=True)


def tuned(**changed):
    facts = {"build": BUILD, "machine": MACHINE, "sha256": "ab" * 32, "size_bytes": 1000, **changed}
    return make_tuned(SPEC, "chat", 8192, "2026-11-28T16:00:00Z", **facts)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_settings_are_what_is_not_as_usual_and_no_question():
    assert tuned().settings == {"n_threads": 4, "n_ubatch": 1024, "flash_attn": "on", "repack": False}


def test_the_same_build_file_and_machine_have_not_changed():
    assert not list(tuned().changes(BUILD, MACHINE, "ab" * 32, 1000))


@pytest.mark.parametrize(
    ("changed", "change"),
    [
        ({"build": dataclasses.replace(BUILD, ggml_commit="0000000")}, Change.BUILD),
        ({"sha256": "cd" * 32}, Change.FILE),
        ({"machine": dataclasses.replace(MACHINE, n_cores_physical=99)}, Change.MACHINE),
        ({"machine": dataclasses.replace(MACHINE, cpu="another")}, Change.MACHINE),
    ],
)
def test_each_change_is_seen(changed, change):
    now = {"build": BUILD, "machine": MACHINE, "sha256": "ab" * 32, "size_bytes": 1000, **changed}
    assert list(tuned().changes(*now.values())) == [change]


def test_of_a_file_too_large_to_be_hashed_the_size_has_to_do():
    large = tuned(sha256=None, size_bytes=1 << 40)
    assert not list(large.changes(BUILD, MACHINE, None, 1 << 40))
    assert list(large.changes(BUILD, MACHINE, None, 1 << 41)) == [Change.FILE]


def test_what_is_kept_is_found_again_without_a_path_in_it(model):
    assert find_tuned(model) is None
    path = keep_tuned(model, tuned())
    found = find_tuned(model)
    assert found is not None
    assert found.settings == tuned().settings
    assert found.n_ctx == 8192
    assert "/models" not in path.read_text()
    assert str(model.parent) not in path.read_text()


def test_each_model_has_its_own(model, tmp_path):
    other = tmp_path / "b.gguf"
    keep_tuned(model, tuned())
    assert find_tuned(other) is None
    assert tuned_path(other) != tuned_path(model)


def test_the_later_ones_take_the_place_of_the_earlier(model):
    keep_tuned(model, tuned())
    keep_tuned(model, dataclasses.replace(tuned(), n_ctx=4096))
    found = find_tuned(model)
    assert found is not None
    assert found.n_ctx == 4096
    assert len(list(tuned_path(model).parent.iterdir())) == 1


def test_forgotten_is_forgotten(model):
    assert not forget_tuned(model)
    keep_tuned(model, tuned())
    assert forget_tuned(model)
    assert find_tuned(model) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": 1}', b'{"schema": 99}', b"[" * 100_000])
def test_a_damaged_file_costs_a_sentence(model, text):
    keep_tuned(model, tuned())
    tuned_path(model).write_bytes(text)
    with pytest.raises(UsageError, match="harness tune"):
        find_tuned(model)


def test_settings_that_contradict_each_other_cost_a_sentence(model):
    path = keep_tuned(model, tuned())
    path.write_text(path.read_text().replace('"type_v": "f16"', '"type_v": "q8_0"').replace('"on"', '"off"'))
    with pytest.raises(UsageError):
        find_tuned(model)


# ---- taken again -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(model):
    """A model with tuned settings of what is here now."""
    facts = {"machine": describe_machine(), "sha256": hash_file(model), "size_bytes": model_size_bytes(model)}
    keep_tuned(model, tuned(**facts))
    return model


def recall(model, given=(), *, build=BUILD, **more):
    heard = []
    settings = take_settings(model, given, lambda event: heard.append(event.text), find_build=lambda: build, **more)
    return settings, " ".join(heard)


def test_one_line_says_what_was_taken(kept):
    settings, told = recall(kept)
    assert settings == tuned().settings
    assert told == "tuned for chat on 2026-11-28: --repack off -ub 1024 -fa on -t 4"


def test_what_is_given_expressly_stays(kept):
    settings, told = recall(kept, {"n_threads", "repack"})
    assert settings == {"n_ubatch": 1024, "flash_attn": "on"}
    assert "-t 4" not in told
    cells = [RunSpec(str(kept), n_prompt=64, n_threads=2), RunSpec(str(kept), n_gen=8, n_threads=2)]
    taken = take_tuned(cells, {"n_threads"}, find_build=lambda: BUILD)
    assert [(cell.n_threads, cell.n_ubatch, cell.test) for cell in taken] == [(2, 1024, "pp64"), (2, 1024, "tg8")]


def test_the_build_is_asked_of_one_worker_whatever_the_number_of_models(kept, tmp_path):
    other = tmp_path / "b.gguf"
    other.write_bytes(kept.read_bytes())
    keep_tuned(other, find_tuned(kept))
    started = []
    cells = [RunSpec(str(path), n_prompt=64) for path in (kept, other)]
    taken = take_tuned(cells, (), find_build=lambda: started.append(1) or BUILD)
    assert [cell.n_ubatch for cell in taken] == [1024, 1024]
    assert started == [1]


def test_what_a_command_has_no_use_for_is_not_told(kept):
    settings, told = recall(kept, wanted={"n_threads", "n_gpu_layers"})
    assert settings == {"n_threads": 4}
    assert "-ub" not in told


def test_nothing_is_asked_of_the_engine_where_nothing_is_tuned(model):
    settings, told = take_settings(model, (), find_build=lambda: pytest.fail("a worker was started")), recall(model)[1]
    assert settings == {}
    assert "nothing is tuned for a.gguf" in told
    assert "not on this disk" in recall(None)[1]


def test_settings_of_another_build_or_file_are_not_taken(kept):
    settings, told = recall(kept, build=dataclasses.replace(BUILD, ggml_commit="0000000"))
    assert settings == {}
    assert "another build of llama.cpp" in told
    kept.write_bytes(b"GGUF and more")
    settings, told = recall(kept)
    assert settings == {}
    assert "another file of that name" in told


def test_a_damaged_file_costs_a_line_and_not_the_command(kept):
    tuned_path(kept).write_bytes(b"{")
    settings, told = recall(kept)
    assert settings == {}
    assert "damaged" in told


def test_what_is_given_and_what_was_tuned_may_contradict_each_other(kept):
    keep_tuned(kept, dataclasses.replace(find_tuned(kept), spec=dataclasses.replace(SPEC, type_v="q8_0")))
    with pytest.raises(UsageError, match="flash attention"):
        take_tuned([RunSpec(str(kept), n_prompt=64, flash_attn="off")], {"flash_attn"}, find_build=lambda: BUILD)
