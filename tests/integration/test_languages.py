"""Errors and failures of jobs in English and Vietnamese, as negotiated for each request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from core.errors import AudioTooLongError, NetworkError, SttError
from core.texts import TEXTS
from internal.services import dead_letters
from repositories import failures
from repositories.models import Job
from tests.error_classes import error_classes
from tests.integration.test_access import FIRST, WAV, serve_api
from tests.unit.test_texts import vietnamese

VI = {"Accept-Language": "vi-VN,vi;q=0.9,en;q=0.5"}
GONE = "00000000-0000-4000-8000-000000000000"
URL = {"request_id": "r-1", "media_url": "http://example.com/a.mp3"}


def sentences(body: dict[str, Any]) -> list[str]:
    """Return the human-readable texts of an answer."""
    if "error" in body and isinstance(body["error"], dict):
        return [body["error"]["message"]]
    explanations = [
        body[name] for name in ("title", "detail", "message", "warning", "error", "error_message") if body.get(name)
    ]
    return explanations + [entry["message"] for entry in body.get("errors") or ()]


def form(**fields: str) -> dict[str, Any]:
    return {"files": {"file": WAV}, "data": fields}


REFUSED: dict[str, tuple[str, str, dict[str, Any], int, str | None]] = {
    "language": ("POST", "/api/v1/upload", form(language="fr"), 422, "language"),
    "model": ("POST", "/api/v1/upload", form(model="no model's name"), 422, "model"),
    "priority": ("POST", "/api/v1/upload", form(priority="urgent"), 422, "priority"),
    "metadata": ("POST", "/api/v1/upload", form(metadata="[1]"), 422, "metadata"),
    "metadata-text": ("POST", "/api/v1/upload", form(metadata="{"), 422, "metadata"),
    "prompt": ("POST", "/api/v1/upload", form(prompt="x" * 2001), 422, "prompt"),
    "words": ("POST", "/api/v1/upload", form(words="perhaps"), 422, "words"),
    "temperature": ("POST", "/api/v1/upload", form(temperature="hot"), 422, "temperature"),
    "callback": ("POST", "/api/v1/upload", form(callback_url="http://10.0.0.1/"), 422, "callback_url"),
    "callback-scheme": ("POST", "/api/v1/upload", form(callback_url="ftp://example.com/"), 422, "callback_url"),
    "long-field": ("POST", "/api/v1/upload", form(prompt="x" * 9000), 422, "prompt"),
    "ending": ("POST", "/api/v1/upload", {"files": {"file": ("a.docx", b"x")}}, 400, None),
    "empty": ("POST", "/api/v1/upload", {"files": {"file": ("a.wav", b"")}}, 400, None),
    "no-form": ("POST", "/api/v1/upload", {"content": b"x"}, 400, None),
    "key": ("POST", "/api/v1/upload", {**form(), "headers": {"Idempotency-Key": "x" * 256}}, 422, "Idempotency-Key"),
    "request-id": ("POST", "/api/v1/transcribe", {"json": {**URL, "request_id": "a b"}}, 422, "request_id"),
    "missing": ("POST", "/api/v1/transcribe", {"json": {}}, 422, "request_id"),
    "types": ("POST", "/api/v1/transcribe", {"json": {**URL, "language": 5, "words": []}}, 422, "language"),
    "media-url": ("POST", "/api/v1/transcribe", {"json": {**URL, "media_url": "http://127.0.0.1/"}}, 422, "media_url"),
    "bucket": ("POST", "/api/v1/transcribe", {"json": {**URL, "media_url": "minio://other/a"}}, 422, "media_url"),
    "json": (
        "POST",
        "/api/v1/transcribe",
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        422,
        "body",
    ),
    "big": ("POST", "/api/v1/transcribe", {"json": {**URL, "prompt": "x" * 70_000}}, 413, None),
    "filename": ("POST", "/api/v1/uploads", {"json": {"filename": "a.docx"}}, 400, None),
    "job": ("GET", f"/api/v1/status/{GONE}", {}, 404, None),
    "poll": ("GET", "/api/v1/transcribe/unknown", {}, 404, None),
    "nowhere": ("GET", "/nowhere", {}, 404, None),
    "method": ("DELETE", "/api/v1/jobs", {}, 405, None),
    "cursor": ("GET", "/api/v1/jobs?cursor=x", {}, 422, "cursor"),
    "limit": ("GET", "/api/v1/jobs?limit=0", {}, 422, "limit"),
    "limit-text": ("GET", "/api/v1/jobs?limit=many", {}, 422, "limit"),
    "status": ("GET", "/api/v1/jobs?status=x", {}, 422, "status"),
    "signature": ("PUT", f"/api/v1/uploads/{GONE}?expires=9&signature=x", {"content": b"x"}, 401, None),
    "openai-format": ("POST", "/v1/audio/transcriptions", form(response_format="docx"), 422, "response_format"),
    "openai-words": (
        "POST",
        "/v1/audio/transcriptions",
        form(**{"timestamp_granularities[]": "word"}),
        422,
        "timestamp_granularities",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
async def test_errors_are_available_in_both_languages(tmp_path: Path, case: str) -> None:
    method, path, request, status, field = REFUSED[case]
    async with serve_api(tmp_path) as (client, _):
        own = request.get("headers", {})
        options = {name: value for name, value in request.items() if name != "headers"}
        english = await client.request(method, path, headers=own, **options)
        local = await client.request(method, path, headers={**own, **VI}, **options)
    assert (english.status_code, local.status_code) == (status, status), english.text
    assert not any(map(vietnamese, sentences(english.json()))), english.text
    assert sentences(local.json())
    for sentence in sentences(local.json()):
        assert vietnamese(sentence), sentence
    for answer in (english.json(), local.json()):
        if path.startswith("/v1/"):
            assert answer["error"]["param"] == field
        else:
            assert [entry["field"] for entry in answer.get("errors", [])][:1] == ([field] if field else [])
            assert answer["code"] == english.json()["code"]


async def test_a_missing_key_is_explained_in_both_languages(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        answer = await client.get("/api/v1/jobs", headers=VI)
        assert (answer.status_code, all(map(vietnamese, sentences(answer.json())))) == (401, True)


async def submit_wav(client: httpx.AsyncClient) -> str:
    return str((await client.post("/api/v1/transcribe", json=URL)).json()["job_id"])


async def fail(app: Any, job_id: str, error: SttError) -> None:
    async with app.database.write() as session:
        assert await failures.fail_job(session, job_id, error, dead_letters.new_token())


async def explanations(client: httpx.AsyncClient, job_id: str, headers: dict[str, str]) -> list[str]:
    """Return a failed job's explanation from every endpoint that has one."""
    poll = (await client.get("/api/v1/transcribe/r-1", headers=headers)).json()
    status = (await client.get(f"/api/v1/status/{job_id}", headers=headers)).json()
    entry = (await client.get(f"/api/v1/jobs/{job_id}", headers=headers)).json()
    listed = (await client.get("/api/v1/jobs", headers=headers)).json()["jobs"][0]
    events = (await client.get(f"/api/v1/jobs/{job_id}/events", headers=headers)).text
    assert status["error_message"] in events
    return [poll["error"], poll["message"], status["error_message"], entry["error_message"], listed["error_message"]]


