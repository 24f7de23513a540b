"""S3 storage only: servers that crash, freeze, are slow or answer wrongly; memory, and interoperability."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from minio import Minio as Client
from minio.deleteobjects import DeleteObject

from core.errors import DiskFullError, ObjectNotFound, ObjectRefusedError, ShortRead, StorageUnavailable
from core.storage import transport
from core.storage.minio import MinioStorage
from core.storage.port import ObjectInfo
from tests.contract.s3_stub import Answer, stub
from tests.contract.storages import KEY, MIB, leftovers, of_bucket, wait_until_begun
from tests.servers.base import Server, free_port
from tests.servers.minio import Bucket, LocalMinio, Minio, program_path

ROOT = Path(__file__).resolve().parents[2]
SIZE = 200


def of_stub(endpoint: str) -> MinioStorage:
    return MinioStorage(endpoint, "access", "secret-secret", "bucket")


def stoppable(server: Minio) -> Server:
    if not isinstance(server, Server):
        pytest.skip("an external server cannot be stopped")
    return server


# -- unavailable servers ---------------------------------------------------------------------------------------------
@pytest.mark.servers
@pytest.mark.parametrize("prefix", [KEY, "uploads/job-1/"])
async def test_a_server_killed_during_an_upload(minio_server: Minio, minio_bucket: Bucket, prefix: str) -> None:
    """MinIO lists an interrupted upload by its exact key after a restart; by prefix it lists only those begun since.
    The test therefore removes the remains by key in either case.
    """
    server, storage = stoppable(minio_server), of_bucket(minio_bucket)
    await storage.start()
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (10 * MIB))
    await wait_until_begun(storage)
    await asyncio.to_thread(server.kill)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(StorageUnavailable):
                while True:
                    await writer.write(b"x" * MIB)
            for _ in range(10):
                with pytest.raises(StorageUnavailable):
                    await writer.write(b"x" * MIB)
            with pytest.raises(StorageUnavailable):
                await writer.commit()
            await writer.abort()
            with pytest.raises(StorageUnavailable):
                await storage.ping()
    finally:
        await asyncio.to_thread(server.start)
    assert leftovers(storage) != []
    await storage.delete_prefix(prefix)
    if prefix != KEY:
        assert leftovers(storage) != []
    await storage.delete_prefix(KEY)
    assert leftovers(storage) == []
    assert await storage.stat(KEY) is None
    await storage.stop()


@pytest.mark.servers
async def test_a_frozen_server_is_an_outage(
    minio_server: Minio, minio_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT", 1.0)
    server, storage = stoppable(minio_server), of_bucket(minio_bucket)
    await storage.start()
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (10 * MIB))
    await wait_until_begun(storage)
    server.pause()
    try:
        async with asyncio.timeout(30):
            with pytest.raises(StorageUnavailable):
                while True:
                    await writer.write(b"x" * MIB)
            await writer.abort()
            with pytest.raises(StorageUnavailable):
                await storage.ping()
            with pytest.raises(StorageUnavailable):
                await storage.get_bytes(KEY)
    finally:
        server.resume()
    async with asyncio.timeout(20):
        await storage.delete_prefix(KEY)
        while leftovers(storage):  # the server now answers the requests that it accepted while frozen
            await storage.delete_prefix(KEY)
    assert await storage.stat(KEY) is None
    await storage.stop()


@pytest.mark.servers
async def test_a_restart_between_two_calls_is_transparent(minio_server: Minio, minio_bucket: Bucket) -> None:
    """The pooled connections are dead, which the client notices only when it uses them."""
    server, storage = stoppable(minio_server), of_bucket(minio_bucket)
    await storage.start()
    await storage.put_bytes(KEY, b"x")
    await asyncio.to_thread(server.restart)
    assert await storage.get_bytes(KEY) == b"x"
    await storage.stop()


async def test_a_closed_port_is_an_outage() -> None:
    storage = of_stub(f"127.0.0.1:{free_port()}")
    writer = await storage.open_upload(KEY)
    await writer.write(b"x")
    for call in (storage.start(), storage.ping(), storage.get_bytes(KEY), storage.delete_prefix(KEY), writer.commit()):
        with pytest.raises(StorageUnavailable) as failed:
            await call
        assert failed.value.detail is None  # hosts and keys belong in the log only
    await writer.abort()
    await storage.stop()


# -- wrong and slow answers -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kept", [True, False])
async def test_a_slow_link_has_time_to_send_a_part(monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """Regression: the connect timeout limited the sending of a part, so links under 13 Mbit/s always failed, on new and
    on kept connections.
    """
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT", 0.2)
    answer = Answer(mib_per_second=16, keep=kept)
    with stub(answer) as endpoint:
        storage = of_stub(endpoint)
        started = time.monotonic()
        await storage.put_bytes(KEY, b"x" * (8 * MIB))
        assert time.monotonic() - started > 2 * transport.CONNECT_TIMEOUT
        assert answer.seen == ["GET", "PUT", "HEAD"], "no request was retried"
        await storage.stop()


async def test_a_server_that_stops_reading_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.5)
    with stub(Answer(mib_per_second=2)) as endpoint:
        storage = of_stub(endpoint)
        async with asyncio.timeout(20):
            with pytest.raises(StorageUnavailable):
                await storage.put_bytes(KEY, b"x" * (8 * MIB))
        await storage.stop()


async def test_a_truncated_body_is_an_error(tmp_path: Path) -> None:
    with stub(Answer(body=b"x" * 500, length=1000)) as endpoint:
        storage = of_stub(endpoint)
        with pytest.raises(StorageUnavailable):
            await storage.download(KEY, tmp_path / "copy")
        with pytest.raises(StorageUnavailable):
            await storage.get_bytes(KEY)
        await storage.stop()


@pytest.mark.parametrize("ends", [False, True], ids=["length of its own", "no length at all"])
@pytest.mark.parametrize("size", [0, 1, 99, 101, 500])
async def test_a_range_of_the_wrong_length_is_an_error(size: int, ends: bool) -> None:
    """A truncated object, a gateway that ignores ranges, or a proxy that closes early: all end without an error."""
    with stub(Answer(status=206, body=b"x" * size, ends=ends)) as endpoint:
        storage = of_stub(endpoint)
        with pytest.raises(ShortRead):
            await storage.get_bytes(KEY, 200, 100)
        await storage.stop()


async def test_an_invalid_range_is_not_an_empty_answer() -> None:
    """Regression: it became b"", and the chunk's words were missing from a COMPLETED job."""
    with stub(Answer(416, S3_ERROR.format("InvalidRange").encode())) as endpoint:
        storage = of_stub(endpoint)
        for first, length in ((200, 100), (200, None)):
            with pytest.raises(ShortRead):
                await storage.get_bytes(KEY, first, length)
        await storage.stop()


