"""A file is hashed once: in this process, for the next command too, and again when it is another one."""

import hashlib
import os
import time

import pytest

from harness.host.machine import describe_machine
from harness.runs.cells import Plan, run_in_turns
from harness.sources import file_hashes
from harness.sources.file_hashes import sha256_of
from harness.sources.model_file import describe_file
from harness.spec import RunSpec


@pytest.fixture
def reads(tmp_path, monkeypatch):
    """What was read from the disk, a path a reading; the cache is empty and its own."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "_known", {})
    made, read = [], file_hashes.digest_file
    monkeypatch.setattr(file_hashes, "digest_file", lambda path, *how: made.append(path) or read(path, *how))
    return made


def write(path, content, age_s=60.0):
    path.write_bytes(content)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def another_command(monkeypatch):
    monkeypatch.setattr(file_hashes, "_known", {})


def test_a_file_is_read_once(tmp_path, reads, monkeypatch):
    path = write(tmp_path / "a.gguf", b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert [sha256_of(path) for _ in range(3)] == [right] * 3
    another_command(monkeypatch)
    assert sha256_of(path) == right
    assert reads == [path]


def test_a_link_to_it_is_the_same_file(tmp_path, reads):
    path = write(tmp_path / "a.gguf", b"weights")
    (tmp_path / "b.gguf").symlink_to(path)
    assert sha256_of(path) == sha256_of(tmp_path / "b.gguf")
    assert len(reads) == 1


@pytest.mark.parametrize(("content", "age_s"), [(b"WEIGHTS", 30.0), (b"more weights", 60.0)])
def test_a_changed_file_is_read_again(tmp_path, reads, monkeypatch, content, age_s):
    path = write(tmp_path / "a.gguf", b"weights")
    sha256_of(path)
    another_command(monkeypatch)
    assert sha256_of(write(path, content, age_s)) == hashlib.sha256(content).hexdigest()
    assert len(reads) == 2


def test_a_file_just_written_is_not_kept_for_others(tmp_path, reads, monkeypatch):
    """Its time may stay the same through another writing."""
    path = write(tmp_path / "a.gguf", b"weights", age_s=0)
    sha256_of(path)
    sha256_of(path)
    assert len(reads) == 1
    another_command(monkeypatch)
    sha256_of(path)
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path, reads, monkeypatch):
    path = write(tmp_path / "a.gguf", b"weights")
    read = file_hashes.digest_file

    def read_late(path, *how):
        digest = read(path, *how)
        write(path, b"others", age_s=10)
        return digest

    monkeypatch.setattr(file_hashes, "digest_file", read_late)
    sha256_of(path)
    monkeypatch.setattr(file_hashes, "digest_file", read)
    assert sha256_of(path) == hashlib.sha256(b"others").hexdigest()


@pytest.mark.parametrize("content", ["", "7", "7 x y\n", "\0", f"7 1 {'a' * 64}\n"])
def test_a_damaged_cache_is_no_cache(tmp_path, reads, monkeypatch, content):
    path = write(tmp_path / "a.gguf", b"weights")
    right = sha256_of(path)
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    assert str(tmp_path) not in kept.read_text(encoding="ascii"), "no path is written down"
    kept.write_text(content, encoding="ascii")
    another_command(monkeypatch)
    assert sha256_of(path) == right
    assert len(reads) == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, reads, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file"))
    assert sha256_of(write(tmp_path / "a.gguf", b"weights")) == hashlib.sha256(b"weights").hexdigest()


def test_a_file_that_is_not_there_says_so(tmp_path, reads):
    with pytest.raises(OSError):
        sha256_of(tmp_path / "nothing.gguf")


class Bench:
    """A worker that is told cells and answers at once, and notes what the parent had read by then."""

    build = None

    def __init__(self, reads):
        self.reads, self.had_read = reads, []

    def start(self, spec):
        pass

    def run(self, spec, *_block):
        yield {"event": "phase", "phase": "load", "index": 0, "count": 1}
        self.had_read.append(len(self.reads))
        facts = {"file_name": "x", "description": "", "size_bytes": 1, "n_params": 1, "file_size_bytes": 1}
        yield {"event": "loaded", "model": facts}
        self.had_read.append(len(self.reads))


def test_files_are_hashed_before_the_first_cell_and_once(tmp_path, reads):
    """While a worker measures, the parent does nothing."""
    one, other = write(tmp_path / "a.gguf", b"one"), write(tmp_path / "b.gguf", b"other")
    cells = [RunSpec(str(path), n_prompt=1, repetitions=1) for path in (one, one, other, one)]
    plan, bench = Plan("test", describe_machine(), model_facts=describe_file), Bench(reads)
    records = [
        record
        for _, record in sorted(run_in_turns(cells, plan, on_step=lambda _: None, bench=bench), key=lambda x: x[0])
    ]
    assert bench.had_read == [2] * 8
    digests = [hashlib.sha256(content).hexdigest() for content in (b"one", b"one", b"other", b"one")]
    assert [record.model.file_sha256 for record in records] == digests


def test_who_waits_for_a_large_file_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.sources.file_hashes.TOLD_BYTES", 1 << 20)
    told = []
    sha256_of(write(tmp_path / "a.gguf", bytes(5 << 19)), told.append)
    assert [(event.done, event.total) for event in told] == [(1 << 20, 5 << 19), (2 << 20, 5 << 19)]
