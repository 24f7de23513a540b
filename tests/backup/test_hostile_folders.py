"""Folders of backups that were damaged, or made by somebody who means harm, without and with the key."""

from __future__ import annotations

import json
import os
import resource
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.database import Database
from core.error_base import SttError
from core.errors_backup import (
    BackupDamagedError,
    BackupDiskFullError,
    BackupFolderError,
    BackupIncompleteError,
    BackupKeyWrongError,
    BackupNotFoundError,
    BackupVersionError,
)
from internal.backup import manifest as manifests
from internal.backup.folder import Folder
from internal.backup.journal import Journal
from internal.backup.manifest import ListWriter, StoredObject
from internal.backup.restoring import check
from internal.backup.sealing import FRAME_BYTES, Keys, Sealer, SealError, sealed_size, unsealed
from repositories import table_rows
from tests.backup.service import Stores, fill, new_job, rewrite_manifest, stores, writable

KEYS = Keys(b"k" * 32, b"n" * 32)


@pytest.fixture
async def backups(database: Database, tmp_path: Path) -> Path:
    source = stores(database, tmp_path / "source")
    await fill(source)
    await new_job(source, size=3 * FRAME_BYTES)
    await source.back_up(tmp_path / "backups")
    return tmp_path / "backups"


@pytest.fixture
def target(tmp_path: Path) -> Stores:
    return stores(Database(f"sqlite+aiosqlite:///{tmp_path}/target/stt.db"), tmp_path / "target")


async def assert_untouched(target: Stores, error: type[SttError], folder: Path) -> None:
    """Check that a restoration fails, and that the database is as it was."""
    with pytest.raises(error):
        await target.restore(folder)
    async with target.database.read() as session:
        assert not await table_rows.has_rows(session)
    await target.database.stop()


def one(folder: Path, pattern: str, largest: bool = False) -> Path:
    return sorted(folder.glob(pattern), key=lambda path: path.stat().st_size)[-1 if largest else 0]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_a_frame(path: Path) -> None:
    os.truncate(path, sealed_size(2 * FRAME_BYTES))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    other = next(entry for entry in sorted(path.parent.parent.glob("*/*")) if entry != path and entry.is_file())
    path.write_bytes(other.read_bytes())


def link(path: Path) -> None:
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def subfolder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = [cut, cut_a_frame, flip, swap, link, pipe, device, subfolder, remove]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_damaged_object_is_not_restored(backups: Path, target: Stores, damage: Callable[[Path], None]) -> None:
    damage(one(backups, "contents/*/*", largest=True))
    await assert_untouched(target, BackupIncompleteError if damage is remove else BackupDamagedError, backups)


@pytest.mark.parametrize("file", ["manifest", "objects", "table-jobs"])
@pytest.mark.parametrize("damage", [cut, flip, swap, link, pipe, device, remove], ids=lambda damage: damage.__name__)
async def test_a_damaged_file_of_a_backup_restores_nothing(
    backups: Path, target: Stores, damage: Callable[[Path], None], file: str
) -> None:
    damage(one(backups, f"backups/*/{file}"))
    await assert_untouched(target, BackupIncompleteError if damage is remove else BackupDamagedError, backups)


HEADERS: list[tuple[str, type[SttError]]] = [
    ("", BackupDamagedError),
    ("[]", BackupDamagedError),
    ('{"format": 1, "salt": "zz", "check": ""}', BackupDamagedError),
    ('{"format": 1, "salt": "00", "check": "é"}', BackupKeyWrongError),
    ('{"format": 2, "salt": "00", "check": ""}', BackupVersionError),
    ('{"format": 1, "salt": "' + "00" * 100_000, BackupDamagedError),
    ("[" * 4000, BackupDamagedError),
]


@pytest.mark.parametrize(("header", "error"), HEADERS, ids=range(len(HEADERS)))
async def test_a_header_of_somebody_else_is_refused(
    backups: Path, target: Stores, header: str, error: type[SttError]
) -> None:
    (backups / "backup.json").write_text(header)
    await assert_untouched(target, error, backups)


