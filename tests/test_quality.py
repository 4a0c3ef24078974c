"""How well a model predicts a text: windows, figures, texts that cannot be asked, records, and one small real run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import statistics

import pytest

from harness.codec import encode
from harness.errors import Outcome, UsageError
from harness.host.cpu import Threads
from harness.records.cells import Record
from harness.records.failures import Cause, Failure
from harness.records.journal import read_lines
from harness.records.kinds import read_line, to_json
from harness.records.quality import Divergence, Memory, QualityRecord, Reference, TextFacts, Window, bin_of
from harness.records.quality_figures import LEAST_WINDOWS, find_figures
from harness.records.trust import Trust
from harness.records.verdict import judge
from harness.runs import quality as asking_quality
from harness.runs.quality import (
    QualityRequest,
    compare_caches,
    group_cells,
    measure_quality,
    measure_speeds,
    plan_quality,
)
from harness.runs.session import Session
from harness.sources import texts
from harness.sources.texts import OWN_TEXT, open_text
from harness.spec import RunSpec
from harness.speed.model_names import name_stem
from harness.views.document import Picture, Table
from harness.views.figures.style import to_bytes
from harness.views.formats import format_names, render
from harness.views.quality import describe_quality
from harness.views.report import documents as documents_of_report

from .kind_files import FILES
from .shapes import TINY
from .test_cli import harness as harness_command

# --- figures ----------------------------------------------------------------------------------------------------------


def made_tokens(seed, n_windows=8, n=25):
    """Made-up log-likelihoods and divergences, by window and token."""
    draw = random.Random(seed)
    return [
        [
            (draw.expovariate(0.3), draw.expovariate(0.3), draw.expovariate(50), draw.uniform(-0.2, 0.1))
            for _ in range(n)
        ]
        for _ in range(n_windows)
    ]


def window_of(tokens, *, with_base=True):
    nll, base, kld, p = zip(*tokens, strict=True)
    divergence = Divergence(
        sum(base), sum(v * v for v in base), sum(a * b for a, b in zip(nll, base, strict=True)), sum(kld), sum(v * v for v in kld),
        max(kld), min(kld), sum(p), sum(v**2 for v in p), sum(v**4 for v in p), max(map(abs, p)), len(p) - 3,
    )  # fmt: skip
    return Window(len(tokens), sum(nll), sum(v * v for v in nll), divergence if with_base else None)


@pytest.fixture
def made(recorded):
    """A record of made-up windows, and their tokens."""
    cell: Record = recorded[0]
    tokens = made_tokens(1)
    counts: dict[str, int] = {}
    for _, _, kld, _ in (token for window in tokens for token in window):
        counts[str(bin_of(kld))] = counts.get(str(bin_of(kld)), 0) + 1
    spec = RunSpec("/folder/a.gguf", n_prompt=52, type_k="q8_0", n_threads=2)
    record = QualityRecord(
        "quality", cell.time_utc, spec, cell.machine, "0.1.0", TextFacts("alice.txt", "ab" * 32, 148822, True, 5000), len(tokens),
        tuple(map(window_of, tokens)), counts, Reference(dataclasses.replace(spec, type_k="f16"), cell.model), cell.model, cell.build,
        cell.resolved,
    )  # fmt: skip
    return record, tokens


def test_a_perplexity_is_the_one_of_all_tokens_with_the_error_of_their_mean(made):
    record, tokens = made
    nll = [token[0] for window in tokens for token in window]
    found = find_figures(record).perplexity
    assert found.value == pytest.approx(math.exp(statistics.fmean(nll)))
    error = statistics.pstdev(nll) / math.sqrt(len(nll) - 1)
    assert found.error == pytest.approx(found.value * error)


def test_an_interval_is_by_windows_and_needs_some(made):
    from scipy.stats import t

    record, tokens = made
    means = [statistics.fmean(token[0] for token in window) for window in tokens]
    low, high = t.interval(
        0.95, len(means) - 1, statistics.fmean(means), statistics.stdev(means) / math.sqrt(len(means))
    )
    assert find_figures(record).perplexity.interval == pytest.approx((math.exp(low), math.exp(high)))
    few = dataclasses.replace(record, windows=record.windows[: LEAST_WINDOWS - 1])
    assert find_figures(few).perplexity.interval is None


def test_what_is_lost_has_the_error_of_pairs(made):
    record, tokens = made
    pairs = [token[:2] for window in tokens for token in window]
    found = find_figures(record).departure
    differences = [a - b for a, b in pairs]
    assert found.log_ratio.value == pytest.approx(statistics.fmean(differences))
    # The variance of a difference is that of both less twice what they have in common.
    assert found.log_ratio.error == pytest.approx(statistics.pstdev(differences) / math.sqrt(len(pairs) - 1))
    assert found.ratio.value == pytest.approx(math.exp(found.log_ratio.value))
    assert found.ratio.error == pytest.approx(found.ratio.value * found.log_ratio.error)
    assert found.correlation == pytest.approx(statistics.correlation(*zip(*pairs, strict=True)))


def test_divergence_and_its_percentiles(made):
    record, tokens = made
    klds = sorted(token[2] for window in tokens for token in window)
    found = find_figures(record).departure
    assert found.kld.value == pytest.approx(statistics.fmean(klds))
    assert found.kld.error == pytest.approx(statistics.pstdev(klds) / math.sqrt(len(klds) - 1))
    assert (found.kld_min, found.kld_max) == (klds[0], klds[-1])
    for share, value in found.kld_percentiles:
        place = share * (len(klds) - 1)
        assert klds[math.floor(place)] * 0.99 <= value <= klds[math.ceil(place)] * 1.01
    differences = [token[3] for window in tokens for token in window]
    assert found.p_diff_rms.value == pytest.approx(math.sqrt(statistics.fmean(v * v for v in differences)))
    assert found.same_top.value == pytest.approx(22 / 25)


def test_a_model_that_is_its_base_has_no_error(made):
    record, tokens = made
    same = [[(a, a, 0.0, 0.0) for a, *_ in window] for window in tokens]
    found = find_figures(
        dataclasses.replace(record, windows=tuple(map(window_of, same)), kld_counts={"0": 200})
    ).departure
    assert (found.kld.value, found.p_diff_rms.value, found.p_diff_rms.error) == (0.0, 0.0, None)
    assert found.log_ratio.value == 0
    assert found.log_ratio.error == pytest.approx(0, abs=1e-7)


def test_nothing_scored_has_no_figures(made):
    record, _ = made
    assert find_figures(dataclasses.replace(record, windows=())) is None
    assert judge(dataclasses.replace(record, windows=())) is None


def test_a_window_without_a_number_makes_it_worthless(made):
    record, _ = made
    assert judge(record).trust is Trust.QUIET
    bad = dataclasses.replace(record, windows=(*record.windows, Window(25, None, None)))
    assert judge(bad).trust is Trust.NOT_TRUSTED
    assert judge(bad).reasons[0].text == "1 of 9 windows came to no finite number"
    assert find_figures(bad).n_windows == 8


def test_what_is_kept_reads_the_same_and_has_no_text_and_no_folder(made):
    record, _ = made
    line = json.dumps(to_json(record))
    assert read_line(json.loads(line)).content == dataclasses.replace(
        record,
        asked=dataclasses.replace(record.asked, model="a.gguf"),
        base=dataclasses.replace(record.base, asked=dataclasses.replace(record.base.asked, model="a.gguf")),
    )
    assert "/folder" not in line
    assert "Rabbit" not in line


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_ctx", "n_batch", "expected"),
    [
        (8, 8, [([0, 1, 2, 3, 4, 5, 6, 7], 0, 4)]),
        (8, 4, [([0, 1, 2, 3], 0, 0), ([4, 5, 6, 7], 4, 4)]),
        (8, 3, [([0, 1, 2], 0, 0), ([3, 4, 5], 3, 2), ([6, 7], 6, 2)]),
        (9, 8, [([0, 1, 2, 3, 4, 5, 6, 7], 0, 4), ([8], 8, 1)]),
    ],
)
def test_a_window_is_cut_into_batches_and_its_second_half_wanted(n_ctx, n_batch, expected):
    from harness.native.jobs.quality import cut_window

    found = list(cut_window(list(range(n_ctx)), n_batch, n_ctx // 2))
    assert [(list(tokens), place, sum(wanted)) for tokens, place, wanted in found] == expected
    flags = [flag for _, _, wanted in found for flag in wanted]
    assert flags == [position >= n_ctx // 2 for position in range(n_ctx)]


# --- texts ------------------------------------------------------------------------------------------------------------


def test_our_own_text_is_what_its_page_says():
    own = open_text()
    said = (OWN_TEXT.parent / "SOURCES.md").read_text(encoding="utf-8")
    assert own.is_own
    assert own.sha256 in said
    assert f"{own.size_bytes:,} bytes" in said
    assert own.size_bytes <= 300_000
    text = OWN_TEXT.read_text(encoding="utf-8")
    assert text.startswith("ALICE’S ADVENTURES IN WONDERLAND")
    assert text.endswith("THE END\n")
    assert "Gutenberg" not in text


def test_texts_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b" \n")
    pipe = tmp_path / "pipe"
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
    for path, words in (
        (empty, "is empty"), (tmp_path, "cannot be read"), (tmp_path / "none.txt", "cannot be read"), (pipe, "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            open_text(path)
    for beyond in (b"\xf7\xbf\xbf\xbf", b"\xf4\x90\x80\x80"):
        empty.write_bytes(b"text " + beyond)
        with pytest.raises(UsageError, match="is no text: the bytes from 5 on"):
            open_text(empty)
    empty.write_bytes("text \U0010ffff".encode())
    assert open_text(empty).is_text
    monkeypatch.setattr(texts, "MOST_BYTES", 1)
    with pytest.raises(UsageError, match="no more than"):
        open_text(empty)


@pytest.mark.parametrize(
    ("encoding", "is_text"), [("utf-8", True), ("utf-8-sig", True), ("utf-16", False), ("utf-16-le", False)]
)
def test_bytes_that_are_no_text_are_told_of(anything, tmp_path, encoding, is_text):
    path = tmp_path / "a.txt"
    path.write_bytes("Füchse\r\n".encode(encoding))
    heard = []
    plan_quality([], {}, heard.append, text=path)
    assert ["a.txt is no UTF-8 text" in event.text for event in heard] == [True] * (not is_text)


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def anything(monkeypatch):
    monkeypatch.setattr(
        asking_quality, "_find_reader", lambda reference, _n_ctx, _on_event: f"/m/{reference or 'own'}.gguf"
    )


def plan(*references, **more):
    axes = more.pop("axes", {})
    return plan_quality(references, axes, lambda _event: None, **more)


def test_one_model_has_no_base_and_of_several_cells_the_first_is(anything):
    assert plan().base is None
    assert [cell.n_ctx for cell in plan(n_ctx=64).cells] == [64]
    caches = plan(axes={"type_k": ["f16", "q8_0"]})
    assert [cell.type_k for cell in caches.ordered] == ["f16", "q8_0"]
    assert caches.base == caches.cells[0]
    assert plan("a", "b").base.model == "/m/a.gguf"


def test_a_named_base_has_the_usual_cache(anything):
    request = plan("a", axes={"type_k": ["q8_0"], "n_threads": [1]}, base="big")
    assert (request.base.model, request.base.type_k, request.base.n_threads) == ("/m/big.gguf", "f16", 1)
    assert [cell.model for cell in request.ordered] == ["/m/big.gguf", "/m/a.gguf"]
    assert plan("a", base="a").ordered == plan("a").cells, "a model beside itself is one cell"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n_ctx": 4}, "nothing to score"),
        ({"n_chunks": 0}, "scores nothing"),
        ({"axes": {"embeddings": [True]}}, "Embeddings predict nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused(anything, more, words):
    with pytest.raises(UsageError, match=words):
        plan(**more)


def test_caches_are_compared_with_f16():
    spec = RunSpec("m.gguf", n_gen=16, n_depth=4096, type_k="q4_0", n_threads=2, flash_attn="on")
    request = compare_caches(spec, [{"type_k": "q8_0", "type_v": "q8_0"}], n_chunks=4)
    assert [(cell.type_k, cell.type_v, cell.n_ctx, cell.flash_attn) for cell in request.ordered] == [
        ("f16", "f16", 512, "on"),
        ("q8_0", "q8_0", 512, "on"),
    ]


def test_what_has_no_room_together_goes_one_after_the_other_beside_the_base(monkeypatch):
    base, *others = (RunSpec(f"{name}.gguf", n_prompt=64) for name in "abcd")
    monkeypatch.setattr(asking_quality, "estimate_needs", lambda _cell: None)
    monkeypatch.setattr(asking_quality, "fit_together", lambda found, _free: len(found) <= 3)
    request = QualityRequest(tuple(others), base=base)
    assert [[cell.model[0] for cell in group] for group in group_cells(request)] == [["a", "b", "c"], ["a", "d"]]
    assert [[cell.model[0] for cell in group] for group in group_cells(QualityRequest(tuple(others)))] == [
        ["b", "c", "d"]
    ]
    assert list(group_cells(QualityRequest((base,), base=base))) == [[base]]


# --- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_caches_of_a_real_model(tmp_path):
    heard = []
    request = plan_quality([], {"type_k": ["f16", "q4_0"]}, lambda _event: None, n_ctx=32, n_chunks=6)
    with Session("quality", tmp_path, on_event=heard.append) as session:
        base, other = measure_quality(request, session)
    assert session.outcome is Outcome.OK
    assert len(list(tmp_path.rglob("*.jsonl"))) == 1
    assert [len(record.windows) for record in (base, other)] == [6, 6]
    assert {window.n_scored for window in base.windows} == {15}
    mine, theirs = find_figures(base), find_figures(other)
    assert 5 < mine.perplexity.value < 100
    assert theirs.departure.base_perplexity == mine.perplexity
    assert 0.001 < theirs.departure.kld.value < 1
    assert base.base is None
    assert other.base.asked.type_k == "f16"
    assert sum(other.kld_counts.values()) == 90


@pytest.mark.engine
def test_batches_smaller_than_a_window_come_to_the_same():
    found = []
    for n_batch in (32, 7):
        request = plan_quality([], {"n_batch": [n_batch]}, lambda _event: None, n_ctx=32, n_chunks=1)
        with Session("quality", None) as session:
            (record,) = measure_quality(request, session)
        found.append(record.windows[0].nll)
    assert found[1] == pytest.approx(found[0], rel=2e-2)


@pytest.mark.engine
def test_a_text_shorter_than_two_windows_is_refused(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("Once upon a time there was a text.", encoding="utf-8")
    request = plan_quality([], {}, lambda _event: None, text=short, n_ctx=64)
    with Session("quality", None) as session, pytest.raises(UsageError, match="windows of 64 need 128 at least"):
        measure_quality(request, session)


# --- other models -----------------------------------------------------------------------------------------------------


def test_what_embeds_is_refused_before_anything_is_loaded(tmp_path):
    path = tmp_path / "bert.gguf"
    path.write_bytes(FILES["bert"][0]().build(data=True))
    for more in ([str(path)], []), ([], [str(path)]):
        models, base = more
        with pytest.raises(UsageError, match=r"bert\.gguf is an embedding model"):
            plan_quality(models, {}, lambda _event: None, base=base[0] if base else None)


def read_tiny(folder, others, text):
    """Have a tiny model and others, all of random weights, read a text; the first is the base."""
    path = folder / "text.txt"
    path.write_bytes(text)
    base, *cells = (RunSpec(str(file), n_prompt=16, n_threads=1) for file in others)
    request = QualityRequest(tuple(cells), open_text(path), base, n_chunks=2, with_memory=False)
    with Session("quality", None) as session:
        return measure_quality(request, session)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Files of three tiny models: two of one vocabulary, and one whose vocabulary is larger."""
    from harness.sources.synthetic import write_synthetic

    folder = tmp_path_factory.mktemp("tiny")
    more = dataclasses.replace(TINY, vocab_size=TINY.vocab_size + 32)
    return [
        write_synthetic(shape, "Q8_0", folder / f"{name}.gguf", name="x:1b", seed=seed)
        for name, shape, seed in (("a", TINY, 0), ("b", TINY, 1), ("more", more, 0))
    ]


