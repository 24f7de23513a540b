"""The folder of backups: its layout, its lock, and safe access to its files.

    backup.json            salt of the key, and a check of it
    contents/ab/ab12…      the content of objects, each once, named by its HMAC
    backups/NAME/          one finished backup: `manifest`, `objects`, and a file for each table
    unfinished/            the backup in progress, renamed to its name at the end

All files but the first are sealed. Whoever can write to the folder can destroy backups, but not make the program read
or write elsewhere: links are not followed, and only regular files are opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from core.errors_backup import (
    BackupBusyError,
    BackupDamagedError,
    BackupDiskFullError,
    BackupFolderError,
    BackupIncompleteError,
    BackupKeyNeededError,
    BackupKeyWrongError,
    BackupNotFoundError,
    BackupVersionError,
)
from core.faults import is_disk_full
from core.files import sync
from internal.backup.sealing import Keys, Sealer, SealError, unsealed

FORMAT = 1
MIN_KEY = 16
"""Least number of characters of a key."""
HEADER, LOCK, CONTENTS, BACKUPS, UNFINISHED, MANIFEST = (
    "backup.json",
    ".lock",
    "contents",
    "backups",
    "unfinished",
    "manifest",
)
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
"""A backup's name: its time in UTC, and random digits. Names sort by time."""
_CONTENT = re.compile(r"[0-9a-f]{64}")
_HEADER_BYTES = 4096
_NO_LOCKS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)


class Folder:
    """An open folder of backups. Close it by `opened`, which also has the lock."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path, self.keys = path, keys

    @property
    def unfinished(self) -> Path:
        return self.path / UNFINISHED

    def names(self) -> list[str]:
        """Return the names of the finished backups, oldest first. Raises BackupFolderError."""
        with folder_errors(self.path):
            folder = self.path / BACKUPS
            return sorted(entry.name for entry in folder.iterdir() if NAME.fullmatch(entry.name)) if _is(folder) else []

    def find(self, name: str | None) -> str:
        """Return the name of a finished backup; None: of the newest one. Raises BackupNotFoundError."""
        names = self.names()
        if not names or (name is not None and name not in names):
            raise BackupNotFoundError
        return name or names[-1]

    def content_path(self, content: str) -> Path:
        """Return the path of a content. Raises BackupDamagedError if its name is not one of ours."""
        if not _CONTENT.fullmatch(content):
            raise damaged(CONTENTS)
        return self.path / CONTENTS / content[:2] / content

    def backup_path(self, name: str) -> Path:
        return self.path / BACKUPS / name

    @contextlib.contextmanager
    def sealer(self, path: Path, label: str) -> Iterator[Sealer]:
        """Create a sealed file; it is on the disk at the end of the block. Raises BackupDiskFullError, …FolderError."""
        with folder_errors(path):
            self._make(path.parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                sealer = Sealer(file, self.keys, label)
                yield sealer
                sealer.finish()
                file.flush()
                os.fsync(file.fileno())

    def read(self, path: Path, label: str) -> Iterator[bytes]:
        """Yield the content of a sealed file in blocks. Raises BackupDamagedError, BackupIncompleteError."""
        with self._open(path) as file:
            try:
                yield from unsealed(file, self.keys, label)
            except SealError as error:
                raise damaged(self._shown(path)) from error
            except OSError as error:
                raise folder_error(path, error) from error

    def read_small(self, path: Path, label: str, limit: int) -> bytes:
        """Return the content of a sealed file of at most `limit` bytes. Raises as `read`."""
        data = bytearray()
        for block in self.read(path, label):
            data += block
            if len(data) > limit:
                raise damaged(self._shown(path))
        return bytes(data)

    def place(self, part: Path, content: str) -> None:
        """Move a finished file to its place among the contents; one that is there already stays."""
        target = self.content_path(content)
        with folder_errors(target):
            self._make(target.parent)
            part.replace(target)

    def has_content(self, content: str, size: int) -> bool:
        """Return True if the content is there, with the length of a sealed file."""
        try:
            state = self.content_path(content).lstat()
        except OSError:
            return False
        return stat.S_ISREG(state.st_mode) and state.st_size == size

    def start(self) -> str:
        """Make an empty folder for the backup in progress, and return the backup's name."""
        with folder_errors(self.unfinished):
            self._make(self.unfinished)
            for entry in self.unfinished.iterdir():
                if entry.name != "journal":
                    _remove(entry)
        return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"

    def finish(self, name: str) -> None:
        """Turn the backup in progress into a finished one, at once. Everything in it is on the disk before."""
        with folder_errors(self.path):
            (self.unfinished / "journal").unlink(missing_ok=True)
            contents = self.path / CONTENTS
            for folder in (*(contents.iterdir() if _is(contents) else ()), contents, self.unfinished):
                if _is(folder):
                    sync(folder)
            self._make(self.path / BACKUPS)
            self.unfinished.rename(self.backup_path(name))
            sync(self.path / BACKUPS)
            sync(self.path)

    def remove(self, name: str) -> None:
        """Remove a backup; its contents stay. An interruption leaves no half of it under its name."""
        with folder_errors(self.path):
            gone = self.path / f"removed-{name}"
            self.backup_path(name).rename(gone)
            _remove(gone)

    def sweep(self, used: set[str]) -> int:
        """Remove the contents that no backup uses, and leftovers of removals; return the number of contents."""
        count = 0
        with folder_errors(self.path):
            for leftover in self.path.glob("removed-*"):
                _remove(leftover)
            for folder in (self.path / CONTENTS).iterdir():
                for path in folder.iterdir() if _is(folder) else ():
                    if _CONTENT.fullmatch(path.name) and path.name not in used:
                        path.unlink()
                        count += 1
        return count

    def _make(self, folder: Path) -> None:
        """Make the folders down to `folder`. Raises BackupDamagedError if one of them is a link or a file."""
        for part in reversed([folder, *folder.parents]):
            if self.path in part.parents:
                with contextlib.suppress(FileExistsError):
                    part.mkdir(mode=0o700)
                if not _is(part):
                    raise damaged(self._shown(part))

    def _open(self, path: Path) -> BinaryIO:
        return open_regular(path, self._shown(path))

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.path))


