"""Fetch published weight files: verified, cached, resumed after a cut, safe with many processes at once."""

import errno
import hashlib
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException, HTTPResponse
from io import BufferedIOBase
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener, url2pathname

from weight_port.errors import DownloadError
from weight_port.published import PublishedFile, published_file

if sys.platform != "win32":
    import fcntl

MIRROR_VARIABLE = "FLAXAPPS_MIRROR"
TIMEOUT_SECONDS = 30.0
PAUSES_SECONDS = (1.0, 2.0, 4.0)  # before the second, third and fourth try
_CHUNK_BYTES = 1 << 16
_MOST = 2  # times the published size: a server that never ends shall not fill the disk
_Report = Callable[[int], None]  # told how many bytes have come
_NETWORK_ERRORS = (OSError, HTTPException)  # urllib's own errors are OSErrors
_DISK_ERRORS = {
    number
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "ENAMETOOLONG", "EIO")
    if (number := getattr(errno, name, None)) is not None  # Windows has not all of them
}


def fetch(network: str, *, include_top: bool = True, variant: str = "", progress: bool | None = None) -> Path:
    """Give the path of a network's published weight file, downloading it unless a good copy is at hand.

    Args:
        network: Such as "xception".
        include_top: Whether the classifier's weights are wanted.
        variant: "" for today's file, "keras2" for the ResNet50 of 2016.
        progress: As for `fetch_file`.

    Returns:
        The path of the file.

    Raises:
        WeightError: For a network or variant without a published file.
        DownloadError: As for `fetch_file`.
    """
    return fetch_file(published_file(network, include_top, variant), progress=progress)


def fetch_file(file: PublishedFile, *, progress: bool | None = None) -> Path:
    """Give the path of a good copy of `file`: from the cache, else from `FLAXAPPS_MIRROR` if set, else from its URL.

    A mirror is an http(s) URL or a folder; a file in a mirror folder is used where it lies. A cached file of the same
    name and another content is left alone. Concurrent processes wait for one download (except on Windows: there is
    no lock there).

    Args:
        file: What to fetch.
        progress: Show a bar on stderr (True), nothing (False), or a bar on a terminal and one line elsewhere (None).

    Raises:
        DownloadError: If the file cannot be had, its bytes are wrong, or the cache folder cannot be used.
    """
    folder = cache_folder()
    candidates = (folder / file.filename, folder / file.alternative_name)
    mirror = os.environ.get(MIRROR_VARIABLE, "")
    try:
        if cached := _first_intact(file, candidates):
            return cached
        if mirror and urlsplit(mirror).scheme not in ("http", "https"):
            return _in_mirror_folder(file, mirror)
        folder.mkdir(parents=True, exist_ok=True)
        # The lock and the partial file carry the name that belongs to this content alone.
        with (folder / f"{file.alternative_name}.lock").open("ab") as lock:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file gives it back, and so does the end of the process
            return _first_intact(file, candidates) or _download(file, folder, mirror, progress)
    except OSError as error:
        raise DownloadError(
            f"Cannot use {folder} as the cache for {file.filename}: {error}. Set KERAS_HOME to a folder that can be "
            f"written and has room for {file.size:,} bytes, or {MIRROR_VARIABLE} to a folder that has the file."
        ) from error


