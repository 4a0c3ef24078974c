"""Headers written down without weights, and a source that remembers what was read of it."""

from __future__ import annotations

import random

import pytest

from harness.gguf.header import BytesSource, read_header
from harness.sources.gguf_file import read_file_header
from harness.sources.sparse import HeaderFile, KeepingSource, read_header_files, write_sparse
from tests.gguf_bytes import HeaderBytes, llama_like

DATA = bytes(range(256)) * 40


@pytest.mark.parametrize("seed", range(20))
def test_what_was_read_is_not_read_again(seed):
    rng = random.Random(seed)
    source = BytesSource(DATA)
    kept = KeepingSource(source)
    for _ in range(rng.randrange(6)):
        kept.read_at(rng.randrange(len(DATA)), rng.randrange(3000))
    covered = {at for offset, size in source.reads for at in range(offset, offset + size)}
    before = len(source.reads)
    size = rng.randrange(1, len(DATA))
    assert kept.take(size) == DATA[:size]
    again = [at for offset, length in source.reads[before:] for at in range(offset, offset + length)]
    assert not covered & set(again)
    assert len(again) == len(set(range(size)) - covered)


def test_a_header_read_through_it_is_there_whole():
    data = llama_like().build()
    kept = KeepingSource(BytesSource(data))
    header = read_header(kept, chunk_bytes=16)
    assert kept.take(header.data_offset) == data[: header.data_offset]


def test_a_written_header_reads_as_the_same_model(tmp_path):
    data = llama_like().build()
    header = read_header(BytesSource(data))
    (tmp_path / "m.gguf").write_bytes(data + bytes(header.size_bytes - len(data)))
    (item,) = read_header_files(header, tmp_path / "m.gguf")
    assert item == HeaderFile("m.gguf", data[: header.table_bytes], header.size_bytes)
    (tmp_path / "copy").mkdir()
    path = write_sparse([item], tmp_path / "copy")
    assert (path.name, path.stat().st_size) == ("m.gguf", header.size_bytes)
    assert path.read_bytes()[: header.data_offset] == data[: header.data_offset]


def test_a_name_never_leads_out_of_the_folder(tmp_path):
    path = write_sparse([HeaderFile("../../evil.gguf", b"x", 10)], tmp_path)
    assert path == tmp_path / "evil.gguf"


def test_padding_is_not_read(tmp_path):
    """An alignment of 2 GiB puts the weights 2 GiB behind a table of some hundred bytes."""
    builder = HeaderBytes().add("general.architecture", "str", "llama").add("general.alignment", "u32", 2**31)
    data = builder.add_tensor("a.weight", "F32", 4).build()
    header = read_header(BytesSource(data), name="far")
    assert (header.data_offset, header.size_bytes) == (2**31, 2**31 + 16)
    path = tmp_path / "far.gguf"
    with open(path, "wb") as file:
        file.write(data[: header.table_bytes])
        file.truncate(header.size_bytes)
    (found,) = read_header_files(read_file_header(path), path)
    assert len(found.data) == header.table_bytes < 1000
    (tmp_path / "copy").mkdir()
    assert write_sparse([found], tmp_path / "copy").stat().st_size == header.size_bytes
