"""Clients' metadata and other JSON: limited in every endpoint, and stored values break no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from core.domain.json_values import check_json, showable
from internal.services.submit_options import MAX_DEPTH, MAX_KEYS
from repositories.models import Job
from tests.integration.test_access import WAV, serve_api


def nested(levels: int, inner: str = "1") -> str:
    return '{"a":' * levels + inner + "}" * levels


BAD = {
    "deep": nested(MAX_DEPTH + 1),
    "deep-lists": '{"a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
    "300-deep": nested(300),
    "5000-deep": '{"a":' + "[" * 2500 + "]" * 2500 + "}",
    "keys": json.dumps({str(number): 1 for number in range(MAX_KEYS + 1)}),
    "nested-keys": json.dumps([{str(number): 1 for number in range(20)}] * 20).join(('{"a":', "}")),
    "nan": '{"a": NaN}',
    "infinity": '{"a": -Infinity}',
    "float": '{"a": 1e400}',
    "integer": '{"a": 9223372036854775808}',
    "digits": '{"a": ' + "9" * 5000 + "}",
    "surrogate": '{"a": "\\ud800"}',
    "surrogate-key": '{"\\udfff": 1}',
    "nul": '{"a": "\\u0000"}',
    "nul-key": '{"\\u0000": 1}',
    "size": json.dumps({"a": "x" * 16_384}),
    "list": "[1]",
    "text": '"a"',
}
GOOD = {
    "depth": nested(MAX_DEPTH),
    "keys": json.dumps({str(number): 1 for number in range(MAX_KEYS)}),
    "integers": '{"a": [9223372036854775807, -9223372036854775808]}',
    "float": '{"a": [0.25, -1.5e-7]}',
    "escaped-backslash": json.dumps({"a": "\\u0000"}),
    "pair": '{"a": "\\ud83d\\ude00"}',
    "twice": '{"a": 1, "a": 2}',
}


async def by_form(client: httpx.AsyncClient, metadata: str) -> httpx.Response:
    return await client.post("/api/v1/upload", files={"file": WAV}, data={"metadata": metadata})


async def by_json(client: httpx.AsyncClient, metadata: str) -> httpx.Response:
    head = b'{"request_id": "r-1", "media_url": "http://example.com/a.mp3", "metadata": '
    body = head + metadata.encode() + b"}"
    return await client.post("/api/v1/transcribe", content=body, headers={"Content-Type": "application/json"})


async def upload_links(client: httpx.AsyncClient, metadata: str) -> httpx.Response:
    body = b'{"filename": "a.wav", "metadata": ' + metadata.encode() + b"}"
    answer = await client.post("/api/v1/uploads", content=body, headers={"Content-Type": "application/json"})
    if answer.status_code == 201:
        await client.put(answer.json()["upload_url"], content=b"RIFF" + bytes(100))
        answer = await client.post(f"/api/v1/jobs/{answer.json()['job_id']}/start")
    return answer


WAYS = [by_form, by_json, upload_links]


@pytest.mark.parametrize("way", WAYS)
async def test_invalid_metadata_is_rejected_by_every_endpoint(database_url: str, tmp_path: Path, way: Any) -> None:
    async with serve_api(tmp_path, database_url=database_url) as (client, _):
        for case, metadata in BAD.items():
            answer = await way(client, metadata)
            assert answer.status_code in (400, 422), (case, answer.text)
            assert isinstance(answer.json()["detail"], str)
        listed = await client.get("/api/v1/jobs")
        assert (listed.status_code, listed.json()["jobs"]) == (200, [])


@pytest.mark.parametrize("way", WAYS)
async def test_valid_metadata_is_returned_unchanged(database_url: str, tmp_path: Path, way: Any) -> None:
    async with serve_api(tmp_path, database_url=database_url) as (client, _):
        for case, metadata in GOOD.items():
            answer = await way(client, metadata)
            assert answer.status_code in (200, 202), (case, answer.text)
            job_id = answer.json()["job_id"]
            assert (await client.get(f"/api/v1/jobs/{job_id}")).json()["metadata"] == json.loads(metadata), case
            assert (await client.get("/api/v1/jobs")).status_code == 200
            assert (await client.delete(f"/api/v1/jobs/{job_id}")).status_code == 204


STORED = {
    "deep": nested(300),
    "very-deep": nested(3000),
    "infinity": '{"a": Infinity}',
    "nan": '{"a": [NaN]}',
    "surrogate": '{"a": "\\ud800"}',
    "digits": '{"a": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("case", sorted(STORED))
async def test_invalid_stored_values_break_no_answer(database_url: str, tmp_path: Path, case: str) -> None:
    async with serve_api(tmp_path, database_url=database_url) as (client, app):
        if not app.database.sqlite and case in ("infinity", "nan", "surrogate", "very-deep"):
            pytest.skip("JSONB takes none of it, or another parser does")
        ids = [(await by_form(client, '{"good": 1}')).json()["job_id"] for _ in range(3)]
        async with app.database.write() as session:
            await session.execute(
                text("UPDATE jobs SET metadata = CAST(:value AS JSONB) WHERE job_id = :job")
                if not app.database.sqlite
                else text("UPDATE jobs SET metadata = :value WHERE job_id = :job"),
                {"value": STORED[case], "job": ids[1] if not app.database.sqlite else ids[1].replace("-", "")},
            )
        listed = await client.get("/api/v1/jobs")
        assert listed.status_code == 200, listed.text
        assert [job["metadata"] for job in listed.json()["jobs"]] == [{"good": 1}, None, {"good": 1}]
        assert (await client.get(f"/api/v1/jobs/{ids[1]}")).json()["metadata"] is None
        assert (await client.get(f"/api/v1/status/{ids[1]}")).status_code == 200
        assert (await client.post(f"/api/v1/jobs/{ids[1]}/cancel")).status_code == 202


async def test_invalid_stored_values_break_no_webhook(tmp_path: Path) -> None:
    async with serve_api(tmp_path, webhook_allowed_hosts="127.0.0.1:9") as (client, app):
        fields = {"callback_url": "http://127.0.0.1:9/hook"}
        answer = await client.post("/api/v1/upload", files={"file": WAV}, data=fields)
        async with app.database.write() as session:
            await session.execute(update(Job).values(client_metadata=json.loads(nested(300))))
        job_id = answer.json()["job_id"]
        assert (await client.post(f"/api/v1/jobs/{job_id}/cancel")).status_code == 202


def test_validation_handles_any_depth() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert showable(deep) is None
    with pytest.raises(ValueError, match=r"^$"):
        check_json(deep, 16)