async def test_a_folder_without_its_header_gets_no_new_one(backups: Path, target: Stores) -> None:
    """Otherwise another key would make the old backups unreadable."""
    (backups / "backup.json").unlink()
    with pytest.raises(BackupIncompleteError):
        await target.back_up(backups)
    with pytest.raises(BackupNotFoundError):
        await target.restore(backups)
    await target.database.stop()


@pytest.mark.parametrize("folder", ["contents", "backups", "unfinished"])
async def test_links_in_place_of_folders_are_not_followed(
    database: Database, backups: Path, tmp_path: Path, folder: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    present = backups / folder
    if present.exists():
        present.rename(backups / "moved")
    present.symlink_to(outside)
    source = stores(database, tmp_path / "source")
    await new_job(source)
    with pytest.raises((BackupDamagedError, BackupIncompleteError, BackupFolderError)):
        await source.back_up(backups)
    assert list(outside.iterdir()) == []


def replace_list(folder: Folder, file: str, values: list[Any]) -> manifests.Section:
    """Replace a list of the only backup, with the key."""
    (name,) = folder.names()
    path = folder.backup_path(name) / file
    path.unlink()
    with folder.sealer(path, manifests.label(name, file)) as sealer:
        writer = ListWriter(sealer)
        writer.write(values)
        return writer.finish()


def valid_object(**changes: Any) -> dict[str, Any]:
    return StoredObject("uploads/j/a", "j", 1, "v", "0" * 64).to_json() | changes


OBJECTS: list[Any] = [
    valid_object(key="../../etc/passwd"),
    valid_object(key="/etc/passwd"),
    valid_object(key="uploads/../../x"),
    valid_object(key="a\0b"),
    valid_object(key=""),
    valid_object(key=7),
    valid_object(size=-1),
    valid_object(size="9"),
    valid_object(job_id=None),
    valid_object(content="../../../etc/passwd"),
    valid_object(content="/etc/passwd"),
    valid_object(more=1),
    {},
    [],
    None,
    7,
]


@pytest.mark.parametrize("value", OBJECTS, ids=range(len(OBJECTS)))
async def test_hostile_names_of_objects_are_refused(backups: Path, target: Stores, value: Any) -> None:
    with writable(backups) as folder:
        manifest = manifests.read_manifest(folder, folder.names()[0])
        section = replace_list(folder, "objects", [value])
        rewrite_manifest(folder, manifest.model_copy(update={"objects": section}))
    await assert_untouched(target, BackupDamagedError, backups)


TABLES = ["sqlite_master", "alembic_version", "jobs; DROP TABLE jobs", "JOBS", "../jobs", "no_such_table", ""]


@pytest.mark.parametrize("table", TABLES)
async def test_hostile_names_of_tables_are_refused(backups: Path, target: Stores, table: str) -> None:
    with writable(backups) as folder:
        manifest = manifests.read_manifest(folder, folder.names()[0])
        tables = {table: manifest.tables["jobs"]}
        rewrite_manifest(folder, manifest.model_copy(update={"tables": tables}))
    await assert_untouched(target, BackupDamagedError, backups)


ROWS: list[Any] = [None, {}, [], [1], ["x"] * 200, ["\ud800"] * 56, [2**200] * 56, [[1]] * 56, "x" * 56]


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
async def test_hostile_rows_are_refused(backups: Path, target: Stores, row: Any) -> None:
    with writable(backups) as folder:
        manifest = manifests.read_manifest(folder, folder.names()[0])
        columns = manifest.tables["jobs"].columns
        row = row[: len(columns)] + row[:1] * (len(columns) - len(row)) if row and len(row) == 56 else row
        section = replace_list(folder, "table-jobs", [row]).model_copy(update={"columns": columns})
        rewrite_manifest(folder, manifest.model_copy(update={"tables": {**manifest.tables, "jobs": section}}))
    await assert_untouched(target, BackupDamagedError, backups)


async def test_a_bomb_is_not_unpacked(backups: Path, target: Stores) -> None:
    """A gigabyte of zeros, packed to a megabyte, as one row: the memory stays below a quarter of it."""
    with writable(backups) as folder:
        (name,) = folder.names()
        manifest = manifests.read_manifest(folder, name)
        path = folder.backup_path(name) / "objects"
        path.unlink()
        packed = zlib.compressobj(1)
        with folder.sealer(path, manifests.label(name, "objects")) as sealer:
            for _ in range(1024):
                sealer.write(packed.compress(bytes(1024 * 1024)))
            sealer.write(packed.flush())
        rewrite_manifest(folder, manifest)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await assert_untouched(target, BackupDamagedError, backups)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024


async def test_an_old_backup_in_place_of_a_new_one_is_noticed(
    database: Database, backups: Path, target: Stores, tmp_path: Path
) -> None:
    await stores(database, tmp_path / "source").back_up(backups)
    old, new = sorted((backups / "backups").iterdir())
    for file in new.iterdir():
        file.write_bytes((old / file.name).read_bytes())
    await assert_untouched(target, BackupDamagedError, backups)


async def test_a_truncated_journal_is_continued(database: Database, backups: Path, tmp_path: Path) -> None:
    with writable(backups) as folder:
        folder.start()
        journal = Journal(folder)
        for number in range(3):
            journal.add(StoredObject(f"uploads/j/{number}", "j"))
        path = folder.unfinished / "journal"
        cut(path)
        assert [item.key for item in Journal(folder).read()] == ["uploads/j/0", "uploads/j/1"]
        journal.add(StoredObject("uploads/j/3", "j"))
        assert len(list(Journal(folder).read())) == 3
        path.write_bytes(b"\xff\n" + path.read_bytes())
        assert list(Journal(folder).read()) == []
    await stores(database, tmp_path / "source").back_up(backups)


async def test_a_full_disk_leaves_no_backup(database: Database, tmp_path: Path) -> None:
    """The limit on the size of files stands for a disk that fills up (EFBIG)."""
    source = stores(database, tmp_path / "source")
    await fill(source)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FRAME_BYTES, limits[1]))
    try:
        with pytest.raises(BackupDiskFullError):
            await source.back_up(tmp_path / "backups")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    with writable(tmp_path / "backups") as folder:
        assert folder.names() == []
    done = await source.back_up(tmp_path / "backups")
    with writable(tmp_path / "backups") as folder:
        await check(folder, done.name, source.reports.append)


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES])
def test_what_is_sealed_opens_with_its_label_alone(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    with path.open("wb") as file:
        sealer = Sealer(file, KEYS, "label")
        for first in range(0, size, 70_001):
            sealer.write(data[first : first + 70_001])
        sealer.finish()
    assert path.stat().st_size == sealed_size(size)
    with path.open("rb") as file:
        assert b"".join(unsealed(file, KEYS, "label")) == data
    for keys, label in ((KEYS, "other"), (Keys(b"x" * 32, b"n" * 32), "label")):
        with path.open("rb") as file, pytest.raises(SealError):
            list(unsealed(file, keys, label))


def test_header_is_documented(tmp_path: Path) -> None:
    """The header holds no secret: format, salt and a check of the key."""
    with writable(tmp_path / "backups"):
        assert set(json.loads((tmp_path / "backups" / "backup.json").read_text())) == {"format", "salt", "check"}


async def test_a_removal_follows_no_link(database: Database, backups: Path, tmp_path: Path) -> None:
    """`--keep` removes contents that no backup uses, and nothing else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ("0" * 64)).write_text("precious")
    (backups / "contents" / "zz").symlink_to(outside)
    (backups / "removed-x").symlink_to(outside)
    (backups / "contents" / "00").mkdir(exist_ok=True)
    (backups / "contents" / "00" / "notes.txt").write_text("of the operator")
    await stores(database, tmp_path / "source").back_up(backups, keep=1)
    assert (outside / ("0" * 64)).read_text() == "precious"
    assert (backups / "contents" / "00" / "notes.txt").exists()
