"""A worker of the inference benchmark: holds one network in one runtime and times it when asked.

Run by `tests.benchmarks.inference` as `python -m tests.benchmarks.peers PEER`, in any interpreter that has the runtime.
Requests and answers are lines of JSON on stdin and stdout. Needs NumPy and the runtime, nothing else.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.runtimes import RUNTIMES, Run, images, write_onnx
from tests.benchmarks.stored import STORED

TURN = 0.3  # seconds that a runtime computes when it is its turn
JUDGED = 8  # images whose logits are compared


def median_seconds(run: Run, x: np.ndarray) -> float:
    """The median of a turn of calls, after one that is not counted.

    Threads of the runtime that had its turn before may still spin, and the caches are full of its arrays.
    """
    run(x)
    times: list[float] = []
    while sum(times) < TURN:
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]  # Linux writes it


def versions(peer: str) -> dict[str, str]:
    """Of Python and the packages of a peer, with "" for one that is not installed."""
    found = {"python": sys.version.split()[0]}
    for name in RUNTIMES[peer].packages:
        found[name] = _version(name) if importlib.util.find_spec(name) else ""
    return found


def _version(name: str) -> str:
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"


def main() -> None:
    """Answers requests until stdin ends."""
    peer = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    runtime = RUNTIMES[peer]
    run: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if request["do"] == "versions":
                answer = versions(peer)
            elif request["do"] == "onnx":
                write_onnx(request["network"], request["size"], Path(request["path"]))
            elif request["do"] == "open":
                run = None
                start = time.perf_counter()
                run = runtime.open(request["network"], request["size"], runtime.variant, request["folder"])
                answer = {"seconds": time.perf_counter() - start}
            elif request["do"] in ("store", "load"):
                run = None
                act = STORED[peer].write if request["do"] == "store" else STORED[peer].read
                run = act(request["network"], request["size"], runtime.variant, Path(request["path"]))
            elif request["do"] == "logits":
                assert run is not None
                np.save(request["path"], np.asarray(run(images(JUDGED, request["size"])), np.float32))
            elif request["do"] == "run":
                assert run is not None
                shape = (request["batch"], request["size"], request["size"], 3)
                x = np.random.default_rng(0).random(shape, np.float32)
                start = time.perf_counter()
                run(x)
                first = time.perf_counter() - start  # compiles in the first turn
                answer = {"first": first, "seconds": median_seconds(run, x), "peak_bytes": peak_bytes()}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
