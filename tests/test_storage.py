"""Disks that are full, broken or somebody else's, folders that are none or go away, two writers, clocks that are wrong: no record is lost.

What a test may not do here (mount a file system, become another user) is done by fakes at the edge as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types

import pytest
from click.testing import CliRunner

from harness.cli import cli, terminal
from harness.errors import HarnessError, Outcome, StoreError
from harness.events import Remark, Unkept
from harness.records import journal as journals
from harness.records.journal import Journal, read_lines, read_records
from harness.records.journal_files import find_journals
from harness.runs.session import Session
from harness.sources.whole_files import put_file, replace_file

from .bad_storage import ERRORS, fill

ROOT = pathlib.Path(__file__).parent.parent
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX rights and links")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Results, cache and temporary folder, all below the test's own; the cache and the temporary one are where records go instead."""
    found = types.SimpleNamespace(**{name: tmp_path / name for name in ("results", "cache", "temporary", "config")})
    found.temporary.mkdir()
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(found.cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(found.config))
    monkeypatch.setattr(tempfile, "tempdir", str(found.temporary))
    return found


def kept_in(*folders):
    return [record for folder in folders for record in read_records(find_journals((), folder), pytest.fail)]


# --- a disk that stops taking records ---------------------------------------------------------------------------------


@pytest.mark.parametrize("after_bytes", [0, 1, 1000], ids="after {} bytes".format)
@pytest.mark.parametrize("error", ERRORS)
def test_a_disk_that_fails_costs_no_record(error, after_bytes, places, recorded, monkeypatch):
    told = []
    with Session("test", places.results, on_event=told.append) as session:
        session.keep(recorded[0])
        fill(monkeypatch, places.results, ERRORS[error], after_bytes)
        session.keep(recorded[1])
        session.keep(recorded[0])
    assert kept_in(places.results) == [recorded[0]], "and no half line either"
    assert kept_in(places.cache) == [recorded[1], recorded[0]]
    assert session.outcome is Outcome.STORE
    (remark,) = told
    assert os.strerror(ERRORS[error]) in remark.text
    assert str(session.journals[1]) in remark.text


@pytest.mark.parametrize("error", ERRORS)
def test_where_the_cache_fails_too_the_temporary_folder_takes_them(error, places, recorded, monkeypatch):
    with Session("test", places.results) as session:
        fill(monkeypatch, places.results, ERRORS[error])
        places.cache.write_text("no folder")
        session.keep(recorded[0])
    assert kept_in(places.temporary) == [recorded[0]]
    if os.name == "posix":
        assert session.journals[0].parent.stat().st_mode & 0o077 == 0, "for no other eyes"


def test_where_nothing_takes_them_each_is_told_as_a_line(places, recorded, monkeypatch):
    told = []
    with Session("test", places.results, on_event=told.append, label="fan") as session:
        fill(monkeypatch, places.results.parent)
        session.keep(recorded[0])
        session.keep(recorded[1])
    assert [type(event) for event in told] == [Remark, Unkept, Unkept]
    (places.results.parent / "saved.jsonl").write_text(
        "".join(f"{event.line}\n" for event in told[1:]), encoding="utf-8"
    )
    lines = list(read_lines([places.results.parent / "saved.jsonl"], pytest.fail))
    assert [line.content for line in lines] == recorded[:2]
    assert [line.label for line in lines] == ["fan", "fan"]
    assert session.outcome is Outcome.STORE


def test_a_line_for_nowhere_reaches_stderr(capsys):
    from harness.cli.progress import Display

    Display().on_event(Unkept('{"kind":"result"}'))
    assert capsys.readouterr().err == '{"kind":"result"}\n'


def test_a_disk_that_breaks_while_it_is_waited_for_leaves_each_record_once(places, recorded, monkeypatch):
    with Session("test", places.results) as session:
        sync, n = os.fsync, []

        def broken(descriptor):
            n.append(1)
            if len(n) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            sync(descriptor)

        monkeypatch.setattr("os.fsync", broken)
        session.keep(recorded[0])
    assert kept_in(places.results, places.cache) == [recorded[0]]


@posix
@pytest.mark.parametrize("what", ["file", "folder", "results"])
def test_what_is_taken_away_meanwhile_is_made_again_with_all_that_was_in_it(what, places, recorded):
    told = []
    with Session("test", places.results, on_event=told.append) as session:
        session.keep(recorded[0])
        place = session.journals[0]
        if what == "file":
            place.unlink()
        else:
            shutil.rmtree(place.parent if what == "folder" else places.results)
        session.keep(recorded[1])
    assert kept_in(places.results, places.cache) == recorded[:2]
    assert "it was deleted meanwhile" in told[0].text
    if what != "file":
        assert kept_in(places.results) == recorded[:2]


