"""Whatever a stranger writes, wherever it may be written, and in whichever format it is shown: it is text, and nothing else.

One matrix: attacks, the places where they stand, the outputs that show them. Each output has one judge (`tests/judges.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import shlex
import sqlite3
import sys

import pytest

from harness.cli import main
from harness.cli.progress import Display
from harness.codec import encode
from harness.events import Measured, Progress, Remark
from harness.records.bench_terms import OWN_TABLE, TABLE
from harness.records.kinds import KINDS, Line, read_line, to_json
from harness.sources import hub
from harness.sources.user_catalog import load_catalog
from harness.untrusted import harmless
from harness.views.cells import write_cells
from harness.views.document import Document, Picture, Section
from harness.views.figures.bars import pictures_of
from harness.views.figures.style import to_bytes
from harness.views.formats import format_names, render
from harness.views.report import Material, read_material
from harness.views.report.chapters import CHAPTERS

from .attacks import ATTACKS
from .conftest import HERE
from .gguf_bytes import HeaderBytes
from .judges import JUDGES, judge_characters, judge_html, judge_svg, judge_table
from .kind_files import settings, tensors, tokenizer
from .spoiling import places, spoil

JOURNALS = HERE.parent / "bench_results" / "amd-epyc-2c-24g"


def _journal_lines(pattern: str, n: int = 2) -> list[dict]:
    path = sorted(JOURNALS.glob(f"{pattern}.jsonl"))[-1]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:n]]


@functools.cache
def _lines() -> list[Line]:
    """A line or two of every kind that is kept here."""
    lines = _journal_lines("../../tests/recorded/pp-tg", 3)
    lines += [{**line, "command": "sweep"} for line in lines[:2]]
    for pattern in ("*overhead*", "*roofline*", "*time-ledger*", "*-parity*", "*-sweep*"):
        lines += _journal_lines(pattern)
    lines += map(json.loads, (HERE / "strangers" / "kinds.jsonl").read_text(encoding="utf-8").splitlines())
    return [read_line(line) for line in lines]


@functools.cache
def _documents(attack: str):
    """What the report shows of lines whose every text is an attack, as they come out of a journal; commands show the same documents."""
    spoilt = [read_line(json.loads(json.dumps(to_json(spoil(line.content, ATTACKS[attack]))))) for line in _lines()]
    material = Material(
        read_material(spoilt), made_utc="2026-11-28T12:00:00Z", harness_version="1", catalog=load_catalog()
    )
    return [document for make, _ in CHAPTERS.values() for document in make(material)]


def _without_pictures(document):
    """Pictures are judged by themselves; drawing them is what takes time."""
    sections = [
        dataclasses.replace(section, blocks=[block for block in section.blocks if not isinstance(block, Picture)])
        for section in document.sections
    ]
    return dataclasses.replace(document, sections=sections)


@pytest.mark.parametrize("form", JUDGES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_records_of_strangers(attack, form):
    documents = _documents(attack)
    assert len(documents) > 10
    for document in map(_without_pictures, documents):
        assert JUDGES[form](harmless.lines(render(document, form))) == [], (
            document.kind
        )  # as cli/terminal.show writes it


def test_every_format_has_a_judge():
    assert set(JUDGES) == set(format_names())


def test_lines_of_every_kind_but_one_are_spoilt():
    """No journal of Ollama beside us is kept here; its texts are those of a measured cell."""
    kinds = {line.kind for line in _lines()}
    assert set(KINDS) - kinds == {"ollama-comparison"}
    for kind in KINDS.values():
        assert len(list(places(kind))) >= 3


def test_a_text_that_is_spoilt_is_shown():
    """The test itself: what the judges are given holds the attacks, of many fields of each kind."""
    assert sum(render(document, "json").count("EVIL") for document in _documents("heading")) > 100
    for line in _lines():
        assert (
            json.dumps(encode(spoil(line.content, "EVIL"))).count("EVIL")
            > json.dumps(encode(line.content)).count("EVIL") + 3
        ), line.kind


@pytest.mark.parametrize("attack", ATTACKS)
def test_pictures_of_records_of_strangers(attack):
    pytest.importorskip("matplotlib")
    drawn = [picture for document in _documents(attack) for picture in pictures_of(document)][:3]
    assert drawn
    for picture in drawn:
        assert judge_svg(to_bytes(picture.draw("light"), "svg")) == []
    page = render(Document("page", 1, ATTACKS[attack], [Section(ATTACKS[attack], drawn[:1])]), "html")
    assert judge_html(page) == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_export_as_sql(attack, recorded):
    """SQLite runs it, finds the two tables alone and reads each text back."""
    record = spoil(recorded[0], ATTACKS[attack])
    text = write_cells([record], "sql")
    database = sqlite3.connect(":memory:")
    database.executescript(text)
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {TABLE, OWN_TABLE}
    assert database.execute(f"SELECT model_type FROM {TABLE}").fetchall() == [
        (harmless.lines(record.model.description),)
    ]
    assert judge_characters(text) == []


@pytest.mark.parametrize("form", ["csv", "md"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_export_in_llama_bench_s_format(attack, form, recorded):
    assert JUDGES[form](write_cells([spoil(recorded[0], ATTACKS[attack])], form)) == []


# --- what is no record ------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The command line in a folder of its own, by a function that gives what it wrote."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CONFIG_HOME", "HARNESS_RESULTS", "OLLAMA_MODELS", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*words):
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["harness", *map(str, words)])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit):
                main()
        assert "Traceback" not in err.getvalue()
        return out.getvalue(), err.getvalue()

    return run


def _header_file(folder, text):
    """A model whose header says the same wherever it may say anything: settings by known and unknown names, lists, tokens, tensors."""
    made = settings(HeaderBytes(), "llama")
    for name in ("name", "author", "organization", "license", "license.link", "description", "basename", "finetune", "size_label", "url",
                 "source.url", "quantized_by", "type"):  # fmt: skip
        made.add(f"general.{name}", "str", text)
    made.add(f"general.{text[:60]}", "str", text).add("tokenizer.chat_template", "str", text).add(
        "tokenizer.ggml.pre", "str", text
    )
    made.add_array("general.tags", "str", [text] * 3).add_array("general.languages", "str", [text])
    tensors(tokenizer(made)).add_tensor(f"blk.0.{text.encode()[:40].decode(errors='ignore')}.weight", "F32", 64)
    path = folder / "a.gguf"
    path.write_bytes(made.build(data=True))
    return path


@pytest.mark.parametrize("attack", ATTACKS)
def test_headers_of_strangers(attack, program, tmp_path):
    text = ATTACKS[attack].encode("utf-8", "replace").decode("utf-8")
    path = _header_file(tmp_path, text)
    for form, judge in JUDGES.items():
        out, err = program("inspect", path, "-o", form)
        assert not out or judge(out) == [], form
        assert judge_characters(err) == []


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    "command",
    [("inspect",), ("pp-tg", "-m"), ("table",), ("compare",), ("inspect", "hf:"), ("predict", "-m", "ollama:")],
)
def test_names_of_strangers_in_refusals(attack, command, program):
    """A shell's star hands a command any file name; what is refused is one sentence, with the name in it."""
    *words, last = (*command, "") if not command[-1].endswith(":") else command
    word = (last + ATTACKS[attack].replace("\0", ""))[:3000]
    out, err = program(*words, word)
    assert out == ""
    assert judge_characters(err) == []
    assert err.count("\n") == 1
    assert err.startswith("harness: ")