TEXT = b"the quick brown fox jumps over the lazy dog. " * 3


@pytest.mark.engine
def test_a_model_of_another_vocabulary_is_refused(tiny, tmp_path):
    a, b, more = tiny
    with pytest.raises(UsageError, match=r"more\.gguf has another vocabulary than a\.gguf"):
        read_tiny(tmp_path, [a, b, more], TEXT)
    base, other = read_tiny(tmp_path, [a, b], TEXT)
    assert find_figures(other).departure.base_perplexity == find_figures(base).perplexity


@pytest.mark.engine
def test_a_model_that_cuts_the_text_otherwise_is_refused(tiny, tmp_path):
    """Of one vocabulary, but without BOS: each of its tokens would be held against the base's next one."""
    a, *_ = tiny
    key = b"tokenizer.ggml.add_bos_token"
    data = bytearray(a.read_bytes())
    place = data.index(key) + len(key) + 4
    assert data[place] == 1
    data[place] = 0
    without = tmp_path / "without.gguf"
    without.write_bytes(data)
    with pytest.raises(UsageError, match=r"without\.gguf makes other tokens of this text than a\.gguf"):
        read_tiny(tmp_path, [a, without], TEXT)


@pytest.mark.engine
def test_bytes_that_are_no_text_are_tokens_all_the_same(tiny, tmp_path):
    """Each becomes U+FFFD, which is three bytes: there are more tokens than bytes. Every byte stands before every other."""
    records = read_tiny(tmp_path, tiny[:2], b"\xff" * 100)
    assert records[0].text.n_tokens > 200
    every = b"".join(bytes((first, second, 0x80, 0x80)) for first in range(256) for second in range(0, 256, 16))
    every = texts._BEYOND_UNICODE.sub(b"?", every)
    assert len(read_tiny(tmp_path, tiny[:2], every)[1].windows) == 2


