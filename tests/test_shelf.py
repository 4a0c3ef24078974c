"""Several models and contexts in one worker: kept while there is memory, the least recently used ones given up first."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import NativeError
from harness.native.shelf import MAX_CONTEXTS, RESERVE_BYTES, Needs, Shelf
from harness.spec import RunSpec

MODEL, CONTEXT = 1000 << 20, 100 << 20
NEEDS = Needs(0, MODEL, CONTEXT)


class Memory:
    """Memory that models and contexts take, a card's too; refuses what no free byte is left for."""

    def __init__(self, host, card=None):
        self.free, self.card, self.done, self.paused = host, card, [], []

    def load(self, spec):
        return Thing(self, spec.model, MODEL, spec)

    def free_on_cards(self):
        return self.card

    def make_pool(self, threads):
        return f"pool of {threads.count}"

    def pause_pool(self, pool):
        self.paused.append(pool)

    def free_pool(self, pool):
        self.done.append(f"-{pool}")


class Thing:
    """A model or a context."""

    def __init__(self, memory, name, size, spec):
        self.memory, self.name, self.size, self.on_card = memory, name, size, bool(spec.n_gpu_layers)
        self._take(-size, "+")

    def _take(self, size, sign):
        memory = self.memory
        if self.on_card and memory.card is not None:
            memory.card += size
        else:
            memory.free += size
        if memory.free < 0 or (memory.card or 0) < 0:
            self._take(-size, "!")
            raise NativeError("no memory")
        memory.done.append(sign + self.name)

    def open(self, spec, pools=None):
        return Thing(self.memory, f"{self.name}:{spec.test}", CONTEXT, spec)

    def close(self):
        self._take(self.size, "-")


def put(shelf, spec, *, needs=NEEDS):
    shelf.load(spec, needs)
    return shelf.open(spec, needs, keep=True)


def cell(model, n_gen=1, layers=0):
    return RunSpec(model, n_gen=n_gen, n_gpu_layers=layers, n_threads=2)


def shelf_of(memory):
    return Shelf(memory, lambda: 7, lambda: memory.free)


def test_what_fits_together_stays_and_is_found_again():
    memory = Memory(10 * MODEL)
    shelf = shelf_of(memory)
    cells = [cell(model, n) for model in "ab" for n in (1, 2)]
    first = [put(shelf, one) for one in cells]
    assert [put(shelf, one) for one in reversed(cells)] == first[::-1]
    assert memory.done == ["+a", "+a:tg1", "+a:tg2", "+b", "+b:tg1", "+b:tg2"]
    shelf.close()
    assert memory.free == 10 * MODEL
    assert memory.done[-1] == "-pool of 2"


def test_the_least_recently_used_goes_first():
    memory = Memory(round(2.6 * MODEL) + RESERVE_BYTES)
    shelf = shelf_of(memory)
    for model in "ab":
        put(shelf, cell(model))
    put(shelf, cell("a"))  # used again: b is the older one now
    put(shelf, cell("c"))
    assert [step for step in memory.done if step in ("-a", "-b")] == ["-b"]
    assert shelf.is_loaded(cell("a"))
    assert not shelf.is_loaded(cell("b"))


def test_a_card_that_is_full_makes_room_though_the_host_has_plenty():
    memory = Memory(100 * MODEL, card=round(1.5 * MODEL) + RESERVE_BYTES)
    shelf = shelf_of(memory)
    put(shelf, cell("a", layers=-1))
    put(shelf, cell("b", layers=-1))
    assert "-a" in memory.done
    put(shelf, cell("c"))
    assert shelf.is_loaded(cell("b", layers=-1)), "on the host there is room beside it"


def test_what_is_refused_beside_others_is_tried_alone():
    """An estimate may be wrong; what llama.cpp says is not."""
    memory = Memory(round(1.5 * MODEL))
    shelf, modest = shelf_of(memory), Needs(0, 0, 0)
    put(shelf, cell("a"), needs=modest)
    put(shelf, cell("b"), needs=Needs(0, -RESERVE_BYTES, 0))
    assert memory.done == ["+a", "+a:tg1", "!b", "-a:tg1", "-a", "+b", "+b:tg1"]
    with pytest.raises(NativeError):
        shelf_of(Memory(1)).load(cell("a"), modest)


def test_no_more_contexts_than_cells_that_are_measured_at_a_time():
    memory = Memory(100 * MODEL)
    shelf = shelf_of(memory)
    for n in range(1, MAX_CONTEXTS + 2):
        put(shelf, cell("a", n))
    assert memory.done[-2:] == ["-a:tg1", f"+a:tg{MAX_CONTEXTS + 1}"]


def test_resident_memory_is_said_of_a_model_that_is_alone():
    shelf = shelf_of(Memory(100 * MODEL))
    assert shelf.load(cell("a"), NEEDS).rss_bytes == (7, 7)
    assert shelf.load(cell("b"), NEEDS).rss_bytes == (None, None)
    assert shelf.open(cell("a"), NEEDS).is_alone is False


def test_another_thread_count_is_another_pool_and_all_are_put_to_sleep():
    memory = Memory(100 * MODEL)
    shelf = shelf_of(memory)
    for n_threads in (1, 2, 2):
        put(shelf, dataclasses.replace(cell("a"), n_threads=n_threads))
    shelf.rest()
    assert memory.paused == ["pool of 1", "pool of 2"]
