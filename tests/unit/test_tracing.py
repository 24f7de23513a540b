"""Traces within one process: which message belongs to which trace, and a collector that misbehaves."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from core import tracing, tracing_sender
from tests.collector import Collector, Handler, run_collector
from tests.servers.base import wait_until

ROOT = "job"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_collector() as running:
        yield running


@pytest.fixture
def traced(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Trace to the collector, with short delays."""
    monkeypatch.setattr(tracing_sender, "INTERVAL", 0.01)
    monkeypatch.setattr(tracing_sender, "RETRY_DELAYS", (0.01, 0.01))
    monkeypatch.setattr(tracing_sender, "TIMEOUT", 0.3)
    monkeypatch.setattr(tracing_sender, "STOP_TIMEOUT", 20.0)
    tracing.configure(collector.url, "", "test")
    yield collector
    tracing.stop()


def outcomes() -> dict[str, float]:
    return {
        outcome: REGISTRY.get_sample_value("stt_spans_total", {"outcome": outcome}) or 0.0
        for outcome in ("sent", "dropped")
    }


def low(job_id: str) -> bytes:
    """Return the id of the root span of a job."""
    return uuid.UUID(job_id).bytes[8:]


def test_without_a_collector_nothing_is_traced() -> None:
    job_id = str(uuid.uuid4())
    with tracing.span("Prepare", job_id), tracing.submitted(job_id), tracing.delivery(job_id):
        assert tracing.headers(job_id) == {}
    tracing.record_error("X")
    tracing.record_job(job_id, datetime.now(UTC), "FAILED")
    assert tracing.add_trace_id(None, "info", {"job_id": job_id}) == {"job_id": job_id}


@pytest.mark.parametrize(
    "value",
    [
        *("", "x" * 10_000, "00-zz", b"00-" * 20, None, 7, ["00"], {"a": "b"}),
        f"00-{'1' * 32}-{'2' * 16}-01",
        f"00-{'0' * 32}-{'0' * 16}-01",
        f"ff-{'1' * 32}-{'2' * 16}-01",
    ],
    ids=repr,
)
def test_a_message_cannot_choose_its_trace(value: Any, traced: Collector) -> None:
    job_id = str(uuid.uuid4())
    with tracing.span("Prepare", job_id, {"traceparent": value}):
        assert tracing.headers(job_id)["traceparent"].startswith(f"00-{uuid.UUID(job_id).hex}-")
    [span] = traced.wait_for(job_id, "Prepare").values()
    assert span.parent_span_id == low(job_id)


@pytest.mark.parametrize("job_id", ["", "no job", "0" * 32, str(uuid.UUID(int=0)), "{" * 5000])
def test_what_is_no_job_has_no_trace(job_id: str, traced: Collector) -> None:
    with tracing.span("Prepare", job_id):
        assert tracing.headers(job_id) == {}
    assert "trace_id" not in tracing.add_trace_id(None, "info", {"job_id": job_id})
    assert "trace_id" not in tracing.add_trace_id(None, "info", {"job_id": 7})


def test_a_job_of_another_trace_is_not_a_child_of_the_current_span(traced: Collector) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    with tracing.span("Prepare", first):
        assert tracing.headers(second)["traceparent"] == f"00-{uuid.UUID(second).hex}-{low(second).hex()}-01"


def test_the_root_span_is_that_of_the_job(traced: Collector) -> None:
    job_id, created = str(uuid.uuid4()), datetime(2026, 1, 1, tzinfo=UTC)
    tracing.record_job(job_id, created, "COMPLETED")
    [root] = traced.wait_for(job_id, ROOT).values()
    assert (root.span_id, root.parent_span_id) == (low(job_id), b"")
    assert root.start_time_unix_nano == int(created.timestamp() * 1e9)


def test_log_lines_of_a_job_have_the_id_of_its_trace(traced: Collector) -> None:
    job_id = str(uuid.uuid4())
    with structlog.contextvars.bound_contextvars(job_id=job_id):
        event = structlog.contextvars.merge_contextvars(None, "info", {})
    assert tracing.add_trace_id(None, "info", event)["trace_id"] == uuid.UUID(job_id).hex