@pytest.mark.engine
def test_what_was_read_before_a_foreign_model_is_kept(tiny, tmp_path, monkeypatch):
    """Where models are read one after the other, the first ones' windows have taken hours."""
    a, b, more = tiny
    monkeypatch.setattr(asking_quality, "fit_together", lambda found, _free: len(found) <= 2)
    base, other, foreign = read_tiny(tmp_path, [a, b, more], TEXT)
    assert (len(base.windows), len(other.windows), len(foreign.windows)) == (2, 2, 0)
    assert base.failure is other.failure is None
    assert foreign.failure.cause is Cause.QUESTION
    assert "has another vocabulary than a.gguf" in render(describe_quality([base, other, foreign]), "table")


# --- shown ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(made, recorded):
    """A base, two caches, one that failed, and their speeds."""
    record, tokens = made
    spec = dataclasses.replace(record.asked, type_k="f16")
    memory = Memory(4096, 100 * 2**20, 64 * 2**20, 30 * 2**20)
    base = dataclasses.replace(record, asked=spec, base=None, kld_counts={}, memory=memory,
                               windows=tuple(window_of(window, with_base=False) for window in tokens))  # fmt: skip
    failed = dataclasses.replace(
        record, asked=dataclasses.replace(spec, type_k="q4_0"), windows=(), kld_counts={},
        failure=Failure("load", "llama.cpp cannot make a context.", Cause.REFUSED),
    )  # fmt: skip
    cell = next(one for one in recorded if one.samples)
    speeds = [
        dataclasses.replace(
            cell, asked=dataclasses.replace(spec, n_prompt=n_prompt, n_gen=n_gen, type_k=kind), model=record.model
        )
        for kind in ("f16", "q8_0")
        for n_prompt, n_gen in ((512, 0), (0, 128))
    ]
    return [base, dataclasses.replace(record, memory=memory), failed], speeds