@contextlib.contextmanager
def opened(path: Path, passphrase: str, *, write: bool) -> Iterator[Folder]:
    """Open and lock a folder of backups. write: create it if needed, and allow no other command beside this one.

    Raises BackupKeyNeededError, BackupKeyWrongError, BackupBusyError, BackupFolderError, BackupNotFoundError.
    """
    if len(passphrase) < MIN_KEY:
        raise BackupKeyNeededError
    path = path.absolute()
    if write:
        with folder_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not path.is_dir():
        raise BackupNotFoundError
    with _locked(path, write=write):
        yield Folder(path, _keys(path, passphrase, write=write))


@contextlib.contextmanager
def _locked(path: Path, *, write: bool) -> Iterator[None]:
    try:
        lock = os.open(path / LOCK, (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY) | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if write or error.errno not in _NO_LOCKS:
            raise folder_error(path / LOCK, error) from error
        yield  # a copy on a medium that nobody writes to
        return
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if write else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupBusyError from None
        except OSError as error:
            raise folder_error(path / LOCK, error) from error
        yield
    finally:
        os.close(lock)


def _keys(path: Path, passphrase: str, *, write: bool) -> Keys:
    """Return the keys of the folder. write: a new folder gets a header."""
    header = path / HEADER
    if not header.is_symlink() and not header.exists():
        if not write:
            raise BackupNotFoundError
        if (path / BACKUPS).exists() or (path / CONTENTS).exists():
            raise BackupIncompleteError("The backup lacks {path}.", path=HEADER)
        _write_header(header, passphrase)
    with open_regular(header, HEADER) as file:
        text = file.read(_HEADER_BYTES)
    try:
        values = json.loads(text)
        version, salt, check = values["format"], bytes.fromhex(values["salt"]), str(values["check"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise damaged(HEADER) from None
    if version != FORMAT:
        raise BackupVersionError
    keys = Keys.derive(passphrase, salt)
    if not hmac.compare_digest(_check(keys).encode(), check.encode()):
        raise BackupKeyWrongError
    return keys


def _write_header(header: Path, passphrase: str) -> None:
    salt = os.urandom(32)
    values = {"format": FORMAT, "salt": salt.hex(), "check": _check(Keys.derive(passphrase, salt))}
    with folder_errors(header):
        draft = header.with_name(f".{header.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(header)
        sync(header.parent)


def _check(keys: Keys) -> str:
    return keys.name("check", hashlib.sha256(b"async-stt").digest())


def open_regular(path: Path, shown: str) -> BinaryIO:
    """Open a regular file without following a link. Raises BackupIncompleteError, BackupDamagedError.

    shown: its name in errors.
    """
    try:
        # O_NONBLOCK: a pipe in its place would wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BackupIncompleteError("The backup lacks {path}.", path=shown) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise damaged(shown) from error
        raise folder_error(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damaged(shown)
    return os.fdopen(descriptor, "rb")


def damaged(path: str) -> BackupDamagedError:
    """Return the error about a file of the folder."""
    return BackupDamagedError("{path} of the backup is damaged. Use another backup.", path=path)


@contextlib.contextmanager
def folder_errors(path: Path) -> Iterator[None]:
    """Translate errors of the file system. Raises BackupDiskFullError, BackupFolderError."""
    try:
        yield
    except OSError as error:
        raise folder_error(path, error) from error


def folder_error(path: Path, error: OSError) -> BackupDiskFullError | BackupFolderError:
    """Return the error about an operation in the folder."""
    if is_disk_full(error):
        return BackupDiskFullError()
    return BackupFolderError("{path} cannot be used: {reason}.", path=str(path), reason=error.strerror or str(error))


def _is(path: Path) -> bool:
    """Return True if the path is a folder itself, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if _is(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
