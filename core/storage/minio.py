"""S3-compatible object storage, based on the `minio` SDK.

Calls run in threads of their own, since the default executor is needed for DNS look-ups.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from core.call_metrics import STORAGE_OPERATIONS, counted
from core.errors import ObjectNotFound, ObjectRefusedError, ShortRead, StorageUnavailable, TooManyUploads
from core.files import BLOCK_SIZE, own_file_errors, write_file
from core.storage.pipe import Aborted, Pipe
from core.storage.port import OCTETS, ObjectInfo, Upload, checked_key, checked_prefix, header_safe
from core.storage.transport import connections

T = TypeVar("T")
PART_SIZE = 8 * 1024 * 1024
CALL_THREADS = 16
PING_TIMEOUT = 3.0
_MISSING = ("NoSuchKey", "NoSuchObject")
_TRANSIENT = (408, 409, 425, 429)
_OUTAGES = (
    *("NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeout"),
    *("RequestTimeTooSkewed", "BadDigest", "IncompleteBody", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"),
)
"""S3 error codes with status 4xx that never concern one object alone."""
_ERRORS = (MinioException, HTTPError, ParseError, UnicodeDecodeError, OSError, Aborted)


@counted("storage", STORAGE_OPERATIONS)
class MinioStorage:
    """An S3 bucket.

    endpoint, public_endpoint: host:port, the latter in upload links; secure, public_secure: use https, the latter as
    `secure` by default; max_uploads: uploads at a time, each with a thread.
    """

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        *,
        secure: bool = False,
        max_uploads: int = 8,
        public_endpoint: str | None = None,
        public_secure: bool | None = None,
    ) -> None:
        self._connections = connections(CALL_THREADS + max_uploads)
        self._probe_connections = connections(2, read_timeout=PING_TIMEOUT, tries=1)
        self.client = Minio(endpoint, access_key, secret_key, secure=secure, http_client=self._connections)
        self._probe = Minio(endpoint, access_key, secret_key, secure=secure, http_client=self._probe_connections)
        self.bucket = bucket
        self.public_endpoint = public_endpoint or endpoint
        self._credentials = access_key, secret_key
        self._public_secure = secure if public_secure is None else public_secure
        self.max_uploads = max_uploads
        self.active_uploads: set[_MinioUpload] = set()
        self._calls: ThreadPoolExecutor | None = None
        self._writers: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        await self.run(self._make_bucket)

    def _make_bucket(self) -> None:
        if not self.client.bucket_exists(self.bucket):
            try:
                self.client.make_bucket(self.bucket)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    async def stop(self) -> None:
        for upload in self.active_uploads:
            upload.fail()  # a thread waiting for bytes would keep the process from exiting
        for threads in (self._calls, self._writers):
            if threads is not None:
                threads.shutdown(wait=False)
        self._calls = self._writers = None
        self._connections.clear()
        self._probe_connections.clear()

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                if not await self.run(lambda: self._probe.bucket_exists(self.bucket)):
                    raise StorageUnavailable
        except TimeoutError as error:
            raise StorageUnavailable from error

    async def run(self, work: Callable[[], T], key: str | None = None) -> T:
        """Run an SDK call in a thread and translate its errors. key: the object, if the call is about one."""
        if self._calls is None:
            self._calls = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="minio")
        with translate_errors():
            return await asyncio.get_running_loop().run_in_executor(self._calls, self._classify_errors, work, key)

    def _classify_errors(self, work: Callable[[], T], key: str | None) -> T:
        """Distinguish errors about one object from errors about the bucket or the credentials. Runs in a thread."""
        try:
            return work()
        except S3Error as error:
            if key is None or not 400 <= error.response.status < 500 or error.response.status in _TRANSIENT:
                raise
            if error.code in _MISSING:
                if not error.response.data and not self.client.bucket_exists(self.bucket):
                    raise StorageUnavailable from error  # a response without a body does not name what is missing
            elif error.code not in _OUTAGES and self._accepts_other_objects(key):
                raise ObjectRefusedError from error
            raise

    def _accepts_other_objects(self, key: str) -> bool:
        """Return True if another object in the same folder can be written and read."""
        probe = f"{key.partition('/')[0]}/.probe-{os.urandom(8).hex()}"
        try:
            self.client.put_object(self.bucket, probe, io.BytesIO(b"x"), 1)
            with self._get_object(probe) as response:
                return bool(response.read() == b"x")
        except _ERRORS:
            return False
        finally:
            with contextlib.suppress(*_ERRORS):
                self.client.remove_object(self.bucket, probe)

    async def open_upload(self, key: str, content_type: str = OCTETS) -> Upload:
        checked_key(key)
        if len(self.active_uploads) >= self.max_uploads:
            raise TooManyUploads
        if self._writers is None:
            self._writers = ThreadPoolExecutor(self.max_uploads, thread_name_prefix="minio-upload")
        return _MinioUpload(self, self._writers, key, header_safe(content_type))

    def put(self, key: str, source: Any, size: int, content_type: str) -> None:
        """Store an object. size in bytes, -1: until the source ends. Raises StorageUnavailable and errors of the SDK.

        Parts are sent one by one, since the SDK's parallel mode leaks threads. The stored size is verified to detect a
        server or proxy that drops bytes.
        """
        reader: Any = _CountingReader(source)
        self.client.put_object(
            self.bucket, key, reader, size, header_safe(content_type), part_size=PART_SIZE, num_parallel_uploads=1
        )
        stored = self.client.stat_object(self.bucket, key).size
        if stored != reader.size:
            raise StorageUnavailable from OSError(f"{stored} of {reader.size} bytes were stored")

    async def put_bytes(self, key: str, data: bytes, content_type: str = OCTETS) -> None:
        checked_key(key)
        await self.run(lambda: self.put(key, io.BytesIO(data), len(data), content_type), key)

    async def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> None:
        checked_key(key)

        def work() -> None:
            with own_file_errors():
                source = path.open("rb")
            with source:
                self.put(key, source, os.fstat(source.fileno()).st_size, content_type)

        await self.run(work, key)

    async def get_bytes(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        checked_key(key)
        return await self.run(lambda: self._get(key, first, length), key)

    def _get(self, key: str, first: int, length: int | None) -> bytes:
        if length == 0:  # for the SDK 0 means: to the end
            self.client.stat_object(self.bucket, key)
            return b""
        try:
            with self._get_object(key, first, length or 0) as response:
                data = bytes(response.read(decode_content=False))
        except S3Error as error:
            if error.code == "InvalidRange":
                raise ShortRead from error
            raise
        if length is not None and len(data) != length:
            raise ShortRead
        return data

    async def download(self, key: str, path: Path) -> int:
        checked_key(key)
        return await self.run(lambda: self._download(key, path), key)

    def _download(self, key: str, path: Path) -> int:
        with self._get_object(key) as response:
            # the stored bytes, whatever the Content-Encoding
            size = write_file(response.stream(BLOCK_SIZE, decode_content=False), path)
            expected = response.headers.get("Content-Length")
        if expected is not None and size != int(expected):
            raise StorageUnavailable
        return size

    @contextlib.contextmanager
    def _get_object(self, key: str, first: int = 0, length: int = 0) -> Iterator[Any]:
        response = self.client.get_object(self.bucket, key, offset=first, length=length)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    async def stat(self, key: str) -> ObjectInfo | None:
        checked_key(key)
        try:
            stat = await self.run(lambda: self.client.stat_object(self.bucket, key), key)
        except ObjectNotFound:
            return None
        return ObjectInfo(key, stat.size or 0, stat.last_modified, stat.etag or "")  # type: ignore[arg-type]

    async def copy(self, source: ObjectInfo, target: str) -> None:
        checked_key(target)
        pinned = CopySource(self.bucket, checked_key(source.key), match_etag=source.version)

        def work() -> None:
            try:
                self.client.copy_object(self.bucket, target, pinned)
            except S3Error as error:
                if error.code == "PreconditionFailed":
                    raise ObjectNotFound from error
                raise

        await self.run(work, source.key)

    async def upload_link(self, key: str, seconds: int) -> str | None:
        """Sign a URL of the public endpoint, which this machine may not be able to reach."""
        checked_key(key)
        return await self.run(lambda: self._upload_link(key, timedelta(seconds=seconds)))

    def _upload_link(self, key: str, lifetime: timedelta) -> str:
        client = Minio(
            self.public_endpoint,
            *self._credentials,
            secure=self._public_secure,
            region=self.client._get_region(self.bucket),
            http_client=self._connections,
        )
        return client.presigned_put_object(self.bucket, key, lifetime)

    async def delete(self, key: str) -> None:
        checked_key(key)
        await self.run(lambda: self.client.remove_object(self.bucket, key))

    async def delete_many(self, keys: Sequence[str]) -> None:
        targets = [DeleteObject(checked_key(key)) for key in keys]
        if targets:
            await self.run(lambda: self._delete_objects(targets))

    async def delete_prefix(self, prefix: str) -> int:
        checked_prefix(prefix)
        return await self.run(lambda: self._delete_prefix(prefix))

    def _delete_prefix(self, prefix: str) -> int:
        self._abort_unfinished(prefix)
        names = [item.object_name for item in self.client.list_objects(self.bucket, prefix, recursive=True)]
        targets = [DeleteObject(name) for name in names if name]
        self._delete_objects(targets)
        return len(targets)

    def _delete_objects(self, targets: list[DeleteObject]) -> None:
        errors = list(self.client.remove_objects(self.bucket, targets))  # a lazy iterator
        if errors:
            raise StorageUnavailable from OSError(f"{errors[0].name}: {errors[0].code} {errors[0].message}")

    def _abort_unfinished(self, prefix: str) -> None:
        """Abort unfinished multipart uploads, for which the SDK has only private calls.

        S3 lists them by prefix. MinIO lists them by exact key, and with an empty prefix those started since its last
        restart. It removes older ones after a day (`stale_uploads_expiry`).
        """
        for listed in (prefix, ""):
            for upload in self.client._list_multipart_uploads(self.bucket, prefix=listed).uploads:
                if upload.object_name and upload.upload_id and upload.object_name.startswith(prefix):
                    self._abort(upload.object_name, upload.upload_id)

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self.client._abort_multipart_upload(self.bucket, key, upload_id)
        except S3Error as error:
            if error.code != "NoSuchUpload":  # it has ended meanwhile
                raise


class _CountingReader:
    """A reader that counts the bytes it returns."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.size = 0

    def read(self, size: int) -> bytes:
        data: bytes = self._source.read(size)
        self.size += len(data)
        return data


