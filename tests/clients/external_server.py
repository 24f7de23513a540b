"""An external server on loopback: media to fetch, served correctly and incorrectly, and a webhook receiver."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.e2e.service import ROOT
from tests.servers.base import free_port, wait_until

SAMPLE = ROOT / "assets" / "samples" / "hello.en.mp3"


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ExternalServer:
    """The server's state. fetched: paths requested; received: webhooks; statuses: by path, each used once."""

    port: int
    fetched: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    statuses: dict[str, list[int]] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def wait_received(self, path: str, count: int = 1, seconds: float = 30) -> list[Received]:
        wait_until(lambda: len(self.received_at(path)) >= count, f"{count} webhooks at {path}", seconds)
        return self.received_at(path)

    def received_at(self, path: str) -> list[Received]:
        return [webhook for webhook in self.received if webhook.path == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.state.fetched.append(path)
        planned = self.server.state.statuses.get(path)
        if planned:
            self._answer(planned.pop(0))
            return
        PATHS.get(path.split("/")[1], _Handler._sample)(self)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.state.received.append(Received(self.path, headers, body))
        planned = self.server.state.statuses.get(self.path)
        self._answer(planned.pop(0) if planned else 200)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _sample(self) -> None:
        self._answer(200, SAMPLE.read_bytes(), Content_Type="audio/mpeg")

    def _status(self) -> None:
        """Answer /status/403 with 403."""
        self._answer(int(self.path.split("/")[2]))

    def _redirect(self) -> None:
        """Answer /redirect/3 with three redirects to the sample; /redirect/loop redirects forever."""
        count = self.path.split("/")[2]
        location = (
            "/redirect/loop" if count == "loop" else "/clip.mp3" if count == "0" else f"/redirect/{int(count) - 1}"
        )
        self._answer(302, Location=location)

    def _inside(self) -> None:
        """Redirect to an address that must not be fetched."""
        self._answer(302, Location="http://127.0.0.1:1/secret")

    def _compressed(self) -> None:
        self._answer(200, b"\x1f\x8b" + bytes(100), Content_Encoding="gzip")

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 20))

    def _broken(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(bytes(1000))
        self.close_connection = True

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.2)


PATHS: dict[str, Callable[[_Handler], None]] = {
    "status": _Handler._status,
    "redirect": _Handler._redirect,
    "inside": _Handler._inside,
    "compressed": _Handler._compressed,
    "endless": _Handler._endless,
    "broken": _Handler._broken,
    "drip": _Handler._drip,
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: ExternalServer) -> None:
        super().__init__(("127.0.0.1", state.port), _Handler)
        self.state = state

    def handle_error(self, *_: object) -> None:
        """Ignore errors: clients disconnect on purpose."""


@contextlib.contextmanager
def run_external_server() -> Iterator[ExternalServer]:
    state = ExternalServer(free_port())
    server = _Server(state)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
