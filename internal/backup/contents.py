"""Contents of objects: copied from the storage into the folder, and back. No content is in memory as a whole."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from core.errors import ObjectNotFound, ShortRead, StorageUnavailable
from core.storage.port import ObjectInfo, Storage
from internal.backup.folder import CONTENTS, Folder, damaged
from internal.backup.manifest import StoredObject
from internal.backup.sealing import sealed_size

BLOCK = 8 * 1024 * 1024
"""Bytes read from the storage at a time."""
TRIES = 5
"""Reads of an object that is replaced again and again."""
Sizes = Callable[[int], None]


async def copy_in(folder: Folder, storage: Storage, key: str, job_id: str, sizes: Sizes) -> StoredObject | None:
    """Copy an object into the folder, unless its content is there; None if the object does not exist.

    Raises StorageUnavailable, BackupDiskFullError.
    """
    for _ in range(TRIES):
        before = await storage.stat(key)
        if before is None:
            return None
        try:
            content = await _copy(folder, storage, before, sizes)
        except (ObjectNotFound, ShortRead):
            continue
        after = await storage.stat(key)
        if after is not None and after.version == before.version:
            return StoredObject(key, job_id, before.size, before.version, content)
    if await storage.stat(key) is None:
        return None
    raise StorageUnavailable


async def _copy(folder: Folder, storage: Storage, source: ObjectInfo, sizes: Sizes) -> str:
    """Seal the object's bytes, and return the name of their content."""
    part = folder.unfinished / f"{secrets.token_hex(8)}.part"
    digest = hashlib.sha256()
    try:
        await _seal(folder, storage, source, part, digest, sizes)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    content = folder.keys.name("content", digest.digest())
    if folder.has_content(content, sealed_size(source.size)):
        part.unlink()
    else:
        await asyncio.to_thread(folder.place, part, content)
    return content


async def _seal(folder: Folder, storage: Storage, source: ObjectInfo, part: Path, digest: Any, sizes: Sizes) -> None:
    with ExitStack() as stack:
        sealer = await asyncio.to_thread(stack.enter_context, folder.sealer(part, CONTENTS))
        for first in range(0, source.size, BLOCK):
            data = await storage.get_bytes(source.key, first, min(BLOCK, source.size - first))
            await asyncio.to_thread(_feed, data, digest, sealer.write)
            sizes(len(data))
        await asyncio.to_thread(stack.pop_all().close)


def _feed(data: bytes, digest: Any, write: Callable[[bytes], None]) -> None:
    digest.update(data)
    write(data)


def blocks(folder: Folder, item: StoredObject) -> Any:
    """Yield the bytes of an object of a backup. Raises BackupDamagedError, BackupIncompleteError.

    That they are those that were backed up is known after the last block.
    """
    content = item.content or ""
    path = folder.content_path(content)
    digest, size = hashlib.sha256(), 0
    for block in folder.read(path, CONTENTS):
        digest.update(block)
        size += len(block)
        if size > item.size:
            break
        yield block
    if size != item.size or folder.keys.name("content", digest.digest()) != content:
        raise damaged(f"{CONTENTS}/{content[:2]}/{content}")


async def copy_out(folder: Folder, storage: Storage, item: StoredObject, sizes: Sizes) -> None:
    """Write an object of a backup to the storage, unless exactly these bytes are there.

    Raises StorageUnavailable, DiskFullError, BackupDamagedError; then the object is not written.
    """
    if await _is_there(folder, storage, item, sizes):
        return
    upload = await storage.open_upload(item.key)
    try:
        source = blocks(folder, item)
        while (block := await asyncio.to_thread(next, source, None)) is not None:
            await upload.write(block)
            sizes(len(block))
        await upload.commit()
    except BaseException:
        await upload.abort()
        raise


async def _is_there(folder: Folder, storage: Storage, item: StoredObject, sizes: Sizes) -> bool:
    present = await storage.stat(item.key)
    if present is None or present.size != item.size:
        return False
    digest = hashlib.sha256()
    try:
        for first in range(0, item.size, BLOCK):
            data = await storage.get_bytes(item.key, first, min(BLOCK, item.size - first))
            await asyncio.to_thread(digest.update, data)
    except (ObjectNotFound, ShortRead):
        return False
    if folder.keys.name("content", digest.digest()) != item.content:
        return False
    sizes(item.size)
    return True


async def check(folder: Folder, item: StoredObject, sizes: Sizes) -> None:
    """Read an object of a backup. Raises BackupDamagedError, BackupIncompleteError."""
    source = blocks(folder, item)
    while (block := await asyncio.to_thread(next, source, None)) is not None:
        sizes(len(block))