@pytest.mark.parametrize("form", format_names())
def test_every_format_is_written(shown, form):
    assert render(describe_quality(*shown), form)


def test_a_table_has_size_memory_speed_and_what_is_lost(shown):
    records, _ = shown
    text = render(describe_quality(*shown), "table")
    figures = find_figures(records[1])
    assert f"{figures.perplexity.value:.4f}" in text
    assert f"{figures.departure.kld.value:.5f}" in text
    assert "194.00 MiB" in text
    assert "pp512 t/s" in text
    assert "tg128 t/s" in text
    assert "llama.cpp cannot make a context" in text
    assert "quiet" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_two_files_of_one_name_are_told_apart(made):
    record, _ = made
    base = dataclasses.replace(record, asked=record.base.asked, base=None, kld_counts={})
    models = [dataclasses.replace(record.model, file_sha256=digit * 64) for digit in "ab"]
    records = [dataclasses.replace(base, model=models[0]), dataclasses.replace(record, model=models[1])]
    data = json.loads(render(describe_quality(records), "json"))
    names = [one["model"] for one in data["models"]]
    assert [name.removeprefix(name_stem(record.model.file_name)) for name in names] == [" (aaaaaaaa)", " (bbbbbbbb)"]
    assert data["departures"][-1]["model"] == names[1]
    assert all(name in render(describe_quality(records), "csv") for name in names)