def test_a_real_disk_that_is_full(tmp_path):
    """A tmpfs of 64 KiB in a mount namespace of its own."""
    script = (
        "import json, pathlib, sys\n"
        "from harness.events import Remark\nfrom harness.records.kinds import read_line\nfrom harness.runs.session import Session\n"
        "record = read_line(json.loads(open('tests/recorded/pp-tg.jsonl').readline())).content\n"
        "told = []\n"
        "with Session('test', pathlib.Path(sys.argv[1]), on_event=told.append) as one:\n"
        " for _ in range(40): one.keep(record)\n"
        "n = [sum(1 for _ in path.open()) for path in one.journals]\n"
        "[json.loads(line) for path in one.journals for line in path.open()]\n"
        "print(json.dumps([n, len(told), int(one.outcome)]))\n"
    )
    disk, shell = tmp_path / "disk", 'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    disk.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare(1) of util-linux")
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, 'mount -t tmpfs tmpfs "$1"', "sh", disk], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs in a namespace of its own")
    done = subprocess.run(
        [*inside, shell, "sh", disk, sys.executable, script], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HARNESS_CACHE_DIR": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (on_disk, elsewhere), n_told, outcome = json.loads(done.stdout)
    assert on_disk + elsewhere == 40
    assert 0 < on_disk < 40
    assert (n_told, outcome) == (1, Outcome.STORE)


# --- folders that take none from the start -------------------------------------------------------------------------------


def spoil(kind: str, place: pathlib.Path, monkeypatch) -> None:
    """Make of a place what no records can be written into."""
    if kind == "a file":
        place.write_text("")
    elif kind == "below a file":
        place.parent.write_text("")
    elif kind == "a link to nothing":
        place.symlink_to(place.with_name("nothing"))
    elif kind == "a link to itself":
        place.symlink_to(place)
    else:
        make = pathlib.Path.mkdir

        def refuse(path, *arguments, **options):
            if path.is_relative_to(place):
                raise OSError(ERRORS.get(kind, errno.EACCES), os.strerror(ERRORS.get(kind, errno.EACCES)), str(path))
            make(path, *arguments, **options)

        monkeypatch.setattr(pathlib.Path, "mkdir", refuse)


KINDS = ["a file", "below a file", "a link to nothing", "a link to itself", "not allowed", "EROFS", "ENOSPC", "EDQUOT"]


@posix
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "words", [["pp-tg", "-p", "8", "-n", "0"], ["sweep"], ["noise"], ["score"], ["roofline"]], ids=" ".join
)
def test_a_folder_that_takes_no_records_is_said_before_anything_is_measured(words, kind, tmp_path, monkeypatch, model):
    place = tmp_path / "some" / "results"
    place.parent.mkdir() if kind != "below a file" else None
    spoil(kind, place, monkeypatch)
    monkeypatch.setattr("harness.runs.session.Worker", lambda *_, **__: pytest.fail("something was measured"))
    monkeypatch.setattr("harness.runs.bench.Worker", lambda *_, **__: pytest.fail("something was measured"))
    done = CliRunner().invoke(cli, [*words, *([] if words == ["roofline"] else ["-m", model]), "--results", str(place)])
    said = words_of(done)
    assert str(place) in said
    assert "--results" in said
    assert isinstance(done.exception, StoreError) or (kind == "a file" and done.exit_code == Outcome.QUESTION), said


def words_of(done) -> str:
    """What a command said, whoever says it: as one line."""
    return " ".join(f"{done.output} {done.exception}".split())


READERS = [["list"], ["table"], ["history"], ["report", "-o", os.devnull], ["compare"], ["label", "last", "x"], ["delete", "last", "--yes"], ["plot", "history", "-o", "x.svg"]]  # fmt: skip


