"""Weight files from a server that misbehaves: the right file or a clear error, and the next call always works."""

import hashlib
import os
import random
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.faults.report import Row, at_most, outcome_of, tally
from tests.faults.server import Answer, Server, running_server
from weight_port import download
from weight_port.download import cache_folder, fetch_file
from weight_port.errors import DownloadError
from weight_port.published import PublishedFile

CONTENT = random.Random(0).randbytes(300_000)
OTHER_CONTENT = random.Random(1).randbytes(300_000)
SIZE, NAME = len(CONTENT), "weights.h5"
ADVICE = "FLAXAPPS_MIRROR"  # what every error of a download names, as the way out
RIGHT, CLEAR = "right file", "clear error"
Fault = Callable[[Server, random.Random], list[Answer]]  # the answers, one for each request


def published(url: str) -> PublishedFile:
    """A file that belongs to `CONTENT`."""
    return PublishedFile("network", "", True, NAME, url, hashlib.md5(CONTENT).hexdigest(), SIZE, "MIT")


@contextmanager
def empty_cache(name: str = "keras", **variables: str) -> Iterator[Path]:
    """An empty cache folder, no pauses between tries, short patience, and no proxy."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / name
        Path(folder).chmod(0o755)  # processes that are not ours read it too
        environment = {"KERAS_HOME": str(home), "no_proxy": "127.0.0.1", "FLAXAPPS_MIRROR": "", **variables}
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(download, "PAUSES_SECONDS", (0.0, 0.0)),
            mock.patch.object(download, "TIMEOUT_SECONDS", 0.3),
        ):
            yield home


def fetched(file: PublishedFile) -> str:
    path = fetch_file(file, progress=False)
    return RIGHT if path.read_bytes() == CONTENT else f"wrong bytes in {path}"


def afterwards(file: PublishedFile, before: str) -> str:
    """`before`, unless the cache now holds something wrong or the next call, to a sane server, fails."""
    for path in cache_folder().glob("*"):
        if path.suffix not in (".lock", ".part") and path.is_file() and path.read_bytes() != CONTENT:
            return f"{before}; then a wrong file in the cache: {path}"
    again = outcome_of(lambda: fetched(file), DownloadError, ADVICE)
    leftovers = [path.name for path in cache_folder().glob("*.part")]
    if again != RIGHT or leftovers:
        return f"{before}; then, with a sane server, {again}; leftovers {leftovers}"
    return before


def attempt(server: Server, answers: list[Answer], **variables: str) -> str:
    """One download from an empty cache, and one more when server and environment are well again."""
    file = published(f"{server.url}/{NAME}")
    with empty_cache():
        server.answers, server.sent = list(answers), 0
        with mock.patch.dict(os.environ, variables):
            outcome = outcome_of(lambda: fetched(file), DownloadError, ADVICE)
        server.answers = []
        if server.sent > 100 * SIZE:
            return f"took {server.sent:,} bytes"
        return afterwards(file, outcome)


def through_a_proxy(server: Server, answers: list[Answer]) -> str:
    """The proxy is the server: it is asked for whole addresses, here of a host that does not exist."""
    proxied = {"http_proxy": server.url, "no_proxy": ""}
    server.requests.clear()
    with empty_cache():
        server.answers = list(answers)
        with mock.patch.dict(os.environ, proxied):
            file = published(f"http://weights.invalid/{NAME}")
            outcome = outcome_of(lambda: fetched(file), DownloadError, ADVICE)
    asked = {path for path, _, _ in server.requests}
    return outcome if asked == {file.url} else f"{outcome}, but asked for {asked}"


def cut(source: random.Random, **options: bool) -> Answer:
    return Answer(stop_after=source.randrange(SIZE), **options)


def redirect(server: Server, status: int, to: str = "/elsewhere") -> Answer:
    return Answer(status=status, headers={"Location": to if "://" in to else server.url + to})


def mixed(source: random.Random) -> list[Answer]:
    """The first part of the right file, then the rest of another."""
    return [cut(source), Answer(body=OTHER_CONTENT)]


PAGE = b"<html>Please log in to the hotel's network</html>"
# What is tried: the faults, how often the issue wants each, and the outcomes that are right.
FAULTS: dict[str, tuple[int, set[str], Fault]] = {
    "cut at a random byte, ranges supported": (50, {RIGHT}, lambda _, source: [cut(source)]),
    "cut at a random byte, ranges not supported": (
        50,
        {RIGHT},
        lambda _, source: [cut(source, honours_range=False), Answer(honours_range=False)],
    ),
    "cut at a random byte, no length declared": (
        50,
        {RIGHT},
        lambda _, source: [cut(source, declares_length=False)],
    ),
    "cut in every try": (10, {CLEAR}, lambda _, source: [Answer(stop_after=source.randrange(9999))] * 3),
    "cut, then the range of another place": (10, {RIGHT}, lambda _, source: [cut(source), Answer(false_range=True)]),
    "cut, then the rest of another file": (10, {RIGHT}, lambda _, source: mixed(source)),
    "too short, with that length declared": (
        10,
        {CLEAR},
        lambda _, source: [Answer(body=CONTENT[: source.randrange(SIZE)])] * 5,
    ),
    "too long, with that length declared": (10, {CLEAR}, lambda _, source: [Answer(body=CONTENT + OTHER_CONTENT)] * 5),
    "without end": (3, {CLEAR}, lambda *_: [Answer(declares_length=False, endless=True)]),
    "wrong content of the right length": (10, {CLEAR}, lambda *_: [Answer(body=OTHER_CONTENT)] * 5),
    "one bit wrong": (10, {CLEAR}, lambda _, source: [Answer(body=one_bit_wrong(source))] * 5),
    "a log-in page instead, with status 200": (10, {CLEAR}, lambda *_: [Answer(body=PAGE)] * 5),
    "status 401, 403, 404 or 410": (
        12,
        {CLEAR},
        lambda _, source: [Answer(status=source.choice((401, 403, 404, 410)))] * 5,
    ),
    "status 429, 500, 502 or 503, then success": (
        12,
        {RIGHT},
        lambda _, source: [Answer(status=source.choice((429, 500, 502, 503)))],
    ),
    "status 500 for ever": (5, {CLEAR}, lambda *_: [Answer(status=500)] * 9),
    "redirected (301, 302, 303, 307, 308)": (
        10,
        {RIGHT},
        lambda server, source: [redirect(server, source.choice((301, 302, 303, 307, 308)))],
    ),
    "cut, then redirected": (10, {RIGHT}, lambda server, source: [cut(source), redirect(server, 302)]),
    "redirected in a circle": (5, {CLEAR}, lambda server, _: [redirect(server, 302)] * 50),
    "redirected to a file of this machine": (
        5,
        {CLEAR},
        lambda server, _: [redirect(server, 302, "file:///etc/hosts")],
    ),
    "silent before the first byte, then well": (3, {RIGHT}, lambda *_: [Answer(wait_seconds=0.5)]),
    "silent at a random byte, then well": (
        3,
        {RIGHT},
        lambda _, source: [Answer(stop_after=source.randrange(SIZE), waits_for_release=True)],
    ),
    "silent in every try": (2, {CLEAR}, lambda *_: [Answer(stop_after=1000, waits_for_release=True)] * 3),
}
PROXIED: dict[str, tuple[int, set[str], list[Answer]]] = {
    "through a proxy": (5, {RIGHT}, []),
    "through a proxy, cut": (5, {RIGHT}, [Answer(stop_after=SIZE // 2)]),
    "a proxy that wants a password (407)": (5, {CLEAR}, [Answer(status=407)]),
    "a proxy that cannot reach the server (502)": (5, {CLEAR}, [Answer(status=502)] * 3),
}


def one_bit_wrong(source: random.Random) -> bytes:
    place = source.randrange(SIZE)
    return CONTENT[:place] + bytes([CONTENT[place] ^ 1 << source.randrange(8)]) + CONTENT[place + 1 :]


def rows(count: int | None) -> Iterator[Row]:
    """What `fetch_file` makes of each kind of misbehaviour."""
    with running_server(CONTENT) as server:
        for tried, (times, wanted, fault) in FAULTS.items():
            source = random.Random(tried)
            tries = ((number, attempt(server, fault(server, source))) for number in range(at_most(times, count)))
            yield tally(tried, tries, wanted)
        for tried, (times, wanted, answers) in PROXIED.items():
            tries = ((number, through_a_proxy(server, answers)) for number in range(at_most(times, count)))
            yield tally(tried, tries, wanted)
        with socket.socket() as unused:  # nobody listens there
            unused.bind(("127.0.0.1", 0))
            nobody = {"http_proxy": f"http://127.0.0.1:{unused.getsockname()[1]}", "no_proxy": ""}
            yield tally("a proxy that is not there", [(0, attempt(server, [], **nobody))], {CLEAR})
            past = {**nobody, "no_proxy": "127.0.0.1"}
            yield tally("a host that no_proxy excepts from it", [(0, attempt(server, [], **past))], {RIGHT})
