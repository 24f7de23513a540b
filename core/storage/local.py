"""A directory as object storage: the embedded mode's own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path, PurePosixPath
from typing import TypeVar

from core.errors import DiskFullError, ObjectNotFound, StorageUnavailable, TooManyUploads
from core.storage.port import OCTETS, ObjectInfo, Upload

T = TypeVar("T")
UNFINISHED = ".part-"


class LocalStorage:
    """Keys are paths under `root`. A finished object is synced to disk and renamed into place."""

    def __init__(self, root: Path, *, max_uploads: int = 8) -> None:
        self.root = root
        self.max_uploads = max_uploads
        self.uploads = 0
        self._threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        await self.run(lambda: self.root.mkdir(parents=True, exist_ok=True))

    async def stop(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)

    async def ping(self) -> None:
        if not await self.run(self.root.is_dir):
            raise StorageUnavailable

    async def run(self, work: Callable[[], T]) -> T:
        """File work in a thread of ours, its errors in our words."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max(self.max_uploads, 4), thread_name_prefix="storage")
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def path_of(self, key: str) -> Path:
        """Where an object lies. Raises ValueError for a key that would leave the root."""
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or "\0" in key or any(part in ("..", ".", "") for part in key.split("/")):
            raise ValueError(f"not an object key: {key!r}")
        return self.root.joinpath(*parts)

    async def open_upload(self, key: str, content_type: str = OCTETS) -> Upload:
        path = self.path_of(key)
        if self.uploads >= self.max_uploads:
            raise TooManyUploads
        self.uploads += 1
        try:
            return _LocalUpload(self, path, *await self.run(lambda: _unfinished(path)))
        except BaseException:
            self.uploads -= 1
            raise

    async def put_bytes(self, key: str, data: bytes, content_type: str = OCTETS) -> None:
        path = self.path_of(key)
        await self.run(lambda: _write(path, lambda file: file.write(data)))

    async def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> None:
        target = self.path_of(key)

        def work() -> None:
            with path.open("rb") as source:
                _write(target, lambda file: shutil.copyfileobj(source, file, 1024 * 1024))

        await self.run(work)

    async def get_bytes(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        path = self.path_of(key)

        def work() -> bytes:
            with path.open("rb") as file:
                file.seek(first)
                return file.read(-1 if length is None else length)

        return await self.run(work)

    async def download(self, key: str, path: Path) -> int:
        source = self.path_of(key)

        def work() -> int:
            shutil.copyfile(source, path)
            return path.stat().st_size

        return await self.run(work)

    async def stat(self, key: str) -> ObjectInfo | None:
        path = self.path_of(key)

        def work() -> ObjectInfo:
            state = path.stat()
            return ObjectInfo(key, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))

        try:
            return await self.run(work)
        except ObjectNotFound:
            return None

    async def delete(self, key: str) -> None:
        path = self.path_of(key)

        def work() -> None:
            path.unlink(missing_ok=True)
            _prune(path.parent, self.root)

        await self.run(work)

    async def delete_prefix(self, prefix: str) -> int:
        self.path_of(prefix.rstrip("/"))
        return await self.run(lambda: _delete_prefix(self.root, prefix))


class _LocalUpload:
    def __init__(self, storage: LocalStorage, path: Path, part: Path, file: BufferedWriter) -> None:
        self._storage, self._path, self._part = storage, path, part
        self._file: BufferedWriter | None = file
        self._size = 0

    async def write(self, data: bytes) -> None:
        file = self._file
        if file is None:
            raise StorageUnavailable("The upload is closed.")
        await self._storage.run(lambda: file.write(data))
        self._size += len(data)

    async def commit(self) -> int:
        file = self._file
        if file is None:
            raise StorageUnavailable("The upload is closed.")
        await self._storage.run(lambda: _finish(file, self._part, self._path))
        self._close()
        return self._size

    async def abort(self) -> None:
        file = self._file
        if file is None:
            return
        self._close()

        def work() -> None:
            with contextlib.suppress(OSError):
                file.close()
            self._part.unlink(missing_ok=True)
            _prune(self._part.parent, self._storage.root)

        await asyncio.shield(self._storage.run(work))

    def _close(self) -> None:
        self._file = None
        self._storage.uploads -= 1


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ObjectNotFound from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError from error
        raise StorageUnavailable(str(error.strerror)) from error


def _unfinished(path: Path) -> tuple[Path, BufferedWriter]:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{UNFINISHED}{os.urandom(6).hex()}-{path.name[-100:]}")
    return part, part.open("xb")


def _finish(file: BufferedWriter, part: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write(path: Path, write: Callable[[BufferedWriter], object]) -> None:
    part, file = _unfinished(path)
    try:
        with file:
            write(file)
            _finish(file, part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _delete_prefix(root: Path, prefix: str) -> int:
    """Everything whose key starts with `prefix`; a prefix that ends in `/` is one folder."""
    folder = root / prefix if prefix.endswith("/") else (root / prefix).parent
    name = "" if prefix.endswith("/") else PurePosixPath(prefix).name
    if not folder.is_dir():
        return 0
    count = 0
    for path in sorted(folder.rglob("*"), reverse=True):
        first = path.relative_to(folder).parts[0]
        mine = first.startswith(name) or (first.startswith(UNFINISHED) and first.split("-", 2)[2].startswith(name))
        if mine and not path.is_dir():
            path.unlink(missing_ok=True)
            count += not path.name.startswith(UNFINISHED)
        elif mine:
            with contextlib.suppress(OSError):
                path.rmdir()
    _prune(folder, root)
    return count


def _prune(folder: Path, root: Path) -> None:
    """Remove folders that are empty now, up to the root."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
