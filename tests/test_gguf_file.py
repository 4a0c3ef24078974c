"""Headers of files on disk: whole ones, split ones, and everything else that has the name of one."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib

import pytest

from harness.errors import HarnessError, UsageError
from harness.gguf.header import BytesSource, read_header
from harness.gguf.split import join_parts, list_parts, part_names, split_count
from harness.runs.cells import remark_on_size
from harness.runs.session import Session
from harness.sources.gguf_file import FileSource, read_file_header
from harness.sources.model_file import hash_file, model_files, model_size_bytes, open_model
from harness.sources.references import parse_reference
from tests.gguf_bytes import HeaderBytes, llama_like
from tests.kind_files import settings, tokenizer
from tests.test_cli import harness


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(llama_like().build(data=True))
    return path


def write_split(folder: pathlib.Path, count: int = 3, **changes: object) -> pathlib.Path:
    """Write a model in parts; changes replace what the parts say of themselves."""
    for index in range(count):
        made = llama_like() if index == 0 else HeaderBytes()
        made.tensors, made.offset = [], 0
        made.add("split.no", "u16", changes.get(f"no_{index}", index)).add(
            "split.count", "u16", changes.get("says", count)
        )
        made.add("split.tensors.count", "i32", changes.get("tensors", 2 * count))
        name = changes.get("tensor", f"blk.{index}")
        made.add_tensor(f"{name}.attn_q.weight", "Q4_0", 64, 64).add_tensor(f"blk.{index}.attn_norm.weight", "F32", 64)
        (folder / f"m-{index + 1:05d}-of-{count:05d}.gguf").write_bytes(made.build(data=True))
    return folder / f"m-00001-of-{count:05d}.gguf"


def test_reads_a_file_as_bytes_are_read(model):
    assert read_file_header(model) == read_header(BytesSource(model.read_bytes()))
    assert read_file_header(str(model)).size_bytes == model.stat().st_size


def test_source_reads_where_it_is_told_and_stops_at_the_end(model):
    data = model.read_bytes()
    with FileSource(model) as source:
        assert source.size_bytes == len(data)
        assert source.read_at(5, 10) == data[5:15]
        assert source.read_at(len(data) - 3, 10) == data[-3:]
        assert source.read_at(len(data) + 3, 10) == b""


def test_reads_only_the_header_of_a_large_file(tmp_path):
    path = tmp_path / "sparse.gguf"
    made = (
        HeaderBytes().add("general.architecture", "str", "llama").add_tensor("token_embd.weight", "F16", 4096, 600_000)
    )
    path.write_bytes(made.build())
    os.truncate(path, len(made.build()) + made.offset)
    assert path.stat().st_size > 4.7e9
    with FileSource(path) as source:
        reads: list[int] = []
        real = source.read_at
        source.read_at = lambda offset, size: reads.append(size) or real(offset, size)  # type: ignore[method-assign]
        read_header(source)
    assert len(reads) == 1
    assert sum(reads) <= 1024**2 + 4


@pytest.mark.parametrize("size", ["header", "data"])
def test_says_that_a_file_is_cut_off(model, size):
    whole = model.stat().st_size
    os.truncate(model, whole - 1 if size == "data" else 200)
    with pytest.raises(
        HarnessError, match=r"tiny\.gguf is cut off" if size == "data" else r"tiny\.gguf is not a readable"
    ):
        read_file_header(model)
    if size == "data":
        assert read_file_header(model, check_size=False).size_bytes == whole


def test_says_what_is_wrong_with_the_path(tmp_path):
    empty = tmp_path / "empty.gguf"
    empty.touch()
    for path, said in [
        (tmp_path / "none.gguf", r"There is no file .*none\.gguf; check the name"),
        (tmp_path, "is a folder"),
        (empty, "is empty"),
        (tmp_path / ("x" * 300), "too long a name"),
        ("a\0b", "cannot be opened|There is no file"),
        (tmp_path / "empty.gguf" / "inside", "."),
    ]:
        with pytest.raises(HarnessError, match=said) as caught:
            FileSource(path)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(HarnessError, match="not a regular file"):
        FileSource(tmp_path / "pipe.gguf")


def test_joins_the_parts_of_a_split_model(tmp_path):
    first = write_split(tmp_path)
    header = read_file_header(first)
    assert header.architecture == "llama"
    assert [(tensor.name, tensor.part) for tensor in header.tensors[::2]] == [
        (f"blk.{i}.attn_q.weight", i) for i in range(3)
    ]
    assert [part.name for part in header.parts] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert [part.size_bytes for part in header.parts] == sizes
    assert header.size_bytes == sum(sizes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tensors": 7}, "promises 7 tensors and its parts hold 6"),
        ({"no_2": 1}, r"m-00003-of-00003.gguf should be part 2 of its model but says 1"),
        ({"no_0": 1}, r"is a later part of a split model; name its first part, .*m-00001-of-00003\.gguf"),
        ({"says": 4}, "says that it is the first of 4 files but is not named so"),
        ({"tensor": "blk.0"}, r"tensor 'blk.0.attn_q.weight' is in .* and in "),
    ],
)
def test_refuses_parts_that_do_not_belong_together(tmp_path, changes, said):
    with pytest.raises(HarnessError, match=said):
        read_file_header(write_split(tmp_path, **changes))


def test_a_missing_or_short_part_is_named(tmp_path):
    first = write_split(tmp_path)
    second = tmp_path / "m-00002-of-00003.gguf"
    os.truncate(second, second.stat().st_size - 5)
    with pytest.raises(HarnessError, match=r"m-00002-of-00003\.gguf is cut off"):
        read_file_header(first)
    second.unlink()
    with pytest.raises(HarnessError, match=r"There is no file .*m-00002-of-00003\.gguf"):
        read_file_header(first)
    with pytest.raises(HarnessError, match=r"later part.*m-00001-of-00003"):
        read_file_header(tmp_path / "m-00003-of-00003.gguf")


def test_names_parts_of_any_kind_of_reference():
    assert part_names("https://host/a/m-00001-of-00002.gguf", 2)[1] == "https://host/a/m-00002-of-00002.gguf"
    for name, count in [("m.gguf", 2), ("m-00002-of-00002.gguf", 2), ("m-00001-of-00003.gguf", 2)]:
        with pytest.raises(HarnessError, match="not named so"):
            part_names(name, count)


@pytest.mark.parametrize("kind", ["str", "i32", "arr"])
def test_a_count_that_is_none_is_refused(kind):
    made = HeaderBytes()
    if kind == "arr":
        made.add_array("split.count", "i32", [2])
    else:
        made.add("split.count", kind, "three" if kind == "str" else -3)
    header = read_header(BytesSource(made.build()))
    with pytest.raises(HarnessError, match=r"for split\.count"):
        split_count(header)
    assert split_count(read_header(BytesSource(HeaderBytes().build()))) == 1


def test_joining_nothing_but_one_part_is_possible():
    header = read_header(
        BytesSource(HeaderBytes().add("split.no", "u16", 0).add("split.tensors.count", "i32", 0).build())
    )
    assert join_parts([header], ["a"]).parts[0].name == "a"


def test_a_split_model_is_all_its_files(tmp_path):
    first = write_split(tmp_path)
    files = sorted(tmp_path.glob("m-*.gguf"))
    assert list(model_files(first)) == files
    assert model_size_bytes(first) == sum(file.stat().st_size for file in files) > first.stat().st_size
    each = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert hash_file(first) == hashlib.sha256("".join(f"{digest}\n" for digest in each).encode()).hexdigest()
    files[-1].write_bytes(b"other")
    assert hash_file(first) not in (None, each[0])
    files[-1].unlink()
    assert hash_file(first) is None
    assert model_size_bytes(first) == sum(file.stat().st_size for file in files[:-1])
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(b"GGUF")
    assert model_files(whole) == (whole,)
    assert hash_file(whole) == hashlib.sha256(b"GGUF").hexdigest()


def test_names_that_count_further_than_models_do_are_refused():
    with pytest.raises(UsageError, match="one of 99999 files, which no model has"):
        list_parts("m-00001-of-99999.gguf")
    with pytest.raises(UsageError, match=r"later part of a split model; name its first part, m-00001-of-00003\.gguf"):
        list_parts("m-00002-of-00003.gguf")


def test_a_warning_of_too_little_memory_counts_all_files(tmp_path, monkeypatch):
    first, told = write_split(tmp_path), []
    monkeypatch.setattr("harness.runs.cells.available_memory_bytes", lambda: first.stat().st_size + 1)
    remark_on_size([str(first)], Session("test", on_event=told.append))
    assert "of memory are free" in told[0].text


def test_a_piece_of_a_file_is_told(tmp_path):
    piece = tmp_path / "m.gguf.part1of2"
    piece.write_bytes(b"GGUF")
    for act in (open_model, lambda path: parse_reference(str(path)).open()):
        with pytest.raises(UsageError, match=r"piece of a file that was cut by bytes.*`cat .*m\.gguf\.part\* > "):
            act(piece)
    for text in ("m.gguf.part2of2", "hf:o/r/m.gguf.part1of2", "https://user:secret@host/m.gguf.part1of2?key=secret"):
        with pytest.raises(UsageError, match="piece of a file") as caught:
            parse_reference(text).open()
        assert "secret" not in str(caught.value)


@pytest.mark.engine
def test_the_record_of_a_split_model_is_of_all_its_files(tmp_path, results):
    first, second = tokenizer(settings(HeaderBytes(), "llama")), HeaderBytes()
    for index, made in enumerate((first, second)):
        made.add("split.no", "u16", index).add("split.count", "u16", 2).add("split.tensors.count", "i32", 20)
    first.add_tensor("token_embd.weight", "F32", 64, 32).add_tensor("output_norm.weight", "F32", 64)
    for layer, made in enumerate((first, second)):
        shapes = {"attn_norm": [64], "ffn_norm": [64], "attn_q": [64, 64], "attn_k": [64, 32], "attn_v": [64, 32]}
        shapes |= {"attn_output": [64, 64], "ffn_gate": [64, 128], "ffn_up": [64, 128], "ffn_down": [128, 64]}
        for name, shape in shapes.items():
            made.add_tensor(f"blk.{layer}.{name}.weight", "F32", *shape)
    paths = [tmp_path / f"m-{index:05d}-of-00002.gguf" for index in (1, 2)]
    for path, made in zip(paths, (first, second), strict=True):
        path.write_bytes(made.build(data=True))
    code, out, err = harness("pp-tg", "-m", paths[0], "-p", "8", "-n", "0", "-r", "1", "-o", "json")
    assert code in (0, 5), err
    (kept,) = results.rglob("*.jsonl")
    model = json.loads(kept.read_text(encoding="utf-8").splitlines()[0])["model"]
    assert model["file_size_bytes"] == sum(path.stat().st_size for path in paths)
    assert model["file_sha256"] == hash_file(paths[0])
    assert json.loads(out)[0]["model_size"] == model["size_bytes"] > paths[0].stat().st_size
