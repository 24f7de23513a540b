"""One trace a job, received by a collector of the tests' own."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.clients.external_server import SAMPLE, ExternalServer
from tests.collector import Collector, Handler, run_collector
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.servers.base import free_port, get, wait_until

pytestmark = [pytest.mark.speech, pytest.mark.timeout(180)]
STEPS = ("submit", "Prepare", "Transcribe", "Finalise", "job")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with run_collector() as running:
        yield running


def settings(collector: Collector, **more: str) -> dict[str, str]:
    headers = "x-tenant=a%20b,authorization=Bearer%20abc"
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": headers, **more}


@pytest.fixture(scope="module")
def embedded(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, external_server: ExternalServer
) -> Iterator[Service]:
    more = settings(collector, WEBHOOK_ALLOWED_HOSTS=external_server.host)
    with services.embedded(tmp_path_factory.mktemp("traced"), **more) as service:
        yield service


@pytest.fixture(scope="module")
def separate(
    tmp_path_factory: pytest.TempPathFactory,
    collector: Collector,
    real_stores: dict[str, str],
    external_server: ExternalServer,
) -> Iterator[Service]:
    more = settings(collector, WEBHOOK_ALLOWED_HOSTS=external_server.host, API_WORKERS="2")
    with services.on_real_servers(tmp_path_factory.mktemp("traced-real"), {**real_stores, **more}) as service:
        yield service


@pytest.fixture(params=["embedded", pytest.param("separate", marks=pytest.mark.servers)])
def traced(request: pytest.FixtureRequest) -> Service:
    service: Service = request.getfixturevalue(request.param)
    return service


def logged(service: Service) -> list[dict[str, object]]:
    lines = [line for log in service.folder.glob("*.log") for line in log.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def is_connected(spans: list[Span]) -> bool:
    """Return True if each span but the root leads to another one of the trace."""
    ids = {span.span_id for span in spans}
    return all(span.parent_span_id in ids for span in spans if span.name != "job")


def test_one_trace_leads_from_the_upload_to_the_webhook(
    traced: Service, collector: Collector, external_server: ExternalServer
) -> None:
    path, client = f"/hook/{uuid.uuid4().hex}", uuid.uuid4().hex
    traced.client.headers["traceparent"] = f"00-{client}-{client[:16]}-01"
    job_id = traced.upload(SAMPLE, language="en", callback_url=external_server.url(path))
    del traced.client.headers["traceparent"]
    assert traced.wait(job_id)["status"] == "COMPLETED"
    [webhook] = external_server.wait_received(path)
    found = collector.wait_for(job_id, *STEPS, "webhook")
    spans = collector.of_job(job_id)
    assert is_connected(spans)
    ids = {span.span_id: span for span in spans}
    assert not found["job"].parent_span_id
    assert found["job"].end_time_unix_nano > found["job"].start_time_unix_nano
    assert [link.trace_id.hex() for link in found["submit"].links] == [client]
    assert ids[found["Prepare"].parent_span_id].name == "submit"
    assert ids[found["Transcribe"].parent_span_id].name == "Prepare"
    assert ids[found["Finalise"].parent_span_id].name == "Transcribe"
    assert {each.key: each.value.int_value for each in found["Transcribe"].attributes}["stt.chunk_index"] == 0
    assert webhook.headers["traceparent"] == f"00-{uuid.UUID(job_id).hex}-{found['webhook'].span_id.hex()}-01"
    actions = {line["action"] for line in logged(traced) if line.get("trace_id") == uuid.UUID(job_id).hex}
    assert actions >= {"job_accepted", "prepared", "chunk_completed", "job_completed", "webhook_delivered"}
    assert {each["x-tenant"] for each in collector.headers} == {"a b"}
    assert set(collector.paths) == {"/v1/traces"}


def test_a_job_that_is_retried_stays_in_its_trace(traced: Service, collector: Collector, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"no audio at all" * 100)
    job_id = traced.upload(broken)
    assert traced.wait(job_id)["status"] == "FAILED"
    found = collector.wait_for(job_id, "submit", "Prepare", "job")
    assert found["job"].status.code == Status.STATUS_CODE_ERROR
    assert found["Prepare"].status.message == "INVALID_AUDIO"
    assert traced.client.post(f"/api/v1/jobs/{job_id}/retry").status_code == 202
    assert traced.wait(job_id)["status"] == "FAILED"
    wait_until(lambda: [span.name for span in collector.of_job(job_id)].count("Prepare") == 2, "another run", 30)
    # the processes send their spans independently
    wait_until(lambda: is_connected(collector.of_job(job_id)), "the parents of all spans arrive", 30)


def test_a_job_whose_queue_was_lost_stays_in_its_trace(tmp_path: Path, collector: Collector) -> None:
    with services.embedded(tmp_path, **settings(collector)) as service:
        job_id = service.upload(SAMPLE, language="en")
        service.kill("embedded")
        service.start("embedded")
        service.wait_ready()
        assert service.wait(job_id)["status"] == "COMPLETED"
        found = collector.wait_for(job_id, "Finalise", "job")
    assert found["job"].span_id == uuid.UUID(job_id).bytes[8:]
    wait_until(lambda: is_connected(collector.of_job(job_id)), "the parents of all spans arrive", 30)


@pytest.mark.parametrize("answer", [None, Handler.endless], ids=["down", "endless"])
def test_a_bad_collector_delays_no_job(answer: object, tmp_path: Path) -> None:
    with run_collector() as bad:
        url = bad.url if answer else f"http://127.0.0.1:{free_port()}"
        bad.answer = answer or bad.answer  # type: ignore[assignment]
        with services.embedded(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url) as service:
            assert service.transcribe(SAMPLE, language="en")["text"]
            if answer is Handler.endless:
                return  # its status was 200
            wait_until(lambda: any(line.get("action") == "traces_failing" for line in logged(service)), "a warning", 60)
            metrics = get(f"{service.url}/metrics", 5).text
            assert re.search(r'^stt_spans_total\{outcome="dropped"\} [1-9]', metrics, re.MULTILINE)
        assert service.processes["embedded"].returncode == 0
