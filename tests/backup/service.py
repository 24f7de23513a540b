"""A database with jobs in every state, and a storage with their objects."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from core.database import Database, after
from core.domain import keys
from core.domain.job import JobStatus
from core.secret import Secret
from core.storage.local import LocalStorage
from core.storage.port import Storage
from internal.backup.creating import Creation, Summary
from internal.backup.folder import Folder, opened
from internal.backup.manifest import Manifest, write_manifest
from internal.backup.progress import Progress
from internal.backup.restoring import Restoration, Restored
from repositories import claims, commits, plans, table_rows
from repositories.claims import ClaimRequest
from repositories.models import ApiKey, Job
from tests.contract import rows

KEY = "a key of more than sixteen characters"
MIB = 1024 * 1024


@dataclass
class Stores:
    """Database, storage and secret of one service. reports: the progress of its commands."""

    database: Database
    storage: Storage
    secret: Secret
    reports: list[Progress] = field(default_factory=list)

    async def back_up(self, folder: Path, keep: int | None = None, key: str = KEY) -> Summary:
        with opened(folder, key, write=True) as target:
            return await self.creation(target).run(keep)

    def creation(self, folder: Folder) -> Creation:
        return Creation(folder, self.database, self.storage, self.secret, self.reports.append)

    async def restore(self, folder: Path, name: str | None = None, *, replace: bool = False) -> Restored:
        with opened(folder, KEY, write=False) as source:
            restoration = Restoration(source, self.database, self.storage, self.secret, self.reports.append)
            return await restoration.run(name, replace=replace)

    async def contents(self) -> dict[str, bytes]:
        """Return the objects that the rows name."""
        found = {}
        async with self.database.read() as session:
            for job in (await session.execute(select(Job))).scalars():
                working = None if job.status == JobStatus.COMPLETED else job.working_audio_path
                for key in (job.minio_audio_path, job.minio_result_path, working):
                    if key is not None and await self.storage.stat(key) is not None:
                        found[key] = await self.storage.get_bytes(key)
        return found


def stores(database: Database, folder: Path, storage: Storage | None = None) -> Stores:
    return Stores(database, storage or LocalStorage(folder / "objects"), Secret("", folder))


async def fill(service: Stores) -> dict[str, str]:
    """Add jobs: waiting, with a running chunk, completed, deleted; and a key. Return the jobs' ids."""
    await service.storage.start()
    database = service.database
    waiting = await new_job(service)
    running = await planned_job(service, chunks=3)
    assert await rows.claim(database, running, 0) is not None
    completed = await planned_job(service, chunks=1)
    await rows.run_chunk(database, completed, 0)
    done = commits.JobOutcome(keys.result_key(completed), "xin chào", 0.9, 1.0, 0, {"total_seconds": 1.5})
    await service.storage.put_bytes(keys.result_key(completed), b'{"text": "xin ch\xc3\xa0o"}')
    await service.storage.put_bytes(keys.result_key(completed, "txt"), "xin chào".encode())
    async with database.write() as session:
        assert await commits.complete_job(session, completed, done) is not None
    async with database.write() as session:
        await session.execute(
            insert(ApiKey).values(key_id="k1", secret_hash="ab" * 32, owner="local", name=None, created_at=after(-5))
        )
    return {"waiting": waiting, "running": running, "completed": completed}


async def new_job(service: Stores, size: int = 1000, **changes: Any) -> str:
    job_id = await rows.new_job(service.database, audio_key=None, **changes)
    key = keys.upload_key(job_id, "a.wav")
    await service.storage.put_bytes(key, random.Random(job_id).randbytes(size))
    async with service.database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(minio_audio_path=key))
    return job_id


async def planned_job(service: Stores, chunks: int) -> str:
    job_id = await new_job(service)
    async with service.database.write() as session:
        claimed = await claims.claim_prepare(session, job_id, 0, ClaimRequest(rows.WORKER, rows.LEASE))
    assert claimed is not None
    await service.storage.put_bytes(keys.working_key(job_id, 1), bytes(3 * MIB))
    async with service.database.write() as session:
        assert await plans.store_plan(session, job_id, rows.plan(chunks, 1, 64, job_id)) is not None
    return job_id


async def all_rows(database: Database, without: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Return every row of every table."""
    found = {}
    async with database.snapshot() as session:
        for columns in table_rows.all_columns():
            if columns.table not in without:
                found[columns.table] = [row async for row in table_rows.read_rows(session, columns)]
    return found


@contextmanager
def writable(folder: Path) -> Iterator[Folder]:
    with opened(folder, KEY, write=True) as target:
        yield target


def rewrite_manifest(folder: Folder, manifest: Manifest) -> None:
    """Replace the manifest of a backup, as somebody who has the key could."""
    path = folder.backup_path(manifest.name) / "manifest"
    path.unlink()
    write_manifest(folder, path, manifest)
