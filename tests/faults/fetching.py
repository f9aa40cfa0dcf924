"""Fetches one file in a process of its own, whose rights or disk may be less than ours: one line of JSON tells."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from typing import Any

from tests.places import ROOT
from weight_port.download import fetch_file
from weight_port.errors import DownloadError
from weight_port.published import PublishedFile

NOBODY = 65534


def start(file: PublishedFile, *, largest: int | None = None, unprivileged: bool = False) -> "subprocess.Popen[str]":
    """A process that fetches `file`, may write no file beyond `largest` bytes, and is not root if `unprivileged`."""
    task = json.dumps({"file": dataclasses.asdict(file), "largest": largest, "unprivileged": unprivileged})
    command = [sys.executable, "-m", "tests.faults.fetching", task]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: "subprocess.Popen[str]") -> str:
    """The path it gives; what it raised is raised here."""
    output, errors = process.communicate(timeout=60)
    found = json.loads(output) if output else {"unexpected": f"exit code {process.returncode}: {errors}"}
    if "refused" in found:
        raise DownloadError(found["refused"])
    if "unexpected" in found:
        raise RuntimeError(found["unexpected"])
    return str(found["path"])


def main() -> None:
    task: dict[str, Any] = json.loads(sys.argv[1])
    if task["largest"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["largest"], resource.RLIM_INFINITY))
    if task["unprivileged"] and os.getuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        found = {"path": str(fetch_file(PublishedFile(**task["file"]), progress=False))}
    except DownloadError as error:
        found = {"refused": str(error)}
    except Exception as error:
        found = {"unexpected": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