def test_programs_get_every_figure(shown):
    data = json.loads(render(describe_quality(*shown), "json"))
    base, other, failed = data["models"]
    assert (base["type_k"], other["type_k"], failed["perplexity"]) == ("f16", "q8_0", None)
    assert base["n_scored"] == 200
    assert data["departures"][0]["kld_nats"] == pytest.approx(find_figures(shown[0][1]).departure.kld.value)
    assert len(data["departures"]) == 1
    assert data["text"]["sha256"] == "ab" * 32


def test_a_loss_is_said_to_be_seen_only_where_it_is(made):
    record, tokens = made
    base = dataclasses.replace(record, asked=dataclasses.replace(record.asked, type_k="f16"), base=None)
    worse = [[(b + 0.5 + 0.01 * p, b, kld, p) for _, b, kld, p in window] for window in tokens]
    record = dataclasses.replace(record, windows=tuple(map(window_of, worse)))
    assert "type_k q8_0 predicts this text worse than the base (95 %)." in render(
        describe_quality([base, record]), "table"
    )
    shifts = (0.5, -0.5, 0.2, -0.2, 0.1, -0.1, 0.3, -0.3)
    equal = [[(b + by, b, kld, p) for _, b, kld, p in window] for window, by in zip(tokens, shifts, strict=True)]
    record = dataclasses.replace(record, windows=tuple(map(window_of, equal)))
    text = " ".join(render(describe_quality([base, record]), "table").split())
    assert "type_k q8_0: 8 windows do not tell its perplexity from the base's" in text


