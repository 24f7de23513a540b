"""A front of the service that answers some requests itself, as a proxy or a busy service does."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

HOP = ("connection", "transfer-encoding", "content-length", "host", "server", "date")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to one request. body: text; a problem with a code of its own by default."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass
class Front:
    """The front's state. answers: given to the next requests, in this order; requests: lines and headers received."""

    target: str
    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        front = self.server.front
        headers = {name.lower(): value for name, value in self.headers.items()}
        front.requests.append((f"{self.command} {self.path}", headers))
        body = self.rfile.read(int(headers.get("content-length", 0)))
        if front.answers:
            answer = front.answers.pop(0)
            problem = json.dumps({"code": f"PLANNED_{answer.status}", "detail": "planned", "status": answer.status})
            self._answer(answer.status, answer.headers, (problem if answer.body is None else answer.body).encode())
            return
        sent = {name: value for name, value in headers.items() if name not in HOP}
        response = httpx.request(self.command, front.target + self.path, headers=sent, content=body, timeout=60)
        kept = {name: value for name, value in response.headers.items() if name.lower() not in HOP}
        self._answer(response.status_code, kept, response.content)

    do_POST = do_DELETE = do_GET

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    front: Front
    daemon_threads = True


@contextlib.contextmanager
def run_front(target: str, port: int) -> Iterator[Front]:
    """Run a front of the service at `target` on a loopback port."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.front = Front(target, f"http://127.0.0.1:{port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.front
    finally:
        server.shutdown()
        server.server_close()
