"""A server on loopback that is not ours: recordings to fetch, well and badly served, and a receiver of webhooks."""

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
    """asked: paths that were fetched; received: what was posted; answers: statuses by path, used up one by one."""

    port: int
    asked: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def wait_received(self, path: str, count: int = 1, seconds: float = 30) -> list[Received]:
        wait_until(lambda: len(self.at(path)) >= count, f"{count} webhooks at {path}", seconds)
        return self.at(path)

    def at(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.state.asked.append(path)
        planned = self.server.state.answers.get(path)
        if planned:
            self._answer(planned.pop(0))
            return
        PATHS.get(path.split("/")[1], _Handler._sample)(self)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.state.received.append(Received(self.path, headers, body))
        planned = self.server.state.answers.get(self.path)
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
        """/status/403"""
        self._answer(int(self.path.split("/")[2]))

    def _redirect(self) -> None:
        """/redirect/3: as many steps to the sample; /redirect/loop: for ever."""
        left = self.path.split("/")[2]
        there = "/redirect/loop" if left == "loop" else "/clip.mp3" if left == "0" else f"/redirect/{int(left) - 1}"
        self._answer(302, Location=there)

    def _inside(self) -> None:
        """Off to where nobody may be sent."""
        self._answer(302, Location="http://127.0.0.1:1/secret")

    def _packed(self) -> None:
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
    "packed": _Handler._packed,
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
        """Clients hang up here on purpose."""


@contextlib.contextmanager
def served() -> Iterator[ExternalServer]:
    state = ExternalServer(free_port())
    server = _Server(state)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