@pytest.mark.parametrize("with_speed", [True, False])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_drawn(shown, theme, with_speed):
    records, speeds = shown
    (picture,) = describe_quality(records[:2], speeds if with_speed else ()).blocks(Picture)
    drawn = to_bytes(picture.draw(theme), "svg").decode()
    assert "type_k q8_0" in drawn
    assert ("tokens a second" in drawn) == with_speed
    assert "KL divergence" in drawn


# --- the worker's answers ---------------------------------------------------------------------------------------------


class Answering:
    """A session whose worker says what it was told to, and may be interrupted."""

    def __init__(self, session, events, ends_with=None):
        self.session, self.events, self.ends_with = session, events, ends_with
        self.requests = []
        session.ask = self.ask

    def ask(self, _job, request, _timeout_s=None):
        self.requests.append(request)
        yield from self.events
        if isinstance(self.ends_with, Failure):
            self.session.fail(self.ends_with)
        elif self.ends_with:
            raise self.ends_with


@pytest.fixture
def two(recorded, monkeypatch, tmp_path):
    """Two cells of one file, and what a worker says of them: all of the first one's windows and one of the other's."""
    cell = next(one for one in recorded if one.model and one.resolved)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    spec = RunSpec(str(path), n_prompt=52, n_threads=1)
    request = compare_caches(spec, [{"type_k": "q8_0"}], n_ctx=52, n_chunks=2)
    about = {"model": encode(cell.model), "resolved": encode(cell.resolved), "n_tokens": 999, "n_chunks": 2}
    window, other = (
        {"window": encode(window_of(one, with_base=False)), "bins": {"5": 25}} for one in made_tokens(3, 2)
    )
    events = [
        {"event": "opened", "cell": 0, **about}, {"event": "opened", "cell": 1, **about},
        {"event": "window", "cell": 0, **window}, {"event": "window", "cell": 1, **window}, {"event": "window", "cell": 0, **other},
    ]  # fmt: skip
    return request, events


