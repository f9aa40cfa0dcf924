"""The folder where weight files are kept: shared, read-only, full, oddly named, or with something in the way."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.faults.downloads import CLEAR, CONTENT, NAME, RIGHT, SIZE, afterwards, empty_cache, fetched, published
from tests.faults.fetching import result, start
from tests.faults.report import Row, at_most, outcome_of, tally
from tests.faults.server import Answer, Server, running_server
from weight_port.download import cache_folder
from weight_port.errors import DownloadError
from weight_port.published import PublishedFile

PROCESSES = 8
ONCE = f"one download, {PROCESSES} right files"
ADVICE = "Set KERAS_HOME"  # what errors of the folder name as the way out
Fault = Callable[[Server, PublishedFile, random.Random], str]
FOLDERS = (
    "with spaces in it",
    "Käse für Übung",
    "重み",
    "100% #1?&x=y",
    'it\'s "quoted"',
    "back\\slash",
    "new\nline",
    "-rf",
)


def outcome(process: "subprocess.Popen[str]") -> str:
    """What a process that fetches the file comes to."""

    def given() -> str:
        path = Path(result(process))
        return RIGHT if path.read_bytes() == CONTENT else f"wrong bytes in {path}"

    return outcome_of(given, DownloadError, ADVICE)


def at_once(server: Server, file: PublishedFile, source: random.Random) -> str:
    """Many processes ask for the file; it is on its way for longer than they take to start."""
    server.answers = [Answer(wait_seconds=1.0)]
    with ExitStack() as stack:
        processes = [stack.enter_context(start(file)) for _ in range(PROCESSES)]
        outcomes = [outcome(process) for process in processes]
    if outcomes != [RIGHT] * PROCESSES or len(server.requests) != 1:
        return f"{len(server.requests)} downloads, {outcomes}"
    return ONCE


def killed(server: Server, file: PublishedFile, source: random.Random) -> str:
    """A process is killed while the file comes and another process waits for it."""
    server.answers = [Answer(stop_after=source.randrange(1, SIZE), waits_for_release=True)]
    with start(file) as first:
        while not server.requests:
            time.sleep(0.01)
        with start(file) as second:
            time.sleep(0.3)
            first.kill()
            first.communicate()
            return outcome(second)


def grows_no_further(server: Server, file: PublishedFile, source: random.Random) -> str:
    """No file can become as large as this one; writing fails in the middle of it, as on a full disk."""
    with start(file, largest=source.randrange(SIZE)) as process:
        return outcome(process)


def small_disk(server: Server, file: PublishedFile, source: random.Random) -> str:
    """A file system of its own, with room for a part of the file."""
    cache_folder().mkdir(parents=True)
    size = source.randrange(1, SIZE // 4096) * 4096
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", cache_folder()], check=True)
    try:
        with start(file) as process:
            return outcome(process)
    finally:
        subprocess.run(["umount", cache_folder()], check=True)


def may_mount() -> bool:
    """Whether this process may mount a file system, which root in most containers may not."""
    if shutil.which("mount") is None or os.getuid():
        return False
    with empty_cache() as folder:
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode == 0
        return done and subprocess.run(["umount", folder], check=True).returncode == 0


def read_only(content: bytes | None) -> Fault:
    """The folder cannot be written, and holds `content` under the file's name."""

    def attempt(server: Server, file: PublishedFile, source: random.Random) -> str:
        cache_folder().mkdir(parents=True)
        if content is not None:
            (cache_folder() / NAME).write_bytes(content)
        cache_folder().chmod(0o555)
        try:
            with start(file, unprivileged=True) as process:
                return outcome(process)
        finally:
            cache_folder().chmod(0o755)
            if content not in (None, CONTENT):
                (cache_folder() / NAME).unlink()

    return attempt


def garbage(server: Server, file: PublishedFile, source: random.Random) -> str:
    cache_folder().mkdir(parents=True)
    partial_file(file).write_bytes(source.randbytes(source.randrange(2 * SIZE)))
    return outcome_of(lambda: fetched(file), DownloadError, ADVICE)


def partial_file(file: PublishedFile) -> Path:
    return cache_folder() / f"{file.alternative_name}.part"


def in_the_way(put: Callable[[PublishedFile], object], clear: Callable[[PublishedFile], object] | None = None) -> Fault:
    """Something lies where the file, its part or its lock would be, and is cleared away after the first try."""

    def attempt(server: Server, file: PublishedFile, source: random.Random) -> str:
        cache_folder().mkdir(parents=True)
        put(file)
        found = outcome_of(lambda: fetched(file), DownloadError, ADVICE)
        if clear is not None:
            clear(file)
        return found

    return attempt


# What is tried: the fault, how often, and the outcomes that are right.
FAULTS: dict[str, tuple[int, set[str], Fault]] = {
    f"{PROCESSES} processes at once": (5, {ONCE}, at_once),
    "the process that downloads is killed, another waits": (10, {RIGHT}, killed),
    "the file can grow to a random size only": (20, {CLEAR}, grows_no_further),
    "a disk that is too small": (10, {CLEAR}, small_disk),
    "a read-only folder": (2, {CLEAR}, read_only(None)),
    "a read-only folder with the file": (2, {RIGHT}, read_only(CONTENT)),
    "a read-only folder with a cut file": (2, {CLEAR}, read_only(CONTENT[:1000])),
    "garbage in the partial file": (20, {RIGHT}, garbage),
    "a lock that a dead process left": (
        1,
        {RIGHT},
        in_the_way(lambda file: partial_file(file).with_suffix(".lock").touch()),
    ),
    "an empty file in its place": (
        1,
        {RIGHT},
        in_the_way(lambda _: (cache_folder() / NAME).touch(), lambda _: (cache_folder() / NAME).unlink()),
    ),
    "a folder in its place": (1, {RIGHT}, in_the_way(lambda file: (cache_folder() / NAME).mkdir())),
    "a dangling link in its place": (
        1,
        {RIGHT},
        in_the_way(lambda file: (cache_folder() / NAME).symlink_to(cache_folder() / "nowhere")),
    ),
    "a folder in place of its part": (
        1,
        {CLEAR},
        in_the_way(lambda file: partial_file(file).mkdir(), lambda file: partial_file(file).rmdir()),
    ),
}


def rows(count: int | None) -> Iterator[Row]:
    """What `fetch_file` makes of each state of the folder."""
    with running_server(CONTENT) as server:
        file = published(f"{server.url}/{NAME}")

        def attempt(fault: Fault, source: random.Random, home: str = "keras") -> str:
            with empty_cache(home):
                server.requests.clear()
                found = fault(server, file, source)
                server.answers = []
                return afterwards(file, found)

        for tried, (times, wanted, fault) in FAULTS.items():
            if fault is small_disk and not may_mount():
                continue
            source = random.Random(tried)
            yield tally(tried, ((number, attempt(fault, source)) for number in range(at_most(times, count))), wanted)
        plain = in_the_way(lambda file: None)
        tries = ((name, attempt(plain, random.Random(name), name)) for name in FOLDERS[:count])
        yield tally("spaces, letters of other scripts and signs in its path", tries, {RIGHT})
