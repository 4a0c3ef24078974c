"""llama-bench's words for what its files hold, for whoever writes them and whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Its tables in SQL: its own one, and ours beside it.
TABLE, OWN_TABLE = "llama_bench", "harness_bench"

#: Flash attention by our values.
FLASH_MODES = {"auto": -1, "off": 0, "on": 1}

#: Settings that are no parameter here, as they are unless somebody asks for another.
USUAL: Mapping[str, Any] = {
    "lazy_mode": "auto", "fit_target": 0, "fit_min_ctx": 0,
}  # fmt: skip

#: No tensor goes elsewhere than its layer.
NO_OVERRIDES = "none"