def test_an_exception_ends_its_span_without_its_text(traced: Collector) -> None:
    job_id = str(uuid.uuid4())
    with pytest.raises(ValueError, match="secret"), tracing.span("Prepare", job_id):
        raise ValueError("secret words of a client")
    [span] = traced.wait_for(job_id, "Prepare").values()
    assert b"secret" not in span.SerializeToString()


def test_a_ratio_keeps_whole_traces(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    tracing.configure(collector.url, "", "test")
    jobs = [str(uuid.uuid4()) for _ in range(40)]
    for job_id in jobs:
        with tracing.span("Prepare", job_id):
            parent = tracing.headers(job_id)
        with tracing.span("Transcribe", job_id, parent):
            pass
        tracing.record_job(job_id, datetime.now(UTC), "COMPLETED")
    tracing.stop()
    counts = [len(collector.of_job(job_id)) for job_id in jobs]
    assert set(counts) == {0, 3}


@pytest.mark.parametrize("answer", [Handler.garbage, Handler.long_header, Handler.silent], ids=lambda way: way.__name__)
def test_spans_that_a_collector_does_not_take_are_dropped(answer: Callable[[Handler], None], traced: Collector) -> None:
    before = outcomes()
    traced.answer = answer
    with capture_logs() as logs:
        with tracing.span("Prepare", str(uuid.uuid4())):
            pass
        tracing.stop()
    assert outcomes()["dropped"] == before["dropped"] + 1
    [line] = [line for line in logs if line["action"] == "traces_failing"]
    assert line["collector"] == traced.url


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 429, 500, 503])
def test_a_status_that_is_no_success_drops_the_spans(status: int, traced: Collector) -> None:
    before = outcomes()
    traced.answer = lambda handler: handler.status(status, Location=f"{traced.url}/elsewhere")
    with tracing.span("Prepare", str(uuid.uuid4())):
        pass
    tracing.stop()
    assert outcomes()["dropped"] == before["dropped"] + 1
    assert set(traced.paths) == {"/v1/traces"}


def test_a_collector_that_recovers_gets_the_spans(traced: Collector) -> None:
    answers = iter((503, 200))
    traced.answer = lambda handler: handler.status(next(answers, 200))
    job_id = str(uuid.uuid4())
    with tracing.span("Prepare", job_id):
        pass
    before = outcomes()
    wait_until(lambda: len(traced.of_job(job_id)) == 2, "the spans are sent again")
    tracing.stop()
    assert outcomes()["dropped"] == before["dropped"]


def test_a_full_queue_drops_spans_and_delays_nobody(traced: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outcomes()
    traced.answer = Handler.dripping
    monkeypatch.setattr(tracing_sender, "STOP_TIMEOUT", 0.1)
    for _ in range(tracing_sender.CAPACITY + tracing_sender.BATCH + 10):
        tracing.record_job(str(uuid.uuid4()), datetime.now(UTC), "COMPLETED")
    assert outcomes()["dropped"] >= before["dropped"] + 10
    tracing.stop()


def test_a_body_without_end_is_not_read(traced: Collector) -> None:
    traced.answer = Handler.endless
    job_id = str(uuid.uuid4())
    with tracing.span("Prepare", job_id):
        pass
    traced.wait_for(job_id, "Prepare")
    tracing.stop()


@pytest.mark.parametrize("headers", ["", "a=b", "broken", "a=b,,c=%0d%0aX-Evil: 1", "é=ü", "x" * 100_000])
def test_headers_of_any_form_end_no_process(headers: str, collector: Collector) -> None:
    tracing.configure(collector.url, headers, "test")
    with tracing.span("Prepare", str(uuid.uuid4())):
        pass
    tracing.stop()


def test_an_unusable_variable_of_the_sdk_costs_the_traces_only(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "=,=;%zz")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "unknown")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    with capture_logs() as logs:
        tracing.configure(collector.url, "", "test")
    with tracing.span("Prepare", str(uuid.uuid4())):
        pass
    tracing.stop()
    assert all(line["action"] == "traces_off" for line in logs)
