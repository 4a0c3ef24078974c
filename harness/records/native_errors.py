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

    trouble: str | None
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
#: Other troubles: the pattern, what it is, and what is said of what it found.
_OTHERS = (
    (
        re.compile(r"CUDA error: (.*(?:GPU is lost|unknown error|driver|fallen off).*)", re.IGNORECASE),
        CARD,
        "the card or its driver went away ({})",
    ),
    (
        re.compile("Remote RPC server crashed or returned malformed response"),
        SERVER,
        "the RPC server hung up: it crashed, was ended, or the network is gone",
    ),
    (
        re.compile(r"(?:Failed to connect to|RPC handshake failed for) (\S+)"),
        SERVER,
        "the RPC server at {} could not be reached",
    ),
)


# libstdc++'s verbose terminate handler, libc++'s: "terminate called after throwing an instance of 'std::bad_alloc'", "  what():  …";
# "libc++abi: terminating due to uncaught exception of type std::bad_alloc: std::bad_alloc".
_UNCAUGHT = re.compile(
    r"throwing an instance of '([^']+)'(?:\s+what\(\):\s*(.*))?|uncaught exception of type (\S+?)(?:: (.*)|$)",
    re.MULTILINE,
)

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
    text = "\n".join(lines)
    free = {match[1]: match[2] for match in _FREE.finditer(text)}
    # The first buffer that could not be had: later ones only follow from it.
    if match := _ALLOCATION.search(text) or _UNABLE.search(text):
        device = match[1].partition("[")[0]
        asked = f", asked {round(int(match[2]) / MIB)} MiB" if match.re is _ALLOCATION else ""
        of_free = f" of {free[device]} free" if device in free else ""
        return Explanation(MEMORY, f"out of memory on {match[1]}{asked}{of_free}")
    if match := _CUDA_MEMORY.search(text):
        current = _CURRENT_DEVICE.search(text)
        name = f"{match[1]}{current[1] if current else ''}"
        scratch = "the model fits, its scratch memory does not; offload fewer layers"
        return Explanation(MEMORY, f"out of memory on {name} while it computed: {scratch}")
    for pattern, trouble, said in _OTHERS:
        if match := pattern.search(text):
            return Explanation(trouble, said.format(*map(str.strip, match.groups())))
    if match := _UNCAUGHT.search(text):
        name, what = match[1] or match[3], (match[2] or match[4] or "").strip()
        if name == "std::bad_alloc":
            return Explanation(MEMORY, "out of memory in llama.cpp (std::bad_alloc)")
        return Explanation(None, f"nobody caught {name}{f': {what}' if what and what != name else ''}")
    return None