def test_an_interrupt_keeps_the_windows_until_then(two, tmp_path):
    request, events = two
    with Session("quality", tmp_path / "r") as session:
        Answering(session, events, KeyboardInterrupt())
        base, other = measure_quality(request, session)
    assert session.outcome is Outcome.INTERRUPTED
    assert (len(base.windows), base.failure) == (2, None)
    assert len(other.windows) == 1
    assert other.failure.cause is Cause.INTERRUPTED
    assert other.warnings[0].text == "interrupted after 1 of 2 windows"
    assert "interrupted after 1 of 2 windows" in render(describe_quality([base, other]), "table")
    assert len(list(read_lines(sorted((tmp_path / "r").rglob("*.jsonl")), pytest.fail))) == 2


def test_a_death_costs_the_cells_that_were_not_whole(two):
    request, events = two
    with Session("quality", None) as session:
        Answering(session, events, Failure("window", None, Cause.ABORT, signal=6))
        base, other = measure_quality(request, session)
    assert session.outcome is Outcome.NATIVE
    assert base.failure is None
    assert other.failure.cause is Cause.ABORT
    assert find_figures(other).n_windows == 1


def test_one_cell_that_is_refused_costs_itself(two):
    request, events = two
    said = {
        "event": "failed",
        "cell": 1,
        "message": "llama.cpp cannot make a context.",
        "reason": None,
        "trouble": None,
    }
    with Session("quality", None) as session:
        Answering(session, [*events[:2], said, events[2], events[4]])
        base, other = measure_quality(request, session)
    assert session.outcome is Outcome.NATIVE
    assert (len(base.windows), base.failure, other.windows, other.failure.message) == (2, None, (), said["message"])


def test_a_question_put_wrongly_is_no_record(two):
    request, _ = two
    with Session("quality", None) as session:
        Answering(session, [], Failure("load", "The text has 5 tokens.", Cause.QUESTION))
        with pytest.raises(UsageError, match="has 5 tokens"):
            measure_quality(request, session)


def test_threads_that_nobody_asked_for_are_not_said_to_be_asked_for(anything, two, monkeypatch):
    assert [cell.n_threads for cell in plan(axes={"type_k": ["f16", "q8_0"]}, base="big").ordered] == [None] * 3
    request, events = two
    cells = [dataclasses.replace(cell, n_threads=None) for cell in request.ordered]
    assert compare_caches(cells[0], [{"type_k": "q8_0"}], n_ctx=52).ordered == tuple(cells)
    monkeypatch.setattr(asking_quality, "choose_threads", lambda: Threads(3, "performance cores"))
    request = dataclasses.replace(request, cells=tuple(cells[1:]), base=cells[0])
    with Session("quality", None) as session:
        worker = Answering(session, events[:-1])
        base, other = measure_quality(request, session)
    (asked,) = worker.requests
    assert [cell["n_threads"] for cell in asked["cells"]] == [3, 3], "the engine is told a number"
    assert {record.threads_source for record in (base, other)} == {"performance cores"}
    assert [spec.n_threads for spec in (base.asked, other.asked, other.base.asked)] == [3, 3, 3]

    timed = []
    monkeypatch.setattr(asking_quality, "measure_cells", lambda request, _session: timed.extend(request.cells) or [])
    failed = dataclasses.replace(base, windows=())
    measure_speeds([failed, other], request, session)
    assert [(cell.n_threads, cell.type_k, cell.test) for cell in timed] == [
        (None, "q8_0", "pp512"), (None, "q8_0", "tg128"),
    ], "as pp-tg is asked, and not of what could not be read with"  # fmt: skip


def test_what_a_cell_would_take_is_planned_with_threads(two, monkeypatch):
    request, events = two
    cells = [dataclasses.replace(cell, n_threads=None) for cell in request.ordered]
    planned = []

    def predict(cells):
        planned.extend(cells)
        return {cell: Memory(4096, 1, 2, 3) for cell in cells}

    monkeypatch.setattr(asking_quality, "predict_needs", predict)
    request = dataclasses.replace(request, cells=tuple(cells[1:]), base=cells[0], with_memory=True)
    with Session("quality", None) as session:
        Answering(session, events)
        records = measure_quality(request, session)
    assert all(cell.n_threads is not None for cell in planned)
    assert all(record.memory == Memory(4096, 1, 2, 3) for record in records)


