"""Guessing ahead: which guesses are taken, what the steps come to, whose vocabulary fits, and how it is shown."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib

import pytest

from harness.codec import encode
from harness.errors import HarnessError, NativeError, UsageError
from harness.native.speculative_loop import (
    LookupDrafter,
    ModelDrafter,
    NoDrafter,
    accept,
    find_difference,
    screen,
    write_guessing,
)
from harness.native.vocabularies import Vocabulary, find_vocabulary_difference
from harness.records.cells import Buffer, Machine, Model, Resolved
from harness.records.failures import Cause, Failure
from harness.records.kinds import read_line, to_json
from harness.records.speculation import (
    Manner,
    Member,
    Passage,
    Prompt,
    PromptText,
    Speculation,
    SpeculationPlan,
    round_ratios,
    token_times,
)
from harness.records.trust import Trust
from harness.records.verdict import judge
from harness.runs.speculate import EXCERPT_LENGTH, cut_excerpts, find_draft, measure_speculation, read_texts
from harness.spec import RunSpec
from harness.speed.speculation import chance_that_pays, expected_tokens, find_alpha, rivals_of, summarize_speculation
from harness.views.figures.speculate import draw_speculation
from harness.views.figures.style import to_bytes
from harness.views.formats import format_names, render
from harness.views.speculate import describe_speculation

from .conftest import HERE
from .fakes import FakeClock
from .kind_files import llama

END = 99
TOKEN_NS = 10


class FakeGuesser:
    """Writes `says`, whatever it is asked; its cache must always hold the text so far, or it complains.

    A batch takes `cost_ns` for its first token and a tenth of that for each other one.
    """

    def __init__(self, clock, says, cost_ns=TOKEN_NS, shares=(), can_forget=True):
        self.clock, self.says, self.cost_ns, self.can_forget = clock, says, cost_ns, can_forget
        self.cache: list[int] = []
        self.batches: list[int] = []
        self.shares = list(shares)
        self._pending_ns = 0

    def rows(self, tokens, position, *, every):
        return list(tokens), position

    def decode(self, batch):
        tokens, position = batch
        assert position == len(self.cache), "what is computed joins on"
        self.cache += tokens
        self.batches.append(len(tokens))
        self._first, self._pending_ns = position, self.cost_ns + (len(tokens) - 1) * self.cost_ns // 10

    def synchronize(self):
        self.clock.now_ns += self._pending_ns
        self._pending_ns = 0

    def pick(self, row):
        self.synchronize()
        return self.says[self._first + row + 1]

    def pick_with_share(self, row):
        return self.pick(row), self.shares.pop(0)

    def forget_from(self, position):
        del self.cache[position:]
        return self.can_forget

    def mark(self):
        return len(self.cache)

    def return_to(self, mark, position):
        assert mark == position
        self.forget_from(position)

    def is_end(self, token):
        return token == END


TEXT = [7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
PROMPT = TEXT[:3]


def write(guesses, n_draft, n_tokens=8, text=TEXT, n_ctx=100, **drafting):
    """The text behind the prompt, and what was done for it."""
    clock = FakeClock()
    target, draft = FakeGuesser(clock, text), FakeGuesser(clock, guesses, cost_ns=2, **drafting.pop("draft", {}))
    target.cache, draft.cache = PROMPT[:-1], PROMPT[:-1]
    drafter = ModelDrafter(draft, **drafting) if n_draft else NoDrafter()
    done = write_guessing(target, drafter, clock, PROMPT, n_draft=n_draft, n_tokens=n_tokens, n_ctx=n_ctx)
    return done, target, draft


def test_without_a_draft_tokens_come_one_by_one():
    done, target, draft = write(TEXT, 0)
    assert done.tokens == TEXT[3:11]
    assert target.batches == [1] * 8
    assert draft.batches == []
    assert (done.n_drafted, done.n_accepted) == ([0] * 8, [0] * 8)
    assert done.verify_ns == [TOKEN_NS] * 8
    assert done.finish == "length"


@pytest.mark.parametrize("n_draft", [1, 2, 3, 4, 7, 16])
def test_right_guesses_are_all_taken_and_the_text_is_the_same(n_draft):
    done, _, _ = write(TEXT, n_draft, n_tokens=10)
    assert done.tokens == TEXT[3:13]
    assert done.n_accepted == done.n_drafted
    assert sum(done.n_accepted) + len(done.n_accepted) == 10, "each step has a token of the target's own"
    assert max(done.n_drafted) == min(n_draft, 9), "no draft reaches beyond the end"


@pytest.mark.parametrize("n_draft", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("wrong", range(3, 13))
def test_behind_a_wrong_guess_nothing_is_taken_and_the_text_is_the_same(n_draft, wrong):
    guesses = list(TEXT)
    guesses[wrong] = 77
    done, target, draft = write(guesses, n_draft, n_tokens=10)
    assert done.tokens == TEXT[3:13]
    assert sum(done.n_accepted) + len(done.n_accepted) == 10
    assert target.cache == draft.cache, "both know the same"
    assert sum(done.n_drafted) - sum(done.n_accepted) <= n_draft


def test_nothing_but_wrong_guesses_is_one_token_a_step():
    done, _, _ = write([77] * 30, 4, n_tokens=6)
    assert done.tokens == TEXT[3:9]
    assert done.n_accepted == [0] * 6
    assert done.n_drafted == [4, 4, 3, 2, 1, 0]


def test_the_target_is_not_asked_behind_a_wrong_guess():
    asked = []

    def pick(row):
        asked.append(row)
        return [5, 6, 7, 8][row]

    assert accept(pick, [5, 1, 7]) == [5, 6]
    assert asked == [0, 1]
    assert accept(pick, []) == [5]
    assert accept(pick, [5, 6, 7], lambda token: token == 6) == [5, 6]
    assert accept(pick, [5, 6], lambda token: token == 6) == [5, 6, 7], "as llama.cpp does"
    assert accept(pick, [5, 6, 7]) == [5, 6, 7, 8]


def test_each_part_has_its_time():
    done, _, _ = write(TEXT, 4, n_tokens=5)
    assert done.draft_ns == [4 * 2]
    assert done.verify_ns == [TOKEN_NS + 4]
    assert done.follow_ns == [2 + 4 * 2 // 10]


def test_a_draft_ends_where_the_small_model_is_not_sure():
    shares = [0.9, 0.9, 0.3, 0.9, 0.2, 0.1, 0.6, 0.5]
    done, _, draft = write(TEXT, 3, n_tokens=6, p_min=0.5, draft={"shares": shares})
    assert done.n_drafted[:3] == [2, 1, 0]
    assert done.tokens == TEXT[3:9]
    assert draft.cache == TEXT[: 3 + 6 - 1]


def test_too_short_a_draft_is_not_used():
    shares = [0.9, 0.3, 0.9, 0.9, 0.9, 0.1]
    done, _, _ = write(TEXT, 3, n_tokens=6, p_min=0.5, n_min=2, draft={"shares": shares})
    assert done.n_drafted[:2] == [0, 3]
    assert done.tokens == TEXT[3:9]


def test_an_end_of_the_text_ends_it_even_inside_a_draft():
    text = [*TEXT[:6], END, *TEXT[7:]]
    done, _, _ = write(text, 8, n_tokens=12, text=text)
    assert (done.tokens, done.finish) == ([*TEXT[3:6], END], "stop")


def test_a_full_context_ends_it():
    done, target, _ = write(TEXT, 8, n_tokens=50, n_ctx=10)
    assert (done.finish, len(done.tokens)) == ("context", 7)
    assert len(target.cache) <= 10


def test_a_memory_that_cannot_forget_is_named():
    clock = FakeClock()
    target = FakeGuesser(clock, TEXT, can_forget=False)
    target.cache = PROMPT[:-1]
    with pytest.raises(NativeError, match="cannot forget the tokens from 3 on"):
        write_guessing(target, NoDrafter(), clock, PROMPT, n_draft=0, n_tokens=4, n_ctx=100)


def test_a_lookup_goes_on_as_the_text_did_before():
    drafter = LookupDrafter(2)
    assert drafter.draft([0, 5, 6, 1, 2, 3, 5, 6], 3) == [1, 2, 3]
    assert drafter.draft([0, 5, 6, 1, 5, 6, 2, 5, 6], 1) == [2], "the latest place"
    assert drafter.draft([0, 5, 6, 1, 2, 3], 3) == []
    assert drafter.draft([5, 6], 3) == []
    assert LookupDrafter(2, n_min=4).draft([0, 5, 6, 1, 5, 6], 3) == []


def test_a_difference_is_found_at_its_token():
    assert find_difference([1, 2, 3], [1, 2, 3]) is None
    assert find_difference([1, 4, 3], [1, 2, 3]) == 1
    assert find_difference([1, 2], [1, 2, 3]) == 2


# --- vocabularies -----------------------------------------------------------------------------------------------------


def vocabulary(n=200, **changed):
    texts = [b"t%d" % index for index in range(n)]
    values = {"type_id": 2, "bos": None, "eos": None, "n_tokens": n, "text_of": texts.__getitem__, **changed}
    return Vocabulary(**values)


def renamed(token):
    return vocabulary(text_of=lambda index: b"other" if index == token else b"t%d" % index)


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        (vocabulary(type_id=1), "its vocabulary is SentencePiece and the target's BPE"),
        (vocabulary(bos=1), "its BOS token is 1 and the target's none"),
        (vocabulary(eos=2), "its EOS token is 2 and the target's none"),
        (vocabulary(n=329), "its vocabulary has 329 tokens and the target's 200"),
        (renamed(7), "its token 7 is 'other' and the target's 't7'"),
    ],
)
def test_another_vocabulary_is_told_by_what_differs(draft, said):
    assert find_vocabulary_difference(vocabulary(), draft) == said


@pytest.mark.parametrize("draft", [vocabulary(), vocabulary(n=328), renamed(4)], ids=["same", "larger", "first"])
def test_a_vocabulary_that_fits_is_taken(draft):
    assert find_vocabulary_difference(vocabulary(), draft) is None


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_texts_are_prompts_or_pieces_of_a_file(tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("word " * 4000, encoding="utf-8")
    prompts = read_texts(["Why is the sky blue?", str(file)])
    assert [prompt.raw for prompt in prompts] == [False, True, True, True]
    assert all(len(prompt.text) <= EXCERPT_LENGTH for prompt in prompts)
    assert len(read_texts([])) == 3
    assert cut_excerpts("short" + "\n" * 2000) == ["short"]
    assert cut_excerpts("a b" + " " * 9000 + "c d") == ["a b", "c d"], "a blank piece is none"


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xfe\x00", "UTF-8"), (b"  \n", "no text")])
def test_a_file_that_is_no_text_is_refused(tmp_path, content, said):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_texts([str(tmp_path / "a.txt")])


@pytest.mark.parametrize(("text", "said"), [("", "is empty"), ("missing.txt", "There is no file missing.txt")])
def test_a_text_that_is_none_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        read_texts([text])


def test_mtp_is_refused_with_what_runs_it(tmp_path):
    with pytest.raises(UsageError, match="llama-server --spec-type draft-mtp"):
        find_draft("mtp", tmp_path, pytest.fail)
    assert find_draft("ngram", tmp_path, pytest.fail) is None


@pytest.mark.parametrize(
    "wrong", [{"lengths": ()}, {"lengths": (0,)}, {"lengths": (17,)}, {"lengths": (2,), "n_min": 3}]
)
def test_a_manner_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(UsageError):
        Manner(**wrong)


# --- what steps come to -----------------------------------------------------------------------------------------------


def test_expected_tokens_are_those_of_the_paper():
    for alpha in (0.0, 0.3, 0.8, 0.99):
        for n_draft in (0, 1, 5):
            assert expected_tokens(alpha, n_draft) == pytest.approx((1 - alpha ** (n_draft + 1)) / (1 - alpha))
    assert expected_tokens(1.0, 4) == 5
    with pytest.raises(ValueError, match="chance"):
        expected_tokens(1.1, 2)


def test_the_chance_that_pays_is_where_steps_cost_what_they_write():
    for cost in (1.2, 2.0, 3.9):
        assert expected_tokens(chance_that_pays(cost, 3), 3) == pytest.approx(cost)
    assert chance_that_pays(4.5, 3) is None
    assert chance_that_pays(0.9, 3) == 0


MS = 10**6


def passage(number, n_draft, steps, *, prompt=0, token_ns=10 * MS, **more):
    """Steps are (drafted, accepted); a drafted token takes 1 ms, a check token_ns and 1 ms a token more, reading along 2 ms."""
    drafted, accepted = zip(*steps, strict=True)
    return Passage(
        prompt, number, n_draft, drafted, accepted, tuple(MS * one for one in drafted),
        tuple(token_ns + MS * one for one in drafted), tuple(2 * MS if one else 0 for one in drafted),
        sum(accepted) + len(accepted), "length", **more,
    )  # fmt: skip


BUFFERS = (
    Buffer("model", "CPU_Mapped", 10**9),
    Buffer("kv", "CPU", 10**7),
    Buffer("compute", "CPU", 10**6),
    Buffer("output", "CPU", 10**5),
)
ALONE, FOUR = [(0, 0)] * 8, [(4, 4), (4, 1), (0, 0)]


def record_of(passages, **more):
    machine = Machine("AMD EPYC", 2, 2, 2**34, "Linux", "x86_64", "3.11")
    spec = RunSpec("big.gguf", n_prompt=448, n_gen=64, n_threads=2)
    resolved = Resolved(512, 2048, 512, 2, True, "mmap", {"CPU": 31}, 0, BUFFERS)
    target = Member(spec, Model("big.gguf", "llama 1B Q8_0", 10**9, 10**9, 10**9, "a" * 64), resolved, 10**8)
    small = dataclasses.replace(spec, model="small.gguf")
    draft = Member(small, Model("small.gguf", "llama 100M Q4_0", 10**8, 10**8, 10**8, "b" * 64), resolved, 10**7)
    lengths = tuple(sorted({one.n_draft for one in passages} - {0}))
    values = {
        "manner": Manner(lengths=lengths, n_tokens=8, rounds=len({one.round for one in passages})), "rollback": "partial",
        "prompts": (Prompt("c" * 64, 12, "jinja"),), "passages": tuple(passages), **more,
    }  # fmt: skip
    return Speculation("2026-11-28T12:00:00Z", machine, "0.1.0", target, draft, **values)


@pytest.fixture
def record():
    """Six rounds of two lengths: drafts of four are quickest, those of one nearly as quick now and then."""
    passages = []
    for number in range(6):
        ns = 10 * MS + 100_000 * number
        passages += [passage(number, 0, ALONE, token_ns=ns), passage(number, 4, FOUR, token_ns=ns)]
        passages += [passage(number, 1, [(1, 1)] * 4, token_ns=ns, differs_at=5 if number == 0 else None)]
    return record_of(passages)


def test_lengths_are_summed_up_from_their_steps(record):
    result = summarize_speculation(record)
    one, four = result.lengths
    assert result.alone.rate_tok_per_s == pytest.approx(1e9 / (10.25 * MS), rel=1e-3)
    assert (four.n_rounds, four.n_draft) == (6, 4)
    assert four.acceptance == pytest.approx(5 / 8)
    assert four.tokens_per_step == pytest.approx(8 / 3)
    assert four.speedup == pytest.approx(10.25 * 8 / (2 * (4 + 14.25 + 2) + 10.25), rel=1e-3)
    assert four.speedup_interval is not None
    assert four.step_ns == 20.25 * MS
    assert one.n_differing == 1
    assert result.best is four
    assert result.alpha == pytest.approx((5 + 4) / (6 + 4)), "behind a wrong guess none is looked at"
    assert result.predict(four) == pytest.approx(expected_tokens(0.9, 4) * 10.25 / 20.25)
    unsure = summarize_speculation(dataclasses.replace(record, manner=dataclasses.replace(record.manner, p_min=0.5)))
    assert unsure.predict(four) is None, "what a whole draft costs says nothing of those that are not"
    assert unsure.predict(four, 0.9) == result.predict(four)
    assert [payoff.n_draft for payoff in result.payoffs((0.0, 1.0))] == [1, 4]


def test_half_a_round_does_not_count():
    passages = [passage(number, length, ALONE if not length else FOUR, prompt=prompt)
                for number in range(2) for prompt in range(2) for length in (0, 4)]  # fmt: skip
    assert set(token_times(passages, 4)) == {0, 1}
    assert set(token_times(passages[:-1], 4)) == {0}
    one, other = (round_ratios(some, 0, 4) for some in (passages, passages[:-1]))
    assert (len(one), other) == (2, one[:1])
    assert one[0] == token_times(passages, 0)[0] / token_times(passages, 4)[0]


def test_a_first_round_leaves_what_is_near_the_best():
    first = [passage(0, 0, ALONE), passage(0, 4, FOUR), passage(0, 1, [(1, 1)] * 4), passage(0, 2, [(2, 0)] * 8)]
    times = {length: token_times(first, length)[0] for length in (1, 2, 4)}
    assert times[4] < times[1] < times[4] / 0.85 < times[2]
    assert screen(first, (1, 2, 4)) == [1, 4]


def test_only_what_is_proved_slower_is_no_rival(record):
    assert rivals_of(record, 4) == []
    slowed = [dataclasses.replace(one, verify_ns=tuple(ns * 5 // 4 for ns in one.verify_ns)) if one.n_draft == 4 and one.round < 2 else one
              for one in record.passages]  # fmt: skip
    noisy = dataclasses.replace(record, passages=tuple(slowed))
    assert rivals_of(noisy, 4) == [1]
    assert "Drafts of 1 may be as good" in render(describe_speculation(noisy), "table")


def test_alpha_is_of_the_first_round():
    assert find_alpha([passage(0, 4, [(4, 2)]), passage(1, 4, [(4, 2)])]) == pytest.approx(2 / 3)
    assert find_alpha([passage(0, 0, ALONE)]) is None


def test_a_line_is_read_as_it_was_written(record):
    line = json.loads(json.dumps(to_json(record)))
    assert line["kind"] == "speculation"
    assert read_line(line).content == record


def test_rounds_that_disagree_are_doubted(record):
    assert judge(record).trust is Trust.QUIET
    wild = [dataclasses.replace(one, verify_ns=tuple(ns * (1 + one.round) for ns in one.verify_ns)) if one.n_draft else one
            for one in record.passages]  # fmt: skip
    assert judge(dataclasses.replace(record, passages=tuple(wild))).trust is Trust.NOT_TRUSTED


# --- a run ------------------------------------------------------------------------------------------------------------


class FakeSession:
    """Hears what a worker would say, and is then interrupted, or told of a failure."""

    def __init__(self, events, ending=None):
        self.events, self.ending = events, ending
        self.command, self.build, self.failure, self.is_interrupted = "speculate", None, None, False
        self.machine = Machine("AMD EPYC", 2, 2, 2**34, "Linux", "x86_64", "3.11")
        self.kept, self.on_event = [], lambda _event: None

    def ask(self, job, request):
        assert job == "speculate"
        assert pathlib.Path(request["target"]["model"]).is_absolute(), "the worker needs whole paths"
        yield from self.events
        if self.ending == "interrupt":
            raise KeyboardInterrupt
        self.failure = self.ending

    @contextlib.contextmanager
    def until_interrupted(self):
        try:
            yield
        except KeyboardInterrupt:
            self.is_interrupted = True

    def show(self, *_about):
        pass

    def keep(self, record):
        self.kept.append(record)


def events_of(record, n_passages):
    """What a worker says until so many texts are written."""
    for name, member in (("target", record.target), ("draft", record.draft)):
        found = {"model": member.model, "resolved": member.resolved, "load_duration_ns": member.load_duration_ns}
        yield {"event": name, **encode(found)}
    yield {"event": "rollback", "rollback": "partial"}
    yield from ({"event": "prompt", **encode(prompt)} for prompt in record.prompts)
    for one in record.passages[:n_passages]:
        yield {"event": "phase", "phase": "round 1", "index": 0, "count": 3}
        yield {"event": "passage", **encode(one)}


@pytest.fixture
def plan(record, tmp_path):
    specs = []
    for member in (record.target, record.draft):
        path = tmp_path / member.asked.model
        path.write_bytes(llama().build(data=True))
        specs.append(dataclasses.replace(member.asked, model=str(path)))
    return SpeculationPlan(*specs, (PromptText("secret words"),), record.manner)


@pytest.mark.parametrize(
    ("ending", "cause"),
    [("interrupt", Cause.INTERRUPTED), (Failure("round 1", None, Cause.SEGFAULT, signal=11), Cause.SEGFAULT)],
)
def test_what_was_written_before_the_end_is_kept(record, plan, ending, cause):
    session = FakeSession(events_of(record, 5), ending)
    found = measure_speculation(plan, session)
    assert session.kept == [found]
    assert found.passages == record.passages[:5]
    assert found.prompts == record.prompts
    assert found.failure.cause is cause
    assert found.draft.model.file_name == "small.gguf"
    assert "secret" not in json.dumps(to_json(found))
    assert str(plan.target.model) not in json.dumps(to_json(found))


def test_without_a_text_nothing_is_kept(record, plan):
    session = FakeSession(events_of(record, 0), Failure("load draft", "no memory", Cause.REFUSED))
    assert measure_speculation(plan, session) is None
    assert session.kept == []
    assert session.failure.message == "no memory"


# --- how it is shown --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["table", "json"])
def test_output_is_the_golden_one(record, form):
    shown = render(describe_speculation(record), form)
    assert shown == (HERE / "golden" / f"speculation.{form}").read_text(encoding="utf-8")
    assert form == "json" or max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("form", format_names())
def test_every_format_is_written(record, form):
    assert render(describe_speculation(record), form)


def test_what_numbers_mean_is_said(record):
    def shown(changed):
        return " ".join(render(describe_speculation(changed), "table").split())

    assert "random weights" not in shown(record).lower()
    synthetic = dataclasses.replace(record.draft, model=dataclasses.replace(record.draft.model, is_synthetic=True))
    made_up = shown(dataclasses.replace(record, draft=synthetic))
    assert "Random weights took part" in made_up
    assert (
        "At this cost drafts of 1 token pay soonest: where a guess behind right ones is right in 39 % of cases."
        in made_up
    )
    assert "are best" not in made_up
    assert "drafts for itself" in shown(dataclasses.replace(record, draft=record.target))
    assert "llama-server computes it again" in shown(dataclasses.replace(record, rollback="snapshots"))
    dead = Failure("round 2", None, Cause.SEGFAULT, signal=11)
    assert "It ended early" in shown(dataclasses.replace(record, failure=dead))
    interrupted = dataclasses.replace(record, failure=Failure("texts", None, Cause.INTERRUPTED))
    assert "Interrupted after 6 rounds of 6." in shown(interrupted)


def test_a_line_to_paste_is_shown_where_a_draft_pays(record):
    line = "llama-server -m big.gguf -md small.gguf --spec-type draft-simple --spec-draft-n-max 4"
    assert line in " ".join(render(describe_speculation(record), "table").replace("\\", "").split())
    slow = [dataclasses.replace(one, draft_ns=tuple(ns * 50 for ns in one.draft_ns)) for one in record.passages]
    shown = render(describe_speculation(dataclasses.replace(record, passages=tuple(slow))), "table")
    assert "llama-server" not in shown
    assert "No draft pays here" in shown


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_drawn(record, theme):
    picture = to_bytes(draw_speculation(summarize_speculation(record), "big.gguf", theme), "svg").decode()
    assert "times as fast" in picture
    assert "right guesses" in picture


# --- on the engine ----------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_the_embedded_model_as_its_own_draft_is_always_right(tmp_path):
    from .test_cli import harness

    code, out, err = harness(
        "speculate", "-n", 6, "-r", 1, "--n-draft", 2, "--text", "Hello there", "-c", 128, "--results", tmp_path, "-o", "json",
    )  # fmt: skip
    assert code in (0, 5), err
    found = json.loads(out)
    alone, two = found["lengths"]
    assert (alone["n_draft"], two["n_draft"]) == (0, 2)
    assert two["acceptance"] == 1.0
    assert two["n_differing"] == 0
    assert found["rollback"] == "partial"
    assert found["memory"][0]["cache_bytes"] == found["memory"][1]["cache_bytes"] > 0


@pytest.mark.engine
def test_a_state_that_is_taken_back_by_copies_gives_the_same_text(tmp_path):
    """A hybrid, whose recurrent state cannot forget single tokens by itself; another's guesses are all wrong, its own all right."""
    import harness
    from harness.sources.synthetic import write_synthetic

    from .shapes import MODERN

    files = [
        write_synthetic(MODERN["qwen35"], "Q8_0", tmp_path / f"{seed}.gguf", name="x:1b", seed=seed)
        for seed in range(2)
    ]
    for draft, share in zip(files, (1, 0), strict=True):
        record = harness.speculate(
            files[0], draft, texts=["Hello"], n_draft=[3], n_tokens=12, rounds=1, n_ctx=128, n_threads=1
        )
        assert record.rollback == "snapshots"
        assert [one.differs_at for one in record.passages] == [None, None]
        (result,) = summarize_speculation(record).lengths
        assert result.acceptance == share


