"""Objects that storage lost, truncated or changed: no job is COMPLETED with words missing, and a retry repairs it."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from core.domain import keys
from core.domain.job import JobStatus
from core.errors import ObjectDamagedError
from core.storage.local import LocalStorage
from internal.bootstrap import Application
from internal.consumer import working_audio
from repositories.models import Chunk, UploadIntent
from tests.integration.bad_engines import FINE
from tests.integration.test_consumer import (
    bad_audio,
    get_job,
    open_application,
    running_consumer,
    settings_for,
    submit_audio,
    wait_for_end,
)


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working_audio, "REREAD_DELAY", 0.0)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    async with open_application(settings_for(tmp_path)) as app:
        yield app


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def replace_content(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def remove(path: Path) -> None:
    path.unlink()


def damage_writes(monkeypatch: pytest.MonkeyPatch, prefix: str, damage: Callable[[Path], None]) -> None:
    """Damage every object below `prefix` as soon as it is written from a file."""
    put_file = LocalStorage.put_file

    async def put(self: LocalStorage, key: str, path: Path, content_type: str = "x/y") -> None:
        await put_file(self, key, path, content_type)
        if key.startswith(prefix):
            damage(self.object_path(key))

    monkeypatch.setattr(LocalStorage, "put_file", put)


@pytest.mark.parametrize("damage", [truncate, empty, flip_bit, replace_content, remove])
async def test_damaged_working_audio_never_completes_and_a_retry_prepares_it_again(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    with monkeypatch.context() as patched:
        damage_writes(patched, "work/", damage)
        async with running_consumer(app):
            job_id = await submit_audio(app, bad_audio(FINE, 100), tmp_path)
            job = await wait_for_end(app, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, ObjectDamagedError.code)
    damaged = job.working_audio_path
    async with running_consumer(app):
        await app.services.jobs.retry(job_id, "local")
        job = await wait_for_end(app, job_id)
    assert job.status == JobStatus.COMPLETED
    assert (await app.services.results.read(job)).duration_seconds == pytest.approx(100, abs=0.1)
    assert job.working_audio_path != damaged
    async with app.database.read() as session:
        noted = list((await session.execute(select(UploadIntent.key))).scalars())
    assert damaged in noted


async def test_a_wrong_read_is_repeated_once(app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_bytes, wrong = LocalStorage.get_bytes, 0

    async def once_wrong(self: LocalStorage, key: str, first: int = 0, length: int | None = None) -> bytes:
        nonlocal wrong
        data = await get_bytes(self, key, first, length)
        if key.startswith("work/") and not wrong:
            wrong += 1
            return bytes(len(data))
        return data

    monkeypatch.setattr(LocalStorage, "get_bytes", once_wrong)
    async with running_consumer(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE), tmp_path))
    assert (job.status, wrong) == (JobStatus.COMPLETED, 1)


async def test_the_plan_contains_length_and_checksums(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE, 65), tmp_path))
    assert job.working_audio_bytes == 65 * 32_000
    async with app.database.read() as session:
        chunks = list((await session.execute(select(Chunk).order_by(Chunk.chunk_index))).scalars())
    assert len(chunks) > 1
    audio = bytearray()
    for sample in (FINE, *[3000] * (65 * 16_000 - 1)):
        audio += sample.to_bytes(2, "little", signed=True)
    for chunk in chunks:
        own = b"".join(bytes(audio[first * 2 : last * 2]) for first, last in chunk.spans)
        assert chunk.crc32 == zlib.crc32(own)


@pytest.mark.parametrize("damage", [truncate, empty])
async def test_a_recording_that_shrank_in_storage_is_not_transcribed(
    app: Application, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    job_id = await submit_audio(app, bad_audio(FINE), tmp_path)
    assert isinstance(app.storage, LocalStorage)
    damage(app.storage.object_path((await get_job(app, job_id)).minio_audio_path or ""))
    async with running_consumer(app):
        job = await wait_for_end(app, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, ObjectDamagedError.code)


async def test_a_job_is_completed_only_if_its_result_can_be_read(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_bytes, cuts = LocalStorage.put_bytes, 0

    async def put(self: LocalStorage, key: str, data: bytes, content_type: str = "x/y") -> None:
        nonlocal cuts
        cuts += key.startswith("results/")
        await put_bytes(self, key, data[:10] if cuts == 1 else data, content_type)

    monkeypatch.setattr(LocalStorage, "put_bytes", put)
    async with running_consumer(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE), tmp_path))
    assert (job.status, cuts) == (JobStatus.COMPLETED, 3)
    assert (await app.services.results.read(job)).job_id == job.job_id


@pytest.mark.parametrize("content", [b"", b'{"job_id": "x"', b"[]", b"\xff\xfe"])
async def test_a_damaged_result_has_its_own_error(app: Application, tmp_path: Path, content: bytes) -> None:
    async with running_consumer(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE), tmp_path))
    assert isinstance(app.storage, LocalStorage)
    app.storage.object_path(keys.result_key(job.job_id)).write_bytes(content)
    for name in ("json", "srt"):
        with pytest.raises(ObjectDamagedError):
            await app.services.results.export(job, name)