@pytest.mark.parametrize("stored", [0, 7])
async def test_a_partially_stored_object_is_an_error(tmp_path: Path, stored: int) -> None:
    """The server acknowledges the bytes but stores fewer."""
    (tmp_path / "source").write_bytes(b"12345678")
    with stub(Answer(stored=stored)) as endpoint:
        storage = of_stub(endpoint)
        for put in (storage.put_bytes(KEY, b"12345678"), storage.put_file(KEY, tmp_path / "source")):
            with pytest.raises(StorageUnavailable):
                await put
        writer = await storage.open_upload(KEY)
        await writer.write(b"12345678")
        with pytest.raises(StorageUnavailable):
            await writer.commit()
        await writer.abort()
        await storage.stop()


S3_ERROR = "<Error><Code>{}</Code><Message>m</Message><Key>k</Key><BucketName>b</BucketName></Error>"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", ObjectNotFound),
        (404, "NoSuchBucket", StorageUnavailable),
        (403, "AccessDenied", StorageUnavailable),
        (503, "SlowDown", StorageUnavailable),
        (507, "XMinioStorageFull", StorageUnavailable),
        (400, "QuotaExceeded", StorageUnavailable),
    ],
)
async def test_s3_errors_are_translated(status: int, code: str, expected: type[Exception]) -> None:
    with stub(Answer(status, S3_ERROR.format(code).encode())) as endpoint:
        storage = of_stub(endpoint)
        with pytest.raises(expected):
            await storage.get_bytes(KEY)
        await storage.stop()


REFUSED = [(403, "AccessDenied"), (403, "InvalidObjectState"), (405, "MethodNotAllowed"), (400, "KeyTooLongError")]