@pytest.mark.engine
def test_a_state_that_cannot_be_taken_back_is_refused(tmp_path):
    import harness
    from harness.sources.synthetic import write_synthetic

    from .shapes import MODERN

    file = write_synthetic(MODERN["granitehybrid"], "Q8_0", tmp_path / "a.gguf", name="x:1b")
    with pytest.raises(HarnessError, match="cannot be taken back token by token"):
        harness.speculate(file, texts=["Hello"], n_tokens=4, rounds=1, n_ctx=128, n_threads=1)


@pytest.mark.engine
def test_mtp_is_still_out_of_reach():
    """What --draft mtp is refused for: when llama-cpp-python has these, it can be measured."""
    import llama_cpp

    assert not hasattr(llama_cpp, "llama_set_embeddings_nextn")
    assert not hasattr(llama_cpp, "llama_get_embeddings_nextn_ith")


@pytest.mark.engine
def test_a_draft_of_another_vocabulary_is_refused_before_it_is_loaded(tmp_path, model):
    from .test_cli import harness

    (tmp_path / "small.gguf").write_bytes(llama().build(data=True))
    code, _, err = harness("speculate", "--draft", tmp_path / "small.gguf", "-c", 128, "--no-save")
    assert code == 2, err
    assert "small.gguf cannot draft for" in err
    assert "its vocabulary is SentencePiece and the target's BPE" in " ".join(err.split())
