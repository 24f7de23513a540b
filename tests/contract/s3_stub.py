"""An S3 server that misbehaves on purpose: slow, with truncated answers, out of space, or not S3 at all."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.servers.base import free_port

LOCATION = b'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>'


@dataclass
class Answer:
    """The answer to all requests but those for the bucket's location. length: the Content-Length (None: the real one).

    taken: size of the last body sent here, reported by HEAD if there is no `body`; stored: the size that HEAD reports
    instead. ends: no Content-Length; the connection's end marks the body's end.

    mib_per_second: rate at which request bodies are read (None: unlimited). keep: keep connections open between
    requests. seen: methods requested, in order.

    only: suffix of the only key that gets this answer; every other object exists and contains `x`. encoding: the
    Content-Encoding of the body.
    """

    status: int = 200
    body: bytes = b""
    length: int | None = None
    mib_per_second: float | None = None
    keep: bool = True
    taken: int = 0
    stored: int | None = None
    ends: bool = False
    only: str | None = None
    encoding: str | None = None
    seen: list[str] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect, which the tests provoke; show all other errors."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def stub(answer: Answer) -> Iterator[str]:
    """Run the server and yield its host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def reply(self) -> None:
            answer.seen.append(self.command)
            self._take_body()
            if answer.only is not None and not urlsplit(self.path).path.endswith(answer.only):
                self._serve_another()
                return
            location = "location" in self.path
            body = LOCATION if location else answer.body
            self.send_response(200 if location else answer.status)
            length = len(body) if location or answer.length is None else answer.length
            if self.command == "HEAD" and not body:
                length = answer.taken if answer.stored is None else answer.stored
            if not answer.ends or location:
                self.send_header("Content-Length", str(length))
            self.send_header("Content-Type", "application/xml")
            self.send_header("ETag", '"x"')
            self.send_header("Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT")
            if answer.encoding and not location:
                self.send_header("Content-Encoding", answer.encoding)
            if not answer.keep:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                self.close_connection = length != len(body) or answer.ends or not answer.keep

        def _serve_another(self) -> None:
            body = LOCATION if "location" in self.path else b"x" if self.command == "GET" else b""
            self.send_response(204 if self.command == "DELETE" else 200)
            self.send_header("Content-Length", str(len(body) if self.command != "HEAD" else 1))
            self.send_header("ETag", '"x"')
            self.send_header("Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def _take_body(self) -> None:
            remaining = int(self.headers.get("Content-Length", 0))
            if self.command in ("PUT", "POST"):
                answer.taken = remaining
            while remaining > 0:
                got = len(self.rfile.read(min(remaining, 128 * 1024)))
                if not got:
                    return
                remaining -= got
                if answer.mib_per_second:
                    time.sleep(got / (answer.mib_per_second * 2**20))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = reply

    server = Server(("127.0.0.1", free_port()), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
