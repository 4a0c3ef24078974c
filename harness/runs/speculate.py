"""`harness speculate`: what a draft brings, measured on real text by turns with and without it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import harness
from harness.codec import encode
from harness.errors import UsageError
from harness.events import OnEvent, Remark
from harness.gguf.model_kinds import Question, refuse_context
from harness.gguf.settings import read_count
from harness.host.cpu import choose_threads
from harness.records.cells import Resolved
from harness.records.failures import Cause, Failure
from harness.records.journal import utc_now
from harness.records.speculation import Manner, Member, Passage, Prompt, PromptText, Speculation, SpeculationPlan
from harness.records.text import REFERENCE_PROMPT
from harness.runs.asking import blame_file, find_file, read_for
from harness.runs.cells import facts_in, model_of
from harness.runs.session import Session
from harness.runs.worker import understand
from harness.sources.model_file import FileFacts
from harness.spec import DEFAULT_N_CTX, RunSpec, Settings
from harness.untrusted.harmless import line

#: Drafts of as many tokens are tried where nobody says how many. llama.cpp's own default is 3.
LENGTHS = (1, 2, 3, 4, 6, 8, 16)

#: What is written where no text is given: an explanation, a program and a story, which are not equally easy to guess.
PROMPTS = (
    REFERENCE_PROMPT,
    "Write a Python function that returns all prime numbers below n.",
    "Tell a short story about the keeper of a lighthouse.",
)

#: Of a file so many pieces are taken, evenly spread, of so many characters at the most.
EXCERPTS, EXCERPT_LENGTH = 3, 800

#: What --draft may be beside a model.
LOOKUP, MTP = "ngram", "mtp"

#: Tokens that a lookup compares where nobody says how many; llama.cpp's ngram-simple takes 12, seldom twice in a short text.
N_GRAM = 3


def find_draft(reference: str | None, target: pathlib.Path, on_event: OnEvent) -> pathlib.Path | None:
    """The file of the draft: the target's own where nobody names one, None where the text so far is looked up.

    Raises
    ------
    HarnessError : there is no such file here, or it is asked for what llama-cpp-python does not reach.
    """
    if reference == MTP:
        raise UsageError(
            "--draft mtp cannot be measured here: llama-cpp-python makes a context for a model's MTP blocks, and no function that "
            "gives them the target's hidden states (llama.cpp has it in llama-ext.h); llama-server --spec-type draft-mtp runs them."
        )
    if reference == LOOKUP:
        return None
    if reference is None:
        on_event(
            Remark(
                "note: without --draft the model drafts for itself, which is never faster and shows that nothing is lost."
            )
        )
        return target
    return find_file(reference, on_event)


def plan_speculation(
    reference: str | None,
    draft: str | None,
    texts: Sequence[str],
    settings: Settings,
    on_event: OnEvent,
    *,
    draft_settings: Settings,
    n_ctx: int | None = None,
    raw: bool = False,
    **manner: Any,
) -> SpeculationPlan:
    """What to measure: settings are fields of `RunSpec` for both models, draft_settings for the draft alone; manner as `Manner` has it.

    Raises
    ------
    HarnessError : a file is not here or does not write, or numbers contradict each other.
    """
    path = find_file(reference, on_event)
    other = find_draft(draft, path, on_event)
    files = [path] if other is None else [path, other]
    headers = {file: read_for(file, Question.TEXT) for file in files}
    trained = [count for header in headers.values() if (count := read_count(header, "context_length"))]
    n_ctx = n_ctx or min((DEFAULT_N_CTX, *trained))
    for file, header in headers.items():
        refuse_context(header, n_ctx, file.name, "--ctx")
        if header.is_synthetic:
            on_event(
                Remark(
                    f"note: {file.name} has random weights: what its tokens cost is real, how many are right is not."
                )
            )
    whole = Manner(**manner, n_gram=N_GRAM if other is None else None)
    source = choose_threads().source_of(settings.get("n_threads"))
    target = _make_spec(path, n_ctx, whole, settings)
    drafts = None if other is None else _make_spec(other, n_ctx, whole, {**settings, **draft_settings})
    return SpeculationPlan(target, drafts, read_texts(texts, raw=raw), whole, source)


def _make_spec(file: pathlib.Path, n_ctx: int, manner: Manner, settings: Settings) -> RunSpec:
    """The load and context parameters of one model."""
    n_gen = min(manner.n_tokens, n_ctx - 1)
    return RunSpec(str(file), n_prompt=n_ctx - n_gen, n_gen=n_gen, **settings).with_threads(choose_threads().count)


def read_texts(texts: Sequence[str], *, raw: bool = False) -> tuple[PromptText, ...]:
    """Each text as a prompt; of one that names a file some pieces of what is in it, to be gone on with as they are.

    Raises
    ------
    UsageError : a file cannot be read, is not UTF-8 text, or holds none.
    """
    if not texts:
        return tuple(PromptText(text, raw) for text in PROMPTS)
    found: list[PromptText] = []
    for text in texts:
        path = pathlib.Path(text)
        if not _is_file(path):
            if not text.strip():
                raise UsageError("The text is empty; give --text a prompt or a file with words in it.")
            if "\n" not in text and " " not in text.strip() and path.suffix in (".txt", ".md"):
                raise UsageError(f"There is no file {line(text)}; check its name, or give a prompt of several words.")
            found.append(PromptText(text, raw))
            continue
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{line(path.name)} is not UTF-8 text (byte {error.start}); convert it.") from None
        except OSError as error:
            raise UsageError(f"{line(path.name)} cannot be read ({error.strerror}); give another file.") from None
        if not content.strip():
            raise UsageError(f"{line(path.name)} has no text in it; give another file.")
        found += [PromptText(piece, raw=True) for piece in cut_excerpts(content)]
    return tuple(found)


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a prompt may be too long for a name
        return False


def cut_excerpts(content: str) -> list[str]:
    """Pieces of a text, evenly spread over it and begun with a whole word; one where it is short. Blank ones are left out."""
    content = content.strip()
    if len(content) <= EXCERPTS * EXCERPT_LENGTH:
        return [content[-EXCERPT_LENGTH:].strip()]
    found = []
    for number in range(EXCERPTS):
        start = number * (len(content) - EXCERPT_LENGTH) // (EXCERPTS - 1)
        piece = content[start : start + EXCERPT_LENGTH]
        found.append((piece if start == 0 else piece.partition(" ")[2] or piece).strip())
    return [piece for piece in found if piece]


def measure_speculation(plan: SpeculationPlan, session: Session) -> Speculation | None:
    """Have a worker write all texts, and keep what came of it; None where no text was written.

    Raises
    ------
    NativeError : the worker cannot be started.
    """
    begun_utc, found = utc_now(), _Found()
    specs = [plan.target] if plan.draft is None else [plan.target, plan.draft]
    describe = facts_in(session)
    facts = [describe(pathlib.Path(spec.model)) for spec in specs]
    with session.until_interrupted():
        for event in session.ask("speculate", encode(plan, keep_paths=True)):
            _file(event, found, plan, facts, session)
    failure = session.failure and blame_file(session.failure, plan.target.model)
    if session.is_interrupted:
        failure = Failure("texts", None, Cause.INTERRUPTED)
    session.failure = failure
    if not found.passages:
        return None
    record = Speculation(
        begun_utc, session.machine, harness.__version__, found.members["target"], found.members.get("draft"), plan.manner,
        found.rollback, tuple(found.prompts), tuple(found.passages), session.build, found.rss_bytes,
        failure=failure, threads_source=plan.threads_source,
    )  # fmt: skip
    session.keep(record)
    return record


@dataclass(slots=True)
class _Found:
    """What the worker said so far."""

    members: dict[str, Member] = field(default_factory=dict)
    prompts: list[Prompt] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    rollback: Any = "partial"
    rss_bytes: int | None = None


def _file(
    event: dict[str, Any], found: _Found, plan: SpeculationPlan, facts: Sequence[FileFacts], session: Session
) -> None:
    """Take note of an event; facts are those of the target's file and of the draft's."""
    match event["event"]:
        case "phase":
            session.show(event["phase"], event["index"], event["count"])
        case "target" | "draft" as name:
            spec = plan.draft if name == "draft" and plan.draft else plan.target
            model = model_of(event, facts[name == "draft"])
            found.members[name] = Member(
                spec, model, understand(Resolved, event["resolved"]), event["load_duration_ns"]
            )
        case "prompt":
            found.prompts.append(understand(Prompt, event))
        case "passage":
            found.passages.append(understand(Passage, event))
        case "rollback":
            found.rollback = event["rollback"]
        case "done":
            found.rss_bytes = event["rss_bytes"]
