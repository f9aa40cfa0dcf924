"""Fetch published weight files: verified, cached, resumed after interruptions, safe for concurrent processes."""

import errno
import hashlib
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPException, HTTPResponse
from io import BufferedIOBase
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener, url2pathname

from weight_port.atomic import replace as replace_file
from weight_port.errors import DownloadError
from weight_port.published import PublishedFile, cache_folder, published_file

if sys.platform != "win32":
    import fcntl

MIRROR_VARIABLE = "FLAXAPPS_MIRROR"
TIMEOUT_SECONDS = 30.0
PAUSES_SECONDS = (1.0, 2.0, 4.0)  # before the second, third and fourth attempt
_CHUNK_BYTES = 1 << 16
_HDF5 = b"\x89HDF\r\n\x1a\n"  # its first bytes
_MOST = 2  # upper bound of a response, in expected sizes: an endless one must not fill the disk
_LARGEST = 1 << 32  # expected size in bytes if unknown; larger than any published file
_Report = Callable[[int], None]  # called with the number of bytes received
_NETWORK_ERRORS = (OSError, HTTPException)  # urllib's own errors are OSErrors
_DISK_ERRORS = {
    number
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "ENAMETOOLONG", "EIO")
    if (number := getattr(errno, name, None)) is not None  # Windows lacks some
}


def fetch(
    network: str,
    *,
    include_top: bool = True,
    variant: str = "",
    progress: bool | None = None,
    expected_size: int | None = None,
) -> Path:
    """Return the path of a network's published weight file, downloading it unless an intact copy exists.

    Args:
        network: Such as "xception".
        include_top: Whether to include the classifier's weights.
        variant: "" for the default, or one of `weight_port.published`, such as "keras2" for the ResNet50 of 2016.
        progress: As for `fetch_file`.
        expected_size: Approximate size in bytes, used if the size is not published.

    Returns:
        The path of the file.

    Raises:
        WeightError: The network or variant has no published file.
        DownloadError: As for `fetch_file`.
    """
    file = published_file(network, include_top, variant)
    return fetch_file(file if file.size else replace(file, size=expected_size), progress=progress)


def fetch_file(file: PublishedFile, *, progress: bool | None = None) -> Path:
    """Return the path of an intact copy of `file`: from the cache, else from `FLAXAPPS_MIRROR` if set, else its URL.

    A mirror is an http(s) URL or a folder; files in a mirror folder are used in place. A cached file of the same name
    with other content is not overwritten. Concurrent processes wait for one download (except on Windows, where there is
    no lock).

    Args:
        file: The file to fetch.
        progress: Show a bar on stderr (True), nothing (False), or a bar on a terminal and one line elsewhere (None).

    Raises:
        DownloadError: The download failed, the bytes are wrong, or the cache folder cannot be used.
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
        # The lock and the partial file are named after the content, because two published files share a name.
        with (folder / f"{file.alternative_name}.lock").open("ab") as lock:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed or the process ends
            return _first_intact(file, candidates) or _download(file, folder, mirror, progress)
    except OSError as error:
        raise DownloadError(
            f"Cannot use {folder} as the cache for {file.filename}: {error}. Set KERAS_HOME to a writable folder with "
            f"room for {_size(file)}, or {MIRROR_VARIABLE} to a folder that has the file."
        ) from error


def _first_intact(file: PublishedFile, candidates: tuple[Path, ...]) -> Path | None:
    for path in candidates:
        if path.is_file():
            with path.open("rb") as stream:
                if _match(file, _digests(file, stream)) and _is_plausible(file, path):
                    return path
    return None


def _is_plausible(file: PublishedFile, path: Path) -> bool:
    """Whether a file without a published hash is HDF5, and not the page of a proxy."""
    with path.open("rb") as stream:
        return bool(file.hashes) or stream.read(len(_HDF5)) == _HDF5


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
        raise DownloadError(
            f"{MIRROR_VARIABLE}={mirror} does not have {file.filename} with {file.published_hash}: {seen}."
        )
    return found


def _download(file: PublishedFile, folder: Path, mirror: str, progress: bool | None) -> Path:
    part = folder / f"{file.alternative_name}.part"
    names = [file.alternative_name, file.filename] if file.superseded else [file.filename]
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
    if intact and not _is_plausible(file, part):
        part.unlink()
        raise _failure(file, urls, part, "the received bytes are not an HDF5 file")
    if not intact:
        raise _failure(file, urls, part, f"the received bytes do not have {file.published_hash}")
    target = _target(file, folder)
    replace_file(part, target)
    return target


def _target(file: PublishedFile, folder: Path) -> Path:
    """The path in Keras's cache, or the alternative name if that is taken by other content."""
    plain = folder / file.filename
    return folder / file.alternative_name if file.superseded or plain.exists() else plain