FAILURES = [kind for kind in error_classes() if kind.kind.value in ("permanent", "work") and "code" in kind.__dict__]


@pytest.mark.parametrize(
    "error",
    [
        *(kind() for kind in FAILURES),
        NetworkError("Failed to download audio file: {reason}", reason="the host's name is not known"),
        NetworkError("Failed to download audio file: {status} {phrase}", status=503, phrase="Service Unavailable"),
        AudioTooLongError("The recording is longer than {limit} seconds. Split it into shorter recordings.", limit=60),
    ],
    ids=lambda error: f"{error.code}-{len(error.values)}",
)
async def test_a_failed_job_is_explained_in_the_requested_language(tmp_path: Path, error: SttError) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await submit_wav(client)
        await fail(app, job_id, error)
        english, local = await explanations(client, job_id, {}), await explanations(client, job_id, VI)
    assert not any(map(vietnamese, english))
    assert english[0] == english[2] == error.message()
    assert all(map(vietnamese, local)), local
    assert local[0] == local[2] == error.message("vi")
    for value in error.values.values():
        if isinstance(value, int):
            assert str(value) in local[0]


async def test_a_failure_stored_by_an_older_version_is_translated(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await submit_wav(client)
        await fail(app, job_id, NetworkError())
        async with app.database.write() as session:
            await session.execute(update(Job).values(error_message="The line broke.", error_details=None))
        assert (await explanations(client, job_id, {}))[0] == "The line broke."
        assert all(map(vietnamese, await explanations(client, job_id, VI)))


async def test_other_answers_are_translated(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        answers = [
            await client.post("/api/v1/upload", files={"file": WAV}, headers=VI),
            await client.post("/api/v1/transcribe", json=URL, headers=VI),
            await client.get("/api/v1/transcribe/r-1", headers=VI),
        ]
        job_id = answers[1].json()["job_id"]
        answers.append(await client.get(f"/api/v1/result/{job_id}", headers=VI))
        await client.post(f"/api/v1/jobs/{job_id}/cancel")
        answers += [await client.post(f"/api/v1/jobs/{job_id}{path}", headers=VI) for path in ("/cancel", "/webhook")]
        answers.append(await client.get("/api/v1/transcribe/r-1", headers=VI))
    for answer in answers:
        assert sentences(answer.json()), answer.text
        for sentence in sentences(answer.json()):
            assert vietnamese(sentence), sentence
    assert [sentence for answer in answers for sentence in sentences(answer.json()) if sentence in TEXTS] == []


async def test_concurrent_requests_get_their_own_language(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        answers = await asyncio.gather(
            *(client.get(f"/api/v1/status/{GONE}", headers=VI if n % 2 else {}) for n in range(8))
        )
    for number, answer in enumerate(answers):
        assert vietnamese(answer.json()["detail"]) == bool(number % 2)
        assert answer.headers["content-language"] == ("vi" if number % 2 else "en")