@pytest.mark.skipif(os.name != "posix", reason="names of files may hold such characters on POSIX alone")
@pytest.mark.parametrize("attack", ATTACKS)
def test_files_and_folders_of_strangers(attack, program, tmp_path):
    """Journals and models that are called so, below folders that are called so."""
    name = (
        ATTACKS[attack]
        .replace("\0", "")
        .replace("/", "")[:60]
        .encode("utf-8", "surrogateescape")[:200]
        .decode("utf-8", "surrogateescape")
    )
    folder = tmp_path / name
    folder.mkdir()
    journal = folder / f"20261124T000000Z-{name}.jsonl"
    journal.write_text(
        "".join(json.dumps(to_json(line.content)) + "\n" for line in _lines()[:2]) + "{", encoding="utf-8"
    )
    for words in (("list", journal), ("table", folder), ("list", "--results", folder), ("compare", journal, journal)):
        out, err = program(*words)
        assert judge_characters(out) == []
        assert judge_characters(err) == []
        assert judge_table(out) == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_programs_and_processors_of_strangers(attack, program, monkeypatch, machine_it_runs_on):
    """What the operating system calls a processor and itself, and a name of a program in a remark."""
    text = ATTACKS[attack]
    events = [Remark(f"{harmless.line(text)} used 0.7 CPUs meanwhile."), Progress(text, 1, 3), Measured(text)]
    err = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", err)
        display = Display(lambda content: str(content))
        for is_watched in (False, True):
            patch.setattr("harness.cli.terminal.is_watched", lambda is_watched=is_watched: is_watched)
            for event in events:
                display.on_event(event)
        display.close()
    assert judge_characters(err.getvalue().replace("\r", "").replace("\x1b[A", "").replace("\x1b[K", "")) == []
    machine_it_runs_on.files["/proc/cpuinfo"] = f"processor : 0\nmodel name : {text}\n"
    out, _ = program("predict", "-m", "smollm2:135m", "--bandwidth", "10GB/s", "--kind", "cpu")
    assert judge_table(out) == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_shares_and_benches_of_strangers(attack, program, tmp_path):
    """Rows of llama-bench in its formats, and files that others shared."""
    text = ATTACKS[attack].replace("\0", "")
    row = {"build_commit": text, "cpu_info": text, "gpu_info": text, "backends": text, "model_filename": text, "model_type": text,
           "model_size": 1, "model_n_params": 1, "n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ns": 10, "stddev_ns": 1, "avg_ts": 1.0,
           "stddev_ts": 0.1, "test_time": "2026-11-24T00:00:00Z", "samples_ns": [10] * 6, "samples_ts": [1.0] * 6}  # fmt: skip
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps([row]), encoding="utf-8")
    for form in JUDGES:
        out, err = program("compare", "a.json", "b.json", "-o", form)
        assert not out or JUDGES[form](out) == [], form
        assert judge_characters(err) == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_catalogs_of_strangers(attack, program, tmp_path):
    text = json.dumps(ATTACKS[attack].encode("utf-8", "replace").decode("utf-8").replace("\x7f", ""))
    folder = tmp_path / "XDG_CONFIG_HOME" / "harness"
    folder.mkdir(parents=True)
    (folder / "models.toml").write_text(
        f"[models.{text}]\nrepository = {text}\n[models.{text}.files]\nq4_0 = {text}\n", encoding="utf-8"
    )
    for words in (("models",), ("inspect", "nothing:1b"), ("models", "-o", "csv")):
        out, err = program(*words)
        assert judge_characters(out + err) == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_hubs_and_stores_of_strangers(attack, program, tmp_path, monkeypatch):
    """What a hub lists and says when it refuses, and what a manifest of Ollama's holds."""
    text = ATTACKS[attack].encode("utf-8", "replace").decode("utf-8")
    store = tmp_path / "OLLAMA_MODELS" / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
    store.parent.mkdir(parents=True)
    config = hashlib.sha256(b"c").hexdigest()
    blobs = tmp_path / "OLLAMA_MODELS" / "blobs"
    blobs.mkdir()
    (blobs / f"sha256-{config}").write_text(json.dumps({"remote_host": text, "remote_model": text}), encoding="utf-8")
    store.write_text(
        json.dumps({"config": {"digest": f"sha256:{config}"}, "layers": [{"mediaType": text, "digest": text}]}), "utf-8"
    )
    for words in (("inspect", "ollama:m"), ("models", "--local")):
        out, err = program(*words)
        assert judge_characters(out + err) == []
    command = re.search(r"`ollama pull (.*)`", program("inspect", "ollama:m")[1])
    assert command is None or shlex.split(command[1]) in ([text], ["NAME"])
    body = json.dumps(
        {"siblings": [{"rfilename": text, "size": 3}, {"rfilename": f"{text[:40]}.gguf", "size": 3}], "sha": "a" * 40}
    ).encode()
    monkeypatch.setattr(hub, "ask_small", lambda *_, **__: (None, body))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    out, err = program("inspect", "hf:o/r")
    assert judge_characters(out + err) == []
    assert err.count("\n") == 1


@pytest.mark.parametrize("attack", ATTACKS)
def test_commands_that_are_pasted(attack):
    """Three shells read a word: none finds anything in it but the text, or it is not written at all."""
    word = harmless.shell_word(ATTACKS[attack])
    if word is None:
        return
    assert shlex.split(word) == [ATTACKS[attack]]
    assert judge_characters(word) == []
    inside = word[1:-1] if word[0] in "\"'" else word
    assert not set("\u2018\u2019\u201a\u201b'") & set(inside) or word[0] == '"'
    assert word[0] == '"' or not set("&|<>^%") & set(word)
