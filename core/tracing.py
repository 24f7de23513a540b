"""Traces of jobs with OpenTelemetry, exported over OTLP if OTEL_EXPORTER_OTLP_ENDPOINT is set; otherwise no call costs.

The id of a job's trace is its job id. So every process continues the same trace without stored state, also after a
message was lost and published again, and a log line with a job id leads to its trace.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog
from structlog.typing import EventDict

if TYPE_CHECKING:
    from core.tracing_export import Exporter

log = structlog.get_logger(__name__)
TRACEPARENT = "traceparent"
"""Header of W3C Trace Context, in requests, messages and webhooks."""
_exporter: Exporter | None = None
_request: ContextVar[tuple[int, str] | None] = ContextVar("request", default=None)


def configure(endpoint: str, headers: str, process: str) -> None:
    """Export traces from now on. Does nothing without an endpoint; an error costs the traces, not the process.

    endpoint: base URL of a collector. headers: for its requests, as in OTEL_EXPORTER_OTLP_HEADERS. process: which
    becomes part of the service's name.
    """
    global _exporter
    if not endpoint or _exporter is not None:
        return
    try:
        from core.tracing_export import Exporter

        _exporter = Exporter(endpoint, headers, process)
    except ImportError as error:
        log.error("no traces: install async-stt[otel]", action="traces_off", reason=str(error))  # noqa: TRY400
    except Exception as error:  # noqa: BLE001 - of the SDK, which reads variables of its own
        log.error("no traces: check OTEL_*", action="traces_off", reason=repr(error))  # noqa: TRY400


def stop() -> None:
    """Send what is not sent yet, for a short time, and export no more."""
    global _exporter
    exporter, _exporter = _exporter, None
    if exporter is not None:
        exporter.stop()


def note_request(traceparent: str) -> None:
    """Note the start of a request that may submit a job. traceparent: header of the request, or empty."""
    if _exporter is not None:
        _request.set((time.time_ns(), traceparent))


def span(
    name: str, job_id: str, headers: Mapping[str, Any] | None = None, **attributes: int | None
) -> AbstractContextManager[object]:
    """Return a context in which a span of the job's trace is current.

    headers: of the message that caused it. attributes: of the span, None is left out.
    """
    if _exporter is None or not _is_job_id(job_id):
        return nullcontext()
    known = {name: value for name, value in attributes.items() if value is not None}
    return _exporter.step(name, job_id, _parent(headers), known)


def submitted(job_id: str) -> AbstractContextManager[object]:
    """Return a context for the end of a submit, in a span that starts with its request."""
    if _exporter is None:
        return nullcontext()
    start, client = _request.get() or (None, "")
    return _exporter.submit(job_id, start, client)


def delivery(job_id: str) -> AbstractContextManager[object]:
    """Return a context for the delivery of a webhook."""
    if _exporter is None:
        return nullcontext()
    return _exporter.delivery(job_id)


def headers(job_id: str) -> dict[str, str]:
    """Return the header that makes the current span the parent of what a message of this job causes."""
    if _exporter is None or not _is_job_id(job_id):
        return {}
    return {TRACEPARENT: _exporter.traceparent(job_id)}


def carried(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the header that a repeated message takes over from the first one."""
    parent = _parent(headers)
    return {TRACEPARENT: parent} if parent else {}


def record_error(code: str) -> None:
    """Mark the current span as failed."""
    if _exporter is not None:
        _exporter.record_error(code)


def record_job(job_id: str, created_at: datetime, status: str) -> None:
    """Export the root span of a job that has just ended."""
    if _exporter is not None:
        _exporter.record_job(job_id, created_at, status)


def add_trace_id(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the trace's id to a log line about a job."""
    if _exporter is not None and _is_job_id(event.get("job_id")):
        event["trace_id"] = uuid.UUID(event["job_id"]).hex
    return event


def _is_job_id(text: Any) -> bool:
    """Return whether this is the id of a job; a message may have any text."""
    try:
        return isinstance(text, str) and uuid.UUID(text).int != 0
    except ValueError:
        return False


def _parent(headers: Mapping[str, Any] | None) -> str:
    """Return the header of a message, which may have any value."""
    value = (headers or {}).get(TRACEPARENT)
    return value[:100] if isinstance(value, str) else ""
