"""What a worker can do beside measuring cells: one module a job, with ``run(runtime, request, emit)``.

`runtime` is the engine's `Runtime`, `request` the command's JSON object; the last event that `run` emits is ``done``.
"""

from collections.abc import Callable
from typing import Any

#: Sends an event of a name with a body of plain JSON values.
Emit = Callable[[str, dict[str, Any]], None]
