"""Creation of a backup while the service runs.

The objects are copied first, then all rows are read in one snapshot, then the objects that appeared in between are
copied. So the snapshot, which keeps the database from cleaning up, is open for the rows only. Objects are not
overwritten while a job needs them; one that has been deleted since the snapshot is noted, and its job is brought into a
state without it by the restoration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from core.database import Database
from core.errors_command import SchemaNeededError
from core.secret import Secret
from core.storage.port import Storage
from core.tasks import cancel_and_wait
from core.version import VERSION
from internal.backup import contents
from internal.backup.folder import MANIFEST, Folder
from internal.backup.journal import Journal
from internal.backup.manifest import (
    OBJECTS,
    ListWriter,
    Manifest,
    Section,
    StoredObject,
    label,
    read_manifest,
    read_objects,
    write_manifest,
)
from internal.backup.progress import OBJECTS as OBJECTS_PHASE
from internal.backup.progress import ROWS, Counter, Report
from internal.backup.sealing import sealed_size
from migrations import revisions
from repositories import restoration, table_rows
from repositories.restoration import NamedObject

COPIES = 4
"""Objects that are copied at once."""
BATCH = 200
"""Rows that are written at once."""
FINGERPRINT = "backup"


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished backup. bytes: of all objects; copied: objects that were not in the folder before, and their bytes.

    missing: keys of objects that a job needs and the storage does not have.
    """

    name: str
    rows: int
    objects: int
    bytes: int
    copied: int
    copied_bytes: int
    missing: tuple[str, ...]
    removed: int


class Creation:
    """One run of `stt backup`."""

    def __init__(self, folder: Folder, database: Database, storage: Storage, secret: Secret, report: Report) -> None:
        self._folder, self._database, self._storage = folder, database, storage
        self._secret, self._report = secret, report
        self._journal = Journal(folder)
        self._known: dict[str, StoredObject] = {}
        self._copied = 0
        self._copied_bytes = 0

    async def run(self, keep: int | None = None) -> Summary:
        """Make a backup. keep: number of backups to keep, this one included; None: all.

        Raises SchemaNeededError, DatabaseUnavailable, StorageUnavailable, BackupDiskFullError, BackupFolderError,
        BackupDamagedError (a file of an earlier backup).
        """
        if await revisions.current_revision(self._database) != revisions.newest():
            raise SchemaNeededError
        await self._storage.start()
        name = await asyncio.to_thread(self._folder.start)
        await asyncio.to_thread(self._learn)
        async with self._database.read() as session:
            ahead = [item async for item in restoration.list_objects(session)]
        await self._copy(ahead)
        tables, named = await self._read_rows(name)
        await self._copy(named)
        objects = await self._settle(named)
        manifest = await asyncio.to_thread(self._write, name, tables, objects)
        await asyncio.to_thread(self._folder.finish, name)
        removed = await asyncio.to_thread(self._prune, keep)
        return Summary(
            name=name,
            rows=sum(section.rows for section in tables.values()),
            objects=sum(item.content is not None for item in objects),
            bytes=manifest.bytes,
            copied=self._copied,
            copied_bytes=self._copied_bytes,
            missing=tuple(item.key for item in objects if item.lost),
            removed=removed,
        )

    def _learn(self) -> None:
        """Collect the objects of the newest backup and of an interrupted run, by key."""
        names = self._folder.names()
        if names:
            for item in read_objects(self._folder, read_manifest(self._folder, names[-1])):
                self._known[item.key] = item
        for item in self._journal.read():
            self._known[item.key] = item

    async def _copy(self, named: Iterable[NamedObject]) -> None:
        """Copy the objects that are not in the folder yet."""
        items = list({item.key: item for item in named}.values())
        counter = Counter(self._report, OBJECTS_PHASE, len(items))
        waiting = iter(items)

        async def work() -> None:
            for item in waiting:
                await self._copy_one(item, counter)
                counter.add(1)

        tasks = [asyncio.create_task(work(), name=f"backup {number}") for number in range(COPIES)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(*tasks)
        counter.show()

    async def _copy_one(self, item: NamedObject, counter: Counter) -> None:
        known = self._known.get(item.key)
        if known is not None and known.content is not None:
            present = await self._storage.stat(item.key)
            same = present is not None and (present.version, present.size) == (known.version, known.size)
            if same and self._folder.has_content(known.content, sealed_size(known.size)):
                return
        copied = await contents.copy_in(
            self._folder, self._storage, item.key, item.job_id, lambda size: counter.add(0, size)
        )
        if copied is None:
            self._known.pop(item.key, None)
            return
        self._known[item.key] = copied
        self._copied, self._copied_bytes = self._copied + 1, self._copied_bytes + copied.size
        self._journal.add(copied)

    async def _read_rows(self, name: str) -> tuple[dict[str, Section], list[NamedObject]]:
        """Write the rows of all tables and list the objects that they name, in one snapshot."""
        tables = {}
        counter = Counter(self._report, ROWS)
        async with self._database.snapshot() as session:
            named = [item async for item in restoration.list_objects(session)]
            for columns in table_rows.all_columns():
                file = f"table-{columns.table}"
                with self._folder.sealer(self._folder.unfinished / file, label(name, file)) as sealer:
                    writer, batch = ListWriter(sealer), []
                    async for row in table_rows.read_rows(session, columns):
                        batch.append(row)
                        if len(batch) >= BATCH:
                            await asyncio.to_thread(writer.write, batch)
                            counter.add(len(batch))
                            batch = []
                    await asyncio.to_thread(writer.write, batch)
                    counter.add(len(batch))
                    tables[columns.table] = writer.finish(columns.columns)
        counter.show()
        return tables, named

    async def _settle(self, named: Iterable[NamedObject]) -> list[StoredObject]:
        """Return the objects of the backup, and those needed ones that are gone: deleted meanwhile, or lost before."""
        objects = []
        for item in {item.key: item for item in named}.values():
            known = self._known.get(item.key)
            if known is not None:
                objects.append(known)
            elif item.needed:
                async with self._database.read() as session:
                    lost = await restoration.still_needed(session, item)
                objects.append(StoredObject(item.key, item.job_id, lost=lost))
        return objects

    def _write(self, name: str, tables: dict[str, Section], objects: list[StoredObject]) -> Manifest:
        """Write the list of the objects and the manifest."""
        with self._folder.sealer(self._folder.unfinished / OBJECTS, label(name, OBJECTS)) as sealer:
            writer = ListWriter(sealer)
            for first in range(0, len(objects), BATCH):
                writer.write([item.to_json() for item in objects[first : first + BATCH]])
            section = writer.finish()
        manifest = Manifest(
            name=name,
            version=VERSION,
            revision=revisions.newest(),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            tables=tables,
            objects=section,
            bytes=sum(item.size for item in objects),
            missing=sum(item.lost for item in objects),
            fingerprint=self._secret.sign(FINGERPRINT, "fingerprint"),
            secret=self._secret.generated,
        )
        write_manifest(self._folder, self._folder.unfinished / MANIFEST, manifest)
        return manifest

    def _prune(self, keep: int | None) -> int:
        """Remove all but the newest backups, and contents that none of those uses; return the number of backups."""
        names = self._folder.names()
        if keep is None or len(names) <= keep:
            return 0
        for name in names[:-keep]:
            self._folder.remove(name)
        used = set()
        for name in names[-keep:]:
            items = read_objects(self._folder, read_manifest(self._folder, name))
            used |= {item.content for item in items if item.content is not None}
        self._folder.sweep(used)
        return len(names) - keep
