"""Corrections: versions, conflicts, exports, events, and texts that are refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from internal.api.routes.corrections import encode_changes
from internal.services import corrections
from tests.integration.completed import complete
from tests.integration.test_access import FIRST, serve_api, upload, with_key
from worker.exporters import formats

MACHINE = ("the cat sad on the mad", "thanks for watching", "good bye")


def path_of(job_id: str, segment_id: object = 0) -> str:
    return f"/api/v1/jobs/{job_id}/segments/{segment_id}"


async def put(
    client: httpx.AsyncClient,
    job_id: str,
    text: str,
    version: int | None = 0,
    segment_id: object = 0,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    condition = {} if version is None else {"If-Match": f'"{version}"'}
    return await client.put(path_of(job_id, segment_id), json={"text": text}, headers=(headers or {}) | condition)


async def completed_job(client: httpx.AsyncClient, app: Any, *texts: str, **headers: str) -> str:
    job_id = str((await upload(client, **headers)).json()["job_id"])
    await complete(app, job_id, *(texts or MACHINE))
    return job_id


async def test_a_correction_is_stored_beside_the_machines_text(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        name = "Lan, phòng họp"
        key, _ = await app.services.api_keys.create("local", name, None)
        job_id = await completed_job(client, app, **with_key(key))
        answer = await put(client, job_id, "  The cat\tsat on the mat.\n", headers=with_key(key))
        assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
        body = answer.json()
        assert (body["text"], body["version"]) == ("The cat sat on the mat.", 1)
        assert (body["correction"]["machine_text"], body["correction"]["author"]) == (MACHINE[0], name)
        assert body["correction"]["corrected_at"].endswith("Z")
        times = [(word["word"], word["start"], word["end"]) for word in body["words"]]
        assert times[0] == ("The", 0.0, 0.5)
        assert times[2] == ("sat", 1.0, 1.5)
        assert times[-1] == ("mat.", 2.5, 3.0)
        result = (await client.get(f"/api/v1/result/{job_id}", headers=with_key(key))).json()
        assert result["segments"][0] == body
        assert result["segments"][1]["version"] == 0
        assert "correction" not in result["segments"][1] or result["segments"][1]["correction"] is None
        assert result["text"] == "The cat sat on the mat. thanks for watching good bye"
        machine = await client.get(f"/api/v1/result/{job_id}", params={"corrected": "false"}, headers=with_key(key))
        assert machine.json()["text"] == " ".join(MACHINE)
        stored = json.loads(await app.storage.get_bytes(f"results/{job_id}/transcription.json"))
        assert [each["text"] for each in stored["segments"]] == list(MACHINE)


@pytest.mark.parametrize("name", sorted(formats()))
async def test_every_format_has_the_corrections(tmp_path: Path, name: str) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        path = f"/api/v1/download/{job_id}"
        before = (await client.get(path, params={"format": name})).content
        assert (await put(client, job_id, "The cat sat")).status_code == 200
        assert (await put(client, job_id, "", segment_id=1)).status_code == 200
        text = (await client.get(path, params={"format": name})).text
        assert "The cat sat" in text
        if name == "json":
            segments = json.loads(text)["segments"]
            assert [segment["text"] for segment in segments] == ["The cat sat", "", "good bye"]
            assert [segment.get("correction", {}).get("machine_text") for segment in segments] == [*MACHINE[:2], None]
        else:
            assert "mad" not in text
            assert "watching" not in text
        assert (await client.get(path, params={"format": name, "corrected": "false"})).content == before


async def test_nobody_overwrites_a_version_that_they_have_not_seen(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        answers = await asyncio.gather(*(put(client, job_id, f"version of {each}") for each in "ab"))
        first, second = sorted(answers, key=lambda answer: answer.status_code)
        assert (first.status_code, second.status_code) == (200, 412)
        problem = second.json()
        assert (problem["code"], second.headers["etag"]) == ("CORRECTION_CONFLICT", '"1"')
        assert problem["current"] == first.json()
        assert (await put(client, job_id, "mine", problem["current"]["version"])).json()["version"] == 2
        assert (await put(client, job_id, "x", None)).json()["code"] == "PRECONDITION_REQUIRED"
        for condition in ("", "2", 'W/"2"', '"1"', '"0"', '"٢"', '"2', f'"{"9" * 50}"'):
            answer = await client.put(path_of(job_id), json={"text": "x"}, headers=[(b"If-Match", condition.encode())])
            assert answer.status_code == 412, condition
        for condition in ('"2"', '"7", "3"', "*"):
            answer = await client.put(path_of(job_id), json={"text": "x"}, headers={"If-Match": condition})
            assert answer.status_code == 200, condition


async def test_a_removed_correction_counts_as_a_change(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        await put(client, job_id, "one")
        path = f"{path_of(job_id)}/correction"
        assert (await client.delete(path)).status_code == 428
        assert (await client.delete(path, headers={"If-Match": '"0"'})).status_code == 412
        for _ in range(2):  # removing it twice changes nothing more
            version = '"1"' if _ == 0 else '"2"'
            answer = await client.delete(path, headers={"If-Match": version})
            assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
            assert (answer.json()["text"], answer.json().get("correction")) == (MACHINE[0], None)
        assert (await put(client, job_id, "late", 1)).status_code == 412
        assert (await put(client, job_id, "again", 2)).json()["version"] == 3
        untouched = await client.delete(f"{path_of(job_id, 2)}/correction", headers={"If-Match": '"0"'})
        assert (untouched.status_code, untouched.headers["etag"]) == (200, '"0"')


TEXTS = ["a\0b", "a\x1b[31m", "a\x7f", "x" * 2001, "\ufdd0", "a\ue000"]


@pytest.mark.parametrize("text", TEXTS)
async def test_texts_that_are_refused(tmp_path: Path, text: str) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        answer = await put(client, job_id, text)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_FIELD")
        assert answer.json()["errors"][0]["field"] == "text"


@pytest.mark.parametrize("body", ["{}", '{"text": null}', '{"text": 1}', '{"text": "\\ud800"}', "[]", "x", ""])
async def test_bodies_that_are_refused(tmp_path: Path, body: str) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        headers = {"If-Match": '"0"', "Content-Type": "application/json"}
        assert (await client.put(path_of(job_id), content=body, headers=headers)).status_code == 422


async def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> --> 00:00:01.000 {{7*7}} =cmd|' \u202eabc e\u0301"
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        shown = (await put(client, job_id, hostile)).json()["text"]
        assert shown == hostile.replace("e\u0301", "é")
        for name in ("srt", "vtt"):
            cues = (await client.get(f"/api/v1/download/{job_id}", params={"format": name})).text
            assert cues.count("-->") == (
                await client.get(f"/api/v1/download/{job_id}?format={name}&corrected=0")
            ).text.count("-->")


async def test_segments_and_jobs_that_cannot_be_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        key = with_key(FIRST)
        other = with_key((await app.services.api_keys.create("other", None, None))[0])
        job_id = await completed_job(client, app, **key)
        assert (await put(client, job_id, "x", headers=other)).status_code == 404
        assert (await put(client, job_id, "x", segment_id=3, headers=key)).json()["code"] == "SEGMENT_NOT_FOUND"
        for segment_id in ("-1", "x", "1e3", "9" * 30):
            assert (await put(client, job_id, "x", segment_id=segment_id, headers=key)).status_code == 422
        unfinished = (await upload(client, **key)).json()["job_id"]
        assert (await put(client, unfinished, "x", headers=key)).json()["code"] == "JOB_NOT_COMPLETED"
        monkeypatch.setattr(corrections, "MAX_CORRECTIONS", 1)
        assert (await put(client, job_id, "x", headers=key)).status_code == 200
        assert (await put(client, job_id, "y", 1, headers=key)).status_code == 200
        refused = await put(client, job_id, "x", segment_id=1, headers=key)
        assert (refused.status_code, refused.json()["code"]) == (422, "TOO_MANY_CORRECTIONS")


async def test_a_correction_of_another_transcript_is_not_shown(tmp_path: Path) -> None:
    """A restored backup or a repaired file may have another text under the same number."""
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        await put(client, job_id, "corrected")
        await complete(app, job_id, "another transcript", "of the same job")
        assert (await client.get(f"/api/v1/result/{job_id}")).json()["text"] == "another transcript of the same job"


async def test_changes_are_announced(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        await put(client, job_id, "one")
        await put(client, job_id, "two", segment_id=1)
        service = app.services.corrections
        changes = service.follow(job_id, 1)
        first = (await anext(changes)).correction
        assert first is not None
        assert (first.segment_id, first.version, first.text) == (1, 2, "two")
        await client.delete(f"{path_of(job_id)}/correction", headers={"If-Match": '"1"'})
        second = (await anext(changes)).correction
        assert second is not None
        assert (second.segment_id, second.version, second.text) == (0, 3, None)
        await client.delete(f"/api/v1/jobs/{job_id}")
        assert (await anext(changes)).deleted
        assert [event async for event in changes] == []


async def test_the_stream_of_changes(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        await put(client, job_id, "một")
        stream = encode_changes(app.services.corrections.follow(job_id, 0))
        lines = (await anext(stream)).decode().splitlines()
        assert {"event: correction", "id: 1"} <= set(lines)
        data = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
        assert set(data) == {"id", "version", "text", "author", "corrected_at"}
        assert (data["id"], data["version"], data["text"], data["author"]) == (0, 1, "một", "local")
        await client.delete(f"/api/v1/jobs/{job_id}")
        assert "event: deleted" in (await anext(stream)).decode()
        answer = await client.get(f"/api/v1/jobs/{job_id}/corrections/events")
        assert answer.status_code == 404


async def test_the_job_has_the_number_of_its_corrections(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await completed_job(client, app)
        for segment_id in (0, 1):
            await put(client, job_id, "x", segment_id=segment_id)
        await client.delete(f"{path_of(job_id)}/correction", headers={"If-Match": '"1"'})
        assert (await client.get(f"/api/v1/jobs/{job_id}")).json()["corrections"] == 1
        await upload(client)
        assert [job["corrections"] for job in (await client.get("/api/v1/jobs")).json()["jobs"]] == [0, 1]
