"""The documented way with the servers' own tools: pg_dump, then a copy of the bucket, then pg_restore."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from minio import Minio as Client

from core.database import Database
from core.storage.minio import MinioStorage
from migrations.run import upgrade
from repositories import schedule
from tests.backup.service import fill, stores
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


async def test_a_dump_and_a_copy_of_the_bucket_play_on(
    postgres_url: str, shared_postgres: Postgres, minio_bucket: Bucket, tmp_path: Path
) -> None:
    """Rows that were claimed are due once their leases have ended, so the jobs continue."""
    database = Database(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    await upgrade(database)
    first = MinioStorage(*_address(minio_bucket), minio_bucket.bucket)
    source = stores(database, tmp_path, first)
    ids = await fill(source)
    before = await source.contents()
    subprocess.run([tool("pg_dump"), "-Fc", "-f", str(tmp_path / "stt.dump"), postgres_url], check=True)
    _mirror(minio_bucket, minio_bucket.bucket, f"{minio_bucket.bucket}-copy", tmp_path)
    await database.stop()

    empty = postgres.create_database(shared_postgres.url)
    subprocess.run([tool("pg_restore"), "--no-owner", "-d", empty, str(tmp_path / "stt.dump")], check=True)
    restored = Database(empty.replace("postgresql://", "postgresql+asyncpg://"))
    await upgrade(restored)
    second = MinioStorage(*_address(minio_bucket), f"{minio_bucket.bucket}-copy")
    assert await stores(restored, tmp_path, second).contents() == before
    async with restored.write() as session:
        await schedule.republish_unclaimed(session, older_than=-60.0)
        due = {row.wake_up.job_id for row in await schedule.reserve_due_jobs(session)}
    assert due <= set(ids.values())
    await restored.stop()
    await second.stop()
    await first.stop()
    postgres.drop_database(shared_postgres.url, empty)


def _address(bucket: Bucket) -> tuple[str, str, str]:
    return bucket.endpoint, bucket.access_key, bucket.secret_key


def _mirror(bucket: Bucket, source: str, target: str, folder: Path) -> None:
    """Copy a bucket with `mc mirror` if it is installed, else with the SDK."""
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