@posix
@pytest.mark.parametrize("kind", ["a file", "a link to nothing", "a link to itself"])
@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_whoever_reads_records_says_what_is_wrong_with_their_folder(words, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "results"
    spoil(kind, place, monkeypatch)
    done = CliRunner().invoke(cli, [*words, "--results", str(place)])
    assert isinstance(done.exception, HarnessError) or done.exit_code == Outcome.QUESTION, (done.exception, done.output)
    assert str(place) in words_of(done)


@contextlib.contextmanager
def powerless():
    """A folder of nobody's, and a function that makes this process nobody, where it is root."""
    folder, nobody = pathlib.Path(tempfile.mkdtemp(prefix="harness-nobody-", dir="/tmp")), 65534

    def become_nobody():
        if os.geteuid() == 0:
            for place, _, names in os.walk(folder):
                for path in (place, *(os.path.join(place, name) for name in names)):
                    os.chown(path, nobody, nobody)
            os.seteuid(nobody)

    try:
        yield folder, become_nobody
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for place, _, _ in os.walk(folder):
            os.chmod(place, 0o700)
        shutil.rmtree(folder)


@posix
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100, 0o600], ids=oct)
@pytest.mark.parametrize("where", ["results", "machine", "journal"])
@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_records_that_may_not_be_read_are_never_said_to_be_none(words, where, mode, recorded, monkeypatch):
    with powerless() as (folder, become_nobody):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        monkeypatch.chdir(folder)
        for _ in range(2):
            with Journal(folder / "results" / "machine", "pp-tg") as journal:
                journal.append(recorded[0])
        asked = [*words, "--results", str(folder / "results")]
        CliRunner().invoke(
            cli, asked if words != ["delete", "last", "--yes"] else ["delete", "--help"]
        )  # nobody may import
        place = {"results": folder / "results", "machine": folder / "results" / "machine", "journal": journal.path}[
            where
        ]
        become_nobody()
        os.chmod(place, mode)
        try:
            done = CliRunner().invoke(cli, asked)
        finally:
            if place.parent.exists() and (where != "journal" or place.exists()):
                os.chmod(place, 0o700)
        monkeypatch.chdir(ROOT)
    assert not isinstance(done.exception, OSError), done.exception
    if not (where == "journal" and mode & 0o400):
        assert isinstance(done.exception, HarnessError), (done.exception, done.output)
        assert "Permission denied" in str(done.exception)
        assert len(str(done.exception).splitlines()) == 1


@posix
@pytest.mark.parametrize("mode", [0o000, 0o500, 0o400], ids=oct)
def test_a_folder_that_may_not_be_written_is_one_sentence(mode):
    with powerless() as (folder, become_nobody):
        become_nobody()
        os.chmod(folder, mode)
        with pytest.raises(StoreError, match=r"Permission denied\); choose another folder with --results"):
            Session("test", folder / "results")


@posix
def test_a_journal_that_may_only_be_read_is_not_gone_on_with(recorded):
    with powerless() as (folder, become_nobody):
        with Journal(folder, "sweep") as journal:
            journal.append(recorded[0])
        os.chmod(journal.path, 0o400)
        become_nobody()
        with pytest.raises(StoreError, match=r"Cannot go on in .*Permission denied.*leave out --resume"):
            Journal(folder, "sweep", resume=journal.path)


# --- files beside the records ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS)
def test_a_file_that_cannot_be_replaced_is_as_it_was(error, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    fill(monkeypatch, tmp_path, ERRORS[error])
    with pytest.raises(OSError, match=r".") as caught:
        replace_file(path, b"new")
    assert caught.value.errno == ERRORS[error]
    assert path.read_text() == "old"
    with pytest.raises(OSError, match=r"."):
        put_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", ERRORS)
def test_half_a_file_is_never_put_in_place_of_a_whole_one(error, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def broken(_descriptor):
        raise OSError(ERRORS[error], os.strerror(ERRORS[error]))

    monkeypatch.setattr("os.fsync", broken)
    for write in (lambda: replace_file(path, b"new"), lambda: put_file(path, "new")):
        with pytest.raises(OSError, match=r"."):
            write()
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path], "and nothing is left behind"


@posix
def test_a_replaced_file_keeps_its_rights_and_its_links(tmp_path):
    path, link = tmp_path / "page.html", tmp_path / "link.html"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    replace_file(tmp_path / "fresh", b"new")
    before = os.umask(0)
    os.umask(before)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~before


@posix
def test_a_device_is_written_and_not_replaced(tmp_path):
    replace_file(pathlib.Path(os.devnull), b"new")
    assert not pathlib.Path(os.devnull).is_file()


WRITERS = {
    "report": (["report", "{journal}", "-o", "{folder}/page.html"], "page.html"),
    "report --share": (["report", "{journal}", "--share", "{folder}/shared.json"], "shared.json"),
    "--plot": (["table", "{journal}", "--plot", "{folder}/table.svg"], "table.svg"),
    "plot": (["plot", "size", "-o", "{folder}/size.svg"], "size.svg"),
    "overhead --plot": (
        ["overhead", "-m", "llama3.2:1b", "--predict-only", "--plot", "{folder}/memory.svg"],
        "memory.svg",
    ),
}


@pytest.mark.parametrize("error", ["ENOSPC", "EROFS", "gone"])
@pytest.mark.parametrize("name", WRITERS)
def test_an_output_that_cannot_be_written_is_one_sentence_and_leaves_the_old_one(
    name, error, tmp_path, monkeypatch, recorded
):
    words, file = WRITERS[name]
    with Journal(tmp_path / "results", "pp-tg") as journal:
        journal.append(recorded[0])
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / file).write_text("old")
    if error == "gone":
        make = tempfile.NamedTemporaryFile

        def vanish(*arguments, **options):  # while the answer is being made
            shutil.rmtree(folder, ignore_errors=True)
            return make(*arguments, **options)

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", vanish)
    else:
        fill(monkeypatch, folder, ERRORS[error])
    done = CliRunner().invoke(cli, [word.format(journal=journal.path, folder=folder) for word in words])
    assert isinstance(done.exception, StoreError), (done.exception, done.output)
    assert "Cannot write" in str(done.exception)
    if error != "gone":
        assert (folder / file).read_text() == "old"
    assert kept_in(tmp_path / "results") == recorded[:1]


