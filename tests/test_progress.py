"""What a person sees of something that takes long: one renderer of one kind of event."""

from __future__ import annotations

import click
import pytest

from harness.cli import terminal
from harness.cli.progress import displayed, end
from harness.events import Measured, Progress, Remark
from harness.records.failures import Cause, Failure
from harness.runs.cells import Course, Step
from harness.runs.session import Session
from harness.spec import RunSpec
from harness.views.cells import describe_cell


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(terminal, "is_watched", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")


def test_a_terminal_gets_a_bar_with_what_is_left(watched, capsys):
    with displayed() as on_event:
        on_event(Progress("tg128: repetition 2/10", 5, 22))
        on_event(Progress("counting"))
        on_event(Progress("model.gguf", 1 << 20, 1 << 30, "B"))
    drawn = capsys.readouterr().err
    assert "tg128: repetition 2/10" in drawn
    assert "5/22" in drawn
    assert " + " in drawn, "what is left in time"
    assert "1.05M/1.07G" in drawn


def test_what_was_measured_stands_behind_the_bar_of_a_terminal(watched, capsys, recorded):
    with displayed(describe_cell) as on_event:
        on_event(Progress("tg16: repetition 1/6", 1, 20))
        on_event(Measured(recorded[0]))
    drawn = capsys.readouterr().err
    assert "pp64: 308.89 t/s" in drawn
    assert "\n" not in drawn.strip()


def test_without_a_terminal_there_is_a_line_a_result_and_no_bar(capsys, recorded):
    with displayed(describe_cell) as on_event:
        on_event(Progress("tg16: repetition 1/6", 1, 20))
        for record in recorded:
            on_event(Measured(record))
        on_event(Remark("note: something was left out"))
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in said] == [
        "pp64: 308.89 t/s", "tg16: 137.05 t/s", "pp9000000: failed", "harness: note: something was left out.",
    ]  # fmt: skip


def test_names_that_do_harm_are_shown_and_do_none(watched, capsys):
    with displayed() as on_event:
        on_event(Progress("\x1b]0;title\x07\n", 1, 2, "B"))
    assert "\x1b]" not in capsys.readouterr().err


def test_a_run_of_cells_goes_on_by_hundredths_never_back_and_never_too_far():
    spec = RunSpec("m", n_gen=1, n_gpu_layers=8)
    course = Course(2)
    progress = course.at(Step(0, 1, spec, "repetition", 1, 6, 0.33), "-ngl 8, ", 1)
    assert progress == Progress("-ngl 8, tg1: repetition 2/6", 133, 200)
    assert course.at(Step(0, 1, spec, "repetition", 6, 12, 0.25), "", 1).done == 133, (
        "noise asks for more than was expected"
    )
    assert course.at(Step(0, 1, spec, "load", 0, 1, 0.9), "", 5).done == 200, "a search may measure more often"


@pytest.mark.parametrize(("cause", "is_said"), [(Cause.INTERRUPTED, False), (Cause.REFUSED, True)])
def test_an_interrupt_is_said_once_by_the_program(capsys, cause, is_said):
    with Session("ab") as session:
        session.fail(Failure("pairs", None, cause))
    with pytest.raises(click.exceptions.Exit):
        end(session, with_failure=True)
    assert bool(capsys.readouterr().err) is is_said
