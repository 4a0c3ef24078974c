"""Have a worker write a text: hear it piece by piece, keep the account."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import harness
from harness.codec import encode
from harness.errors import UsageError
from harness.events import OnEvent
from harness.gguf.model_kinds import Question, refuse_context
from harness.host.cpu import choose_threads
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Conditions, Model, Resolved
from harness.records.failures import Failure
from harness.records.journal import utc_now
from harness.records.text import Figures, TextRequest, TextRun, hash_prompt
from harness.runs.asking import find_file, read_for
from harness.runs.session import Session
from harness.runs.worker import understand
from harness.sources.model_file import hash_file, is_synthetic
from harness.sources.references import parse_reference
from harness.spec import Settings
from harness.untrusted import harmless

#: Receives each piece of text as it comes; False ends the text, since nobody reads it.
OnText = Callable[[str], bool | None]


def find_writer(reference: str | None, on_event: OnEvent) -> pathlib.Path:
    """The file of a model that can write.

    Raises
    ------
    HarnessError : there is no such file here, or its weights are random.
    """
    if reference is not None and parse_reference(reference).is_synthetic:
        _refuse_synthetic(reference)
    path = find_file(reference, on_event)
    if is_synthetic(path):
        _refuse_synthetic(path.name)
    return path


def plan_text(reference: str | None, prompt: str, settings: Settings, on_event: OnEvent) -> TextRequest:
    """What to write with which model; settings are fields of `TextRequest`.

    Raises
    ------
    HarnessError : as `find_writer`, or the model does not write, or not in such a context.
    """
    path = find_writer(reference, on_event)
    header = read_for(path, Question.TEXT)
    if settings.get("n_ctx"):
        refuse_context(header, settings["n_ctx"], path.name, "--ctx")
    return TextRequest(str(path), prompt, **settings)


def _refuse_synthetic(name: str) -> None:
    raise UsageError(
        f"{name} has random weights, which write noise; time it with {harmless.command('harness', 'pp-tg', '-m', name)} instead."
    )


def write_text(
    request: TextRequest,
    session: Session,
    on_text: OnText = lambda _: None,
    *,
    keep_text: bool = False,
) -> TextRun:
    """Write one text in a worker of its own. Ctrl-C ends it: the run then says ``interrupted`` and has the figures up to there.

    A failure of the engine is a run with a `failure` (finish ``failed``). The run is not kept: that is for whoever asked.

    Parameters
    ----------
    keep_text : put prompt and text into the record

    Raises
    ------
    NativeError : the worker cannot be started.
    UsageError : the prompt does not fit into the context.
    """
    asked = dataclasses.replace(request, n_threads=request.n_threads or choose_threads().count)
    account = _Account(asked, session, on_text)
    facts = {"file_sha256": hash_file(pathlib.Path(request.model), session.on_event)}
    with session.worker() as worker:
        start = time.perf_counter_ns()
        with session.until_interrupted():
            for event in worker.ask("text", encode(asked, keep_paths=True)):
                if not account.take(event):
                    break
        total_ns = time.perf_counter_ns() - start
        if not account.is_over:
            worker.kill()
    account.refuse_full_context()
    return account.describe(total_ns, facts, keep_text=keep_text)


class _Account:
    """What came of one request so far: the latest event of each name."""

    def __init__(self, asked: TextRequest, session: Session, on_text: OnText) -> None:
        self._asked, self._session, self._on_text = asked, session, on_text
        self._began, self._events = utc_now(), dict[str, dict[str, Any]]()
        self._failure: Failure | None = None
        self._pieces: list[str] = []
        self._cautions: list[Caution] = []

    def take(self, event: dict[str, Any] | Failure) -> bool:
        """File an event; False where the text need not go on."""
        if isinstance(event, Failure):
            self._failure = event
            self._session.fail(event)
            return True
        name = event["event"]
        self._events[name] = event
        if name == "text":
            self._pieces.append(event["text"])
            return self._on_text(event["text"]) is not False
        if name == "phase":
            self._session.show(event["phase"], event["index"], event["count"])
        elif name == "loaded" and event["n_ctx_train"] and event["n_ctx"] > event["n_ctx_train"]:
            cause = CautionCause.CONTEXT_BEYOND_TRAINING
            self._add(Caution(cause, n_ctx=event["n_ctx"], n_ctx_train=event["n_ctx_train"]))
        elif name == "framed" and event["template"] in ("missing", "failed"):
            template, error, dropped = event["template"], event["template_error"], bool(self._asked.system)
            cause = CautionCause.NO_CHAT_TEMPLATE
            self._add(Caution(cause, template=template, template_error=error, is_system_dropped=dropped))
        return True

    def _add(self, caution: Caution) -> None:
        self._cautions.append(caution)
        self._session.remark(caution.text)

    @property
    def is_over(self) -> bool:
        return self._failure is not None or "done" in self._events

    def refuse_full_context(self) -> None:
        """Refuse a prompt that fills the context, in the parent's words: the question was put wrongly, nothing failed.

        Raises
        ------
        UsageError : it does.
        """
        n_ctx, n_prompt = self._get("loaded", "n_ctx"), self._get("framed", "n_prompt")
        if self._failure and n_ctx is not None and n_prompt is not None and n_prompt >= n_ctx:
            enough = -(-(n_prompt + 1024) // 1024) * 1024  # with room for an answer, in whole kibitokens
            raise UsageError(
                f"The prompt has {n_prompt} tokens, which leaves no room in a context of {n_ctx}; ask for more with --ctx {enough}."
            )

    def _get(self, event: str, name: str) -> Any:
        return self._events.get(event, {}).get(name)

    def describe(self, total_ns: int, facts: dict[str, Any], *, keep_text: bool) -> TextRun:
        """The record of it."""
        model, resolved = self._get("loaded", "model"), self._get("done", "resolved")
        far = self._events.get("done") or self._events.get("text") or {}
        load_ns = self._get("loaded", "load_duration_ns")
        return TextRun(
            command=self._session.command,
            time_utc=self._began,
            machine=self._session.machine,
            harness_version=harness.__version__,
            asked=self._asked.settings(self._get("loaded", "n_ctx")),
            prompt_sha256=hash_prompt(self._asked.prompt),
            figures=understand(Figures, {**far, "total_duration_ns": total_ns, "load_duration_ns": load_ns}),
            finish=self._get("done", "finish") or ("failed" if self._failure else "interrupted"),
            model=understand(Model, {**model, **facts}) if model else None,
            build=self._session.build,
            resolved=understand(Resolved, resolved) if resolved else None,
            template=self._get("framed", "template"),
            token_ns=tuple(self._get("done", "token_ns") or ()),
            sample_ns=far.get("sample_ns"),
            decode_ns=far.get("decode_ns"),
            rss_bytes=self._get("done", "rss_bytes"),
            failure=self._failure,
            warnings=tuple(self._cautions),
            prompt=self._asked.prompt if keep_text else None,
            text="".join(self._pieces) if keep_text else None,
            conditions=understand(Conditions, seen) if (seen := self._get("done", "conditions")) else None,
        )
