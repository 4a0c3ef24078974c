"""The worker's job ``text``: load a model, frame a prompt in its chat template, write a text.

Events: ``loaded`` (model, load_duration_ns, n_ctx, n_ctx_train), ``framed`` (template, template_error, n_prompt), ``text`` (a piece
and how far it is) and ``done``.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp

from harness.codec import decode, encode
from harness.errors import NativeError
from harness.host.noise import Watcher
from harness.host.rpc import has_loopback
from harness.native.batches import cut
from harness.native.engine import LoadedModel, Pools, Session, resident_bytes
from harness.native.text_loop import Progress, generate
from harness.records.text import TextRequest
from harness.spec import DEFAULT_N_CTX, RunSpec

#: LLAMA_DEFAULT_SEED of llama.h, which asks for a random one.
_RANDOM_SEED = 0xFFFFFFFF


def run(runtime: Any, request: dict[str, Any], emit: Any) -> None:
    """Write the text that a `TextRequest` asks for; every finding leaves through `emit` as soon as it is whole.

    Raises
    ------
    NativeError : llama.cpp refused the file, the context, the tokenizer or a batch, or the prompt fills the context.
    """
    asked = decode(TextRequest, request)
    start = time.perf_counter_ns()
    emit("phase", {"phase": "load", "index": 0, "count": 1})
    with contextlib.closing(runtime.load(_spec(asked, asked.n_ctx or DEFAULT_N_CTX))) as model:
        refuse_what_writes_nothing(model)
        n_trained = llama_cpp.llama_model_n_ctx_train(model.pointer)
        n_ctx = asked.n_ctx or min(DEFAULT_N_CTX, n_trained or DEFAULT_N_CTX)
        with contextlib.closing(TextSession(model, _spec(asked, n_ctx), asked)) as session:
            ready = time.perf_counter_ns()
            loaded = {"load_duration_ns": ready - start, "n_ctx": n_ctx, "n_ctx_train": n_trained}
            emit("loaded", {"model": encode(model.describe()), **loaded})
            _write(session, asked, n_ctx, ready, emit)


def _spec(asked: TextRequest, n_ctx: int) -> RunSpec:
    """The load and context parameters; a prompt as long as the context asks for a context of that length."""
    return RunSpec(
        model=asked.model,
        n_gpu_layers=asked.n_gpu_layers,
        n_threads=asked.n_threads,
        rpc=asked.rpc,
        n_batch=asked.n_batch,
        n_ubatch=min(asked.n_batch, 512),
        n_prompt=n_ctx,
    )


def refuse_what_writes_nothing(model: LoadedModel) -> None:
    """Make sure that a model writes by itself.

    Raises
    ------
    NativeError : it is an encoder.
    """
    encodes = llama_cpp.llama_model_has_encoder(model.pointer)
    if encodes or not llama_cpp.llama_model_has_decoder(model.pointer):
        raise NativeError("This model does not write text by itself (it is an encoder); take a text-generation model.")


def _write(session: TextSession, asked: TextRequest, n_ctx: int, ready_ns: int, emit: Any) -> None:
    text, template, trouble = session.frame(asked)
    emit("phase", {"phase": "prompt", "index": 0, "count": 1})
    tokens = session.tokenize(text)
    emit("framed", {"template": template, "template_error": trouble, "n_prompt": len(tokens)})
    if len(tokens) >= n_ctx:
        raise NativeError(f"The prompt has {len(tokens)} tokens and the context {n_ctx}; ask for more with --ctx.")
    if not tokens:
        raise NativeError("The prompt comes to no token at all; write more of it.")

    def report(piece: str, progress: Progress) -> None:
        # Without the times of single tokens, which would grow with each event.
        emit("text", {"text": piece, **encode(dataclasses.replace(progress, token_ns=[]))})

    if asked.warmup:
        session.warm_up(tokens)
        ready_ns = time.perf_counter_ns()
    watcher = Watcher(asked.n_threads or 1, is_server_here=has_loopback(asked.rpc))
    watcher.begin()
    done = generate(
        session,
        time.perf_counter_ns,
        tokens,
        report,
        n_ctx=n_ctx,
        max_tokens=asked.max_tokens,
        ignore_eog=asked.ignore_eog,
        ready_ns=ready_ns,
    )
    conditions = watcher.end()
    found = {"resolved": session.describe(), "rss_bytes": resident_bytes(), "conditions": conditions}
    emit("done", encode(done) | encode(found))


class TextSession(Session):
    """A context that writes: the TextEngine of `harness.native.text_loop`."""

    def __init__(
        self, model: LoadedModel, spec: RunSpec, asked: TextRequest, *, pools: Pools | None = None, n_rs_seq: int = 0
    ) -> None:
        super().__init__(model, spec, pools=pools, n_rs_seq=n_rs_seq)
        self._sampler = make_sampler(asked.temperature, asked.top_k, asked.top_p, asked.seed)
        self._piece = ctypes.create_string_buffer(512)

    def close(self) -> None:
        sampler = getattr(self, "_sampler", None)
        if sampler:
            llama_cpp.llama_sampler_free(sampler)
            self._sampler = None
        super().close()

    # The prompt.

    def frame(self, asked: TextRequest) -> tuple[str, str, str | None]:
        """(prompt as the model wants it, how it was framed as in `TextRun.template`, why not where it failed)."""
        if asked.raw:
            return asked.prompt, "raw", None
        template = llama_cpp.llama_model_chat_template(self._model.pointer, None)
        if not template:
            return asked.prompt, "missing", None
        messages = [{"role": "system", "content": asked.system}] if asked.system else []
        messages.append({"role": "user", "content": asked.prompt})
        try:
            return self._render(template.decode("utf-8", "replace"), messages), "jinja", None
        except Exception as error:  # a template is a program by somebody else: it may fail in any way
            text = _apply_in_c(template, messages)
            if text is not None:
                return text, "llama.cpp", None
            return asked.prompt, "failed", f"{type(error).__name__}: {error}"

    def _render(self, template: str, messages: list[dict[str, str]]) -> str:
        """Apply the model's own Jinja template; a BOS that it writes is left to the tokenizer, lest there be two."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        bos = self._token_text(llama_cpp.llama_vocab_bos(self.vocab))
        eos = self._token_text(llama_cpp.llama_vocab_eos(self.vocab))
        text = Jinja2ChatFormatter(template, eos_token=eos, bos_token=bos)(messages=messages).prompt
        if bos and llama_cpp.llama_vocab_get_add_bos(self.vocab):
            text = text.removeprefix(bos)
        return text

    def _token_text(self, token: int) -> str:
        if token < 0:
            return ""
        return (llama_cpp.llama_vocab_get_text(self.vocab, token) or b"").decode("utf-8", "replace")

    def tokenize(self, text: str) -> list[int]:
        """Token ids with BOS where the model wants one; the template's special tokens are read as such.

        Raises
        ------
        NativeError : the model has no tokenizer.
        """
        data = text.encode("utf-8", "replace")
        room = len(data) + 8  # never more tokens than bytes, but for BOS and EOS
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), tokens, room, True, True)
        if count < 0:
            raise NativeError(f"llama.cpp cannot tokenize the prompt (llama_tokenize gave {count}); check its text.")
        return list(tokens[:count])

    def warm_up(self, tokens: Sequence[int]) -> None:
        """Decode one token and forget it: weights are read, threads and kernels started."""
        self.decode(self.batches(tokens[:1])[0])
        self.synchronize()
        self.clear()

    # What harness.native.text_loop asks for.

    def batches(self, tokens: Sequence[int]) -> Sequence[Any]:
        return cut((llama_cpp.llama_token * len(tokens))(*tokens), self._spec.n_batch)

    def sample(self) -> int:
        return llama_cpp.llama_sampler_sample(self._sampler, self.context, -1)

    def is_end(self, token: int) -> bool:
        return llama_cpp.llama_vocab_is_eog(self.vocab, token)

    def piece(self, token: int) -> bytes:
        size = llama_cpp.llama_token_to_piece(self.vocab, token, self._piece, len(self._piece), 0, False)
        if size < 0:  # a longer piece than any known: make room for it
            self._piece = ctypes.create_string_buffer(-size)
            return self.piece(token)
        return self._piece.raw[:size]


