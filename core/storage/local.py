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
from pathlib import Path
from typing import BinaryIO, TypeVar

from core.errors import DiskFullError, ObjectNotFound, ObjectRefusedError, ShortRead, StorageUnavailable, TooManyUploads
from core.faults import DISK_FULL_ERRNOS, own_file_errors, write_file
from core.storage.port import OCTETS, ObjectInfo, Upload, checked_key, checked_prefix

T = TypeVar("T")
BLOCK = 1024 * 1024
UNFINISHED = ".part-"
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
MKDIR_TRIES = 100


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
        if not await self.run(lambda: self.root.is_dir() and os.access(self.root, os.W_OK)):
            raise StorageUnavailable

    async def run(self, work: Callable[[], T]) -> T:
        """File work in a thread of ours, its errors in our words."""
        with translate_errors():
            return await self.submit(work)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max(self.max_uploads, 4), thread_name_prefix="storage")
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def path_of(self, key: str) -> Path:
        """Where an object lies. Raises ValueError for a key that would leave the root."""
        return self.root / checked_key(key)

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
        await self.run(lambda: _write(self.root, path, lambda file: file.write(data)))

    async def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> None:
        target = self.path_of(key)

        def work() -> None:
            with own_file_errors():
                source = path.open("rb")
            with source:
                _write(self.root, target, lambda file: shutil.copyfileobj(source, file, BLOCK))
                if target.stat().st_size != os.fstat(source.fileno()).st_size:
                    raise StorageUnavailable

        await self.run(work)

    async def get_bytes(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        path = self.path_of(key)

        def work() -> bytes:
            with _reading(path) as file:
                if first > os.fstat(file.fileno()).st_size:
                    raise ShortRead
                file.seek(first)
                data = file.read(-1 if length is None else length)
                if length is not None and len(data) != length:
                    raise ShortRead
                return data

        return await self.run(work)

    async def download(self, key: str, path: Path) -> int:
        source = self.path_of(key)

        def work() -> int:
            with _reading(source) as origin:
                return write_file(iter(lambda: origin.read(BLOCK), b""), path)

        return await self.run(work)

    async def stat(self, key: str) -> ObjectInfo | None:
        path = self.path_of(key)

        def work() -> ObjectInfo | None:
            try:
                state = path.stat()
            except _MISSING:
                return None
            if not path.is_file():
                return None
            return ObjectInfo(key, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC), _version(state))

        return await self.run(work)

    async def copy(self, source: ObjectInfo, target: str) -> None:
        """The open file stays the same one: an object is replaced by renaming another over it."""
        origin, place = self.path_of(source.key), self.path_of(target)

        def work() -> None:
            with _reading(origin) as file:
                if _version(os.fstat(file.fileno())) != source.version:
                    raise ObjectNotFound
                _write(self.root, place, lambda new: shutil.copyfileobj(file, new, BLOCK))

        await self.run(work)

    async def upload_link(self, key: str, seconds: int) -> str | None:
        """None: a directory has no address; the API takes the bytes itself."""
        return None

    async def delete(self, key: str) -> None:
        path = self.path_of(key)

        def work() -> None:
            with contextlib.suppress(*_MISSING):
                path.unlink()
            _prune(path.parent, self.root)

        await self.run(work)

    async def delete_prefix(self, prefix: str) -> int:
        checked_prefix(prefix)
        return await self.run(lambda: _delete_prefix(self.root, prefix))


class _LocalUpload:
    """Its file work goes on in its thread when the caller is cancelled; `abort` waits for it before it cleans up."""

    def __init__(self, storage: LocalStorage, path: Path, part: Path, file: BufferedWriter) -> None:
        self._storage, self._path, self._part, self._file = storage, path, part, file
        self._gathered = bytearray()
        self._size = 0
        self._open = True
        self._whole = True
        self._renamed = False
        self._work: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        self._check()
        self._gathered += data
        self._size += len(data)
        if len(self._gathered) >= BLOCK:
            await self._do(self._flush)

    async def commit(self) -> int:
        self._check()
        await self._do(self._finish)
        self._close()
        return self._size

    async def abort(self) -> None:
        if not self._open:
            return
        self._close()
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work])
        with contextlib.suppress(StorageUnavailable, DiskFullError):
            await self._storage.run(self._remove)

    def _flush(self) -> None:
        self._file.write(self._gathered)
        self._gathered.clear()

    def _finish(self) -> None:
        self._flush()
        _publish(self._storage.root, self._file, self._part, self._path)
        self._renamed = True

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # closing writes what is still buffered, to a disk that may be full
            self._file.close()
        self._part.unlink(missing_ok=True)
        if self._renamed:  # a commit was cancelled and succeeded all the same
            self._path.unlink(missing_ok=True)
        _prune(self._part.parent, self._storage.root)

    async def _do(self, work: Callable[[], None]) -> None:
        """One piece of file work; after a failed or cancelled one the file may have a hole."""
        self._work = self._storage.submit(work)
        try:
            with translate_errors():
                await asyncio.shield(self._work)
        except BaseException:
            self._whole = False
            raise

    def _check(self) -> None:
        if not (self._open and self._whole):
            raise StorageUnavailable

    def _close(self) -> None:
        self._open = False
        self._storage.uploads -= 1


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """The file system's errors in our words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ObjectRefusedError from error
        raise (DiskFullError if error.errno in DISK_FULL_ERRNOS else StorageUnavailable) from error


def _version(state: os.stat_result) -> str:
    return f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"


def _reading(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except _MISSING as error:
        raise ObjectNotFound from error
    except PermissionError as error:
        if not os.access(path.parent, os.X_OK):
            raise
        raise ObjectRefusedError from error


def _unfinished(path: Path) -> tuple[Path, BufferedWriter]:
    """Open a new hidden file beside `path`. Tries again where its empty folder is pruned meanwhile.

    A folder pruned between `mkdir` and its own look at it is reported as an existing file.
    """
    part = path.with_name(f"{UNFINISHED}{os.urandom(6).hex()}-{path.name[-100:]}")
    for left in reversed(range(MKDIR_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return part, part.open("xb")
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise
    raise AssertionError


def _publish(root: Path, file: BufferedWriter, part: Path, path: Path) -> None:
    """Rename into place, with the bytes and every folder's entry on the disk: what was accepted is never lost."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    part.replace(path)
    folder = path.parent
    while root in (folder, *folder.parents):
        _sync(folder)
        folder = folder.parent


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(root: Path, path: Path, write: Callable[[BufferedWriter], object]) -> None:
    part, file = _unfinished(path)
    try:
        with file:
            write(file)
            _publish(root, file, part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        _prune(part.parent, root)
        raise


def _delete_prefix(root: Path, prefix: str) -> int:
    """Everything whose key starts with `prefix`, unfinished uploads too; returns how many objects went.

    A prefix that ends in `/` is one folder; any other may name a file, a folder, or the beginning of several.
    """
    folder, _, start = prefix.rpartition("/")
    top = root / folder
    objects = 0
    for place, _, names in os.walk(top, topdown=False):
        here = Path(place)
        for name in names:
            path = here / name
            if _target(path.relative_to(top)).startswith(start):
                path.unlink(missing_ok=True)
                objects += not name.startswith(UNFINISHED)
        _prune(here, root)
    return objects


def _target(path: Path) -> str:
    """The key, below its folder, that an object has or an unfinished upload would have had."""
    name = path.name.split("-", 2)[2] if path.name.startswith(UNFINISHED) else path.name
    return str(path.with_name(name))


def _prune(folder: Path, root: Path) -> None:
    """Remove folders that are empty now, up to the root."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent
