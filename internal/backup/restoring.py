"""Restoration of a backup into an empty database and storage.

Every table is read and verified, then the objects are written, each verified. One transaction then replaces the rows
and releases all claims; until its COMMIT the database is as it was, so an interrupted restoration is run again. If the
backup has an older schema, that schema is made first, and upgraded after the rows are in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors_backup import BackupVersionError, DatabaseNotEmptyError, ServiceRunningError
from core.secret import Secret
from core.storage.port import Storage
from internal.backup import contents
from internal.backup.creating import FINGERPRINT
from internal.backup.folder import MANIFEST, Folder, damaged
from internal.backup.manifest import Manifest, StoredObject, read_list, read_manifest, read_objects
from internal.backup.progress import OBJECTS, ROWS, UPGRADE, Counter, Report
from migrations import revisions
from migrations.run import upgrade
from repositories import restoration, table_rows, workers
from repositories.table_rows import KINDS, Columns

BATCH, BATCH_BYTES = 500, 4 * 1024 * 1024
"""Rows that are inserted at once, and about how many bytes of text they may have."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished restoration. prepared_again: unfinished jobs whose decoded audio was not in the backup.

    missing: objects that the service had lost before the backup. same_secret: False if API keys and webhook secrets of
    the backup are not valid with this SECRET_KEY.
    """

    name: str
    revision: str
    rows: int
    objects: int
    jobs: int
    unfinished: int
    prepared_again: int
    missing: int
    same_secret: bool


async def check(folder: Folder, name: str | None, report: Report) -> Manifest:
    """Read and verify every byte of a backup. Raises BackupDamagedError, BackupIncompleteError, BackupVersionError."""
    manifest = _open(folder, name)
    for columns in _tables(manifest):
        await asyncio.to_thread(_drain, _rows(folder, manifest, columns))
    counter = Counter(report, OBJECTS, manifest.objects.rows)
    for item in await asyncio.to_thread(list, read_objects(folder, manifest)):
        if item.content is not None:
            await contents.check(folder, item, lambda size: counter.add(0, size))
        counter.add(1)
    counter.show()
    return manifest


def _drain(rows: Iterator[Any]) -> None:
    for _ in rows:
        pass


class Restoration:
    """One run of `stt restore`."""

    def __init__(self, folder: Folder, database: Database, storage: Storage, secret: Secret, report: Report) -> None:
        self._folder, self._database, self._storage = folder, database, storage
        self._secret, self._report = secret, report

    async def run(self, name: str | None = None, *, replace: bool = False) -> Restored:
        """Restore a backup; None: the newest one. replace: delete the rows that the database has.

        Raises BackupNotFoundError, BackupVersionError, BackupDamagedError, BackupIncompleteError,
        DatabaseNotEmptyError, ServiceRunningError, DatabaseUnavailable, StorageUnavailable, DiskFullError.
        """
        manifest = _open(self._folder, name)
        await self._check_target(replace)
        tables = _tables(manifest)
        objects = await asyncio.to_thread(list, read_objects(self._folder, manifest))
        for columns in tables:
            await asyncio.to_thread(_drain, _rows(self._folder, manifest, columns))
        await self._storage.start()
        await self._write_objects(objects)
        if await revisions.current_revision(self._database) != manifest.revision:
            await self._make_schema(manifest.revision)
        newest = manifest.revision == revisions.newest()
        async with self._database.write() as session:
            if not replace and await table_rows.has_rows(session):
                raise DatabaseNotEmptyError
            await self._write_rows(session, manifest, tables)
            settled = await self._settle(session, manifest, objects) if newest else None
        if settled is None:
            Counter(self._report, UPGRADE).show()
            await upgrade(self._database)
            async with self._database.write() as session:
                settled = await self._settle(session, manifest, objects)
        jobs, unfinished, prepared_again = settled
        return Restored(
            name=manifest.name,
            revision=manifest.revision,
            rows=sum(section.rows for section in manifest.tables.values()),
            objects=sum(item.content is not None for item in objects),
            jobs=jobs,
            unfinished=unfinished,
            prepared_again=prepared_again,
            missing=manifest.missing,
            same_secret=self._secret.sign(FINGERPRINT, "fingerprint") == manifest.fingerprint,
        )

    async def _check_target(self, replace: bool) -> None:
        async with self._database.read() as session:
            if not replace and await table_rows.has_rows(session):
                raise DatabaseNotEmptyError
        if await revisions.current_revision(self._database) == revisions.newest():
            async with self._database.read() as session:
                if await workers.list_live(session):
                    raise ServiceRunningError

    async def _write_objects(self, objects: list[StoredObject]) -> None:
        stored = [item for item in objects if item.content is not None]
        counter = Counter(self._report, OBJECTS, len(stored))
        for item in stored:
            await contents.copy_out(self._folder, self._storage, item, lambda size: counter.add(0, size))
            counter.add(1)
        counter.show()

    async def _make_schema(self, revision: str) -> None:
        """Make the empty schema of a revision in place of the present one."""
        async with self._database.alter() as session:
            await (await session.connection()).run_sync(table_rows.drop_tables)
        await upgrade(self._database, revision)

    async def _write_rows(self, session: AsyncSession, manifest: Manifest, tables: list[Columns]) -> None:
        """Replace the rows of all tables by those of the backup."""
        await table_rows.delete_rows(session)
        counter = Counter(self._report, ROWS, sum(section.rows for section in manifest.tables.values()))
        for columns in tables:
            rows = _rows(self._folder, manifest, columns)
            while batch := await asyncio.to_thread(_batch, rows):
                if any(not isinstance(row, list) or len(row) != len(columns.columns) for row in batch):
                    raise damaged(f"table-{columns.table}")
                try:
                    await table_rows.insert_rows(session, columns, batch)
                except ValueError as error:
                    raise damaged(f"table-{columns.table}") from error
                counter.add(len(batch))
        counter.show()
        await table_rows.restart_sequences(session)

    async def _settle(
        self, session: AsyncSession, manifest: Manifest, objects: list[StoredObject]
    ) -> tuple[int, int, int]:
        """Bring the jobs into a state in which they continue.

        A job whose recording or result was deleted during the backup was deleted itself. Returns the number of jobs, of
        the unfinished ones, and of those that are prepared again.
        """
        await restoration.forget_transient(session)
        await restoration.release_claims(session)
        absent = [item for item in objects if item.content is None]
        working = {item.job_id for item in absent if item.key.startswith("work/")}
        prepared = [await restoration.prepare_again(session, job_id) for job_id in sorted(working)]
        for job_id in {item.job_id for item in absent if not item.lost and not item.key.startswith("work/")}:
            await restoration.remove_job(session, job_id)
        if manifest.secret is not None:
            self._secret.adopt(manifest.secret)
        return (*await restoration.count_jobs(session), sum(prepared))


def _rows(folder: Folder, manifest: Manifest, columns: Columns) -> Iterator[Any]:
    return read_list(folder, manifest.name, f"table-{columns.table}", manifest.tables[columns.table])


def _batch(rows: Iterator[Any]) -> list[Any]:
    batch: list[Any] = []
    size = 0
    for row in islice(rows, BATCH):
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, str)) if isinstance(row, list) else 0
        if size > BATCH_BYTES:
            break
    return batch


def _open(folder: Folder, name: str | None) -> Manifest:
    manifest = read_manifest(folder, folder.find(name))
    if manifest.revision not in revisions.known_revisions():
        raise BackupVersionError(
            "The backup was made by version {version} with the schema {revision}, newer than this program. Update it.",
            version=manifest.version,
            revision=manifest.revision,
        )
    return manifest


def _tables(manifest: Manifest) -> list[Columns]:
    """Return the tables of a backup, each after those that it refers to. Raises BackupDamagedError.

    They are in the order in which they were written. Names are checked, since they become part of statements.
    """
    known = {columns.table for columns in table_rows.all_columns()}
    tables = []
    for table, section in manifest.tables.items():
        names = [name for name, _ in section.columns]
        valid = table in known and all(name.isidentifier() for name in names) and len(set(names)) == len(names)
        if not valid or not names or {kind for _, kind in section.columns} - KINDS:
            raise damaged(MANIFEST)
        tables.append(Columns(table, tuple(section.columns)))
    return tables