def cache_folder() -> Path:
    """Name the folder where Keras keeps weight files: `$KERAS_HOME/models`, or `~/.keras/models`."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"


def _first_intact(file: PublishedFile, candidates: tuple[Path, ...]) -> Path | None:
    for path in candidates:
        if path.is_file():
            with path.open("rb") as stream:
                if _match(file, _digests(file, stream)):
                    return path
    return None


def _digests(file: PublishedFile, stream: BufferedIOBase) -> list["hashlib._Hash"]:
    digests = []
    for algorithm in file.hashes:
        stream.seek(0)
        digests.append(hashlib.file_digest(stream, partial(hashlib.new, algorithm, usedforsecurity=False)))
    return digests


def _match(file: PublishedFile, digests: list["hashlib._Hash"]) -> bool:
    return [digest.hexdigest() for digest in digests] == list(file.hashes.values())


def _in_mirror_folder(file: PublishedFile, mirror: str) -> Path:
    folder = Path(url2pathname(urlsplit(mirror).path) if mirror.startswith("file:") else mirror).expanduser()
    candidates = (folder / file.alternative_name, folder / file.filename)
    found = _first_intact(file, candidates)
    if found is None:
        seen = ", ".join(f"{path} {'has other content' if path.is_file() else 'is absent'}" for path in candidates)
        raise DownloadError(f"{MIRROR_VARIABLE}={mirror} does not have {file.filename} with MD5 {file.md5}: {seen}.")
    return found


def _download(file: PublishedFile, folder: Path, mirror: str, progress: bool | None) -> Path:
    part = folder / f"{file.alternative_name}.part"
    names = [file.alternative_name, file.filename] if file.variant else [file.filename]
    urls = [f"{mirror.rstrip('/')}/{name}" for name in names] if mirror else [file.url]
    try:
        with _progress_report(file, urls[0], progress) as report:
            intact = _bring_from_any(file, urls, part, report)
    except _NETWORK_ERRORS as error:
        if _is_of_the_disk(error):
            raise
        if part.is_file() and not part.stat().st_size:
            part.unlink()
        reason = error.reason if type(error) is URLError else error
        raise _failure(file, urls, part, reason) from error
    if not intact:
        raise _failure(file, urls, part, f"the bytes that came do not have MD5 {file.md5}")
    return _publish(part, _target(file, folder))


def _target(file: PublishedFile, folder: Path) -> Path:
    """Where Keras would look, unless that belongs to another content."""
    plain = folder / file.filename
    return folder / file.alternative_name if file.variant or plain.exists() else plain


def _bring_from_any(file: PublishedFile, urls: list[str], part: Path, report: _Report) -> bool:
    """Bring the file from the first URL that has it."""
    for url in urls[:-1]:
        try:
            return _bring(file, url, part, report)
        except HTTPError as error:
            if error.code not in (403, 404):  # object stores that do not list say 403
                raise
    return _bring(file, urls[-1], part, report)


def _bring(file: PublishedFile, url: str, part: Path, report: _Report) -> bool:
    """Fill `part`; False, and no `part`, if the bytes are wrong even when fetched from the first one on."""
    intact, resumed = _try_repeatedly(file, url, part, report)
    if not intact and resumed:
        part.unlink()
        intact, _ = _try_repeatedly(file, url, part, report)
    if not intact:
        part.unlink()
    return intact


def _try_repeatedly(file: PublishedFile, url: str, part: Path, report: _Report) -> tuple[bool, bool]:
    for pause in PAUSES_SECONDS:
        try:
            return _transfer(file, url, part, report)
        except _NETWORK_ERRORS as error:
            if not _may_pass(error):
                raise
        time.sleep(pause)
    return _transfer(file, url, part, report)


def _transfer(file: PublishedFile, url: str, part: Path, report: _Report) -> tuple[bool, bool]:
    """Append to `part` what it lacks; tell whether it is intact, and whether it began in an earlier request."""
    with part.open("a+b") as stream:
        digests = _digests(file, stream)
        if _match(file, digests):  # killed between the last byte and the renaming
            return True, True
        response, start = _request(url, stream.tell())
        with response:
            if start == 0:
                stream.truncate(0)
                digests = _digests(file, stream)
            position = start
            while position <= _MOST * file.size and (chunk := response.read1(_CHUNK_BYTES)):
                stream.write(chunk)
                for digest in digests:
                    digest.update(chunk)
                position += len(chunk)
                report(position)
        stream.flush()
        os.fsync(stream.fileno())
    intact = _match(file, digests)
    # Without a declared length a cut looks like the end. The published size is only asked where hashes say no.
    lacking = response.length if response.length is not None else 0 if intact else file.size - position
    if lacking > 0 and position <= _MOST * file.size:
        raise ConnectionResetError(f"the connection closed {lacking:,} bytes too early")
    return intact, start > 0


def _request(url: str, start: int) -> tuple[HTTPResponse, int]:
    """Ask for the bytes from `start` on; gives the answer and the position it really starts at."""
    headers = {"User-Agent": "flaxapps/weight_port"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        # An opener of our own sees the proxy variables of now; urlopen's keeps those of the first call.
        response: HTTPResponse = build_opener().open(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if start and error.code == 416:  # there is no such byte: what is here is not the file
            return _request(url, 0)
        raise
    if response.status != 206:  # the server takes no ranges: here is the whole
        return response, 0
    if start and not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
        response.close()
        return _request(url, 0)
    return response, start


def _is_of_the_disk(error: Exception) -> bool:
    """Whether the folder is at fault; errors of connecting are URLErrors, whatever their number."""
    return isinstance(error, OSError) and not isinstance(error, URLError) and error.errno in _DISK_ERRORS


def _may_pass(error: Exception) -> bool:
    """Whether trying again is worthwhile: after a cut, a timeout, a busy server; not if nobody answers."""
    if isinstance(error, HTTPError):
        return error.code in (408, 429) or error.code >= 500
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ConnectionRefusedError | ssl.SSLCertVerificationError):
        return False
    return isinstance(reason, ConnectionError | TimeoutError | ssl.SSLError | HTTPException)


def _failure(file: PublishedFile, urls: list[str], part: Path, happened: object) -> DownloadError:
    kept = f" {part.stat().st_size:,} bytes are kept, and the next call goes on from there." if part.exists() else ""
    return DownloadError(
        f"Could not download {file.filename} from {' or '.join(urls)}: {happened}.{kept} Put the file (MD5 {file.md5}) "
        f"at {_target(file, part.parent)} by hand, or set {MIRROR_VARIABLE} to a URL or a folder that has it."
    )


def _publish(part: Path, target: Path) -> Path:
    os.replace(part, target)
    if sys.platform != "win32":  # the renaming itself must outlive a power cut
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return target


@contextmanager
def _progress_report(file: PublishedFile, url: str, wanted: bool | None) -> Iterator[_Report]:
    if wanted or (wanted is None and sys.stderr.isatty()):
        from rich.console import Console
        from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

        columns = (*Progress.get_default_columns(), DownloadColumn(binary_units=True), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(file.filename, total=file.size)
            yield lambda position: bar.update(task, completed=position)
        return
    if wanted is None:
        megabytes = round(file.size / 2**20)
        print(f"Downloading {file.filename} ({megabytes} MB) from {urlsplit(url).hostname}", file=sys.stderr)
    yield lambda position: None
