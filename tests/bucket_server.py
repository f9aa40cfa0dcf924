"""Google Cloud Storage on this machine: `gcp-storage-emulator`, with the conditions on generations that it lacks.

Whoever stores what several processes write (tensorstore, under Orbax) reads an object's generation with its contents,
and writes only if that is still the object's: https://cloud.google.com/storage/docs/request-preconditions
"""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

pytest.importorskip("gcp_storage_emulator", reason="a bucket needs gcp-storage-emulator and gcsfs")

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage


@contextmanager
def bucket_server(bucket: str) -> Iterator[dict[str, str]]:
    """Serves an empty bucket; what has to be in the environment of processes that use it.

    Not in that of this one: libraries look there once.
    """
    storage = Storage(use_memory_fs=True)
    create_bucket(bucket, storage)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, storage, threading.RLock()))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield {
            "STORAGE_EMULATOR_HOST": address,  # gcsfs, google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GOOGLE_CLOUD_PROJECT": "none",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(RequestHandler):
    def __init__(self, storage: Storage, lock: threading.RLock, *arguments: Any):
        self.lock = lock
        super().__init__(storage, *arguments)

    def do_GET(self) -> None:  # noqa: N802  (http.server wants it)
        with self.lock:
            super().do_GET()

    def do_DELETE(self) -> None:  # noqa: N802  (http.server wants it)
        with self.lock:
            super().do_DELETE()

    def do_PUT(self) -> None:  # noqa: N802  (http.server wants it)
        with self.lock:
            super().do_PUT()

    def do_POST(self) -> None:  # noqa: N802  (http.server wants it)
        with self.lock:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            wanted = self._query("ifGenerationMatch")
            named = re.search(rb'"name": ?"(.+?)"', body) if self._query("uploadType") == "multipart" else None
            if wanted in (None, self._generation(named[1].decode() if named else None)):
                self.rfile = io.BufferedReader(io.BytesIO(body))
                super().do_POST()
            else:
                self.send_response(412)
                self.send_header("Content-Length", "0")
                super().end_headers()

    def end_headers(self) -> None:
        if self.command == "GET" and self._query("alt") == "media":
            self.send_header("x-goog-generation", self._generation())
        super().end_headers()

    def _query(self, name: str) -> str | None:
        return parse_qs(urlsplit(self.path).query).get(name, [None])[0]

    def _generation(self, name: str | None = None) -> str:
        """Of the object that the request is about; "0" where there is none."""
        _, _, place = urlsplit(self.path).path.partition("/b/")
        bucket, _, rest = place.partition("/o")
        try:
            found = self.storage.get_file_obj(bucket, name or self._query("name") or unquote(rest.removeprefix("/")))
        except NotFound:
            return "0"
        return str(found["generation"])
