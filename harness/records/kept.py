"""What a list of records tells of each: enough to find it again, and nothing of its measurements."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records.ab import Ab
from harness.records.cells import Machine, Record
from harness.records.kinds import Content, Line
from harness.records.memory import MemoryRecord
from harness.records.noise import NoiseRecord
from harness.records.ollama import Comparison
from harness.records.parity import Parity
from harness.records.quality import QualityRecord
from harness.records.speculation import Speculation
from harness.records.text import TextRun
from harness.records.token_time import TimeRecord
from harness.records.verdict import Trust, judge

#: Kinds of lines whose command has another name.
_COMMANDS = {"time-ledger": "token-time", "ollama-comparison": "ollama", "speculation": "speculate"}


@dataclass(frozen=True, slots=True)
class Kept:
    """One record: its line's number, the command it is of, what it is about, and what its user calls it; empty: there is none."""

    number: int
    kind: str
    time_utc: str
    machine: Machine
    model: str = ""
    test: str = ""
    failed: bool = False
    label: str = ""
    trust: Trust | None = None  # None: nothing was measured

    def is_about(self, text: str) -> bool:
        """Whether kind, model, test or machine have a text in their names, in capitals or not."""
        return text.lower() in "\n".join((self.kind, self.model, self.test, self.machine.cpu)).lower()


def summarize_line(line: Line) -> Kept:
    """What a list tells of a line."""
    content = line.content
    return Kept(
        number=line.number,
        kind=content.command if isinstance(content, Record | TextRun) else _COMMANDS.get(line.kind, line.kind),
        time_utc=getattr(content, "time_utc", None) or "",
        machine=line.machine,
        model=_name_model(content),
        test=_name_test(content),
        failed=bool((failure := getattr(content, "failure", None)) and failure.is_fatal),
        label=line.label or "",
        trust=verdict.trust if content is not None and (verdict := judge(content)) else None,
    )


def _name_test(content: Content | None) -> str:
    match content:
        case Record():
            return content.asked.test
        case Ab():
            return content.a.asked.test
    return ""


def _name_model(content: Content | None) -> str:
    match content:
        case Record() | QualityRecord():
            return content.asked.file_name
        case TextRun() | NoiseRecord():
            return content.model.file_name if content.model else ""
        case MemoryRecord():
            return content.model.file_name or content.model.label
        case TimeRecord():
            return content.model.file_name
        case Comparison():
            return content.task.name
        case Speculation():
            members = filter(None, (content.target, content.draft))
            return " and ".join(dict.fromkeys(member.asked.file_name for member in members))
        case Parity():
            return content.model
        case Ab():
            names = dict.fromkeys((content.a.asked.file_name, content.b.asked.file_name))
            return " and ".join(names)
    return ""
