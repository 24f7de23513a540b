"""The operator's routes, and the undo of a deletion."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert, update

from core.database import after
from core.errors import WhisperCrashError
from internal.bootstrap import Application
from internal.services.dead_letters import new_token
from internal.services.retention import Retention
from repositories import failures, jobs
from repositories.models import Metric, UploadIntent
from tests.contract import invariants
from tests.integration.completed import complete
from tests.integration.test_access import FIRST, serve_api, upload, with_key

ADMIN = ("/api/v1/admin/dead-letters", "/api/v1/admin/keys", "/api/v1/admin/figures")


async def fail(client: httpx.AsyncClient, app: Application, **headers: str) -> str:
    job_id = str((await upload(client, **headers)).json()["job_id"])
    async with app.database.write() as session:
        assert await failures.fail_job(session, job_id, WhisperCrashError(), new_token())
    await app.dead_letters.publish(job_id)
    return job_id


async def test_only_the_operator_may_use_them(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        other = with_key((await app.services.api_keys.create("team", "crawler", None))[0])
        assert (await client.get("/api/v1/me")).status_code == 401
        mine = (await client.get("/api/v1/me", headers=with_key(FIRST))).json()
        assert mine == {"owner": "local", "author": "API_KEY", "admin": True}
        theirs = (await client.get("/api/v1/me", headers=other)).json()
        assert theirs == {"owner": "team", "author": "crawler", "admin": False}
        for path in ADMIN:
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers=other)).json()["code"] == "ADMIN_ONLY"
            assert (await client.get(path, headers=with_key(FIRST))).status_code == 200
        for path in ("replay", "purge"):
            refused = await client.post(f"/api/v1/admin/dead-letters/{path}", json={"all": True}, headers=other)
            assert refused.status_code == 403


async def test_keys_are_listed_without_their_secrets(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        key, _ = await app.services.api_keys.create("team", "crawler", 3600)
        await client.get("/api/v1/jobs", headers=with_key(key))
        answer = await client.get("/api/v1/admin/keys", headers=with_key(FIRST))
        row = next(row for row in answer.json()["keys"] if row["name"] == "crawler")
        assert (row["owner"], row["revoked_at"]) == ("team", None)
        assert row["last_used_at"] and row["expires_at"]
        for secret in (key.split("_", 2)[2], FIRST.split("_", 2)[2], "secret"):
            assert secret not in answer.text


async def test_dead_letters(tmp_path: Path) -> None:
    path = "/api/v1/admin/dead-letters"
    async with serve_api(tmp_path) as (client, app):
        first, second = await fail(client, app), await fail(client, app)
        body = (await client.get(path)).json()
        assert ([row["job_id"] for row in body["dead_letters"]], body["total"]) == ([first, second], 2)
        assert body["dead_letters"][0]["code"] == "WORKER_CRASH"
        assert body["dead_letters"][0]["replayable"]
        assert len((await client.get(path, params={"limit": 1})).json()["dead_letters"]) == 1
        for invalid in ({}, {"all": False}, {"job_id": first, "all": True}, {"job_id": "x" * 40}):
            assert (await client.post(f"{path}/replay", json=invalid)).status_code == 422, invalid
        unknown = await client.post(f"{path}/replay", json={"job_id": "00000000-0000-0000-0000-000000000000"})
        assert unknown.json() == {"reopened": 0, "stale": 0}
        assert (await client.post(f"{path}/replay", json={"job_id": first})).json() == {"reopened": 1, "stale": 0}
        assert (await client.get(f"/api/v1/jobs/{first}")).json()["status"] == "PENDING"
        assert (await client.post(f"{path}/purge", json={"all": True})).json() == {"removed": 1}
        assert (await client.get(f"/api/v1/jobs/{second}")).json()["status"] == "FAILED"
        assert (await client.get(path)).json() == {"dead_letters": [], "total": 0}


async def test_the_figures_of_the_last_hour(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        await fail(client, app)
        for seconds in (10, 20, 4000):
            job_id = (await upload(client)).json()["job_id"]
            async with app.database.write() as session:
                for name, value in (("total_seconds", 4.0 * seconds), ("real_time_factor", 0.5)):
                    values = {"job_id": job_id, "metric_name": name, "metric_value": value}
                    await session.execute(insert(Metric).values(recorded_at=after(-seconds), **values))
        body = (await client.get("/api/v1/admin/figures")).json()
        assert (body["bucket_seconds"], len(body["buckets"])) == (300, 12)
        assert body["buckets"] == sorted(body["buckets"], key=lambda each: each["start"])
        assert sum(each["failed"] for each in body["buckets"]) == 1
        last = body["buckets"][-1]
        assert (last["completed"], last["mean_seconds"], last["real_time_factor"]) == (2, 60.0, 0.5)
        assert sum(each["completed"] for each in body["buckets"]) == 2


async def restored(client: httpx.AsyncClient, job_id: str, **headers: str) -> httpx.Response:
    return await client.post(f"/api/v1/jobs/{job_id}/restore", headers=headers)


@pytest.mark.parametrize("state", ["PENDING", "COMPLETED", "FAILED"])
async def test_a_deletion_can_be_undone(tmp_path: Path, state: str) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await fail(client, app) if state == "FAILED" else (await upload(client)).json()["job_id"]
        if state == "COMPLETED":
            await complete(app, job_id, "one", "two")
        path = f"/api/v1/jobs/{job_id}"
        for _ in range(2):
            assert (await client.delete(path, params={"undo": "true"})).status_code == 204
            assert (await client.get(path)).status_code == 404
            assert (await client.get("/api/v1/jobs")).json()["jobs"] == []
            await invariants.check(app.database)
            answer = await restored(client, job_id)
            assert answer.status_code == 200
            assert answer.json()["status"] == (state if state != "PENDING" else "CANCELLED")
            assert (await restored(client, job_id)).status_code == 200
            await invariants.check(app.database)
        assert (await client.get(f"{path}/media")).status_code == 200
        if state == "COMPLETED":
            assert (await client.get(f"/api/v1/result/{job_id}")).json()["text"] == "one two"
        else:
            assert (await client.post(f"{path}/retry")).status_code == 202


async def test_a_deletion_that_cannot_be_undone(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        key = with_key(FIRST)
        other = with_key((await app.services.api_keys.create("other", None, None))[0])
        job_id = (await upload(client, **key)).json()["job_id"]
        await client.delete(f"/api/v1/jobs/{job_id}", headers=key)
        assert (await restored(client, job_id, **key)).json()["code"] == "CONFLICT"
        late = (await upload(client, **key)).json()["job_id"]
        await client.delete(f"/api/v1/jobs/{late}", params={"undo": "true"}, headers=key)
        for unknown in ("x", "00000000-0000-0000-0000-000000000000"):
            assert (await restored(client, unknown, **key)).status_code == 404
        assert (await restored(client, late, **other)).status_code == 404
        async with app.database.write() as session:
            await session.execute(update(UploadIntent).values(expires_at=after(-1)))
        assert (await restored(client, late, **key)).status_code == 409
        await Retention(app.database, app.storage).collect_abandoned_objects()
        assert await app.storage.stat(f"uploads/{late}/a.wav") is None
        assert (await restored(client, late, **key)).status_code == 409


async def test_jobs_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_api(tmp_path) as (client, _):
        for name in ("Team meeting.wav", "100%_done.wav", "họp nhóm.mp3"):
            await client.post("/api/v1/upload", files={"file": (name, b"RIFF" + bytes(99))})
        found = {}
        for text in ("MEETING", "%_", "%", "_", "nhóm", "x\\", "';--"):
            answer = await client.get("/api/v1/jobs", params={"name": text})
            found[text] = [job["original_filename"] for job in answer.json()["jobs"]]
        assert found == {
            "MEETING": ["Team meeting.wav"],
            "%_": ["100%_done.wav"],
            "%": ["100%_done.wav"],
            "_": ["100%_done.wav"],
            "nhóm": ["họp nhóm.mp3"],
            "x\\": [],
            "';--": [],
        }
        monkeypatch.setattr(jobs, "SEARCHED", 2)
        query = {"name": "meeting", "limit": "1"}
        first = (await client.get("/api/v1/jobs", params=query)).json()
        assert first["jobs"] == []
        second = (await client.get("/api/v1/jobs", params=query | {"cursor": first["next_cursor"]})).json()
        assert [job["original_filename"] for job in second["jobs"]] == ["Team meeting.wav"]
        assert second["next_cursor"] is None
        for invalid in ("", "x" * 101):
            assert (await client.get("/api/v1/jobs", params={"name": invalid})).status_code == 422