def make_sampler(temperature: float, top_k: int, top_p: float, seed: int = 0) -> Any:
    """A chain in llama.cpp's order: top-k, top-p, temperature, draw; at 0 the likeliest token. Source: common/sampling.cpp."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    parts = [llama_cpp.llama_sampler_init_greedy()]
    if temperature:
        parts = [
            llama_cpp.llama_sampler_init_top_k(top_k),
            llama_cpp.llama_sampler_init_top_p(top_p, 1),
            llama_cpp.llama_sampler_init_temp(temperature),
            llama_cpp.llama_sampler_init_dist(_RANDOM_SEED if seed < 0 else seed & _RANDOM_SEED),
        ]
    for part in parts:
        llama_cpp.llama_sampler_chain_add(chain, part)
    return chain


def _apply_in_c(template: bytes, messages: list[dict[str, str]]) -> str | None:
    """The prompt by llama.cpp's own function, which knows common templates by their look; None where it does not."""
    pairs = [(message["role"].encode(), message["content"].encode()) for message in messages]
    chat = (llama_cpp.llama_chat_message * len(pairs))(*(llama_cpp.llama_chat_message(*pair) for pair in pairs))
    size = 0
    while True:
        buffer = ctypes.create_string_buffer(size)
        needed = llama_cpp.llama_chat_apply_template(template, chat, len(pairs), True, buffer, size)
        if needed < 0:
            return None
        if needed <= size:
            return buffer.raw[:needed].decode("utf-8", "replace")
        size = needed
