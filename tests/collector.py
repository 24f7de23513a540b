"""A collector of traces: OTLP over HTTP, in the tests' own process, correct or hostile."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers.base import wait_until


@dataclass
class Collector:
    """The spans that arrived. answer: writes the response to a request; stopped: set when the test ends."""

    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answer: Callable[[Handler], None] = field(default=lambda handler: handler.status(200))
    stopped: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def spans(self) -> list[Span]:
        scopes = [
            scope
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
        ]
        return [span for scope in scopes for span in scope.spans]

    def of_job(self, job_id: str) -> list[Span]:
        """Return the spans of a job's trace, as far as they have arrived."""
        trace = uuid.UUID(job_id).bytes
        return [span for span in self.spans if span.trace_id == trace]

    def wait_for(self, job_id: str, *names: str) -> dict[str, Span]:
        """Wait for spans of these names; return the last one of each name."""
        wait_until(lambda: {span.name for span in self.of_job(job_id)} >= set(names), f"the spans {names}", 30)
        return {span.name: span for span in self.of_job(job_id)}


class Handler(BaseHTTPRequestHandler):
    """A handler of one connection, with the ways to answer."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        return

    def do_POST(self) -> None:
        collector = self.server.collector
        body = self.rfile.read(int(self.headers["content-length"]))
        collector.paths.append(self.path)
        collector.headers.append({name.lower(): value for name, value in self.headers.items()})
        collector.requests.append(ExportTraceServiceRequest.FromString(gzip.decompress(body)))
        with contextlib.suppress(OSError):
            collector.answer(self)

    def do_GET(self) -> None:
        self.server.collector.paths.append(self.path)
        self.status(200)

    def status(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def endless(self) -> None:
        """Send a body without end."""
        self.send_response(200)
        self.end_headers()
        while not self.server.collector.stopped.is_set():
            self.wfile.write(bytes(1 << 16))

    def silent(self) -> None:
        """Send nothing until the test ends."""
        self.server.collector.stopped.wait()

    def garbage(self) -> None:
        """Send what is not HTTP."""
        self.wfile.write(b"\xff\x00 not HTTP\r\n" * 1000)
        self.close_connection = True

    def long_header(self) -> None:
        """Send headers of a megabyte."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000)
        self.close_connection = True

    def dripping(self) -> None:
        """Send a header in pieces, without end."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.server.collector.stopped.is_set():
            self.wfile.write(b"x")
            time.sleep(0.05)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, collector: Collector) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.collector = collector
        collector.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Ignore errors: clients disconnect on purpose."""


@contextlib.contextmanager
def run_collector() -> Iterator[Collector]:
    collector = Collector()
    server = _Server(collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        collector.stopped.set()
        server.shutdown()
        server.server_close()
