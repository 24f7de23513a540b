"""Helpers of the storage suites."""

from __future__ import annotations

import asyncio
import random

from core.storage.local import LocalStorage
from core.storage.minio import MinioStorage
from core.storage.port import Storage
from tests.servers.minio import Bucket

MIB = 1024 * 1024
KEY = "uploads/job-1/a.wav"
MAX_UPLOADS = 3
AnyStorage = LocalStorage | MinioStorage


def of_bucket(bucket: Bucket) -> MinioStorage:
    return MinioStorage(bucket.endpoint, bucket.access_key, bucket.secret_key, bucket.bucket, max_uploads=MAX_UPLOADS)


async def upload(storage: Storage, key: str, data: bytes, seed: int = 1) -> int:
    """Write data in pieces of odd sizes, from single bytes to several MiB."""
    rng, at = random.Random(seed), 0
    writer = await storage.open_upload(key)
    while at < len(data):
        step = rng.choice((1, 1000, 65_537, rng.randint(1, 3 * MIB)))
        await writer.write(data[at : at + step])
        at += step
    return await writer.commit()


def leftovers(storage: AnyStorage, key: str = KEY) -> list[str]:
    """Return unfinished uploads: files under the root, or multipart uploads of this key."""
    if isinstance(storage, LocalStorage):
        return [str(path) for path in storage.root.rglob("*") if path.is_file()]
    return [
        str(found.upload_id) for found in storage.client._list_multipart_uploads(storage.bucket, prefix=key).uploads
    ]


async def wait_until_begun(storage: AnyStorage, key: str = KEY) -> None:
    """Wait until the first bytes of an upload are in storage."""
    async with asyncio.timeout(20):
        while not leftovers(storage, key):
            await asyncio.sleep(0.02)
