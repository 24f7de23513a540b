"""Local storage only: crashes, full disks, and removal of empty folders."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import MachineError, StorageUnavailable
from core.storage.local import LocalStorage
from tests.contract.storages import KEY, MIB, leftovers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[LocalStorage]:
    made = LocalStorage(tmp_path / "objects")
    await made.start()
    yield made
    await made.stop()


async def test_path_of_returns_the_objects_path(storage: LocalStorage) -> None:
    await storage.put_bytes("results/job-1/transcription.json", b"{}")
    assert storage.object_path("results/job-1/transcription.json").read_bytes() == b"{}"


async def test_empty_folders_are_removed_with_the_last_object(storage: LocalStorage) -> None:
    await storage.put_bytes("uploads/job-1/deep/a", b"x")
    await storage.put_bytes("uploads/job-2/a", b"x")
    await storage.delete_prefix("uploads/job-1/")
    assert [path.name for path in (storage.root / "uploads").iterdir()] == ["job-2"]
    await storage.delete("uploads/job-2/a")
    assert list(storage.root.iterdir()) == []
    await storage.ping()


async def test_deleting_a_prefix_removes_remains_of_a_killed_process(storage: LocalStorage, tmp_path: Path) -> None:
    killed = LocalStorage(tmp_path / "objects")
    for key in (KEY, "uploads/job-10/a.wav"):
        await (await killed.open_upload(key)).write(b"x" * (2 * MIB))
    assert await storage.delete_prefix("uploads/job-1/") == 0
    assert [path.name for path in (storage.root / "uploads").iterdir()] == ["job-10"]
    assert await storage.delete_prefix("uploads/job-10/a.wav") == 0
    assert list(storage.root.iterdir()) == []
    await killed.stop()


@pytest.mark.parametrize("call", ["start", "ping"])
async def test_a_root_below_a_file_is_unavailable(tmp_path: Path, call: str) -> None:
    """A file in the path fails for root as well, unlike permissions."""
    (tmp_path / "file").write_text("")
    storage = LocalStorage(tmp_path / "file" / "objects")
    with pytest.raises(StorageUnavailable):
        await getattr(storage, call)()
    await storage.stop()


async def test_an_object_where_a_folder_is_needed(storage: LocalStorage) -> None:
    await storage.put_bytes("work/a", b"x")
    with pytest.raises(StorageUnavailable):
        await storage.put_bytes("work/a/b", b"x")
    with pytest.raises(StorageUnavailable):
        await storage.open_upload("work/a/b")
    assert await storage.stat("work/a/b") is None
    await storage.delete("work/a/b")
    assert await storage.get_bytes("work/a") == b"x"


async def test_a_failed_open_releases_its_slot(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    storage = LocalStorage(tmp_path / "objects", max_uploads=1)
    await storage.put_bytes("work/a", b"x")
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await storage.open_upload("work/a/b")
    await (await storage.open_upload("work/b")).abort()
    await storage.stop()


async def test_a_download_is_read_in_place(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put_bytes(KEY, b"x" * MIB)
    for _ in range(2):
        assert await storage.download(KEY, tmp_path / "source") == MIB
    assert (tmp_path / "source").samefile(storage.object_path(KEY))
    (tmp_path / "source").unlink()
    assert await storage.stat(KEY) is not None


async def test_a_download_replaces_no_file(storage: LocalStorage, tmp_path: Path) -> None:
    await storage.put_bytes(KEY, b"x")
    (tmp_path / "other").write_text("kept")
    with pytest.raises(MachineError):
        await storage.download(KEY, tmp_path / "other")
    assert (tmp_path / "other").read_text() == "kept"


async def test_a_stored_file_is_not_copied(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"first")
    await storage.put_file(KEY, tmp_path / "source")
    assert storage.object_path(KEY).samefile(tmp_path / "source")
    (tmp_path / "source").unlink()
    (tmp_path / "source").write_bytes(b"second")
    await storage.put_file(KEY, tmp_path / "source")
    assert await storage.get_bytes(KEY) == b"second"
    assert leftovers(storage) == [str(storage.object_path(KEY))]


async def test_a_file_that_cannot_be_linked_is_copied(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    await storage.put_file("work/a", tmp_path / "link")  # the link may later point elsewhere

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr("os.link", refuse)
    await storage.put_file("work/b", tmp_path / "source")
    for key in ("work/a", "work/b"):
        assert await storage.get_bytes(key) == b"content"
        assert not storage.object_path(key).samefile(tmp_path / "source")
    assert sorted(path.name for path in (storage.root / "work").iterdir()) == ["a", "b"]


FULL = """
import asyncio, resource, sys
from pathlib import Path
from core.errors import DiskFullError
from core.storage.local import LocalStorage

async def main() -> None:
    root = Path(sys.argv[1])
    storage = LocalStorage(root)
    await storage.start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**20, 3 * 2**20))
    writer = await storage.open_upload("uploads/j/a")
    try:
        for _ in range(8):
            await writer.write(b"x" * 2**20)
        await writer.commit()
    except DiskFullError:
        print("upload full")
    await writer.abort()
    try:
        await storage.put_bytes("uploads/j/b", b"x" * 4 * 2**20)
    except DiskFullError:
        print("put full")
    print("left", [str(path) for path in root.rglob("*")])
    await (await storage.open_upload("uploads/j/c")).commit()
    await storage.stop()

asyncio.run(main())
"""


def test_a_file_size_limit_counts_as_a_full_disk(tmp_path: Path) -> None:
    """A limit on file size gives EFBIG instead of ENOSPC; the clean-up is the same."""
    call = [sys.executable, "-c", FULL, str(tmp_path / "objects")]
    completed = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert completed.stdout.splitlines() == ["upload full", "put full", "left []"], completed.stderr
    assert completed.returncode == 0


async def test_a_commit_that_fails_after_the_rename_leaves_no_object(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await storage.open_upload("uploads/job/a.wav")
    await upload.write(b"x")

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "no sync")

    monkeypatch.setattr("core.storage.local.sync", fail)
    with pytest.raises(StorageUnavailable):
        await upload.commit()
    await upload.abort()
    assert await storage.stat("uploads/job/a.wav") is None
