"""Any S3 through the `minio` SDK, in threads of our own: never the default executor, which name look-ups need."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from core.errors import ObjectNotFound, StorageUnavailable, TooManyUploads
from core.storage.local import translated as local_files
from core.storage.pipe import Aborted, Pipe
from core.storage.port import OCTETS, ObjectInfo, Upload

T = TypeVar("T")
PART = 8 * 1024 * 1024
CALL_THREADS = 16
_MISSING = ("NoSuchKey", "NoSuchObject", "NoSuchBucket", "ResourceNotFound")
_DOWN = (MinioException, urllib3.exceptions.HTTPError, ValueError)
PING_TIMEOUT = 3.0


class MinioStorage:
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
    ) -> None:
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60),
            maxsize=CALL_THREADS + max_uploads,
            retries=urllib3.Retry(total=1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        )
        self.client = Minio(endpoint, access_key, secret_key, secure=secure, http_client=pool, region="us-east-1")
        self.bucket = bucket
        self.public_endpoint = public_endpoint or endpoint
        self.max_uploads = max_uploads
        self.uploads = 0
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
        for threads in (self._calls, self._writers):
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)
        self._calls = self._writers = None

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                if not await self.run(lambda: self.client.bucket_exists(self.bucket)):
                    raise StorageUnavailable(f"The bucket {self.bucket} is missing.")
        except TimeoutError as error:
            raise StorageUnavailable from error

    async def run(self, work: Callable[[], T]) -> T:
        """An SDK call in a thread of ours, its errors in our words."""
        if self._calls is None:
            self._calls = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="minio")
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._calls, work)

    async def open_upload(self, key: str, content_type: str = OCTETS) -> Upload:
        if self.uploads >= self.max_uploads:
            raise TooManyUploads
        if self._writers is None:
            self._writers = ThreadPoolExecutor(self.max_uploads, thread_name_prefix="minio-upload")
        self.uploads += 1
        return _MinioUpload(self, self._writers, key, content_type)

    async def put_bytes(self, key: str, data: bytes, content_type: str = OCTETS) -> None:
        await self.run(
            lambda: self.client.put_object(self.bucket, key, io.BytesIO(data), len(data), content_type=content_type)
        )

    async def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> None:
        await self.run(
            lambda: self.client.fput_object(
                self.bucket, key, str(path), content_type=content_type, part_size=PART, num_parallel_uploads=1
            )
        )

    async def get_bytes(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        return await self.run(lambda: self._get(key, first, length))

    def _get(self, key: str, first: int, length: int | None) -> bytes:
        if length == 0:
            return b""
        try:
            response = self.client.get_object(self.bucket, key, offset=first, length=length or 0)
        except S3Error as error:
            if error.code == "InvalidRange":
                return b""
            raise
        try:
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()

    async def download(self, key: str, path: Path) -> int:
        return await self.run(lambda: self._download(key, path))

    def _download(self, key: str, path: Path) -> int:
        response = self.client.get_object(self.bucket, key)
        size = 0
        try:
            with local_files(), path.open("wb") as file:
                for block in response.stream(1024 * 1024):
                    size += file.write(block)
        finally:
            response.close()
            response.release_conn()
        if size != int(response.headers.get("Content-Length", size)):
            raise StorageUnavailable(f"The object {key} came only in part.")
        return size

    async def stat(self, key: str) -> ObjectInfo | None:
        try:
            found = await self.run(lambda: self.client.stat_object(self.bucket, key))
        except ObjectNotFound:
            return None
        return ObjectInfo(key, found.size or 0, found.last_modified)  # type: ignore[arg-type]

    async def delete(self, key: str) -> None:
        await self.run(lambda: self.client.remove_object(self.bucket, key))

    async def delete_prefix(self, prefix: str) -> int:
        return await self.run(lambda: self._delete_prefix(prefix))

    def _delete_prefix(self, prefix: str) -> int:
        self._abort_uploads(prefix)
        names = [item.object_name for item in self.client.list_objects(self.bucket, prefix, recursive=True)]
        doomed = [DeleteObject(name) for name in names if name]
        for error in self.client.remove_objects(self.bucket, doomed):
            raise StorageUnavailable(f"Could not delete {error.name}: {error.message}")
        return len(doomed)

    def _abort_uploads(self, prefix: str) -> None:
        """End unfinished multipart uploads. MinIO lists them for an exact key only; other S3 servers by prefix."""
        listing = self.client._list_multipart_uploads(self.bucket, prefix=prefix)
        for upload in listing.uploads:
            self.client._abort_multipart_upload(self.bucket, upload.object_name or "", upload.upload_id or "")


class _MinioUpload:
    def __init__(self, storage: MinioStorage, threads: ThreadPoolExecutor, key: str, content_type: str) -> None:
        self._storage, self._key = storage, key
        self._pipe = Pipe()
        self._open = True
        self._size = 0
        work = asyncio.get_running_loop().run_in_executor(threads, self._send, content_type)
        self._sent: asyncio.Future[Any] = work
        work.add_done_callback(lambda _: self._pipe.reader_gone())

    def _send(self, content_type: str) -> None:
        data: Any = self._pipe
        self._storage.client.put_object(
            self._storage.bucket, self._key, data, -1, content_type, part_size=PART, num_parallel_uploads=1
        )

    async def write(self, data: bytes) -> None:
        self._check()
        self._size += len(data)
        try:
            await self._pipe.write(data)
        except Aborted:
            await self._finished()
            raise StorageUnavailable from None

    async def commit(self) -> int:
        self._check()
        with contextlib.suppress(Aborted):
            await self._pipe.end()
        await self._finished()
        self._close()
        return self._size

    async def abort(self) -> None:
        if not self._open:
            return
        self._close()
        self._pipe.fail()
        with contextlib.suppress(StorageUnavailable, ObjectNotFound, Aborted):
            await self._finished()

    async def _finished(self) -> None:
        with translated():
            await asyncio.shield(self._sent)

    def _check(self) -> None:
        if not self._open:
            raise StorageUnavailable("The upload is closed.")

    def _close(self) -> None:
        self._open = False
        self._storage.uploads -= 1


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in _MISSING:
            raise ObjectNotFound from error
        raise StorageUnavailable(f"{error.code}: {error.message}"[:300]) from error
    except (ServerError, InvalidResponseError, *_DOWN) as error:
        raise StorageUnavailable(repr(error)[:300]) from error
    except OSError as error:
        raise StorageUnavailable(str(error)[:300]) from error
