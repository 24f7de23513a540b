"""One suite for both storages: bytes in, bytes out, and nothing left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import (
    MachineError,
    ObjectNotFound,
    ObjectRefusedError,
    ShortRead,
    StorageUnavailable,
    TooManyUploads,
)
from core.storage.local import LocalStorage
from core.storage.port import Storage
from tests.contract.storages import KEY, MAX_UPLOADS, MIB, AnyStorage, leftovers, of_bucket, upload, wait_until_begun
from tests.servers.minio import Bucket


def make(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> AnyStorage:
    if kind == "local":
        return LocalStorage(tmp_path / "objects", max_uploads=MAX_UPLOADS)
    bucket: Bucket = request.getfixturevalue("minio_bucket")
    return of_bucket(bucket)


@pytest.fixture(params=["local", pytest.param("minio", marks=pytest.mark.servers)])
def unstarted(request: pytest.FixtureRequest, tmp_path: Path) -> AnyStorage:
    """A storage that is not started."""
    return make(request, request.param, tmp_path)


@pytest.fixture
async def storage(unstarted: AnyStorage) -> AsyncIterator[AnyStorage]:
    await unstarted.start()
    yield unstarted
    await unstarted.stop()


# -- bytes in, bytes out --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
async def test_round_trip(storage: AnyStorage, size: int, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)
    assert await upload(storage, KEY, data) == size
    assert await storage.get_bytes(KEY) == data
    assert await storage.download(KEY, tmp_path / "copy") == size
    assert (tmp_path / "copy").read_bytes() == data
    info = await storage.stat(KEY)
    assert info is not None
    assert (info.key, info.size) == (KEY, size)


async def test_one_large_write_equals_many_small_ones(storage: AnyStorage) -> None:
    data = random.Random(0).randbytes(17 * MIB + 5)
    writer = await storage.open_upload(KEY)
    await writer.write(data)
    await writer.write(b"")
    assert await writer.commit() == len(data)
    assert await storage.get_bytes(KEY) == data


async def test_stat_gives_the_time_in_utc(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"x")
    info = await storage.stat(KEY)
    assert info is not None
    assert info.last_modified.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - info.last_modified) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("first", "length", "expected"),
    [(2, 3, b"234"), (0, 1, b"0"), (8, 2, b"89"), (4, None, b"456789"), (3, 0, b"")],
)
async def test_byte_ranges(storage: AnyStorage, first: int, length: int | None, expected: bytes) -> None:
    await storage.put_bytes(KEY, b"0123456789")
    assert await storage.get_bytes(KEY, first, length) == expected


@pytest.mark.parametrize(("first", "length"), [(8, 3), (8, 100), (9, 2), (10, 5), (50, 1), (50, None)])
async def test_a_range_beyond_the_object_is_an_error(storage: AnyStorage, first: int, length: int | None) -> None:
    """Regression: the range was shortened to the existing bytes, down to none."""
    await storage.put_bytes(KEY, b"0123456789")
    with pytest.raises(ShortRead):
        await storage.get_bytes(KEY, first, length)


async def test_an_empty_object_has_no_range(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"")
    assert await storage.get_bytes(KEY) == b""
    with pytest.raises(ShortRead):
        await storage.get_bytes(KEY, 0, 10)


@pytest.mark.parametrize("size", [0, 9 * MIB])
async def test_put_file(storage: AnyStorage, tmp_path: Path, size: int) -> None:
    data = random.Random(3).randbytes(size)
    (tmp_path / "source").write_bytes(data)
    await storage.put_file(KEY, tmp_path / "source")
    assert await storage.get_bytes(KEY) == data


async def test_put_bytes_of_several_parts(storage: AnyStorage) -> None:
    data = random.Random(4).randbytes(17 * MIB)
    await storage.put_bytes(KEY, data)
    assert await storage.get_bytes(KEY) == data


async def test_writing_again_replaces(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"old and longer")
    await storage.put_bytes(KEY, b"new", "text/plain; charset=utf-8")
    assert await storage.get_bytes(KEY) == b"new"


@pytest.mark.parametrize("content_type", ["âm thanh/tiếng Việt", "text/plain\r\nx-evil: 1", ""])
async def test_content_types_invalid_in_headers_are_replaced(storage: AnyStorage, content_type: str) -> None:
    await storage.put_bytes(KEY, b"x", content_type)
    writer = await storage.open_upload(KEY, content_type)
    await writer.write(b"xy")
    await writer.commit()
    assert await storage.get_bytes(KEY) == b"xy"


async def test_keys_may_contain_non_ascii_letters(storage: AnyStorage) -> None:
    key = "uploads/job-1/ghi âm số 1 + 50%.wav"
    await storage.put_bytes(key, b"x")
    assert await storage.get_bytes(key) == b"x"
    assert await storage.delete_prefix("uploads/job-1/") == 1


async def test_concurrent_uploads(storage: AnyStorage) -> None:
    data = [random.Random(n).randbytes(9 * MIB + n) for n in range(MAX_UPLOADS)]
    await asyncio.gather(*(upload(storage, f"uploads/{n}/a", data[n], n) for n in range(MAX_UPLOADS)))
    assert [await storage.get_bytes(f"uploads/{n}/a") for n in range(MAX_UPLOADS)] == data


async def test_concurrent_uploads_and_deletes_share_folders(storage: AnyStorage) -> None:
    """Regression: empty folders were removed between another upload's mkdir and its open."""

    async def upload_repeatedly(number: int) -> None:
        for turn in range(40):
            writer = await storage.open_upload(f"uploads/{number}-{turn}/a")
            await writer.write(b"x")
            await writer.abort()

    await asyncio.gather(*(upload_repeatedly(number) for number in range(MAX_UPLOADS)))
    assert await storage.delete_prefix("uploads/") == 0


