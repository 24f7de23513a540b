"""One suite for both storages: bytes in, bytes out, and nothing left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from minio import Minio as Client

from core.errors import ObjectNotFound, StorageUnavailable, TooManyUploads
from core.storage.local import LocalStorage
from core.storage.minio import MinioStorage
from core.storage.port import Storage
from tests.servers.base import Server
from tests.servers.minio import Bucket, Minio

MIB = 1024 * 1024
KEY = "uploads/job-1/a.wav"
AnyStorage = LocalStorage | MinioStorage


@pytest.fixture(params=["local", pytest.param("minio", marks=pytest.mark.servers)])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyStorage]:
    made: AnyStorage
    if request.param == "local":
        made = LocalStorage(tmp_path / "objects", max_uploads=3)
    else:
        bucket: Bucket = request.getfixturevalue("minio_bucket")
        made = of_bucket(bucket)
    await made.start()
    yield made
    await made.stop()


def of_bucket(bucket: Bucket) -> MinioStorage:
    return MinioStorage(bucket.endpoint, bucket.access_key, bucket.secret_key, bucket.bucket, max_uploads=3)


async def upload(storage: Storage, key: str, data: bytes, seed: int = 1) -> int:
    """Write in pieces of odd sizes."""
    rng, at = random.Random(seed), 0
    writer = await storage.open_upload(key)
    while at < len(data):
        step = rng.randint(1, 3 * MIB)
        await writer.write(data[at : at + step])
        at += step
    return await writer.commit()


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB + 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
async def test_round_trip(storage: AnyStorage, size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    assert await upload(storage, KEY, data) == size
    assert await storage.get_bytes(KEY) == data
    assert await storage.download(KEY, tmp_path / "copy") == size
    assert (tmp_path / "copy").read_bytes() == data
    info = await storage.stat(KEY)
    assert info is not None
    assert info.size == size
    assert info.last_modified.tzinfo is not None


async def test_byte_ranges(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"0123456789")
    assert await storage.get_bytes(KEY, 2, 3) == b"234"
    assert await storage.get_bytes(KEY, 8, 100) == b"89"
    assert await storage.get_bytes(KEY, 4) == b"456789"
    assert await storage.get_bytes(KEY, 3, 0) == b""


async def test_put_file(storage: AnyStorage, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(9 * MIB)
    (tmp_path / "source").write_bytes(data)
    await storage.put_file(KEY, tmp_path / "source")
    assert await storage.get_bytes(KEY) == data


async def test_writing_again_replaces(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"old and longer")
    await storage.put_bytes(KEY, b"new", "text/plain; charset=utf-8")
    assert await storage.get_bytes(KEY) == b"new"


async def test_nothing_is_visible_before_commit(storage: AnyStorage) -> None:
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (9 * MIB))
    assert await storage.stat(KEY) is None
    await writer.commit()
    assert await storage.stat(KEY) is not None


async def test_abort_leaves_nothing(storage: AnyStorage) -> None:
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (20 * MIB))
    await writer.abort()
    await writer.abort()
    with pytest.raises(StorageUnavailable):
        await writer.write(b"more")
    assert await storage.stat(KEY) is None
    assert leftovers(storage) == []


async def test_abort_after_commit_does_nothing(storage: AnyStorage) -> None:
    writer = await storage.open_upload(KEY)
    await writer.write(b"kept")
    await writer.commit()
    await writer.abort()
    assert await storage.get_bytes(KEY) == b"kept"


def leftovers(storage: AnyStorage) -> list[str]:
    """Unfinished uploads: hidden files, or multipart uploads of our key."""
    if isinstance(storage, LocalStorage):
        return [str(path) for path in storage.root.rglob("*") if path.is_file()]
    return [str(u.upload_id) for u in storage.client._list_multipart_uploads(storage.bucket, prefix=KEY).uploads]


async def test_too_many_uploads_at_once(storage: AnyStorage) -> None:
    writers = [await storage.open_upload(f"uploads/j/{number}") for number in range(3)]
    with pytest.raises(TooManyUploads):
        await storage.open_upload("uploads/j/4")
    for writer in writers:
        await writer.abort()
    await (await storage.open_upload("uploads/j/5")).abort()


async def test_uploads_side_by_side(storage: AnyStorage) -> None:
    data = [random.Random(n).randbytes(9 * MIB + n) for n in range(3)]
    await asyncio.gather(*(upload(storage, f"uploads/{n}/a", data[n], n) for n in range(3)))
    assert [await storage.get_bytes(f"uploads/{n}/a") for n in range(3)] == data


async def test_what_is_not_there(storage: AnyStorage, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        await storage.get_bytes("results/none/a")
    with pytest.raises(ObjectNotFound):
        await storage.download("results/none/a", tmp_path / "x")
    assert await storage.stat("results/none/a") is None
    await storage.delete("results/none/a")
    assert await storage.delete_prefix("results/none/") == 0


async def test_a_prefix_is_a_folder(storage: AnyStorage) -> None:
    for key in ("uploads/job-1/a", "uploads/job-1/b/c", "uploads/job-10/a"):
        await storage.put_bytes(key, b"x")
    assert await storage.delete_prefix("uploads/job-1/") == 2
    assert await storage.stat("uploads/job-1/a") is None
    assert await storage.stat("uploads/job-10/a") is not None


async def test_a_prefix_ends_unfinished_uploads(storage: AnyStorage) -> None:
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (20 * MIB))
    async with asyncio.timeout(20):
        while not leftovers(storage):
            await asyncio.sleep(0.02)
    await storage.delete_prefix(KEY)
    assert leftovers(storage) == []
    await writer.abort()


async def test_ping_and_stop(storage: AnyStorage) -> None:
    await storage.ping()
    await storage.start()
    await storage.stop()
    await storage.stop()


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../b", "a//b", "", "a/\0b"])
async def test_a_key_never_leaves_the_root(tmp_path: Path, key: str) -> None:
    storage = LocalStorage(tmp_path / "objects")
    await storage.start()
    with pytest.raises(ValueError, match="not an object key"):
        await storage.put_bytes(key, b"x")
    await storage.stop()


async def test_an_unwritable_root_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = LocalStorage(tmp_path / "file" / "objects")
    with pytest.raises((StorageUnavailable, ObjectNotFound)):
        await storage.start()
    await storage.stop()


@pytest.mark.servers
async def test_a_server_that_dies_during_an_upload(minio_server: Minio, minio_bucket: Bucket) -> None:
    if not isinstance(minio_server, Server):
        pytest.skip("not ours to stop")
    storage = of_bucket(minio_bucket)
    await storage.start()
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (10 * MIB))
    await asyncio.to_thread(minio_server.kill)
    try:
        with pytest.raises(StorageUnavailable):
            async with asyncio.timeout(60):
                for _ in range(40):
                    await writer.write(b"x" * MIB)
                await writer.commit()
        await writer.abort()
        with pytest.raises(StorageUnavailable):
            await storage.ping()
    finally:
        await asyncio.to_thread(minio_server.start)
    await storage.delete_prefix(KEY)
    assert leftovers(storage) == []
    assert await storage.stat(KEY) is None
    await storage.stop()


@pytest.mark.servers
async def test_another_client_sees_the_objects(minio_bucket: Bucket) -> None:
    storage = of_bucket(minio_bucket)
    await storage.start()
    await storage.put_bytes(KEY, b"x", "audio/wav")
    other = Client(minio_bucket.endpoint, minio_bucket.access_key, minio_bucket.secret_key, secure=False)
    assert [item.object_name for item in other.list_objects(minio_bucket.bucket, recursive=True)] == [KEY]
    assert other.stat_object(minio_bucket.bucket, KEY).content_type == "audio/wav"
    await storage.stop()
