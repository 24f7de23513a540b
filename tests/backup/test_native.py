"""The documented way with the servers' own tools: pg_dump, then a copy of the bucket, then pg_restore."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from minio import Minio as Client
from sqlalchemy import text

from core.database import Database
from core.storage.minio import MinioStorage
from migrations.run import upgrade
from repositories import leases, schedule
from tests.backup.service import Stores, fill, stores
from tests.servers import postgres
from tests.servers.minio import Bucket
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers


def tool(name: str) -> str:
    folder = postgres.programs_folder()
    path = shutil.which(name, path=str(folder)) if folder else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def test_a_dump_and_a_copy_of_the_bucket_play_on(
    postgres_url: str, shared_postgres: Postgres, minio_bucket: Bucket, tmp_path: Path
) -> None:
    """Rows that were claimed are due once their leases have ended, so the jobs continue."""
    copy = Bucket(*_address(minio_bucket), f"{minio_bucket.bucket}-copy")
    ids, before = asyncio.run(_fill(postgres_url, minio_bucket, tmp_path))
    subprocess.run([tool("pg_dump"), "-Fc", "-f", str(tmp_path / "stt.dump"), postgres_url], check=True)
    _mirror(minio_bucket, copy, tmp_path)
    empty = postgres.create_database(shared_postgres.url)
    try:
        subprocess.run([tool("pg_restore"), "--no-owner", "-d", empty, str(tmp_path / "stt.dump")], check=True)
        objects, due = asyncio.run(_restored(empty, copy, tmp_path))
    finally:
        postgres.drop_database(shared_postgres.url, empty)
    assert objects == before
    assert due == {ids["waiting"], ids["running"]}


async def _fill(url: str, bucket: Bucket, folder: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    service = _stores(url, bucket, folder)
    await upgrade(service.database)
    ids, objects = await fill(service), await service.contents()
    await _stop(service)
    return ids, objects


async def _restored(url: str, bucket: Bucket, folder: Path) -> tuple[dict[str, bytes], set[str]]:
    """Return the objects, and the jobs that are due once their leases have ended."""
    service = _stores(url, bucket, folder)
    await upgrade(service.database)
    objects, due = await service.contents(), set()
    async with service.database.write() as session:
        for table in ("jobs", "chunks"):
            await session.execute(text(f"UPDATE {table} SET due_at = now() WHERE due_at IS NOT NULL"))
    async with service.database.write() as session:
        await leases.release_lapsed(session, await leases.current_time(session))
    async with service.database.write() as session:
        due = {row.wake_up.job_id for row in await schedule.reserve_due_jobs(session)}
        due |= {row.job_id for row in await schedule.reserve_due_chunks(session)}
    await _stop(service)
    return objects, due


def _stores(url: str, bucket: Bucket, folder: Path) -> Stores:
    database = Database(url.replace("postgresql://", "postgresql+asyncpg://"))
    return stores(database, folder, MinioStorage(*_address(bucket), bucket.bucket))


async def _stop(service: Stores) -> None:
    await service.storage.stop()
    await service.database.stop()


def _address(bucket: Bucket) -> tuple[str, str, str]:
    return bucket.endpoint, bucket.access_key, bucket.secret_key


def _mirror(bucket: Bucket, copy: Bucket, folder: Path) -> None:
    """Copy a bucket with `mc mirror` if it is installed, else with the SDK."""
    source, target = bucket.bucket, copy.bucket
    if program := shutil.which("mc"):
        call = [program, "--config-dir", str(folder / "mc")]
        alias = [*call, "alias", "set", "stt", f"http://{bucket.endpoint}", bucket.access_key, bucket.secret_key]
        subprocess.run(alias, check=True, capture_output=True)
        subprocess.run([*call, "mb", f"stt/{target}"], check=True, capture_output=True)
        subprocess.run([*call, "mirror", f"stt/{source}", f"stt/{target}"], check=True, capture_output=True)
        return
    client = Client(*_address(bucket), secure=False)
    client.make_bucket(target)
    for item in client.list_objects(source, recursive=True):
        name = str(item.object_name)
        client.fget_object(source, name, str(folder / "object"))
        client.fput_object(target, name, str(folder / "object"))