@pytest.mark.parametrize(("status", "code"), REFUSED)
async def test_an_error_about_one_object_is_not_an_outage(status: int, code: str, tmp_path: Path) -> None:
    with stub(Answer(status, S3_ERROR.format(code).encode(), only=KEY)) as endpoint:
        storage = of_stub(endpoint)
        await storage.ping()
        for call in (
            storage.get_bytes(KEY),
            storage.get_bytes(KEY, 0, 0),
            storage.download(KEY, tmp_path / "copy"),
            storage.stat(KEY),
            storage.put_bytes(KEY, b"x"),
            storage.copy(ObjectInfo("uploads/job-2/b.wav", 1, datetime.now(UTC), "etag"), KEY),
        ):
            with pytest.raises(ObjectRefusedError):
                await call
        assert await storage.get_bytes("uploads/job-2/b.wav") == b"x"
        await storage.stop()


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (500, "InternalError"), (408, "RequestTimeout"), (403, "RequestTimeTooSkewed"), (429, "Slow")],
)
async def test_temporary_errors_of_one_object_are_retried(status: int, code: str) -> None:
    with stub(Answer(status, S3_ERROR.format(code).encode(), only=KEY)) as endpoint:
        storage = of_stub(endpoint)
        with pytest.raises(StorageUnavailable):
            await storage.get_bytes(KEY)
        await storage.stop()


@pytest.mark.parametrize("body", [gzip.compress(b"sound" * 1000), b"not compressed at all"], ids=["gzip", "a lie"])
async def test_content_encoding_is_not_decoded(body: bytes, tmp_path: Path) -> None:
    """Regression: the decoded length did not match, and storage was considered down."""
    with stub(Answer(body=body, encoding="gzip")) as endpoint:
        storage = of_stub(endpoint)
        assert await storage.get_bytes(KEY) == body
        assert await storage.download(KEY, tmp_path / "copy") == len(body)
        assert (tmp_path / "copy").read_bytes() == body
        await storage.stop()


@pytest.mark.servers
async def test_an_object_stored_with_content_encoding_is_read_unchanged(minio_bucket: Bucket, tmp_path: Path) -> None:
    storage = of_bucket(minio_bucket)
    await storage.start()
    for key, body in (("uploads/job-1/a", gzip.compress(b"sound" * 1000)), ("uploads/job-1/b", b"no gzip at all")):
        metadata: Any = {"Content-Encoding": "gzip"}
        storage.client.put_object(storage.bucket, key, io.BytesIO(body), len(body), metadata=metadata)
        assert await storage.get_bytes(key) == body
        assert await storage.get_bytes(key, 2, 5) == body[2:7]
        assert await storage.download(key, tmp_path / "copy") == len(body)
        assert (tmp_path / "copy").read_bytes() == body
    await storage.stop()


@pytest.mark.servers
async def test_wrong_credentials_and_a_missing_bucket_are_outages(minio_bucket: Bucket, tmp_path: Path) -> None:
    """Otherwise every waiting job would fail."""
    good = of_bucket(minio_bucket)
    await good.start()
    await good.put_bytes(KEY, b"x")
    wrong = MinioStorage(minio_bucket.endpoint, minio_bucket.access_key, "not-the-secret", minio_bucket.bucket)
    nowhere = MinioStorage(minio_bucket.endpoint, minio_bucket.access_key, minio_bucket.secret_key, "gone-bucket")
    for storage in (wrong, nowhere):
        for call in (storage.get_bytes(KEY), storage.stat(KEY), storage.download(KEY, tmp_path / "x"), storage.ping()):
            with pytest.raises(StorageUnavailable):
                await call
        await storage.stop()
    await good.stop()


async def test_an_html_page_is_not_an_s3_answer() -> None:
    """A proxy answers with its own page and status 200."""
    with stub(Answer(body=b"<html><p>Sign in<br></html>")) as endpoint:
        storage = of_stub(endpoint)
        with pytest.raises(StorageUnavailable):
            await storage.delete_prefix(KEY)
        await storage.stop()


