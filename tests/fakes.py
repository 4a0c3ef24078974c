"""Fakes that "measure" a known cost, so that a whole run is tested without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PROMPT_NS_PER_TOKEN = 1_000
TOKEN_NS = 10_000


class FakeClock:
    """A clock that only moves when the fake engine works."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class FakeEngine:
    """Takes PROMPT_NS_PER_TOKEN for each token of a prompt and TOKEN_NS for a generated one, and notes what was done to it."""

    def __init__(self, clock: FakeClock, n_batch: int = 4, n_parallel: int = 1) -> None:
        self.clock, self.n_batch, self.n_parallel, self.calls = clock, n_batch, n_parallel, []
        self._pending_ns = 0

    def prompt_batches(self, n_tokens: int) -> Sequence[Any]:
        full, rest = divmod(self.n_parallel * n_tokens, self.n_batch)
        return [("prompt", self.n_batch)] * full + [("prompt", rest)] * (rest > 0)

    def token_batches(self, n_tokens: int) -> Sequence[Any]:
        return [("token", 1)] * n_tokens

    def decode(self, batch: Any) -> None:
        kind, n_tokens = batch
        self.calls.append(kind)
        self._pending_ns += n_tokens * PROMPT_NS_PER_TOKEN if kind == "prompt" else TOKEN_NS

    def synchronize(self) -> None:
        """Work is done when it is waited for, as on a GPU."""
        self.clock.now_ns += self._pending_ns
        self._pending_ns = 0
        self.calls.append("synchronize")

    def clear(self) -> None:
        self.calls.append("clear")

    def share(self) -> None:
        self.calls.append("share")

    can_go_back, forgets_in_state = True, False

    def go_back(self, n_tokens: int) -> bool:
        self.calls.append(f"back to {n_tokens}")
        return self.can_go_back

    def save_state(self) -> Any:
        self.calls.append("save")
        return "state"

    def restore_state(self, state: Any) -> bool:
        assert state == "state"
        self.calls.append("restore")
        return True