def _bring_from_any(file: PublishedFile, urls: list[str], part: Path, report: _Report) -> bool:
    """Download the file from the first URL that has it."""
    for url in urls[:-1]:
        try:
            return _bring(file, url, part, report)
        except HTTPError as error:
            if error.code not in (403, 404):  # object stores without list permission return 403 for missing files
                raise
    return _bring(file, urls[-1], part, report)


def _bring(file: PublishedFile, url: str, part: Path, report: _Report) -> bool:
    """Complete `part`; if the bytes are wrong even after a download from the start, delete it and return False."""
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
    """Append the missing bytes to `part`; return whether it is intact, and whether it was resumed."""
    with part.open("a+b") as stream:
        digests = _digests(file, stream)
        if file.hashes and _match(file, digests):  # an earlier process was killed before it renamed the complete file
            return True, True
        # Without a hash, nobody would notice if the rest came from another version of the file.
        response, start = _request(url, stream.tell() if file.hashes else 0)
        with response:
            if start == 0:
                stream.truncate(0)
                digests = _digests(file, stream)
            position = start
            most = _most_bytes(file, response, start)
            while position <= most and (chunk := response.read1(_CHUNK_BYTES)):
                stream.write(chunk)
                for digest in digests:
                    digest.update(chunk)
                position += len(chunk)
                report(position)
        stream.flush()
        os.fsync(stream.fileno())
    intact = _match(file, digests)  # also if none is published: then only the length is checked, as in Keras
    # Without a declared length, a lost connection looks like the end of the file. The published size is used only if
    # the hashes do not match.
    lacking = response.length if response.length is not None else 0 if intact else (file.size or 0) - position
    if lacking > 0 and position <= most:
        raise ConnectionResetError(f"the connection closed {lacking:,} bytes too early")
    return intact, start > 0


def _most_bytes(file: PublishedFile, response: HTTPResponse, start: int) -> int:
    """Upper bound of the bytes to accept from a server."""
    declared = None if response.length is None else start + response.length
    return _MOST * (file.size or declared or _LARGEST)


def _size(file: PublishedFile) -> str:
    return f"{file.size:,} bytes" if file.size else "it"


def _request(url: str, start: int) -> tuple[HTTPResponse, int]:
    """Request the bytes from `start`; return the response and the position where it actually starts."""
    headers = {"User-Agent": "flaxapps/weight_port"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        # A new opener reads the current proxy variables; urlopen keeps those of its first call.
        response: HTTPResponse = build_opener().open(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if start and error.code == 416:  # range not satisfiable: the partial file is not of this file
            return _request(url, 0)
        raise
    if response.status != 206:  # the server ignores ranges and sends the whole file
        return response, 0
    if start and not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
        response.close()
        return _request(url, 0)
    return response, start


def _is_of_the_disk(error: Exception) -> bool:
    """Whether the error is of the disk; connection errors are URLErrors, also with such an errno."""
    return isinstance(error, OSError) and not isinstance(error, URLError) and error.errno in _DISK_ERRORS


def _may_pass(error: Exception) -> bool:
    """Whether the error is transient and the request should be retried."""
    if isinstance(error, HTTPError):
        return error.code in (408, 429) or error.code >= 500
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ConnectionRefusedError | ssl.SSLCertVerificationError):
        return False
    return isinstance(reason, ConnectionError | TimeoutError | ssl.SSLError | HTTPException)


def _failure(file: PublishedFile, urls: list[str], part: Path, happened: object) -> DownloadError:
    resumable = part.exists() and file.hashes
    kept = f" {part.stat().st_size:,} bytes are kept, and the next call resumes there." if resumable else ""
    return DownloadError(
        f"Could not download {file.filename} from {' or '.join(urls)}: {happened}.{kept} Put the file "
        f"({file.published_hash}) at {_target(file, part.parent)} by hand, or set {MIRROR_VARIABLE} to a URL or a "
        "folder that has it."
    )


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
        size = f" ({round(file.size / 2**20)} MB)" if file.size else ""
        unchecked = "" if file.hashes else "; Keras publishes no hash for it, so only its length is checked"
        print(f"Downloading {file.filename}{size} from {urlsplit(url).hostname}{unchecked}", file=sys.stderr)
    yield lambda position: None
