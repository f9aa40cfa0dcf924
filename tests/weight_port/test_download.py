"""Fetching weight files, against a server on the loopback interface that misbehaves as it is told to."""

import dataclasses
import hashlib
import json
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.server import Answer, Server, running_server
from tests.places import ROOT
from weight_port import download
from weight_port.download import cache_folder, fetch, fetch_file
from weight_port.errors import DownloadError, WeightError
from weight_port.published import PUBLISHED_FILES, PublishedFile, published_file

CONTENT = random.Random(0).randbytes(300_000)
OTHER_CONTENT = random.Random(1).randbytes(200_000)
NAME = "weights.h5"
HALF = len(CONTENT) // 2


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server(CONTENT) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_pauses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def file(server: Server) -> PublishedFile:
    return published(f"{server.url}/{NAME}")


def published(url: str, content: bytes = CONTENT, variant: str = "") -> PublishedFile:
    md5 = hashlib.md5(content).hexdigest()
    return PublishedFile("network", variant, True, NAME, url, md5, len(content), "MIT")


def partial_file(file: PublishedFile) -> Path:
    return cache_folder() / f"{file.alternative_name}.part"


def leave(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def assert_only(*expected: Path) -> None:
    """The cache folder holds these files and locks."""
    present = {path for path in cache_folder().glob("*") if path.suffix != ".lock"}
    assert present == set(expected)


def start_process(file: PublishedFile) -> "subprocess.Popen[str]":
    program = (
        "import json, signal, sys; from weight_port.download import PublishedFile, fetch_file; "
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell's background jobs ignore it
        "print(fetch_file(PublishedFile(**json.loads(sys.argv[1])), progress=False))"
    )
    command = [sys.executable, "-c", program, json.dumps(dataclasses.asdict(file))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# From the server to the cache


def test_a_second_fetch_needs_no_network(server: Server, file: PublishedFile) -> None:
    path = fetch_file(file, progress=False)
    assert path == cache_folder() / NAME
    assert path.read_bytes() == CONTENT
    assert fetch_file(file, progress=False) == path
    assert server.requests == [(f"/{NAME}", None, len(CONTENT))]
    assert_only(path)


def test_fetch_looks_the_file_up(server: Server, file: PublishedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def lookup(*arguments: object) -> PublishedFile:
        asked.append(arguments)
        return file

    monkeypatch.setattr(download, "published_file", lookup)
    assert fetch("resnet50", include_top=False, variant="keras2", progress=False).read_bytes() == CONTENT
    assert asked == [("resnet50", False, "keras2")]


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / ".keras" / "models"


def test_wrong_bytes_leave_nothing(server: Server, file: PublishedFile) -> None:
    server.answers = [Answer(body=OTHER_CONTENT)]
    with pytest.raises(DownloadError, match=f"do not have MD5 {file.md5}"):
        fetch_file(file, progress=False)
    assert len(server.requests) == 1
    assert_only()


def test_a_pinned_sha256_is_checked(file: PublishedFile) -> None:
    right = dataclasses.replace(file, sha256=hashlib.sha256(CONTENT).hexdigest())
    wrong = dataclasses.replace(file, sha256=hashlib.sha256(OTHER_CONTENT).hexdigest())
    with pytest.raises(DownloadError):
        fetch_file(wrong, progress=False)
    assert_only()
    assert fetch_file(right, progress=False).read_bytes() == CONTENT


def test_without_a_published_hash(server: Server, file: PublishedFile, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said; what was there of an earlier download counts for nothing, nor does what is not HDF5."""
    file = dataclasses.replace(file, md5=None, size=None)
    leave(cache_folder() / NAME, b"<html>")
    leave(partial_file(file), CONTENT[:HALF])
    with pytest.raises(DownloadError, match="are not an HDF5 file"):
        fetch_file(file, progress=False)
    hdf5 = b"\x89HDF\r\n\x1a\n" + CONTENT
    server.answers = [Answer(body=hdf5, stop_after=HALF), Answer(body=hdf5)]
    path = fetch_file(file)
    assert "no hash" in capsys.readouterr().err
    assert path.read_bytes() == hdf5
    assert [start for _, start, _ in server.requests] == [None] * 3
    assert fetch_file(file) == path
    assert len(server.requests) == 3
    assert (cache_folder() / NAME).read_bytes() == b"<html>"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(server: Server, file: PublishedFile, status: int) -> None:
    server.answers = [Answer(status=status)]
    assert fetch_file(file, progress=False).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_absent_on_the_server(server: Server, file: PublishedFile) -> None:
    server.answers = [Answer(status=404)]
    with pytest.raises(DownloadError, match="HTTP Error 404: Not Found") as caught:
        fetch_file(file, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in (file.url, file.md5, str(cache_folder() / NAME), "FLAXAPPS_MIRROR"))
    assert len(server.requests) == 1
    assert_only()


def test_nobody_answers() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        file = published(f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}")
        with pytest.raises(DownloadError, match=r"refused.*by hand, or set FLAXAPPS_MIRROR"):
            fetch_file(file, progress=False)
    assert_only()


def test_a_silent_server_is_given_up(server: Server, file: PublishedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
    server.answers = [Answer(stop_after=1000, waits_for_release=True)] * 3
    with pytest.raises(DownloadError, match=r"timed out\. [0-9,]+ bytes are kept"):
        fetch_file(file, progress=False)
    assert len(server.requests) == 3


def test_unusable_cache(file: PublishedFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_HOME", str(leave(tmp_path / "a file", b"")))
    with pytest.raises(DownloadError, match=r"Cannot use .* Set KERAS_HOME"):
        fetch_file(file, progress=False)


# After a cut


def test_a_cut_is_resumed(server: Server, file: PublishedFile) -> None:
    server.answers = [Answer(stop_after=HALF)]
    path = fetch_file(file, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.requests == [(f"/{NAME}", None, HALF), (f"/{NAME}", f"bytes={HALF}-", len(CONTENT) - HALF)]
    assert_only(path)


def test_cuts_without_end_keep_what_has_come(server: Server, file: PublishedFile) -> None:
    server.answers = [Answer(stop_after=1000)] * 3
    with pytest.raises(DownloadError, match="3,000 bytes are kept"):
        fetch_file(file, progress=False)
    assert_only(partial_file(file))
    assert fetch_file(file, progress=False).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=3000-"


@pytest.mark.parametrize("kept", [CONTENT[:HALF], OTHER_CONTENT[:HALF]], ids=["good", "garbage"])
def test_a_server_without_ranges_starts_again(server: Server, file: PublishedFile, kept: bytes) -> None:
    leave(partial_file(file), kept)
    server.answers = [Answer(honours_range=False)]
    assert fetch_file(file, progress=False).read_bytes() == CONTENT
    assert [sent for _, _, sent in server.requests] == [len(CONTENT)]


def test_another_range_than_asked_for_is_not_used(server: Server, file: PublishedFile) -> None:
    leave(partial_file(file), CONTENT[:HALF])
    server.answers = [Answer(false_range=True)]
    assert fetch_file(file, progress=False).read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.requests] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("length", [HALF, len(CONTENT), len(CONTENT) + 5], ids=["short", "whole", "long"])
def test_garbage_in_the_partial_file(server: Server, file: PublishedFile, length: int) -> None:
    leave(partial_file(file), random.Random(2).randbytes(length))
    path = fetch_file(file, progress=False)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.requests] == [f"bytes={length}-", None]
    assert_only(path)


def test_garbage_here_and_there_leaves_nothing(server: Server, file: PublishedFile) -> None:
    leave(partial_file(file), OTHER_CONTENT[:100])
    server.answers = [Answer(body=OTHER_CONTENT), Answer(body=OTHER_CONTENT)]
    with pytest.raises(DownloadError, match="do not have MD5"):
        fetch_file(file, progress=False)
    assert_only()


def test_a_complete_partial_file_is_only_renamed(server: Server, file: PublishedFile) -> None:
    leave(partial_file(file), CONTENT)
    path = fetch_file(file, progress=False)
    assert server.requests == []
    assert_only(path)


# Processes


def test_concurrent_processes_download_once(server: Server, file: PublishedFile) -> None:
    server.answers = [Answer(wait_seconds=0.5)]
    with ExitStack() as stack:
        processes = [stack.enter_context(start_process(file)) for _ in range(4)]
        results = [process.communicate(timeout=30) for process in processes]
    assert results == [(f"{cache_folder() / NAME}\n", "")] * 4
    assert len(server.requests) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
def test_an_ended_process_is_continued(server: Server, file: PublishedFile, kind: str) -> None:
    server.answers = [Answer(stop_after=HALF, waits_for_release=True)]
    part = partial_file(file)
    with start_process(file) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        process.send_signal(getattr(signal, kind))
        process.communicate(timeout=10)
    assert_only(part)
    kept = part.stat().st_size
    assert 0 < kept <= HALF
    assert fetch_file(file, progress=False).read_bytes() == CONTENT
    assert server.requests[-1] == (f"/{NAME}", f"bytes={kept}-", len(CONTENT) - kept)


def test_importing_is_light() -> None:
    check = "import sys, weight_port.download; print({'jax', 'flaxapps', 'train', 'rich'} & set(sys.modules))"
    command = [sys.executable, "-c", check]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (result.stdout.strip(), result.stderr) == ("set()", "")


# One name, two contents


@pytest.mark.parametrize("order", [("", "keras2"), ("keras2", "")], ids=["today's first", "2016's first"])
def test_files_of_one_name_live_apart(server: Server, order: tuple[str, str]) -> None:
    server.files = {"/today": CONTENT, "/2016": OTHER_CONTENT}
    files = {
        "": published(f"{server.url}/today"),
        "keras2": published(f"{server.url}/2016", OTHER_CONTENT, "keras2"),
    }
    for _ in range(2):
        paths = {variant: fetch_file(files[variant], progress=False) for variant in order}
    assert paths == {"": cache_folder() / NAME, "keras2": cache_folder() / files["keras2"].alternative_name}
    assert paths[""].read_bytes() == CONTENT
    assert paths["keras2"].read_bytes() == OTHER_CONTENT
    assert len(server.requests) == 2


def test_a_file_of_other_content_is_left_alone(server: Server, file: PublishedFile) -> None:
    older = leave(cache_folder() / NAME, OTHER_CONTENT)
    path = fetch_file(file, progress=False)
    assert path == cache_folder() / f"weights-{file.md5[:8]}.h5"
    assert older.read_bytes() == OTHER_CONTENT
    assert fetch_file(file, progress=False) == path
    assert len(server.requests) == 1


def test_the_older_file_under_its_published_name_is_used(server: Server) -> None:
    path = leave(cache_folder() / NAME, OTHER_CONTENT)
    assert fetch_file(published(server.url, OTHER_CONTENT, "keras2"), progress=False) == path
    assert server.requests == []


# Mirrors


@pytest.mark.parametrize("as_url", [False, True], ids=["path", "file URL"])
def test_mirror_folder_is_used_in_place(
    server: Server, file: PublishedFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_url: bool
) -> None:
    folder = tmp_path / "a mirror"
    monkeypatch.setenv("FLAXAPPS_MIRROR", folder.as_uri() if as_url else str(folder))
    plain = leave(folder / NAME, CONTENT)
    assert fetch_file(file, progress=False) == plain
    plain.write_bytes(OTHER_CONTENT)
    alternative = leave(folder / file.alternative_name, CONTENT)
    assert fetch_file(file, progress=False) == alternative
    assert not cache_folder().exists()
    assert server.requests == []


def test_mirror_folder_without_the_file(
    server: Server, file: PublishedFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLAXAPPS_MIRROR", str(tmp_path))
    plain = leave(tmp_path / NAME, OTHER_CONTENT)
    with pytest.raises(DownloadError) as caught:
        fetch_file(file, progress=False)
    assert f"{tmp_path / file.alternative_name} is absent, {plain} has other content" in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("variant", "names"),
    [("", ["plain"]), ("keras2", ["alternative"]), ("keras2", ["plain"]), ("keras2", [])],
)
def test_mirror_url(server: Server, monkeypatch: pytest.MonkeyPatch, variant: str, names: list[str]) -> None:
    file = published("http://127.0.0.1:9/never-asked", variant=variant)
    paths = {"alternative": f"/mirror/{file.alternative_name}", "plain": f"/mirror/{NAME}"}
    server.files = {"/other": b""} | {paths[name]: CONTENT for name in names}
    monkeypatch.setenv("FLAXAPPS_MIRROR", f"{server.url}/mirror/")
    if names:
        assert fetch_file(file, progress=False).read_bytes() == CONTENT
    else:
        with pytest.raises(DownloadError, match=f"{paths['alternative']} or .*{paths['plain']}: HTTP Error 404"):
            fetch_file(file, progress=False)
    asked = ["plain"] if not variant else ["alternative"] if names == ["alternative"] else ["alternative", "plain"]
    assert [path for path, _, _ in server.requests] == [paths[name] for name in asked]


# Progress


def test_progress(file: PublishedFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(progress: bool | None) -> str:
        (cache_folder() / NAME).unlink(missing_ok=True)
        fetch_file(file, progress=progress)
        output = capsys.readouterr()
        assert output.out == ""
        return output.err

    assert shown(False) == ""
    assert shown(None) == f"Downloading {NAME} (0 MB) from 127.0.0.1\n"
    assert "100%" in shown(True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "100%" in shown(None)
    assert shown(False) == ""


# The table, and the errors

SIZES = """
vgg16 553467096 58889256
vgg19 574710816 80134624
xception 91884032 83683744
inception_v3 96112376 87910968
resnet50 102853048 94653016
resnet50 102967424 94765736
"""


def test_the_published_table() -> None:
    """Names, addresses and hashes are compared with Keras's in test_published.py; the sizes are the servers'."""
    sizes = {(file.network, file.size, file.include_top) for file in PUBLISHED_FILES if file.size}
    rows = [row.split() for row in SIZES.split("\n")[1:-1]]
    assert sizes == {
        (name, int(size), top) for name, *both in rows for size, top in zip(both, (True, False), strict=True)
    }
    for file in PUBLISHED_FILES:
        assert published_file(file.network, file.include_top, file.variant) is file
    older = [published_file("resnet50", top, "keras2") for top in (True, False)]
    assert [file.md5 for file in older] == ["a7b3fe01876f51b976af0dea6bc144eb", "a268eb855778b3df3c7506639542a6af"]
    assert older[0].url == (
        "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
        "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
    )


@pytest.mark.parametrize(("network", "variant"), [("resnet5", ""), ("xception", "keras2")])
def test_unknown_networks_are_told_the_known_ones(network: str, variant: str) -> None:
    known = r"'resnet152', variant=''; 'resnet152v2', variant=''; 'resnet50', variant=''; 'resnet50', variant='k"
    with pytest.raises(WeightError, match=r"Known: 'xception', variant=''\.$" if variant else known):
        fetch(network, variant=variant)


@pytest.mark.parametrize("kind", [WeightError, DownloadError])
def test_errors_list_everything_and_pickle(kind: type[WeightError]) -> None:
    error = kind("It does not fit.", missing=["a/kernel (3, 3)", "a/bias (3,)"], misshapen=["b/bias (3,) not (4,)"])
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ValueError)
    assert type(again) is kind
    assert (again.missing, again.unexpected, again.misshapen) == (error.missing, (), error.misshapen)
    text = "It does not fit.\nmissing (2):\n  a/kernel (3, 3)\n  a/bias (3,)\nmisshapen (1):\n  b/bias (3,) not (4,)"
    assert str(again) == str(error) == text
