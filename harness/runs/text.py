"""The parent's side of writing a text: ask a worker, hear it piece by piece, keep the account."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import harness
from harness.errors import NativeError, UsageError
from harness.host.cpu import choose_threads
from harness.records.cells import (
    Build,
    Caution,
    Failure,
    Machine,
    Model,
    Resolved,
    build_from_json,
    read,
    resolved_from_json,
)
from harness.records.failures import describe_end
from harness.records.journal import utc_now
from harness.records.text import Figures, TextRequest, TextRun, hash_prompt
from harness.runs.worker import Worker

#: Receives each piece of text as it comes.
Show = Callable[[str], None]

#: Receives a remark that a reader of the text should see at once, before it.
Remark = Callable[[str], None]


class Generator:
    """Writes texts in a worker of its own; use it as a context.

    machine and model_facts (what the parent knows of a file: `runs.cells.Plan`) go into the records; keep_text puts prompt and
    text there too. worker_command replaces the worker in tests.

    Raises
    ------
    NativeError : the worker cannot be started.
    """

    def __init__(
        self,
        command: str,
        machine: Machine,
        *,
        model_facts: Mapping[str, Any] | None = None,
        keep_text: bool = False,
        worker_command: Sequence[str] | None = None,
    ) -> None:
        self._command, self._machine, self._facts, self._keep_text = command, machine, model_facts or {}, keep_text
        self._worker = Worker(worker_command)
        greeting = self._worker.hello()
        if isinstance(greeting, Failure):
            self._worker.close()
            raise NativeError(describe_end(greeting))
        self.build: Build = build_from_json(greeting["build"])

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._worker.kill()
        self._worker.close()

    def write(
        self, request: TextRequest, show: Show, remark: Remark = lambda _: None, timeout_s: float | None = None
    ) -> TextRun:
        """Write one text. Ctrl-C ends it: the run then says ``interrupted`` and has the figures up to there.

        A failure of the engine is a run with a `failure` (finish ``failed``).

        Raises
        ------
        UsageError : the prompt does not fit into the context.
        """
        asked = dataclasses.replace(request, n_threads=request.n_threads or choose_threads().count)
        account = _Account(show, remark, asked)
        finish = None
        start = time.perf_counter_ns()
        try:
            for event in self._worker.ask("generate", asked.to_dict(), timeout_s):
                account.hear(event)
        except KeyboardInterrupt:
            finish = "interrupted"
            self._worker.kill()  # native code does not listen to anything gentler
        total_ns = time.perf_counter_ns() - start
        account.check_room()
        return self._file(account, asked, total_ns, finish)

    def _file(self, account: _Account, asked: TextRequest, total_ns: int, finish: str | None) -> TextRun:
        model = account.model
        return TextRun(
            command=self._command,
            time_utc=account.time_utc,
            machine=self._machine,
            harness_version=harness.__version__,
            asked={**asked.public(), "n_ctx": account.n_ctx or asked.n_ctx},
            prompt_sha256=hash_prompt(asked.prompt),
            figures=account.figures(total_ns),
            finish=finish or account.finish or "failed",
            model=None if model is None else dataclasses.replace(model, **self._facts),
            build=self.build,
            resolved=account.resolved,
            template=account.template,
            token_ns=account.token_ns,
            sample_ns=account.far.get("sample_ns"),
            decode_ns=account.far.get("decode_ns"),
            rss_bytes=account.rss_bytes,
            failure=account.failure,
            warnings=tuple(account.cautions),
            prompt=asked.prompt if self._keep_text else None,
            text="".join(account.pieces) if self._keep_text else None,
        )


@dataclass(slots=True)
class _Heard:
    """What came of one request so far; every field is None until it was heard."""

    n_ctx: int | None = None
    n_prompt: int | None = None
    load_duration_ns: int | None = None
    template: str | None = None
    finish: str | None = None
    model: Model | None = None
    resolved: Resolved | None = None
    rss_bytes: int | None = None
    failure: Failure | None = None


class _Account(_Heard):
    """Collects the events of one request."""

    def __init__(self, show: Show, remark: Remark, asked: TextRequest) -> None:
        super().__init__()
        self._show, self._remark, self._asked = show, remark, asked
        self.time_utc = utc_now()
        self.far: Mapping[str, Any] = {}
        self.token_ns: tuple[int, ...] = ()
        self.pieces: list[str] = []
        self.cautions: list[Caution] = []

    def hear(self, event: dict[str, Any] | Failure) -> None:
        if isinstance(event, Failure):
            self.failure = event
        else:
            getattr(self, "_hear_" + event["event"], lambda _: None)(event)

    def _hear_loaded(self, event: dict[str, Any]) -> None:
        self.model = read(Model, event["model"])
        self.n_ctx, self.load_duration_ns = event["n_ctx"], event["load_duration_ns"]
        trained = event["n_ctx_train"]
        if trained and event["n_ctx"] > trained:
            text = f"the context of {event['n_ctx']} tokens is longer than the {trained} that the model was trained on"
            self.cautions.append(Caution("context-beyond-training", text))
            self._remark(text)

    def _hear_framed(self, event: dict[str, Any]) -> None:
        self.template, self.n_prompt = event["template"], event["n_prompt"]
        if self.template in ("missing", "failed"):
            why = "has no chat template" if self.template == "missing" else "has a chat template that cannot be applied"
            reason = f" ({event['template_error']})" if event["template_error"] else ""
            dropped = ", and without the system message" if self._asked.system else ""
            text = f"the model {why}{reason}; the prompt is used raw{dropped}"
            self.cautions.append(Caution("no-chat-template", text))
            self._remark(text)

    def _hear_text(self, event: dict[str, Any]) -> None:
        self.far = event
        self.pieces.append(event["text"])
        self._show(event["text"])

    def _hear_done(self, event: dict[str, Any]) -> None:
        self.far, self.finish = event, event["finish"]
        self.token_ns, self.rss_bytes = tuple(event["token_ns"]), event["rss_bytes"]
        self.resolved = resolved_from_json(event["resolved"])
        self.cautions += [read(Caution, caution) for caution in event["cautions"]]

    def check_room(self) -> None:
        """Refuse a prompt that fills the context, in the parent's words: the question was put wrongly, nothing failed.

        Raises
        ------
        UsageError : it does.
        """
        if self.failure and self.n_prompt is not None and self.n_ctx is not None and self.n_prompt >= self.n_ctx:
            raise UsageError(
                f"The prompt has {self.n_prompt} tokens, which leaves no room in a context of {self.n_ctx}; "
                f"ask for more with --ctx {_rounded(self.n_prompt)}."
            )

    def figures(self, total_ns: int) -> Figures:
        far = self.far
        return Figures(
            total_duration_ns=total_ns,
            load_duration_ns=self.load_duration_ns,
            prompt_eval_count=far.get("prompt_eval_count"),
            prompt_eval_duration_ns=far.get("prompt_eval_duration_ns"),
            eval_count=far.get("eval_count"),
            eval_duration_ns=far.get("eval_duration_ns"),
            first_token_ns=far.get("first_token_ns"),
        )


def _rounded(n_prompt: int) -> int:
    """A context with room for an answer of a thousand tokens, in whole kibitokens."""
    return -(-(n_prompt + 1024) // 1024) * 1024
