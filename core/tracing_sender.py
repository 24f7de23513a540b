"""Sending of spans to a collector (OTLP over HTTP), in a thread. A collector that is down or slow costs only spans."""

from __future__ import annotations

import contextlib
import gzip
import queue
import threading
from collections.abc import Sequence

import httpx
import structlog
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.util.re import parse_env_headers

from core.metrics import SPANS

log = structlog.get_logger(__name__)
CAPACITY = 4096
"""Spans that wait for the collector, about 8 MB; further ones are dropped."""
BATCH = 512
INTERVAL = 1.0
"""Seconds for which spans are collected before they are sent."""
TIMEOUT = 5.0
"""Seconds without progress after which a request fails."""
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each repetition of a request, after which its spans are dropped."""
STOP_TIMEOUT = 2.0
"""Seconds for sending the last spans at shutdown."""
REPEATABLE = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP allows a repetition."""


class Sender(SpanProcessor):
    """Sender of the sampled spans of one process."""

    def __init__(self, endpoint: str, headers: str) -> None:
        """endpoint: base URL of the collector. headers: `name=value`, separated by commas, values URL-encoded.

        Raises ValueError, httpx.InvalidURL.
        """
        self._url = httpx.URL(f"{endpoint.rstrip('/')}/v1/traces")
        self._client = httpx.Client(
            headers={
                **parse_env_headers(headers, liberal=True),
                "Content-Type": "application/x-protobuf",
                "Content-Encoding": "gzip",
            },
            timeout=TIMEOUT,
            # the body of a response is never read, so no connection is used twice
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._waiting: queue.Queue[ReadableSpan] = queue.Queue(CAPACITY)
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="send spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, or drop it if the queue is full."""
        if not span.context or not span.context.trace_flags.sampled:
            return
        try:
            self._waiting.put_nowait(span)
        except queue.Full:
            SPANS.labels("dropped").inc()

    def shutdown(self) -> None:
        """Send what is queued, within STOP_TIMEOUT seconds. Idempotent."""
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(INTERVAL)
            while batch := self._next_batch():
                self._send(batch)

    def _next_batch(self) -> list[ReadableSpan]:
        batch: list[ReadableSpan] = []
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH:
                batch.append(self._waiting.get_nowait())
        return batch

    def _send(self, batch: Sequence[ReadableSpan]) -> None:
        try:
            reason = self._post_with_retries(gzip.compress(encode_spans(batch).SerializeToString(), 1))
        except Exception as error:  # noqa: BLE001 - the thread has to go on, whatever the collector sends
            reason = repr(error)
        SPANS.labels("dropped" if reason else "sent").inc(len(batch))
        self._log(reason)

    def _post_with_retries(self, body: bytes) -> str:
        """Return why the collector did not accept the spans, empty if it did."""
        reason, repeatable = self._post(body)
        for delay in RETRY_DELAYS:
            if not repeatable or self._stopping.wait(delay):
                break
            reason, repeatable = self._post(body)
        return reason

    def _post(self, body: bytes) -> tuple[str, bool]:
        """Return why one request failed, empty if it did not, and whether it may be repeated."""
        try:
            with self._client.stream("POST", self._url, content=body) as response:
                status = response.status_code
        except httpx.TransportError as error:
            return repr(error), True
        return ("" if 200 <= status < 300 else f"status {status}"), status in REPEATABLE

    def _log(self, reason: str) -> None:
        """Log the first failure and the first success after it."""
        if bool(reason) == self._failing:
            return
        self._failing = bool(reason)
        host = f"{self._url.scheme}://{self._url.netloc.decode()}"
        if reason:
            log.warning(
                "spans dropped: check OTEL_EXPORTER_OTLP_ENDPOINT and the collector; jobs are not affected",
                action="traces_failing",
                collector=host,
                reason=reason,
            )
        else:
            log.info("spans are sent again", action="traces_sent", collector=host)