def test_where_records_are_is_said_though_the_picture_cannot_be_drawn(capsys):
    terminal.note_kept([pathlib.Path("a.jsonl"), pathlib.Path("b.jsonl")])
    terminal.echo_kept()
    terminal.echo_kept()
    assert capsys.readouterr().err == "kept in a.jsonl\nkept in b.jsonl\n"


@pytest.mark.parametrize("error", ERRORS)
def test_tuned_settings_that_cannot_be_kept_are_one_sentence(error, places, model, monkeypatch, recorded):
    from harness.records.tuned import make_tuned
    from harness.sources.tuned_settings import find_tuned, keep_tuned

    tuned = make_tuned({}, "chat", 512, "2026-11-24T12:00:00Z", build=recorded[0].build, machine=recorded[0].machine, sha256=None, size_bytes=1)  # fmt: skip
    fill(monkeypatch, places.config, ERRORS[error])
    with pytest.raises(StoreError, match="cannot be kept"):
        keep_tuned(pathlib.Path(model), tuned)
    assert find_tuned(pathlib.Path(model)) is None


@pytest.mark.parametrize("error", ERRORS)
def test_a_hash_that_cannot_be_kept_is_computed_all_the_same(error, places, tmp_path, monkeypatch):
    from harness.sources import file_hashes

    file = tmp_path / "file"
    file.write_bytes(b"x")
    os.utime(file, (0, 0))
    fill(monkeypatch, places.cache, ERRORS[error])
    assert file_hashes.sha256_of(file) == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


# --- two writers ----------------------------------------------------------------------------------------------------------

WRITER = (
    "import json, pathlib, sys\n"
    "from harness.records.journal import Journal\nfrom harness.records.kinds import read_line\nfrom harness.errors import StoreError\n"
    "record = read_line(json.loads(open('tests/recorded/pp-tg.jsonl').readline())).content\n"
    "folder, resume = pathlib.Path(sys.argv[1]), sys.argv[2:]\n"
    "print('ready', flush=True); sys.stdin.readline()\n"
    "try:\n with Journal(folder, 'sweep', pathlib.Path(resume[0]) if resume else None) as journal:\n"
    "  for _ in range(20): journal.append(record)\n"
    "  print(journal.path.name, flush=True); sys.stdin.readline()\n"
    "except StoreError as error: print('refused', error)\n"
)


