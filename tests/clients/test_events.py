"""Server-sent events, read by a third party's client."""

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


def read(service: Service, job_id: str, last: str | None = None, count: int | None = None) -> list[ServerSentEvent]:
    """Until the end, or the first `count`."""
    found: list[ServerSentEvent] = []
    headers = {} if last is None else {"Last-Event-ID": last}
    url = f"{service.url}/api/v1/jobs/{job_id}/events"
    with httpx.Client(timeout=60) as client, connect_sse(client, "GET", url, headers=headers) as source:
        for event in source.iter_sse():
            found.append(event)
            if event.event in FINAL or (count and len(found) >= count):
                return found
    return found


def segments(events: list[ServerSentEvent]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if event.event == "segment"]


@pytest.fixture
def long_recording(tmp_path: Path) -> Path:
    return encode(recording("en", 48, seed=83)[0], tmp_path / "long.mp3")


def test_a_recording_as_it_is_heard(service: Service, long_recording: Path) -> None:
    """Every segment once, in order of the recording, before the end; numbers only rise."""
    job_id = service.upload(long_recording, language="en")
    events = read(service, job_id)
    assert events[-1].event == "completed"
    assert json.loads(events[-1].data)["progress"] == 100.0
    result = service.client.get(f"/api/v1/result/{job_id}").json()
    told = segments(events)
    assert [segment["text"] for segment in told] == [segment["text"] for segment in result["segments"]]
    assert [segment["id"] for segment in told] == list(range(len(told)))
    numbers = [int(event.id) for event in events if event.id]
    assert numbers == sorted(numbers)
    kinds = [event.event for event in events]
    assert kinds.index("segment") < len(kinds) - 1 - kinds[::-1].index("progress")


def test_whoever_comes_back_is_told_the_rest(service: Service, long_recording: Path) -> None:
    """Broken off after each event in turn: what was told before and what is told after make the whole."""
    job_id = service.upload(long_recording, language="en")
    service.wait(job_id)
    whole = read(service, job_id)
    texts = [segment["text"] for segment in segments(whole)]
    for place in range(1, len(whole)):
        # a client's last id is the last one that it saw
        last = next((event.id for event in reversed(whole[:place]) if event.id), "0")
        before = segments(whole[:place])
        after = segments(read(service, job_id, last))
        kept = [segment for segment in before if segment["id"] < (after[0]["id"] if after else len(texts))]
        assert [segment["text"] for segment in kept + after] == texts


def test_an_end_that_is_known_is_not_told_again(service: Service) -> None:
    job_id = service.upload(SAMPLE, language="en")
    last = read(service, job_id)[-1].id
    answer = service.client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last})
    assert answer.status_code == 204


def test_nonsense_as_last_id_is_from_the_start(service: Service) -> None:
    job_id = service.upload(SAMPLE, language="en")
    service.wait(job_id)
    for last in ("x", "-1", "1.5", "9" * 400, "9" * 5000):
        answer = service.client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last})
        assert answer.status_code in (200, 204)


def test_it_survives_a_restart_of_the_api(real_service: Service, long_recording: Path) -> None:
    job_id = real_service.upload(long_recording, language="en")
    first = read(real_service, job_id, count=3)
    real_service.kill("api")
    real_service.start("api")
    real_service.wait_ready()
    last = next((event.id for event in reversed(first) if event.id), "0")
    rest = read(real_service, job_id, last)
    assert rest[-1].event == "completed"
    ids = {segment["id"] for segment in segments(first + rest)}
    assert ids == set(range(len(real_service.client.get(f"/api/v1/result/{job_id}").json()["segments"])))


def test_cancelled_and_failed_are_told(service: Service, long_recording: Path, tmp_path: Path) -> None:
    job_id = service.upload(long_recording, language="en", priority="low")
    service.client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert read(service, job_id)[-1].event in ("cancelled", "completed")
    nonsense = tmp_path / "nonsense.mp3"
    nonsense.write_bytes(b"no sound at all " * 500)
    failed = read(service, service.upload(nonsense))[-1]
    assert (failed.event, json.loads(failed.data)["error_code"]) == ("failed", "INVALID_AUDIO")


def test_an_open_stream_does_not_hold_up_the_end(tmp_path: Path, long_recording: Path) -> None:
    """Told to stop while somebody listens."""
    with services.embedded(tmp_path) as service:
        job_id = service.upload(long_recording, language="en")
        with httpx.stream("GET", f"{service.url}/api/v1/jobs/{job_id}/events", timeout=60):
            process = service.processes.pop("embedded")
            process.terminate()
            assert process.wait(60) == 0
