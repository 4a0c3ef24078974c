"""Print llama.cpp's log of buffers for several runs of a model, as JSON: `python -m tests.real_buffers`, specs on stdin.

A child process, so that nothing of it stays in the tests' own.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from harness.native.engine import Runtime
from harness.spec import RunSpec


def main() -> None:
    runtime = Runtime(log_to_stderr=False)
    specs = [RunSpec.from_dict(values) for values in json.load(sys.stdin)]
    found, model, key = [], None, None
    for spec in specs:
        if spec.load_key() != key:
            if model is not None:
                model.close()
            model, key = runtime.load(spec), spec.load_key()
        session = model.open(spec)
        found.append([dataclasses.asdict(buffer) for buffer in session.describe().buffers])
        session.close()
    model.close()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
