"""llama-bench's words for what its files hold, for whoever writes them and whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Its tables in SQL: its own one, and ours beside it.
TABLE, OWN_TABLE = "llama_bench", "harness_bench"

#: Flash attention and the way of loading, by our values.
FLASH_MODES = {"auto": -1, "off": 0, "on": 1}
LOAD_MODES = {"auto": "auto", "on": "mmap", "off": "none"}

#: Settings that are no parameter here, as they are unless somebody asks for another.
USUAL: Mapping[str, Any] = {
    "cpu_mask": "0x0", "cpu_strict": False, "poll": 50, "tensor_buft_overrides": "none", "lazy_mode": "auto", "no_op_offload": 0,
    "no_host": False, "fit_target": 0, "fit_min_ctx": 0,
}  # fmt: skip
