"""Object storage in a local folder, used by the embedded mode."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path
from typing import BinaryIO, TypeVar

from core.call_metrics import STORAGE_OPERATIONS, counted
from core.errors import DiskFullError, ObjectNotFound, ObjectRefusedError, ShortRead, StorageUnavailable, TooManyUploads
from core.faults import is_disk_full
from core.files import BLOCK_SIZE, own_file_errors, sync
from core.storage.port import OCTETS, ObjectInfo, Upload, checked_key, checked_prefix

T = TypeVar("T")
UNFINISHED = ".part-"
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
MKDIR_TRIES = 100
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of a file system that has no hard links, or of one that is not the file's."""


@counted("storage", STORAGE_OPERATIONS)
class LocalStorage:
    """An object storage whose keys are paths under `root`.

    A finished object is synced to disk and renamed into place.
    """

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
        """Run file operations in a thread and translate their errors. Raises StorageUnavailable, DiskFullError."""
        with translate_errors():
            return await self.submit(work)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max(self.max_uploads, 4), thread_name_prefix="storage")
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def object_path(self, key: str) -> Path:
        """Return the object's path. Raises ValueError for an invalid key."""
        return self.root / checked_key(key)

    async def open_upload(self, key: str, content_type: str = OCTETS) -> Upload:
        path = self.object_path(key)
        if self.uploads >= self.max_uploads:
            raise TooManyUploads
        self.uploads += 1
        try:
            return _LocalUpload(self, path, *await self.run(lambda: _create_part(path)))
        except BaseException:
            self.uploads -= 1
            raise

    async def put_bytes(self, key: str, data: bytes, content_type: str = OCTETS) -> None:
        path = self.object_path(key)
        await self.run(lambda: _write(self.root, path, lambda file: file.write(data)))

    async def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> None:
        target = self.object_path(key)

        def work() -> None:
            with own_file_errors():
                source = path.open("rb")
            with source:
                if not _link(self.root, source, path, target):
                    _write(self.root, target, lambda file: shutil.copyfileobj(source, file, BLOCK_SIZE))
                if target.stat().st_size != os.fstat(source.fileno()).st_size:
                    raise StorageUnavailable

        await self.run(work)

    async def get_bytes(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        path = self.object_path(key)

        def work() -> bytes:
            with _open(path) as file:
                if first > os.fstat(file.fileno()).st_size:
                    raise ShortRead
                file.seek(first)
                data = file.read(-1 if length is None else length)
                if length is not None and len(data) != length:
                    raise ShortRead
                return data

        return await self.run(work)

    async def download(self, key: str, path: Path) -> int:
        """Make `path` a symbolic link to the object, so that it is read in place."""
        source = self.object_path(key)

        def work() -> int:
            with _open(source) as file, own_file_errors():
                if not path.is_symlink() or path.readlink() != source:
                    path.symlink_to(source)
                return os.fstat(file.fileno()).st_size

        return await self.run(work)

    async def stat(self, key: str) -> ObjectInfo | None:
        path = self.object_path(key)

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
        """Copy from an open file. Its content cannot change, since objects are replaced by renaming."""
        source_path, target_path = self.object_path(source.key), self.object_path(target)

        def work() -> None:
            with _open(source_path) as file:
                if _version(os.fstat(file.fileno())) != source.version:
                    raise ObjectNotFound
                _write(self.root, target_path, lambda copy: shutil.copyfileobj(file, copy, BLOCK_SIZE))

        await self.run(work)

    async def upload_link(self, key: str, seconds: int) -> str | None:
        """Return None: a folder has no URLs, so uploads go through the API."""
        return None

    async def delete(self, key: str) -> None:
        await self.delete_many([key])

    async def delete_many(self, keys: Sequence[str]) -> None:
        paths = [self.object_path(key) for key in keys]

        def work() -> None:
            for path in paths:
                with contextlib.suppress(*_MISSING):
                    path.unlink()
                _prune(path.parent, self.root)

        await self.run(work)

    async def delete_prefix(self, prefix: str) -> int:
        checked_prefix(prefix)
        return await self.run(lambda: _delete_prefix(self.root, prefix))


class _LocalUpload:
    """An upload whose file operations continue in their thread if the caller is cancelled. `abort` waits for them."""

    def __init__(self, storage: LocalStorage, path: Path, part: Path, file: BufferedWriter) -> None:
        self._storage, self._path, self._part, self._file = storage, path, part, file
        self._buffer = bytearray()
        self._size = 0
        self._open = True
        self._intact = True
        self._renamed = False
        self._work: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        self._check()
        self._buffer += data
        self._size += len(data)
        if len(self._buffer) >= BLOCK_SIZE:
            await self._run(self._flush)

    async def commit(self) -> int:
        self._check()
        await self._run(self._finish)
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
        self._file.write(self._buffer)
        self._buffer.clear()

    def _finish(self) -> None:
        self._flush()
        try:
            _replace(self._storage.root, self._file, self._part, self._path)
        finally:  # it may fail after the rename
            self._renamed = not self._part.exists()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # closing flushes the buffer to a disk that may be full
            self._file.close()
        self._part.unlink(missing_ok=True)
        if self._renamed:  # by a commit that was cancelled, or that failed after the rename
            self._path.unlink(missing_ok=True)
        _prune(self._part.parent, self._storage.root)

    async def _run(self, work: Callable[[], None]) -> None:
        """Run file operations in a thread. After a failed or cancelled one the file may have a gap."""
        self._work = self._storage.submit(work)
        try:
            with translate_errors():
                await asyncio.shield(self._work)
        except BaseException:
            self._intact = False
            raise

    def _check(self) -> None:
        if not (self._open and self._intact):
            raise StorageUnavailable

    def _close(self) -> None:
        self._open = False
        self._storage.uploads -= 1


@contextlib.contextmanager
def translate_errors() -> Iterator[None]:
    """Translate errors of the file system. Raises ObjectRefusedError, DiskFullError, StorageUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ObjectRefusedError from error
        raise (DiskFullError if is_disk_full(error) else StorageUnavailable) from error


def _version(state: os.stat_result) -> str:
    return f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except _MISSING as error:
        raise ObjectNotFound from error
    except PermissionError as error:
        if not os.access(path.parent, os.X_OK):
            raise
        raise ObjectRefusedError from error


def _create_part(path: Path) -> tuple[Path, BufferedWriter]:
    """Open a new hidden file beside `path`."""
    part = _part_of(path)
    return part, _in_new_folder(path.parent, lambda: part.open("xb"))


def _part_of(path: Path) -> Path:
    """Return a new name for the object's unfinished file."""
    return path.with_name(f"{UNFINISHED}{os.urandom(6).hex()}-{path.name[-100:]}")


def _in_new_folder(folder: Path, create: Callable[[], T]) -> T:
    """Create a file in the folder, and retry if another task removes the empty folder at the same time.

    `mkdir` reports a folder that is removed during its own check as an existing file.
    """
    for tries_left in reversed(range(MKDIR_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return create()
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
    raise AssertionError


def _replace(root: Path, file: BufferedWriter, part: Path, path: Path) -> None:
    """Sync the file, rename it to `path`, and sync all its folders, so that a crash does not lose it."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    _rename(root, part, path)


def _rename(root: Path, part: Path, path: Path) -> None:
    part.replace(path)
    folder = path.parent
    while root in (folder, *folder.parents):
        sync(folder)
        folder = folder.parent


def _write(root: Path, path: Path, write: Callable[[BufferedWriter], object]) -> None:
    part, file = _create_part(path)
    try:
        with file:
            write(file)
            _replace(root, file, part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        _prune(part.parent, root)
        raise


def _link(root: Path, source: BinaryIO, path: Path, target: Path) -> bool:
    """Make the file itself the object by a hard link; return False if the file system or its rules do not allow it.

    source: the open file. path: its path, which may be on another file system.
    """
    part = _part_of(target)
    try:
        try:
            _in_new_folder(target.parent, lambda: os.link(path, part, follow_symlinks=False))
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        if not os.path.samestat(part.lstat(), os.fstat(source.fileno())):
            return False
        os.fsync(source.fileno())
        _rename(root, part, target)
        return True
    finally:
        with contextlib.suppress(*_MISSING):
            part.unlink()
        _prune(part.parent, root)


def _delete_prefix(root: Path, prefix: str) -> int:
    """Delete all objects and unfinished uploads whose key starts with `prefix`; return the number of objects.

    A prefix that ends in `/` is one folder. Any other may match files, folders, or the start of several names.
    """
    folder, _, start = prefix.rpartition("/")
    top = root / folder
    objects = 0
    for directory, _, names in os.walk(top, topdown=False):
        current = Path(directory)
        for name in names:
            path = current / name
            if _relative_key(path.relative_to(top)).startswith(start):
                path.unlink(missing_ok=True)
                objects += not name.startswith(UNFINISHED)
        _prune(current, root)
    return objects


def _relative_key(path: Path) -> str:
    """Return the key of an object or unfinished upload. path: relative to a folder, like the key returned."""
    name = path.name.split("-", 2)[2] if path.name.startswith(UNFINISHED) else path.name
    return str(path.with_name(name))


def _prune(folder: Path, root: Path) -> None:
    """Remove empty folders up to the root."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent
