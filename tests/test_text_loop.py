"""The loop that writes, on an engine that takes a known time."""

from __future__ import annotations

import pytest

from harness.native.text_loop import REPORT_INTERVAL_NS, generate

from .fakes import PROMPT_NS_PER_TOKEN, TOKEN_NS, FakeClock, FakeEngine

SAMPLE_NS, END = 500, 99


class FakeWriter(FakeEngine):
    """Writes what it was given, token by token, and then END for ever; a sample takes SAMPLE_NS."""

    def __init__(self, clock: FakeClock, pieces: list[bytes], token_ns: int = TOKEN_NS) -> None:
        super().__init__(clock)
        self.pieces, self.token_ns, self.sampled, self.decoded = pieces, token_ns, [], []

    def batches(self, tokens):
        self.decoded += tokens
        if len(tokens) > 1:
            return self.prompt_batches(len(tokens))
        return [("token", 1)]

    def decode(self, batch):
        kind, n_tokens = batch
        self._pending_ns += n_tokens * PROMPT_NS_PER_TOKEN if kind == "prompt" else self.token_ns

    def sample(self):
        self.clock.now_ns += SAMPLE_NS
        at = len(self.sampled)
        self.sampled.append(at if at < len(self.pieces) else END)
        return self.sampled[-1]

    def is_end(self, token):
        return token == END

    def piece(self, token):
        return b"<end>" if token == END else self.pieces[token]


def write(pieces, token_ns=TOKEN_NS, **limits):
    clock = FakeClock()
    engine = FakeWriter(clock, pieces, token_ns)
    heard = []
    done = generate(
        engine, clock, [7] * 10, lambda text, far: heard.append((text, far.eval_count)), n_ctx=100, **limits
    )
    return engine, heard, done


def test_every_figure_is_what_the_engine_took():
    _, heard, done = write([b"a", b"b", b"c"])
    assert "".join(text for text, _ in heard) == "abc"
    assert done.finish == "stop"
    assert done.prompt_eval_count == 10
    assert done.prompt_eval_duration_ns == 10 * PROMPT_NS_PER_TOKEN
    assert done.eval_count == 4, "a, b, c and the end of generation, as Ollama counts"
    assert done.decode_ns == 3 * TOKEN_NS, "the first token comes out of the prompt"
    assert done.sample_ns == 4 * SAMPLE_NS
    assert done.eval_duration_ns == 4 * SAMPLE_NS + 3 * TOKEN_NS
    assert sum(done.token_ns) == done.eval_duration_ns
    assert done.first_token_ns == 10 * PROMPT_NS_PER_TOKEN + SAMPLE_NS


def test_the_first_token_counts_from_when_the_model_was_ready():
    _, _, done = write([b"a"], ready_ns=-1_000_000)
    assert done.first_token_ns == 1_000_000 + 10 * PROMPT_NS_PER_TOKEN + SAMPLE_NS


def test_max_tokens_ends_it_without_a_decode_too_many():
    engine, heard, done = write([b"a"] * 50, max_tokens=5)
    assert (done.finish, done.eval_count) == ("length", 5)
    assert "".join(text for text, _ in heard) == "aaaaa"
    assert len(engine.decoded) == 10 + 4


def test_a_full_context_ends_it():
    engine, _, done = write([b"a"] * 500)
    assert done.finish == "context"
    assert len(engine.decoded) == 100, "every cell is used, and none twice"
    assert done.eval_count == 91


def test_ignoring_the_end_goes_on():
    _, heard, done = write([b"a"], max_tokens=4, ignore_eog=True)
    assert (done.finish, done.eval_count) == ("length", 4)
    assert "".join(text for text, _ in heard) == "a<end><end><end>"


@pytest.mark.parametrize("token_ns", [TOKEN_NS, 2 * REPORT_INTERVAL_NS], ids=["quick", "slow"])
@pytest.mark.parametrize("text", ["Ünïcode 漢字 😀!", "plain", ""])
def test_characters_that_are_spread_over_tokens_come_out_whole(text, token_ns):
    _, heard, _ = write([bytes([byte]) for byte in text.encode()], token_ns)
    assert "".join(piece for piece, _ in heard) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece, _ in heard)


def test_half_a_character_at_the_end_is_dropped():
    _, heard, _ = write([b"a", "漢".encode()[:2]])
    assert "".join(piece for piece, _ in heard) == "a"


def test_bytes_that_are_no_text_are_marked():
    _, heard, _ = write([b"a", b"\xff", b"b"])
    assert "".join(piece for piece, _ in heard) == "a\N{REPLACEMENT CHARACTER}b"


def test_a_slow_model_is_heard_token_by_token():
    _, heard, _ = write([b"a", b"b", b"c"], token_ns=REPORT_INTERVAL_NS)
    assert heard == [("a", 1), ("b", 2), ("c", 3), ("", 4)]


def test_a_quick_model_is_heard_at_intervals():
    _, heard, _ = write([b"a"] * 80, token_ns=REPORT_INTERVAL_NS // 10)
    assert heard[0] == ("a", 1), "the first token at once"
    assert 8 <= len(heard) <= 10
