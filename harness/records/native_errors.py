"""What llama.cpp's last lines mean, where they mean something that a user can act on: memory that ran out, a server that is gone.

The wording is that of the llama.cpp in llama-cpp-python 0.3.36 (ggml-alloc.c, ggml-cuda.cu, ggml-rpc.cpp, llama.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.units import MIB

#: What ran out or went away: memory of some device, the card or its driver, an RPC server.
MEMORY, CARD, SERVER = "memory", "card", "server"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What made llama.cpp give up: the kind, which decides what is tried next, and half a sentence for people."""

    trouble: str
    text: str


# ggml-alloc.c: "alloc_tensor_range: failed to allocate CUDA0 buffer of size 851443712", "ggml_gallocr_reserve_n: failed to …"
_ALLOCATION = re.compile(r"failed to allocate (\S+) buffer of size (\d+)")
# llama-model.cpp: "unable to allocate CUDA0 buffer"
_UNABLE = re.compile(r"unable to allocate (\S+) buffer")
# llama.cpp: "using device CUDA0 (NVIDIA …) (0000:01:00.0) - 604 MiB free"
_FREE = re.compile(r"using device (\S+) .* - (\d+) MiB free")
# ggml-cuda.cu, ggml_cuda_error: "CUDA error: out of memory", then "current device: 0, in function alloc at …"
_CUDA_MEMORY = re.compile(r"(CUDA|ROCm|MUSA) error: out of memory")
_CURRENT_DEVICE = re.compile(r"current device: (\d+)")
_CUDA_GONE = re.compile(r"CUDA error: (.*(?:GPU is lost|unknown error|driver|fallen off).*)", re.IGNORECASE)
_RPC_GONE = "Remote RPC server crashed or returned malformed response"
_RPC_CONNECT = re.compile(r"(?:Failed to connect to|RPC handshake failed for) (\S+)")


#: A path may begin a line or stand behind a blank, a quote or a bracket.
_BEFORE = r"(?<![\w.:/\\~-])"
_ROOT = r"(?:~|[A-Za-z]:)?[\\/](?=\S)"
#: What is taken out of a text, so that of a path only its end is left; in this order.
_FOLDERS = (
    # A user's own folder, whatever is in the name.
    (re.compile(_BEFORE + r"(?:[A-Za-z]:)?[\\/](?:home|Users)[\\/][^\\/\n'\"]+(?=[\\/])"), "~"),
    # Where llama.cpp was built: GGML_ASSERT names its source files.
    (re.compile(_BEFORE + _ROOT + r"[^'\"\n]*?llama\.cpp[\\/](?=(?:ggml|src|common|include)[\\/])"), ""),
    # llama_model_loader: "loaded meta data with 7 key-value pairs and 0 tensors from PATH (version GGUF V3 (latest))"
    (re.compile(r"(?<= from )" + _ROOT + r"[^\n]*[\\/](?=[^\\/\n]+ \(version )"), ""),
    # Quoted, and models: blanks are a part of the name.
    (re.compile(r"(?<=['\"])" + _ROOT + r"[^'\"\n]*[\\/](?=[^'\"\\/\n]+['\"])"), ""),
    (re.compile(_BEFORE + _ROOT + r"[^'\"\n]*?[\\/](?=[^'\"\\/\n]+\.gguf\b)"), ""),
    (re.compile(_BEFORE + r"(?:~|[A-Za-z]:)?(?:[\\/][\w.@+%,-]+)*[\\/](?=[\w.@+%,-]+)"), ""),
)


def hide_folders(text: str) -> str:
    """A text of llama.cpp's or the system's with each path cut to its file's name, and llama.cpp's own sources to the path inside it.

    Paths name people, and tell where somebody's disk has what; a record may be given away.
    """
    if "/" not in text and "\\" not in text:
        return text
    for pattern, instead in _FOLDERS:
        text = pattern.sub(instead, text)
    return text


def explain(lines: Iterable[str]) -> Explanation | None:
    """Say what made llama.cpp give up; None where its last lines are of no known kind."""
    known = list(lines)
    return _explain_allocation(known) or _explain_card(known) or _explain_server(known)


def _explain_allocation(lines: list[str]) -> Explanation | None:
    """The first buffer that could not be had: later ones only follow from it."""
    free = {match[1]: int(match[2]) for line in lines if (match := _FREE.search(line))}
    for line in lines:
        if match := _ALLOCATION.search(line):
            asked = f"asked {round(int(match[2]) / MIB)} MiB{_spell_free(match[1], free)}"
            return Explanation(MEMORY, f"out of memory on {match[1]}, {asked}")
    for line in lines:
        if match := _UNABLE.search(line):
            return Explanation(MEMORY, f"out of memory on {match[1]}{_spell_free(match[1], free)}")
    return None


def _spell_free(buffer: str, free_mib: dict[str, int]) -> str:
    device = buffer.partition("[")[0]
    return f" of {free_mib[device]} free" if device in free_mib else ""


def _explain_card(lines: list[str]) -> Explanation | None:
    text = "\n".join(lines)
    if match := _CUDA_MEMORY.search(text):
        device = _CURRENT_DEVICE.search(text)
        name = f"{match[1]}{device[1] if device else ''}"
        return Explanation(
            MEMORY,
            f"out of memory on {name} while it computed: the model fits, its scratch memory does not; offload fewer layers",
        )
    if match := _CUDA_GONE.search(text):
        return Explanation(CARD, f"the card or its driver went away ({match[1].strip()})")
    return None


def _explain_server(lines: list[str]) -> Explanation | None:
    text = "\n".join(lines)
    if _RPC_GONE in text:
        return Explanation(SERVER, "the RPC server hung up: it crashed, was ended, or the network is gone")
    if match := _RPC_CONNECT.search(text):
        return Explanation(SERVER, f"the RPC server at {match[1]} could not be reached")
    return None