def write_side_by_side(n: int, *arguments: str) -> list[str]:
    """What so many processes say that begin to write at the same moment."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(n)
    ]  # fmt: skip
    for one in writers:
        one.stdout.readline()
    for one in writers:
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.stdout.readline().strip() for one in writers]
    for one in writers:
        one.communicate("\n", timeout=60)
    return said


def test_two_that_begin_in_the_same_second_have_a_journal_each(tmp_path):
    said = write_side_by_side(3, str(tmp_path))
    assert len(set(said)) == 3
    assert len(kept_in(tmp_path)) == 60


@posix
def test_of_two_that_go_on_with_one_journal_the_second_is_refused(tmp_path, recorded):
    with Journal(tmp_path, "sweep") as journal:
        journal.append(recorded[0])
    said = write_side_by_side(3, str(tmp_path), str(journal.path))
    refused = [line for line in said if line.startswith("refused")]
    assert len(refused) == 2
    assert all("is being written by another harness" in line for line in refused)
    assert len(kept_in(tmp_path)) == 21


def test_half_a_line_is_ended_before_the_journal_goes_on(tmp_path, recorded):
    with Journal(tmp_path, "sweep") as journal:
        journal.append(recorded[0])
    with open(journal.path, "ab") as file:
        file.write(b'{"kind": "resu')
    with Journal(tmp_path, "sweep", resume=journal.path) as journal:
        journal.append(recorded[1])
    told = []
    assert read_records([journal.path], told.append) == recorded[:2]
    assert len(told) == 1
    assert f"{journal.path}:2: not a record" in told[0]


def test_an_empty_journal_is_not_the_last_one(tmp_path, recorded):
    with Journal(tmp_path, "sweep") as journal:
        journal.append(recorded[0])
    (tmp_path / "29991231T000000Z-sweep.jsonl").touch()  # as SIGKILL leaves it
    assert find_journals([pathlib.Path("last")], tmp_path) == [journal.path]


# --- clocks ---------------------------------------------------------------------------------------------------------------

CLOCKS = {
    "steady": ["2026-11-28T12:00:00", "2026-11-28T12:00:01", "2026-11-28T12:00:02"],
    "the same second": ["2026-11-28T12:00:00"] * 3,
    "set back an hour": ["2026-11-28T12:00:00", "2026-11-28T11:00:00", "2026-11-28T11:00:00"],
    "no battery": ["2026-11-28T12:00:00", "1970-01-01T00:00:00", "1970-01-01T00:00:01"],
    "2038": ["2038-01-19T03:14:07", "2038-01-19T03:14:08", "1901-12-13T20:45:52"],
    "2106": ["2106-02-07T06:28:15", "2106-02-07T06:28:16", "1970-01-01T00:00:00"],
    "9999": ["9999-12-31T23:59:59", "2026-11-28T12:00:00", "9999-12-31T23:59:59"],
    "1601": ["1601-01-01T00:00:00", "1601-01-01T00:00:01", "1601-01-01T00:00:00"],
}


@pytest.fixture(params=CLOCKS)
def journals_by_clock(request, tmp_path, recorded, monkeypatch):
    """Three journals of a record each, begun one after the other by such a clock, and the times that they hold."""

    now: list[str] = []

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, _zone=None):
            return datetime.datetime.fromisoformat(now[-1]).replace(tzinfo=datetime.timezone.utc)

    monkeypatch.setattr(journals, "datetime", types.SimpleNamespace(datetime=Clock, timezone=datetime.timezone))
    paths = []
    for moment in CLOCKS[request.param]:
        now.append(moment)
        with Journal(tmp_path / "machine", "pp-tg") as journal:
            journal.append(dataclasses.replace(recorded[0], time_utc=journals.utc_now()))
        paths.append(journal.path)
    return paths


def test_journals_stay_in_the_order_in_which_they_were_begun(journals_by_clock, tmp_path):
    assert len(set(journals_by_clock)) == 3
    assert find_journals((), tmp_path) == journals_by_clock
    assert find_journals([pathlib.Path("last")], tmp_path) == [journals_by_clock[-1]]
    assert find_journals([pathlib.Path("last~2")], tmp_path) == [journals_by_clock[0]]


def test_no_time_keeps_a_record_from_being_read(journals_by_clock):
    assert len(read_records(journals_by_clock, pytest.fail)) == 3


@pytest.mark.parametrize("words", [["list"], ["history"], ["compare"], ["table"], ["list", "last"]], ids=" ".join)
def test_every_answer_takes_them_in_that_order(words, journals_by_clock, tmp_path):
    done = CliRunner().invoke(cli, [*words, "-o", "json", "--results", str(tmp_path)])
    assert done.exit_code in (0, 5), (done.exception, done.output)
    assert json.loads(done.stdout)


@pytest.mark.parametrize("answer", ["report", "plot"])
def test_pages_and_pictures_bear_any_time(answer, journals_by_clock, tmp_path):
    words = (
        ["report", "-o", str(tmp_path / "x.html")]
        if answer == "report"
        else ["plot", "history", "-o", str(tmp_path / "x.svg")]
    )
    done = CliRunner().invoke(cli, [*words, "--results", str(tmp_path)])
    assert done.exit_code == 0, (done.exception, done.output)


def test_a_history_says_that_the_clock_was_set_back(journals_by_clock, tmp_path):
    done = CliRunner().invoke(cli, ["history", "--results", str(tmp_path)])
    times = [record.time_utc for record in read_records(journals_by_clock, pytest.fail)]
    assert ("set back" in " ".join(done.output.split())) == (times != sorted(times)), done.output