def test_what_a_second_group_says_of_the_base_is_not_counted_twice(two, monkeypatch):
    request, events = two
    monkeypatch.setattr(asking_quality, "group_cells", lambda _request: [list(request.ordered)] * 2)
    with Session("quality", None) as session:
        Answering(session, [events[0], events[2], events[4]])
        records = measure_quality(request, session)
    assert len(records[0].windows) == 2


def test_the_report_puts_the_same_text_and_base_into_one_table(made):
    record, _ = made
    base = dataclasses.replace(record, asked=record.base.asked, base=None, kld_counts={})
    other_text = dataclasses.replace(base, text=dataclasses.replace(base.text, name="other.txt", sha256="cd" * 32))
    older = dataclasses.replace(record, windows=record.windows[:1])
    material = read_material_of([older, record, base, other_text])
    documents = [one for one in documents_of_report.show_quality(material) if list(one.blocks(Table))]
    assert [len(next(iter(one.blocks(Table))).rows) for one in documents] == [2, 1]
    assert "alice.txt, windows of 52 tokens" in documents[0].title


def read_material_of(records):
    class Material:
        machines = ()

        def contents(self, kind):
            return [record for record in records if isinstance(record, kind)]

    return Material()


def test_a_script_asks_the_same(anything, monkeypatch):
    import harness

    asked = []
    monkeypatch.setattr(asking_quality, "measure_quality", lambda request, _session: asked.append(request) or [])
    harness.measure_quality(["a", "b"], base="big", n_ctx=64, n_chunks=3, type_k=("f16", "q8_0"))
    (request,) = asked
    assert [(cell.model, cell.type_k) for cell in request.cells] == [
        ("/m/a.gguf", "f16"), ("/m/a.gguf", "q8_0"), ("/m/b.gguf", "f16"), ("/m/b.gguf", "q8_0"),
    ]  # fmt: skip
    assert (request.base.model, request.base.n_ctx, request.n_chunks) == ("/m/big.gguf", 64, 3)
    harness.measure_quality()
    assert asked[1].cells[0].model == "/m/own.gguf"


def test_a_base_without_room_beside_it_is_told(two, monkeypatch):
    request, events = two
    heard = []
    monkeypatch.setattr(asking_quality, "fit_together", lambda _found, _free: False)
    with Session("quality", None, on_event=heard.append) as session:
        Answering(session, events)
        measure_quality(request, session)
    assert any("m.gguf take more than the" in getattr(event, "text", "") for event in heard)


@pytest.mark.engine
def test_the_command_shows_all_formats_of_it_and_refuses_in_a_sentence(tmp_path):
    code, out, _ = harness_command(
        "quality", "-c", "32", "--chunks", "2", "-ctk", "f16,q8_0", "-o", "json", cwd=tmp_path
    )
    assert code == 0
    data = json.loads(out)
    assert [one["type_k"] for one in data["models"]] == ["f16", "q8_0"]
    assert data["models"][0]["memory_bytes"] > data["models"][1]["memory_bytes"] > 0
    assert data["text"]["is_own"]
    assert data["trust"] == "quiet"
    (tmp_path / "short.txt").write_text("Too short.", encoding="utf-8")
    code, out, said = harness_command("quality", "--text", "short.txt", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "windows of 512 need 1024 at least" in said


@pytest.mark.parametrize("counts", [{"x": 1}, {"-1": 1}, {"5": -1}, {"99999999": 1}])
def test_counts_of_no_bin_are_refused(made, counts):
    with pytest.raises(ValueError, match="no bin"):
        dataclasses.replace(made[0], kld_counts=counts)


@pytest.mark.parametrize("n_same_top", [-1, 26])
def test_no_more_tokens_agree_than_were_scored(made, n_same_top):
    window = made[0].windows[0]
    with pytest.raises(ValueError, match="same top"):
        dataclasses.replace(window, divergence=dataclasses.replace(window.divergence, n_same_top=n_same_top))