# -- all or nothing -------------------------------------------------------------------------------------------------
async def test_nothing_is_visible_before_commit(storage: AnyStorage) -> None:
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (9 * MIB))
    assert await storage.stat(KEY) is None
    with pytest.raises(ObjectNotFound):
        await storage.get_bytes(KEY)
    await writer.commit()
    assert await storage.stat(KEY) is not None


@pytest.mark.parametrize("size", [0, 1, 9 * MIB, 20 * MIB])
async def test_abort_leaves_nothing(storage: AnyStorage, size: int) -> None:
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * size)
    await writer.abort()
    await writer.abort()
    with pytest.raises(StorageUnavailable):
        await writer.write(b"more")
    with pytest.raises(StorageUnavailable):
        await writer.commit()
    assert await storage.stat(KEY) is None
    assert leftovers(storage) == []


async def test_abort_keeps_the_previous_object(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"before")
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (9 * MIB))
    await writer.abort()
    assert await storage.get_bytes(KEY) == b"before"


async def test_abort_after_commit_does_nothing(storage: AnyStorage) -> None:
    writer = await storage.open_upload(KEY)
    await writer.write(b"kept")
    await writer.commit()
    await writer.abort()
    with pytest.raises(StorageUnavailable):
        await writer.commit()
    assert await storage.get_bytes(KEY) == b"kept"


async def test_an_interrupted_upload_leaves_nothing(storage: AnyStorage) -> None:
    writer = await storage.open_upload(KEY)
    with pytest.raises(ConnectionResetError):
        try:
            await writer.write(b"x" * (9 * MIB))
            raise ConnectionResetError
        except ConnectionResetError:
            await writer.abort()
            raise
    assert leftovers(storage) == []


@pytest.mark.parametrize("delay", [0, 0.002, 0.01, 0.03])
async def test_a_cancelled_commit_and_abort_leave_nothing(storage: AnyStorage, delay: float) -> None:
    """Regression: the last part was in flight, and the object appeared after the abort."""
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (12 * MIB))
    committing = asyncio.create_task(writer.commit())
    await asyncio.wait([committing], timeout=delay)
    finished = committing.done()
    committing.cancel()
    await asyncio.wait([committing])
    await writer.abort()
    assert (await storage.stat(KEY) is not None) == finished
    assert finished or leftovers(storage) == []


