"""The port on which consumers and schedulers serve their metrics. The API serves its own as a route."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)
REQUEST_SECONDS = 10.0
"""Seconds for a request to arrive, and for each part of its response to be accepted."""
MAX_REQUESTS = 8
"""Requests at a time; further ones are closed."""


class MetricsServer:
    """A server of `GET /metrics` in threads of its own, so that a busy event loop does not delay a scrape."""

    def __init__(self, host: str, port: int, metrics: Collector) -> None:
        """port: 0 for no server."""
        self._address, self._metrics = (host, port), metrics
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start serving. If the port cannot be used, log it and go on, because work matters more than its figures."""
        host, port = self._address
        if port == 0 or self._server is not None:
            return
        handler = type("Handler", (_Handler,), {"metrics": self._metrics})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            log.warning(
                "no metrics are served, choose another port",
                action="metrics_off",
                host=host,
                port=port,
                reason=str(error),
            )
            return
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        log.info("metrics are served", action="metrics_served", url=f"http://{host}:{port}/metrics")

    def stop(self) -> None:
        """Close the port. Idempotent."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            server.server_close()
            self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.Semaphore(MAX_REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: object, client_address: object) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)  # type: ignore[arg-type]
        else:
            self.shutdown_request(request)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("scrape failed", action="scrape_failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    metrics: ClassVar[Collector]
    timeout = REQUEST_SECONDS
    server_version, sys_version = "async-stt", ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = generate_latest(self.metrics)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no line per scrape."""
