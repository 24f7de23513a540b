"""Server-sent events, read by a third-party client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.clients.external_server import SAMPLE
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.speech import encode, recording

pytestmark = [pytest.mark.speech, pytest.mark.timeout(300)]
FINAL = ("completed", "failed", "cancelled")


def read(service: Service, job_id: str, last_id: str | None = None, count: int | None = None) -> list[ServerSentEvent]:
    """Read events up to the final one, or the first `count`."""
    events: list[ServerSentEvent] = []
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    url = f"{service.url}/api/v1/jobs/{job_id}/events"
    with httpx.Client(timeout=60) as client, connect_sse(client, "GET", url, headers=headers) as source:
        for event in source.iter_sse():
            events.append(event)
            if event.event in FINAL or (count and len(events) >= count):
                return events
    return events


def segments(events: list[ServerSentEvent]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if event.event == "segment"]


@pytest.fixture
def long_recording(tmp_path: Path) -> Path:
    return encode(recording("en", 28, seed=83)[0], tmp_path / "long.mp3")


def test_events_follow_the_transcription(service: Service, long_recording: Path) -> None:
    """Each segment arrives once, in order, before the final event; event ids only increase."""
    job_id = service.upload(long_recording, language="en")
    events = read(service, job_id)
    assert events[-1].event == "completed"
    assert json.loads(events[-1].data)["progress"] == 100.0
    result = service.client.get(f"/api/v1/result/{job_id}").json()
    received = segments(events)
    assert [segment["text"] for segment in received] == [segment["text"] for segment in result["segments"]]
    assert [segment["id"] for segment in received] == list(range(len(received)))
    numbers = [int(event.id) for event in events if event.id]
    assert numbers == sorted(numbers)
    kinds = [event.event for event in events]
    assert kinds.index("segment") < len(kinds) - 1 - kinds[::-1].index("progress")


def test_a_reconnecting_client_receives_the_remaining_events(service: Service, long_recording: Path) -> None:
    """Disconnect after each event in turn: the events before and after the reconnect add up to the whole stream."""
    job_id = service.upload(long_recording, language="en")
    service.wait(job_id)
    events = read(service, job_id)
    texts = [segment["text"] for segment in segments(events)]
    for index in range(1, len(events)):
        # clients send the id of the last event that had one
        last_id = next((event.id for event in reversed(events[:index]) if event.id), "0")
        before = segments(events[:index])
        after = segments(read(service, job_id, last_id))
        unrepeated = [segment for segment in before if segment["id"] < (after[0]["id"] if after else len(texts))]
        assert [segment["text"] for segment in unrepeated + after] == texts


def test_the_final_event_is_not_sent_twice(service: Service) -> None:
    job_id = service.upload(SAMPLE, language="en")
    last_id = read(service, job_id)[-1].id
    answer = service.client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last_id})
    assert answer.status_code == 204


def test_an_invalid_last_event_id_is_ignored(service: Service) -> None:
    job_id = service.upload(SAMPLE, language="en")
    service.wait(job_id)
    for last_id in ("x", "-1", "1.5", "9" * 400, "9" * 5000):
        answer = service.client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last_id})
        assert answer.status_code in (200, 204)


def test_a_client_resumes_after_an_api_restart(real_service: Service, long_recording: Path) -> None:
    job_id = real_service.upload(long_recording, language="en")
    first = read(real_service, job_id, count=3)
    real_service.kill("api")
    real_service.start("api")
    real_service.wait_ready()
    last_id = next((event.id for event in reversed(first) if event.id), "0")
    remaining = read(real_service, job_id, last_id)
    assert remaining[-1].event == "completed"
    ids = {segment["id"] for segment in segments(first + remaining)}
    assert ids == set(range(len(real_service.client.get(f"/api/v1/result/{job_id}").json()["segments"])))


def test_cancelled_and_failed_jobs_have_a_final_event(service: Service, long_recording: Path, tmp_path: Path) -> None:
    job_id = service.upload(long_recording, language="en", priority="low")
    service.client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert read(service, job_id)[-1].event in ("cancelled", "completed")
    nonsense = tmp_path / "nonsense.mp3"
    nonsense.write_bytes(b"no sound at all " * 500)
    failed = read(service, service.upload(nonsense))[-1]
    assert (failed.event, json.loads(failed.data)["error_code"]) == ("failed", "INVALID_AUDIO")


def test_an_open_stream_does_not_delay_shutdown(tmp_path: Path, long_recording: Path) -> None:
    """SIGTERM while a client is connected."""
    with services.embedded(tmp_path) as service:
        job_id = service.upload(long_recording, language="en")
        with httpx.stream("GET", f"{service.url}/api/v1/jobs/{job_id}/events", timeout=60):
            process = service.processes.pop("embedded")
            process.terminate()
            assert process.wait(60) == 0