@pytest.mark.servers
async def test_errors_of_a_bulk_delete_are_raised(minio_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK yields errors one by one and deletes only as they are consumed."""
    storage = of_bucket(minio_bucket)
    await storage.start()
    await storage.put_bytes(KEY, b"x")
    remove = storage.client.remove_objects

    class Denied:
        name, code, message = "other", "AccessDenied", "no"

    def one_denied(bucket: str, objects: list[DeleteObject]) -> Iterator[Any]:
        yield Denied
        yield from remove(bucket, objects)

    monkeypatch.setattr(storage.client, "remove_objects", one_denied)
    with pytest.raises(StorageUnavailable):
        await storage.delete_prefix("uploads/job-1/")
    assert await storage.stat(KEY) is None
    await storage.stop()


# -- other clients, other regions -----------------------------------------------------------------------------------
@pytest.mark.servers
async def test_other_clients_see_the_objects(minio_bucket: Bucket) -> None:
    storage = of_bucket(minio_bucket)
    await storage.start()
    await storage.put_bytes(KEY, b"x", "audio/wav")
    other = Client(minio_bucket.endpoint, minio_bucket.access_key, minio_bucket.secret_key, secure=False)
    assert [item.object_name for item in other.list_objects(minio_bucket.bucket, recursive=True)] == [KEY]
    assert other.stat_object(minio_bucket.bucket, KEY).content_type == "audio/wav"
    await storage.stop()


class ExternalServer(LocalMinio):
    def environment(self) -> dict[str, str]:
        return {**super().environment(), "MINIO_SITE_REGION": "eu-central-1"}


@pytest.mark.servers
async def test_a_server_in_another_region() -> None:
    """Requests are signed for the bucket's region; a fixed region would be rejected. We do not create buckets there."""
    program = program_path()
    if program is None:
        pytest.skip("no MinIO program on this machine")
    server = ExternalServer(program)
    await asyncio.to_thread(server.start)
    try:
        credentials = (server.endpoint, server.access_key, server.secret_key)
        await asyncio.to_thread(Client(*credentials, secure=False, region="eu-central-1").make_bucket, "elsewhere")
        storage = MinioStorage(*credentials, "elsewhere")
        await storage.start()
        await storage.put_bytes(KEY, b"x")
        assert await storage.get_bytes(KEY) == b"x"
        await storage.stop()
    finally:
        await asyncio.to_thread(server.remove)


# -- threads and memory ---------------------------------------------------------------------------------------------
LEAVES = """
import asyncio
from core.storage.minio import MinioStorage
from core.storage.port import ObjectInfo

async def main() -> None:
    storage = MinioStorage("127.0.0.1:1", "access", "secret-secret", "bucket")
    writer = await storage.open_upload("uploads/j/a")
    await writer.write(b"x")
    await storage.stop()
    print("stopped")

asyncio.run(main())
"""


def test_a_process_exits_with_an_open_upload() -> None:
    """Regression: the uploading thread waited forever, and the interpreter for the thread."""
    completed = subprocess.run(
        [sys.executable, "-c", LEAVES], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (completed.stdout, completed.stderr, completed.returncode) == ("stopped\n", "", 0)


@pytest.mark.servers
async def test_uploads_leave_the_default_executor_alone(minio_bucket: Bucket) -> None:
    """DNS look-ups run in the default executor."""
    loop, storage = asyncio.get_running_loop(), of_bucket(minio_bucket)
    await storage.start()
    writer = await storage.open_upload(KEY)
    await writer.write(b"x" * (9 * MIB))
    await writer.commit()
    await storage.ping()
    assert getattr(loop, "_default_executor", "unknown") is None
    await storage.stop()


@pytest.mark.servers
def test_memory_does_not_grow_with_the_upload(minio_bucket: Bucket) -> None:
    """200 MiB; the CPU seconds are printed next to the SDK's, not asserted."""
    through_port, sdk = (child(way, minio_bucket) for way in ("port", "sdk"))
    print(f"\n{SIZE} MiB: port {through_port}, fput_object {sdk}")  # noqa: T201
    assert 8 < through_port["grown"] < 64, "a part is 8 MiB, so less means that nothing was measured"


def child(way: str, bucket: Bucket) -> dict[str, float]:
    arguments = (bucket.endpoint, bucket.access_key, bucket.secret_key, bucket.bucket, str(SIZE))
    call = [sys.executable, "-m", "tests.contract.upload_child", way, *arguments]
    completed = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert completed.returncode == 0, completed.stderr
    figures: dict[str, float] = json.loads(completed.stdout)
    return figures


async def test_a_full_disk_stops_a_download() -> None:
    """/dev/full answers every write with ENOSPC."""
    with stub(Answer(body=b"x" * MIB)) as endpoint:
        storage = of_stub(endpoint)
        with pytest.raises(DiskFullError):
            await storage.download(KEY, Path("/dev/full"))
        await storage.stop()
