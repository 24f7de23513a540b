"""Backups and restorations, on both databases: what is copied, what is not, and the state of the jobs afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, select, update

from core.database import Database, after
from core.domain import keys
from core.domain.job import JobStatus
from core.errors_backup import (
    BackupBusyError,
    BackupKeyNeededError,
    BackupKeyWrongError,
    BackupNotFoundError,
    BackupVersionError,
    DatabaseNotEmptyError,
    ServiceRunningError,
)
from core.errors_command import SchemaNeededError
from internal.backup import manifest as manifests
from internal.backup.folder import Folder, opened
from internal.backup.progress import Progress
from internal.backup.restoring import check
from migrations import revisions
from migrations.run import upgrade
from repositories import deletion, jobs, schedule, workers
from repositories.models import Chunk, Job, Metric
from tests.backup.service import KEY, Stores, all_rows, fill, new_job, planned_job, rewrite_manifest, stores, writable
from tests.contract import invariants, rows


@pytest.fixture
async def source(database: Database, tmp_path: Path) -> Stores:
    return stores(database, tmp_path / "source")


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Stores]:
    """An empty service without a schema, whose database is SQLite."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/target/stt.db")
    yield stores(database, tmp_path / "target")
    await database.stop()


@pytest.fixture
async def postgres_target(postgres_url: str, tmp_path: Path) -> AsyncIterator[Stores]:
    database = Database(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    yield stores(database, tmp_path / "postgres")
    await database.stop()


async def test_every_row_and_object_comes_back(source: Stores, target: Stores, tmp_path: Path) -> None:
    ids = await fill(source)
    await source.storage.put_bytes(keys.peaks_key(ids["completed"]), b"[]")
    before = await all_rows(source.database)
    done = await source.back_up(tmp_path / "backups")
    assert done.missing == ()
    assert done.rows == sum(map(len, before.values()))
    restored = await target.restore(tmp_path / "backups")
    assert (restored.jobs, restored.unfinished, restored.prepared_again) == (3, 2, 0)
    assert restored.same_secret
    assert await target.contents() == await source.contents()
    for key in keys.result_keys(ids["completed"]):
        assert await target.storage.get_bytes(key) == await source.storage.get_bytes(key)
    after = await all_rows(target.database)
    for table in set(before) - {"jobs", "chunks", "workers", "rate_limits"}:
        assert sorted(map(repr, after[table])) == sorted(map(repr, before[table])), table
    await invariants.check(target.database)


@pytest.mark.servers
async def test_the_embedded_mode_moves_to_postgresql(target: Stores, postgres_target: Stores, tmp_path: Path) -> None:
    await upgrade(target.database)
    await fill(target)
    await target.back_up(tmp_path / "backups")
    await postgres_target.restore(tmp_path / "backups")
    assert await postgres_target.contents() == await target.contents()
    job = await new_job(postgres_target)  # generated numbers continue after the restored ones
    async with postgres_target.database.write() as session:
        session.add(Metric(job_id=job, metric_name="x", metric_value=1.0, recorded_at=after()))


async def test_no_claim_is_held_after_a_restoration(source: Stores, target: Stores, tmp_path: Path) -> None:
    """Every open row is due, and a run that was interrupted is not counted."""
    ids = await fill(source)
    await source.back_up(tmp_path / "backups")
    await target.restore(tmp_path / "backups")
    chunk = await rows.chunk(target.database, ids["running"], 0)
    assert (chunk.holder, chunk.status, chunk.lost, chunk.attempts) == (None, JobStatus.PENDING, 0, 0)
    async with target.database.write() as session:
        due = {row.wake_up.job_id for row in await schedule.reserve_due_jobs(session)}
        chunks = await schedule.reserve_due_chunks(session)
    assert due == {ids["waiting"]}
    assert {(row.job_id, row.chunk_index) for row in chunks} == {(ids["running"], index) for index in range(3)}


async def test_content_is_copied_once(source: Stores, tmp_path: Path) -> None:
    await fill(source)
    first = await source.back_up(tmp_path / "backups")
    assert first.copied == first.objects
    again = await source.back_up(tmp_path / "backups")
    assert (again.copied, again.objects) == (0, first.objects)
    await new_job(source)
    assert (await source.back_up(tmp_path / "backups")).copied == 1


async def test_equal_contents_are_stored_once(source: Stores, tmp_path: Path) -> None:
    """The working audio of both jobs is the same."""
    await fill(source)
    await source.back_up(tmp_path / "backups")
    before = len(list((tmp_path / "backups/contents").glob("*/*")))
    await planned_job(source, chunks=2)
    await source.back_up(tmp_path / "backups")
    assert len(list((tmp_path / "backups/contents").glob("*/*"))) == before + 1


async def test_an_interrupted_backup_is_no_backup_and_is_continued(source: Stores, tmp_path: Path) -> None:
    await fill(source)

    def interrupt(progress: Progress) -> None:
        if progress.done == progress.total:
            raise RuntimeError

    with writable(tmp_path / "backups") as folder:
        creation = source.creation(folder)
        creation._report = interrupt
        with pytest.raises(RuntimeError):
            await creation.run()
        assert folder.names() == []
    with pytest.raises(BackupNotFoundError):
        await source.restore(tmp_path / "backups", replace=True)
    done = await source.back_up(tmp_path / "backups")
    assert done.copied < done.objects


async def test_only_the_newest_backups_are_kept(source: Stores, target: Stores, tmp_path: Path) -> None:
    """The contents that only removed backups use go with them."""
    ids = await fill(source)
    await source.back_up(tmp_path / "backups")
    async with source.database.write() as session:
        assert await deletion.mark_deleted(session, ids["waiting"], "local")
    before = len(list((tmp_path / "backups/contents").glob("*/*")))
    done = await source.back_up(tmp_path / "backups", keep=1)
    assert done.removed == 1
    assert len(list((tmp_path / "backups/contents").glob("*/*"))) == before - 1
    with writable(tmp_path / "backups") as folder:
        assert folder.names() == [done.name]
    assert (await target.restore(tmp_path / "backups")).jobs == 2


async def test_a_job_whose_audio_went_meanwhile_is_prepared_again(
    source: Stores, target: Stores, tmp_path: Path
) -> None:
    """The job completes between the snapshot and the copy, which deletes its working audio."""
    ids = await fill(source)
    with writable(tmp_path / "backups") as folder:
        creation = source.creation(folder)
        read_rows = creation._read_rows

        async def read_then_end(name: str) -> object:
            found = await read_rows(name)
            creation._known.pop(keys.working_key(ids["running"], 1))
            await source.storage.delete(keys.working_key(ids["running"], 1))
            async with source.database.write() as session:
                ended = update(Job).where(Job.job_id == ids["running"])
                await session.execute(ended.values(working_audio_path=None, status=JobStatus.COMPLETED))
            return found

        creation._read_rows = read_then_end  # type: ignore[method-assign,assignment]
        summary = await creation.run()
    assert summary.missing == ()
    restored = await target.restore(tmp_path / "backups")
    assert restored.prepared_again == 1
    job = await rows.job(target.database, ids["running"])
    assert (job.plan, job.chunks_total, job.holder) == (None, None, None)
    async with target.database.write() as session:
        assert ids["running"] in {row.wake_up.job_id for row in await schedule.reserve_due_jobs(session)}
    await invariants.check(target.database)


async def test_a_job_deleted_meanwhile_does_not_come_back(source: Stores, target: Stores, tmp_path: Path) -> None:
    ids = await fill(source)
    with writable(tmp_path / "backups") as folder:
        creation = source.creation(folder)
        settle = creation._settle

        async def delete_first(named: object) -> object:
            key = keys.upload_key(ids["waiting"], "a.wav")
            creation._known.pop(key)
            async with source.database.write() as session:
                assert await deletion.mark_deleted(session, ids["waiting"], "local")
            return await settle(named)  # type: ignore[arg-type]

        creation._settle = delete_first  # type: ignore[method-assign,assignment]
        await creation.run()
    assert (await target.restore(tmp_path / "backups")).jobs == 2


async def test_an_object_that_the_storage_lost_is_named(source: Stores, target: Stores, tmp_path: Path) -> None:
    ids = await fill(source)
    lost = keys.result_key(ids["completed"])
    await source.storage.delete(lost)
    done = await source.back_up(tmp_path / "backups")
    assert done.missing == (lost,)
    restored = await target.restore(tmp_path / "backups")
    assert (restored.missing, restored.jobs) == (1, 3)


async def test_a_database_with_rows_is_left_alone(source: Stores, target: Stores, tmp_path: Path) -> None:
    await fill(source)
    await source.back_up(tmp_path / "backups")
    await target.restore(tmp_path / "backups")
    other = await new_job(target)
    with pytest.raises(DatabaseNotEmptyError):
        await target.restore(tmp_path / "backups")
    assert (await rows.job(target.database, other)).job_id == other
    await target.restore(tmp_path / "backups", replace=True)
    async with target.database.read() as session:
        assert await jobs.get_many(session, {other}) == {}


async def test_a_running_service_is_left_alone(source: Stores, tmp_path: Path) -> None:
    await fill(source)
    await source.back_up(tmp_path / "backups")
    async with source.database.write() as session:
        await workers.heartbeat(session, workers.WorkerInfo("w1", "consumer", "host", 1, "0.1.0", 1, ()))
    with pytest.raises(ServiceRunningError):
        await source.restore(tmp_path / "backups", replace=True)


async def test_an_older_backup_is_upgraded(source: Stores, target: Stores, tmp_path: Path) -> None:
    """A backup of the previous revision: without the tables and columns that the newest one added."""
    ids = await fill(source)
    newest, previous, *_ = revisions.known_revisions()
    await source.back_up(tmp_path / "backups")
    with writable(tmp_path / "backups") as folder:
        (name,) = folder.names()
        await _rewrite_as(folder, name, previous)
    restored = await target.restore(tmp_path / "backups")
    assert (restored.revision, restored.jobs) == (previous, 3)
    assert await revisions.current_revision(target.database) == newest
    async with target.database.read() as session:
        assert (await session.execute(select(Chunk.status).where(Chunk.job_id == ids["completed"]))).scalar_one()


async def _rewrite_as(folder: Folder, name: str, revision: str) -> None:
    """Turn a backup into one of an older revision, whose tables have the columns that it had."""
    manifest = manifests.read_manifest(folder, name)
    present = await _columns_at(revision, folder.path / "older.db")
    tables = {}
    for table, section in manifest.tables.items():
        if table in present:
            kept = [index for index, (column, _) in enumerate(section.columns) if column in present[table]]
            rows_now = list(manifests.read_list(folder, name, f"table-{table}", section))
            path = folder.backup_path(name) / f"table-{table}"
            path.unlink()
            with folder.sealer(path, manifests.label(name, path.name)) as sealer:
                writer = manifests.ListWriter(sealer)
                writer.write([[row[index] for index in kept] for row in rows_now])
                tables[table] = writer.finish(tuple(section.columns[index] for index in kept))
    rewrite_manifest(folder, manifest.model_copy(update={"tables": tables, "revision": revision}))


async def _columns_at(revision: str, file: Path) -> dict[str, set[str]]:
    """Return the columns of each table at a revision."""
    database = Database(f"sqlite+aiosqlite:///{file}")
    await upgrade(database, revision)

    def reflect(sync: Connection) -> dict[str, set[str]]:
        found = inspect(sync)
        return {name: {column["name"] for column in found.get_columns(name)} for name in found.get_table_names()}

    async with database.read() as session:
        columns = await (await session.connection()).run_sync(reflect)
    await database.stop()
    return columns


async def test_a_newer_backup_is_refused(source: Stores, target: Stores, tmp_path: Path) -> None:
    await fill(source)
    await source.back_up(tmp_path / "backups")
    with writable(tmp_path / "backups") as folder:
        (name,) = folder.names()
        manifest = manifests.read_manifest(folder, name)
        rewrite_manifest(folder, manifest.model_copy(update={"revision": "9999"}))
    with pytest.raises(BackupVersionError, match="9999"):
        await target.restore(tmp_path / "backups")


async def test_a_database_of_another_version_is_not_backed_up(target: Stores, tmp_path: Path) -> None:
    with pytest.raises(SchemaNeededError):
        await target.back_up(tmp_path / "backups")


async def test_the_key_is_needed_and_checked(source: Stores, tmp_path: Path) -> None:
    with pytest.raises(BackupKeyNeededError):
        await source.back_up(tmp_path / "backups", key="short")
    await source.back_up(tmp_path / "backups")
    with pytest.raises(BackupKeyWrongError):
        await source.back_up(tmp_path / "backups", key="another key, long enough")


async def test_two_backups_at_once_are_refused(source: Stores, tmp_path: Path) -> None:
    with writable(tmp_path / "backups"), pytest.raises(BackupBusyError):
        await source.back_up(tmp_path / "backups")
    await source.back_up(tmp_path / "backups")
    with opened(tmp_path / "backups", KEY, write=False), opened(tmp_path / "backups", KEY, write=False) as folder:
        await check(folder, None, source.reports.append)
        with pytest.raises(BackupBusyError):
            await source.back_up(tmp_path / "backups")
