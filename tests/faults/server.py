"""A server on the loopback interface that misbehaves as it is told to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """How the server answers one request."""

    status: int = 200
    body: bytes | None = None  # the server's content
    stop_after: int | None = None  # bytes of the answer, after which the connection is cut
    honours_range: bool = True
    false_range: bool = False
    wait_seconds: float = 0.0
    waits_for_release: bool = False  # rather than cutting
    declares_length: bool = True
    endless: bool = False  # the body again and again
    headers: dict[str, str] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        answer = self.server.answer(self.path)
        body = self.server.content if answer.body is None else answer.body
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and answer.honours_range else 0
        status = answer.status
        if status == 200 and start:
            status = 206 if start < len(body) else 416
        payload = body[start:] if status in (200, 206) else b""
        sent = payload[: answer.stop_after]
        self.server.requests.append((self.path, wanted, len(sent)))
        time.sleep(answer.wait_seconds)
        self.send_response(status)
        if answer.declares_length:
            self.send_header("Content-Length", str(len(payload)))
        if status == 206:
            shown = 0 if answer.false_range else start
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)
        while answer.endless and self.server.sent < 1 << 28:
            self.wfile.write(sent)
            self.server.sent += len(sent)
        if answer.waits_for_release:
            self.wfile.flush()
            self.server.release.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # closing the server waits for them
    request_queue_size = 64

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.files: dict[str, bytes] = {}  # if any are named, every other path is 404
        self.answers: list[Answer] = []  # then `content`
        self.requests: list[tuple[str, str | None, int]] = []  # path, Range, bytes sent
        self.sent = 0  # bytes of endless answers
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> Answer:
        if self.answers:
            return self.answers.pop(0)
        if self.files and path not in self.files:
            return Answer(status=404)
        return Answer(body=self.files.get(path))

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that are killed


@contextmanager
def running_server(content: bytes) -> Iterator[Server]:
    """A server of `content` at every path, until told otherwise."""
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
