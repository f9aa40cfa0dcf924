"""Commands run as several processes of one distributed JAX program, on this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.places import ROOT

CACHE = ROOT / ".cache" / "jax"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextmanager
def started(
    command: Sequence[object], processes: int, devices: int, output: int = subprocess.PIPE
) -> Iterator[list[subprocess.Popen[str]]]:
    """`python COMMAND --coordinator ... --num-processes ... --process-id ...`, with so many CPU devices each.

    What is still running when the context ends is killed. Where nobody reads what is printed, `output` has to be
    `subprocess.DEVNULL`, or processes wait for ever when the pipe is full.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    shared: list[object] = []
    if processes > 1:
        shared = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", processes, "--process-id"]
    running = []
    try:
        for number in range(processes):
            whole = [sys.executable, *command, *shared, *([number] if shared else [])]
            running.append(
                subprocess.Popen(
                    list(map(str, whole)),
                    env=environment,
                    stdout=output,
                    stderr=output,
                    text=True,
                )
            )
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


def run(command: Sequence[object], processes: int, devices: int, code: int = 0, timeout: float = 120) -> list[str]:
    """What each process printed, when all of them have ended with this exit code."""
    with started(command, processes, devices) as running:
        outputs = [process.communicate(timeout=timeout) for process in running]
        for process, (out, err) in zip(running, outputs, strict=True):
            assert process.returncode == code, f"{out}\n{err}"
    return [out for out, _ in outputs]
