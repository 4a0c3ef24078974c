"""What every measuring command shares: the worker's life, the journal, whoever is told how it goes, Ctrl-C, and what became of it all.

A run is a function from a request and a `Session` to records:

    with Session("roofline", folder, on_event=show) as session:
        roof = measure_roof(request, session)
    sys.exit(session.outcome)

It keeps each record as soon as it is whole (`Session.keep`), has its worker's answers from `Session.ask` or a worker to talk to from
`Session.worker`, and measures inside `Session.until_interrupted`, after which it returns what it has. Nothing here prints.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from harness.errors import NativeError, Outcome, StoreError
from harness.events import OnEvent, Progress, Remark, Unkept, ignore
from harness.host import interrupt
from harness.host.machine import describe_machine, machine_slug
from harness.host.programs import ProgramWatch
from harness.records.cautions import CautionCause
from harness.records.cells import Build
from harness.records.failures import Cause, Failure, describe_end
from harness.records.journal import Journal, check_label, to_line
from harness.records.kinds import Entry
from harness.records.verdict import Trust, judge
from harness.runs.worker import Garbled, Worker, understand
from harness.sources.cache_folder import cache_folder
from harness.untrusted import harmless

#: Reasons of a verdict that other programs are to blame for, and the CPUs' worth of time from which on one of them is named.
COMPANY, NAMED_CPUS = {CautionCause.OTHER_PROGRAMS, CautionCause.THREADS_WAITED}, 0.05

#: What becomes of a command by the cause of a failure, where it is not llama.cpp's.
_OUTCOMES = {Cause.INTERRUPTED: Outcome.INTERRUPTED, Cause.QUESTION: Outcome.QUESTION}


class Session:
    """One command's measuring. `command` names the journal; without `results`, the folder of journals, nothing is kept; `label` is put
    into all that is.

    resume is a journal of before that goes on, worker_command replaces the worker in tests. machine is this machine, build the engine
    once a worker has greeted, failure the latest one. A journal that stops taking records costs neither results nor
    records: they go on in another place, which is told, and the outcome says so.

    Raises
    ------
    StoreError : the journal cannot be opened, which is found out before anything is measured.
    """

    def __init__(
        self,
        command: str,
        results: pathlib.Path | None = None,
        *,
        resume: pathlib.Path | None = None,
        label: str | None = None,
        on_event: OnEvent = ignore,
        worker_command: Sequence[str] | None = None,
    ) -> None:
        self.command, self.on_event, self.worker_command, self.resumed = command, on_event, worker_command, resume
        self.machine = describe_machine()
        self.build: Build | None = None
        self.failure: Failure | None = None
        self.outcome = Outcome.OK
        #: Where records are kept, as soon as one is; more than one place where the first stopped taking them.
        self.journals: list[pathlib.Path] = []
        self._workers: list[Worker] = []
        self._minding = interrupt.Held()
        self._programs, self._begun_s, self._had_company = ProgramWatch(), time.monotonic(), False
        self._label = check_label(label) if label else None
        self._folder = results and results / machine_slug(self.machine)
        self._journal = None if self._folder is None else Journal(self._folder, command, resume, label)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self._kill()
        if self._had_company:
            self._name_company()
        if self._journal is not None:
            self._journal.__exit__()
        self._minding.__exit__()

    def add(self, outcome: Outcome) -> None:
        """Take note of what became of a part: the gravest is the whole's."""
        self.outcome = max(self.outcome, outcome, key=lambda item: item.gravity)

    def fail(self, failure: Failure) -> None:
        """Take note that llama.cpp failed."""
        self.failure = failure
        self.add(_OUTCOMES.get(failure.cause, Outcome.NATIVE))

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.outcome is Outcome.INTERRUPTED

    def keep(self, record: Entry) -> None:
        """File a record and have it on the disk. What makes it a failure or doubtful is noted: its ``failure``, the verdict on it."""
        if failure := getattr(record, "failure", None):
            self.fail(failure)
        if verdict := judge(record):
            self._had_company |= any(reason.cause in COMPANY for reason in verdict.reasons)
            if verdict.trust is Trust.NOT_TRUSTED:
                self.add(Outcome.NOT_TRUSTED)
        if self._folder is None:
            return
        with interrupt.Held():  # what is measured is kept before anybody is heard
            self._write(record)

    def _write(self, record: Entry) -> None:
        try:
            if self._journal is not None:
                self._journal.append(record)
                self._note_place(self._journal.path)
                return
        except KeyboardInterrupt:  # of whoever minds interrupts otherwise; it waited for the disk: the line is written
            assert self._journal is not None
            self._note_place(self._journal.path)
            raise
        except StoreError as error:
            self.add(Outcome.STORE)
            if self._write_elsewhere(record, str(error)):
                return
        self.on_event(Unkept(to_line(record, self._label).decode("utf-8").rstrip("\n")))

    def _note_place(self, path: pathlib.Path) -> None:
        if path not in self.journals:
            self.journals.append(path)

    def _write_elsewhere(self, record: Entry, why: str) -> bool:
        """Go on in another journal after the one has stopped taking records; whether there is a place for it."""
        assert self._journal is not None
        for folder in self._refuges():
            try:
                refuge = self._journal.move(folder, self.command)
                self._journal = refuge
                refuge.append(record)
            except StoreError:
                continue
            self._note_place(refuge.path)
            self.remark(f"{why}; from here on records are kept in {refuge.path}, from where they may be moved.")
            return True
        self._journal.__exit__()
        self._journal = None
        self.remark(f"{why}, nor anywhere else; from here on each record follows as a line for a .jsonl file.")
        return False

    def _refuges(self) -> Iterator[pathlib.Path]:
        """Where records may go instead: the same folder, which somebody may have taken away meanwhile; the cache; a folder of its own
        among the temporary ones."""
        assert self._folder is not None
        slug = machine_slug(self.machine)
        if not self._folder.exists():
            yield self._folder
        with contextlib.suppress(RuntimeError):  # there is no home folder
            yield cache_folder("records") / slug
        with contextlib.suppress(OSError):
            yield pathlib.Path(tempfile.mkdtemp(prefix="harness-records-"))

    def _name_company(self) -> None:
        """Tell which program took most of the processors meanwhile: to whoever waits, and in no record."""
        self._had_company = False
        wall_s = time.monotonic() - self._begun_s
        for program in self._programs.busiest(NAMED_CPUS * wall_s, most=1):
            self.remark(f"{harmless.line(program.name)} used {program.cpu_s / wall_s:.1f} CPUs meanwhile.")

    def show(self, task: str, done: int = 0, total: int | None = None, unit: str = "") -> None:
        """Tell where a task stands; see `harness.events.Progress`."""
        self.on_event(Progress(task, done, total, unit))

    def remark(self, sentence: str) -> None:
        """Tell something that no record holds."""
        self.on_event(Remark(sentence))

    @contextlib.contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """Measure inside: Ctrl-C ends the worker at once and is noted, and what follows shows and keeps what was measured.

        The same becomes of a worker that talks nonsense, as `until_garbled`.
        """
        try:
            with self.until_garbled():
                yield
        except KeyboardInterrupt:
            self._minding.__enter__()  # until all is kept, one more would cut that off
            self._kill()  # native code does not listen to anything gentler
            self.add(Outcome.INTERRUPTED)

    @contextlib.contextmanager
    def until_garbled(self) -> Iterator[None]:
        """Hear a worker inside: one that says what cannot be read is ended, which is a `failure`."""
        try:
            yield
        except Garbled as error:
            self._kill()
            self.fail(Failure("answer", None, Cause.GARBLED, reason=error.reason))

    @contextlib.contextmanager
    def worker(self, command: Sequence[str] | None = None, *, guest: str | None = None) -> Iterator[Worker]:
        """A worker that has greeted; it ends in order with the block, and at once where an exception leaves it.

        guest is another environment's Python, whose llama_cpp is to run.

        Raises
        ------
        NativeError : it cannot be started, or died before it greeted.
        """
        worker = Worker(command or self.worker_command, guest=guest)
        self._workers.append(worker)
        try:
            greeting = worker.hello()
            if isinstance(greeting, Failure):
                self.fail(greeting)
                raise NativeError(describe_end(greeting), reason=greeting.reason, trouble=greeting.trouble)
            self.build = understand(Build, greeting["build"])
            yield worker
        except BaseException:
            worker.kill()
            raise
        finally:
            worker.close()
            self._workers.remove(worker)

    def ask(self, job: str, request: dict[str, Any], timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Have a worker of its own do a job and yield its events; ends early after a failure, which is `failure` then.

        Raises
        ------
        NativeError : as `worker`.
        """
        with self.worker() as worker:
            for event in worker.ask(job, request, timeout_s):
                if isinstance(event, Failure):
                    self.fail(event)
                    return
                if event["event"] == "build":
                    self.build = understand(Build, event["build"])
                yield event

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
