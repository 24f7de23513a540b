"""Recordings for players: ranges, conditions, tokens, and files that a browser must not run."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from core.domain.media_types import BY_SUFFIX, MEDIA_TYPES, type_of_content, type_of_name
from core.domain.recordings import EXTENSIONS
from internal.bootstrap import Application
from internal.services import media
from repositories.models import Job
from tests.clients.external_server import SAMPLE
from tests.e2e.service import Service
from tests.integration.test_access import FIRST, serve_api, with_key

DATA = b"RIFF\0\0\0\0WAVE" + bytes(range(256)) * 4


async def submit(client: httpx.AsyncClient, data: bytes = DATA, headers: dict[str, str] | None = None) -> str:
    answer = await client.post("/api/v1/upload", files={"file": ("a.wav", data)}, headers=headers)
    return str(answer.json()["job_id"])


def path_of(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}/media"


async def set_job(app: Application, job_id: str, **values: object) -> None:
    async with app.database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(**values))


LAST = len(DATA) - 1
RANGES = {
    "bytes=0-": (0, LAST),
    "bytes=0-0": (0, 0),
    "bytes=10-19": (10, 19),
    "Bytes=10-19": (10, 19),
    "bytes=-5": (LAST - 4, LAST),
    "bytes=-999999": (0, LAST),
    "bytes=5-999999999999": (5, LAST),
    f"bytes={LAST}-": (LAST, LAST),
}
IGNORED = [
    "bytes=",
    "bytes=-",
    "bytes=5-4",
    "bytes=a-b",
    "bytes=0-1,5-6",
    "lines=0-1",
    "bytes=٣-٤",
    "bytes=0-" + "9" * 40,
]


@pytest.mark.parametrize("block", [7, media.BLOCK])
async def test_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(media, "BLOCK", block)
    async with serve_api(tmp_path) as (client, _):
        path = path_of(await submit(client))
        for text, (first, last) in RANGES.items():
            answer = await client.get(path, headers={"Range": text})
            assert answer.status_code == 206, text
            assert answer.content == DATA[first : last + 1]
            assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
            assert answer.headers["content-length"] == str(last + 1 - first)
        for text in (*IGNORED, ""):
            answer = await client.get(path, headers=[(b"Range", text.encode())])
            assert (answer.status_code, answer.content) == (200, DATA), text
        for text in (f"bytes={len(DATA)}-", "bytes=-0", "bytes=99999999999-"):
            answer = await client.get(path, headers={"Range": text})
            assert (answer.status_code, answer.json()["code"]) == (416, "RANGE_NOT_SATISFIABLE")
            assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


async def test_conditions_and_head(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        path = path_of(await submit(client))
        whole = await client.get(path)
        tag, changed = whole.headers["etag"], whole.headers["last-modified"]
        assert not tag.startswith("W/")
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag", "accept-ranges", "last-modified"):
            assert head.headers[name] == whole.headers[name]
        some = {"Range": "bytes=1-2"}
        for condition, status in ((tag, 206), (changed, 206), ('"x"', 200), (f"W/{tag}", 200), ("nonsense", 200)):
            assert (await client.get(path, headers=some | {"If-Range": condition})).status_code == status
        for condition in (tag, f'"x", {tag}', f"W/{tag}", "*"):
            same = await client.get(path, headers={"If-None-Match": condition})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert (await client.get(path, headers={"If-None-Match": '"x"'})).status_code == 200
        assert (await client.get(path, headers={"If-Modified-Since": changed})).status_code == 304


HOSTILE = b"<html><script>alert(document.domain)</script><svg onload=alert(1)>"


@pytest.mark.parametrize("name", ['a".wav', "bản ghi.mp3", "x.html.wav", "a\r\nX: y.wav", "<svg onload=alert(1)>.mp4"])
async def test_a_recording_is_never_a_page(tmp_path: Path, name: str) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await submit(client, data=HOSTILE)
        for stored in (name, "page.html", "image.svg", "script.js", ""):
            await set_job(app, job_id, original_filename=stored)
            for query, kind in (({}, "inline"), ({"download": "true"}, "attachment")):
                headers = (await client.get(path_of(job_id), params=query)).headers
                assert headers["content-type"] in MEDIA_TYPES
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["content-security-policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"
                disposition = headers["content-disposition"]
                assert disposition.startswith(f'{kind}; filename="')
                assert disposition.isascii()
                assert disposition.count('"') == 2
                assert "x" not in headers


async def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        key = with_key(FIRST)
        job_id, other = await submit(client, headers=key), await submit(client, headers=key)
        assert (await client.get(path_of(job_id))).status_code == 401
        assert (await client.get(path_of(job_id), headers=key)).status_code == 200
        answer = await client.post(f"{path_of(job_id)}-token", headers=key)
        assert answer.status_code == 201
        body = answer.json()
        assert FIRST.split("_")[2] not in answer.text
        assert (body["content_type"], body["size"]) == ("audio/wav", len(DATA))
        played = await client.get(body["url"], headers={"Range": "bytes=0-3"})
        assert (played.status_code, played.content) == (206, b"RIFF")
        token = body["token"]
        expiry, signature = token.split(".")
        invalid = ["", "x", token + "0", token[:-1] + "g", f"{int(expiry) + 1}.{signature}", f"0.{signature}", FIRST]
        for text in invalid:
            answer = await client.get(path_of(job_id), params={"token": text})
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED"), text
        for path in (path_of(other), path_of("x"), "/api/v1/jobs", f"/api/v1/result/{job_id}"):
            assert (await client.get(path, params={"token": token})).status_code == 401, path
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + media.TOKEN_SECONDS + 2)
        assert (await client.get(body["url"])).status_code == 401


async def test_reading_with_a_token_is_limited(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST, rate_limit_per_minute=4) as (client, _):
        job_id = await submit(client, headers=with_key(FIRST))
        url = (await client.post(f"{path_of(job_id)}-token", headers=with_key(FIRST))).json()["url"]
        assert [(await client.get(url)).status_code for _ in range(5)] == [200] * 4 + [429]
        assert (await client.get(f"/api/v1/jobs/{job_id}", headers=with_key(FIRST))).status_code == 200


async def test_recordings_that_are_not_there(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        job_id = await submit(client)
        url = (await client.post(f"{path_of(job_id)}-token")).json()["url"]
        key = f"uploads/{job_id}/a.wav"
        await app.storage.delete(key)
        for answer in (await client.get(url), await client.post(f"{path_of(job_id)}-token")):
            assert (answer.status_code, answer.json()["code"]) == (410, "MEDIA_GONE")
        await set_job(app, job_id, minio_audio_path=None)
        answer = await client.get(url)
        assert (answer.status_code, answer.json()["code"]) == (409, "MEDIA_NOT_READY")
        await client.delete(f"/api/v1/jobs/{job_id}")
        answer = await client.get(url)
        assert (answer.status_code, answer.json()["code"]) == (404, "JOB_NOT_FOUND")


def test_types_of_recordings() -> None:
    assert set(BY_SUFFIX) == set(EXTENSIONS)
    assert (type_of_name("A.MP4"), type_of_name("stream.php")) == ("video/mp4", None)
    starts = {b"ID3\4": "audio/mpeg", b"\0\0\0\x20ftypisom": "video/mp4", b"\x1aE\xdf\xa3": "video/webm"}
    for start, kind in starts.items():
        assert type_of_content(start) == kind
    for start in (b"", b"<svg xmlns=", b"%PDF-1.7", b"\0" * 16):
        assert type_of_content(start) == "application/octet-stream"


@pytest.mark.speech
def test_a_recording_is_the_same_from_both_storages(service: Service) -> None:
    data = SAMPLE.read_bytes()
    answer = service.client.post("/api/v1/upload", files={"file": ("hello.mp3", data)}, data={"language": "en"})
    path = path_of(answer.json()["job_id"])
    whole = service.client.get(path)
    assert whole.content == data
    some = service.client.get(path, headers={"Range": "bytes=1000-70000", "If-Range": whole.headers["etag"]})
    assert (some.status_code, some.content) == (206, data[1000:70001])
    assert service.client.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    head = service.client.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(data)), b"")
    service.wait(path.split("/")[4])
    peaks = service.client.get(path.replace("/media", "/peaks")).json()
    length = len(base64.b64decode(peaks["peaks"]))
    assert length * peaks["seconds_per_peak"] == pytest.approx(peaks["duration_seconds"], abs=0.1)
    service.client.delete(path.removesuffix("/media"))
    assert service.client.get(path).status_code == 404