async def test_a_cancelled_write_cannot_be_committed(storage: AnyStorage) -> None:
    """Some of the bytes may be lost, and an object with a gap must not be visible."""
    writer = await storage.open_upload(KEY)
    writing = asyncio.create_task(writer.write(b"x" * (40 * MIB)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not writing.done()
    writing.cancel()
    await asyncio.wait([writing])
    with pytest.raises(StorageUnavailable):
        await writer.commit()
    await writer.abort()
    assert await storage.stat(KEY) is None
    assert leftovers(storage) == []


async def test_concurrent_uploads_are_limited(storage: AnyStorage) -> None:
    writers = [await storage.open_upload(f"uploads/j/{number}") for number in range(MAX_UPLOADS)]
    with pytest.raises(TooManyUploads):
        await storage.open_upload("uploads/j/4")
    await writers[0].commit()
    writers[0] = await storage.open_upload("uploads/j/5")
    for writer in writers:
        await writer.abort()
    again = [await storage.open_upload(f"uploads/j/{number}") for number in range(MAX_UPLOADS)]
    for writer in again:
        await writer.abort()


# -- missing and deleted objects ------------------------------------------------------------------------------------
async def test_missing_objects(storage: AnyStorage, tmp_path: Path) -> None:
    for length in (None, 0, 5):
        with pytest.raises(ObjectNotFound):
            await storage.get_bytes("results/none/a", 0, length)
    with pytest.raises(ObjectNotFound):
        await storage.download("results/none/a", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert await storage.stat("results/none/a") is None
    assert await storage.delete_prefix("results/none/") == 0


async def test_a_folder_is_not_an_object(storage: AnyStorage) -> None:
    await storage.put_bytes("results/job-1/a", b"x")
    assert await storage.stat("results/job-1") is None
    with pytest.raises(ObjectNotFound):
        await storage.get_bytes("results/job-1")


async def test_delete_is_idempotent(storage: AnyStorage) -> None:
    await storage.put_bytes(KEY, b"x")
    await storage.delete(KEY)
    await storage.delete(KEY)
    assert await storage.stat(KEY) is None


async def test_named_objects_are_deleted_together(storage: AnyStorage) -> None:
    """S3 deletes at most 1000 objects per request."""
    names = [f"results/j/{number}" for number in range(1001)]
    for key in (names[0], names[-1], "results/other/0"):
        await storage.put_bytes(key, b"x")
    await storage.delete_many(names)
    await storage.delete_many([])
    assert await storage.stat(names[0]) is None
    assert await storage.stat(names[-1]) is None
    assert await storage.stat("results/other/0") is not None


async def test_a_prefix_is_a_folder(storage: AnyStorage) -> None:
    for key in ("uploads/job-1/a", "uploads/job-1/b/c", "uploads/job-10/a"):
        await storage.put_bytes(key, b"x")
    assert await storage.delete_prefix("uploads/job-1/") == 2
    assert await storage.delete_prefix("uploads/job-1/") == 0
    assert await storage.stat("uploads/job-1/a") is None
    assert await storage.stat("uploads/job-10/a") is not None


async def test_a_prefix_without_a_slash_matches_the_start_of_keys(storage: AnyStorage) -> None:
    for key in ("work/j/1.pcm", "work/j/12.pcm", "work/j/2.pcm", "work/j/1/deep"):
        await storage.put_bytes(key, b"x")
    assert await storage.delete_prefix("work/j/1") == 3
    assert await storage.stat("work/j/2.pcm") is not None


@pytest.mark.parametrize("prefix", [KEY, "uploads/job-1/"])
async def test_a_prefix_ends_unfinished_uploads(storage: AnyStorage, prefix: str) -> None:
    other = await storage.open_upload("uploads/job-10/a.wav")
    await other.write(b"x" * (9 * MIB))
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (20 * MIB))
    await wait_until_begun(storage)
    await storage.delete_prefix(prefix)
    with pytest.raises(StorageUnavailable):
        await writer.commit()
    await writer.abort()
    assert await storage.stat(KEY) is None
    assert await other.commit() == 9 * MIB
    if not isinstance(storage, LocalStorage):
        assert leftovers(storage) == []


async def test_deleting_many_objects(storage: AnyStorage) -> None:
    """S3 deletes at most 1000 objects per request."""
    for start in range(0, 1050, 50):
        await asyncio.gather(*(storage.put_bytes(f"work/j/{n}", b"x") for n in range(start, start + 50)))
    assert await storage.delete_prefix("work/j/") == 1050
    assert await storage.stat("work/j/1049") is None


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../b", "a//b", "", "a/\0b", "a/./b", "a/", ".", ".."])
async def test_keys_are_plain_relative_paths(storage: AnyStorage, tmp_path: Path, key: str) -> None:
    calls = (
        storage.open_upload(key),
        storage.put_bytes(key, b"x"),
        storage.put_file(key, tmp_path / "x"),
        storage.get_bytes(key),
        storage.download(key, tmp_path / "x"),
        storage.stat(key),
        storage.delete(key),
    )
    for call in calls:
        with pytest.raises(ValueError, match="not an object key"):
            await call


@pytest.mark.parametrize("prefix", ["", "/", "../", "a//", "/a/"])
async def test_a_prefix_never_matches_everything(storage: AnyStorage, prefix: str) -> None:
    with pytest.raises(ValueError, match="not an object key"):
        await storage.delete_prefix(prefix)


# -- start and stop -------------------------------------------------------------------------------------------------
async def test_ping_needs_a_start(unstarted: AnyStorage) -> None:
    with pytest.raises(StorageUnavailable):
        await unstarted.ping()
    await unstarted.start()
    await unstarted.ping()
    await unstarted.stop()


async def test_stop_is_idempotent_and_start_repeatable(unstarted: AnyStorage) -> None:
    await unstarted.stop()
    await unstarted.start()
    await unstarted.start()
    await unstarted.put_bytes(KEY, b"x")
    await unstarted.stop()
    await unstarted.stop()
    assert await unstarted.get_bytes(KEY) == b"x"
    await unstarted.stop()


async def test_several_processes_can_start_at_once(
    request: pytest.FixtureRequest, unstarted: AnyStorage, tmp_path: Path
) -> None:
    kind = "local" if isinstance(unstarted, LocalStorage) else "minio"
    storages: list[Storage] = [unstarted, *(make(request, kind, tmp_path) for _ in range(5))]
    await asyncio.gather(*(storage.start() for storage in storages))
    for storage in storages:
        await storage.ping()
        await storage.stop()


async def test_an_invalid_name_is_not_an_outage(storage: AnyStorage, tmp_path: Path) -> None:
    key = f"uploads/job-1/{'x' * 2000}.wav"
    with pytest.raises(ObjectRefusedError):
        await storage.put_bytes(key, b"x")
    await storage.put_bytes(KEY, b"x")


async def test_an_unwritable_file_is_a_machine_error(storage: AnyStorage, tmp_path: Path) -> None:
    await storage.put_bytes(KEY, b"x")
    with pytest.raises(MachineError):
        await storage.download(KEY, tmp_path / "removed" / "copy")
    with pytest.raises(MachineError):
        await storage.put_file(KEY, tmp_path / "removed" / "source")
    await storage.ping()
