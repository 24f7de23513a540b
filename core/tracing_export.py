"""Spans of the OpenTelemetry SDK. Imported only if traces are on, since the SDK takes time and memory."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from core.tracing_sender import Sender
from core.version import VERSION

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_LOW = (1 << 64) - 1
_root: ContextVar[int | None] = ContextVar("root", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, except for the root span of a job, whose ids follow from the job id."""

    def generate_trace_id(self) -> int:
        root = _root.get()
        return super().generate_trace_id() if root is None else root

    def generate_span_id(self) -> int:
        root = _root.get()
        return super().generate_span_id() if root is None else root & _LOW


class _HashSampler(Sampler):
    """A sampler that decides by a hash of the trace id, since in a UUID the two bits that a ratio compares first are
    always the same.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self, parent_context: Context | None, trace_id: int, *arguments: Any, **more: Any
    ) -> SamplingResult:
        digest = hashlib.sha256(trace_id.to_bytes(16)).digest()
        return self._sampler.should_sample(parent_context, int.from_bytes(digest[:16]), *arguments, **more)

    def get_description(self) -> str:
        return self._sampler.get_description()


class Exporter:
    """Exporter of the spans of one process."""

    def __init__(self, endpoint: str, headers: str, process: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or f"async-stt-{process}"
        instance = f"{socket.gethostname()}:{os.getpid()}"
        resource = {"service.name": name, "service.version": VERSION, "service.instance.id": instance}
        self._sender = Sender(endpoint, headers)
        self._provider = TracerProvider(resource=Resource.create(resource), id_generator=_Ids(), shutdown_on_exit=False)
        self._provider.sampler = _HashSampler(self._provider.sampler)
        self._provider.add_span_processor(self._sender)
        self._tracer = self._provider.get_tracer("async-stt", VERSION)

    def stop(self) -> None:
        self._sender.shutdown()

    @contextmanager
    def submit(self, job_id: str, start: int | None, client: str) -> Iterator[None]:
        """Make the span of a submit current. start: ns since 1970; client: traceparent of its request, to link."""
        found = _context(client)
        links = [Link(found)] if found else []
        with self._span("submit", job_id, self._job(job_id), SpanKind.SERVER, links=links, start=start):
            yield

    @contextmanager
    def step(self, name: str, job_id: str, traceparent: str, attributes: Mapping[str, int]) -> Iterator[None]:
        """Make the span of a step current. traceparent: its parent, which counts if it is of this job's trace."""
        found = _context(traceparent)
        parent = found if found and found.trace_id == uuid.UUID(job_id).int else self._job(job_id)
        with self._span(name, job_id, parent, SpanKind.CONSUMER, attributes):
            yield

    @contextmanager
    def delivery(self, job_id: str) -> Iterator[None]:
        """Make the span of a webhook current."""
        with self._span("webhook", job_id, self._job(job_id), SpanKind.CLIENT):
            yield

    @contextmanager
    def _span(
        self,
        name: str,
        job_id: str,
        parent: SpanContext,
        kind: SpanKind,
        attributes: Mapping[str, int] | None = None,
        links: list[Link] | None = None,
        start: int | None = None,
    ) -> Iterator[None]:
        context = trace.set_span_in_context(NonRecordingSpan(parent), Context())
        named = {"stt.job_id": job_id} | {f"stt.{key}": value for key, value in (attributes or {}).items()}
        # the text of an exception may quote what a client sent
        with self._tracer.start_as_current_span(
            name, context, kind, named, links, start, record_exception=False, set_status_on_exception=False
        ):
            yield

    def traceparent(self, job_id: str) -> str:
        current = trace.get_current_span().get_span_context()
        if current.trace_id != uuid.UUID(job_id).int:
            current = self._job(job_id)
        return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"

    def record_error(self, code: str) -> None:
        trace.get_current_span().set_status(Status(StatusCode.ERROR, code))

    def record_job(self, job_id: str, created_at: datetime, status: str) -> None:
        token = _root.set(uuid.UUID(job_id).int)
        try:
            attributes = {"stt.job_id": job_id, "stt.status": status}
            start = int(created_at.timestamp() * 1e9)
            root = self._tracer.start_span("job", Context(), SpanKind.SERVER, attributes, start_time=start)
        finally:
            _root.reset(token)
        if status == "FAILED":
            root.set_status(Status(StatusCode.ERROR))
        root.end(time.time_ns())

    def _job(self, job_id: str) -> SpanContext:
        """Return the root span of a job. Whether it is sampled follows from the id, so all processes agree."""
        job = uuid.UUID(job_id).int
        sampled = self._provider.sampler.should_sample(Context(), job, "job").decision is Decision.RECORD_AND_SAMPLE
        return SpanContext(job, job & _LOW, is_remote=True, trace_flags=TraceFlags(int(sampled)))


def _context(traceparent: str) -> SpanContext | None:
    """Return the span that a header names, None if it names none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    flags = TraceFlags(int(traceparent[-2:], 16) & TraceFlags.SAMPLED)
    context = SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
    return context if context.is_valid else None