class _MinioUpload:
    """An upload that a thread sends while its bytes arrive through a pipe."""

    def __init__(self, storage: MinioStorage, threads: ThreadPoolExecutor, key: str, content_type: str) -> None:
        self._storage, self._key = storage, key
        self._pipe = Pipe()
        self._open = True
        self._size = 0
        storage.active_uploads.add(self)
        self._sent: asyncio.Future[None] = asyncio.get_running_loop().run_in_executor(
            threads, storage.put, key, self._pipe, -1, content_type
        )
        self._sent.add_done_callback(self._on_sent)

    def _on_sent(self, sent: asyncio.Future[None]) -> None:
        """Release the slot of the upload, which is in use until the thread ends, not until the caller's last call."""
        self._storage.active_uploads.discard(self)
        self._pipe.reader_closed()
        if not sent.cancelled():
            sent.exception()  # mark as retrieved: after `stop` no caller may be left

    async def write(self, data: bytes) -> None:
        self._check()
        try:
            await self._pipe.write(data)
        except Aborted:
            await self._wait_until_sent()
        self._size += len(data)

    async def commit(self) -> int:
        self._check()
        with contextlib.suppress(Aborted):
            await self._pipe.end()
        await self._wait_until_sent()
        self._open = False
        return self._size

    async def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        self.fail()
        with contextlib.suppress(StorageUnavailable, ObjectNotFound):
            await self._wait_until_sent()
            # no error: a cancelled commit has stored the object
            await self._storage.delete(self._key)

    def fail(self) -> None:
        self._pipe.fail()

    async def _wait_until_sent(self) -> None:
        """Wait for the thread. Raises StorageUnavailable if the object was not stored."""
        with translate_errors():
            await asyncio.shield(self._sent)

    def _check(self) -> None:
        if not self._open:
            raise StorageUnavailable


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Translate errors of the SDK. Their texts name hosts and keys, so they are kept as causes, for the log only."""
    try:
        yield
    except S3Error as error:
        raise (ObjectNotFound if error.code in _MISSING else StorageUnavailable) from error
    except _ERRORS as error:
        raise StorageUnavailable from error
