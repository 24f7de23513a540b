"""Temporary folders in a shared place: only the remains of our own consumers are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest

from core.errors import InvalidAudioFormatError, MachineError, SettingsError
from internal.consumer.workspace import MARKER, MARKER_TEXT, Workspace, private_folder


def dead_worker(root: Path, name: str = "gone") -> Path:
    """Create the folder that a killed consumer leaves behind."""
    workspace = Workspace(root, name)
    workspace.open()
    (workspace.path / "rest.pcm").write_bytes(b"x")
    assert workspace._lock is not None
    os.close(workspace._lock)
    return workspace.path


def test_only_dead_consumers_files_are_removed(tmp_path: Path) -> None:
    live, dead = Workspace(tmp_path, "live"), dead_worker(tmp_path)
    live.open()
    new = Workspace(tmp_path, "new")
    new.open()
    assert not dead.exists()
    assert live.path.exists()
    with new.folder("run") as folder:
        (folder / "x").write_bytes(b"x")
    assert not folder.exists()
    new.close()
    new.close()
    assert not new.path.exists()
    live.close()


def tree(root: Path) -> dict[str, bytes | str | None]:
    """Return each path below `root` with a file's bytes, a link's target, or None for a folder."""
    content: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        link = str(path.readlink()) if path.is_symlink() else None
        content[str(path.relative_to(root))] = link or (path.read_bytes() if path.is_file() else None)
    return content


def test_a_folder_shared_with_other_programs_is_left_unchanged(tmp_path: Path) -> None:
    """Regression: a consumer's start removed two folders of another program."""
    shared = tmp_path / "shared"
    (shared / "photos").mkdir(parents=True)
    (shared / "photos" / "one.jpg").write_bytes(b"x")
    (shared / "project").mkdir()
    (shared / "project" / ".lock").write_bytes(b"")
    (shared / "copied").mkdir()
    (shared / "copied" / MARKER).write_bytes(MARKER_TEXT)
    (shared / "notes.txt").write_text("mine")
    before = tree(shared)
    workspace = Workspace(shared, "worker")
    workspace.open()
    workspace.close()
    after = tree(shared)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {private_folder(shared).name}


@pytest.mark.parametrize("kind", ["no marker", "other marker", "fifo", "link", "marker link", "file", "held", "empty"])
def test_hostile_layouts_in_the_private_folder_are_left_alone(tmp_path: Path, kind: str) -> None:
    """Only a real, unlocked folder with our marker is removed; no link is followed."""
    precious = tmp_path / "precious"
    dead_worker(tmp_path / "elsewhere", "x").rename(precious)
    root = private_folder(tmp_path / "tmp")
    root.mkdir(parents=True, mode=0o700)
    folder, lock = root / "worker-1", None
    match kind:
        case "no marker":
            folder.mkdir()
        case "other marker":
            folder.mkdir()
            (folder / MARKER).write_text("somebody else's")
        case "fifo":
            folder.mkdir()
            os.mkfifo(folder / MARKER)
        case "link":
            folder.symlink_to(precious)
        case "marker link":
            folder.mkdir()
            (folder / MARKER).symlink_to(precious / MARKER)
        case "file":
            folder.write_bytes(MARKER_TEXT)
        case "held":
            folder.mkdir()
            (folder / MARKER).write_bytes(MARKER_TEXT)
            lock = (folder / MARKER).open("rb")
            fcntl.flock(lock, fcntl.LOCK_EX)
        case "empty":
            folder.mkdir()
            (folder / MARKER).touch()
    workspace = Workspace(tmp_path / "tmp", "worker-2")
    workspace.open()
    assert folder.exists()
    assert (precious / "rest.pcm").exists()
    workspace.close()
    if lock is not None:
        lock.close()


def test_a_link_inside_a_dead_consumers_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x")
    dead = dead_worker(tmp_path / "tmp")
    (dead / "link").symlink_to(precious)
    Workspace(tmp_path / "tmp", "new").open()
    assert not dead.exists()
    assert (precious / "file").exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_or_file_in_place_of_the_private_folder_is_refused(tmp_path: Path, kind: str) -> None:
    root, precious = private_folder(tmp_path), tmp_path / "precious"
    precious.mkdir()
    if kind == "link":
        root.symlink_to(precious)
    else:
        root.write_bytes(b"x")
    with pytest.raises(SettingsError, match="TEMP_DIR"):
        Workspace(tmp_path, "worker").open()
    assert list(precious.iterdir()) == []


def test_another_users_private_folder_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("chown needs root")
    private_folder(tmp_path).mkdir()
    os.chown(private_folder(tmp_path), 12345, 12345)
    with pytest.raises(SettingsError, match="not a folder of this user"):
        Workspace(tmp_path, "worker").open()


def test_folders_are_accessible_to_their_user_only(tmp_path: Path) -> None:
    private_folder(tmp_path).mkdir(mode=0o777)
    workspace = Workspace(tmp_path, "worker")
    workspace.open()
    with workspace.folder("run") as folder:
        for path in (workspace.root, workspace.path, folder):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((workspace.path / MARKER).stat().st_mode) == 0o600
    workspace.close()


@pytest.mark.parametrize("level", ["marker", "worker", "private", "temp"])
def test_removed_folders_are_created_again(tmp_path: Path, level: str) -> None:
    temp = tmp_path / "tmp"
    workspace = Workspace(temp, "worker")
    workspace.open()
    removed = {"worker": workspace.path, "private": workspace.root, "temp": temp}
    if level == "marker":
        (workspace.path / MARKER).unlink()
    else:
        shutil.rmtree(removed[level])
    with workspace.folder("run") as folder:
        (folder / "x").write_bytes(b"x")
        other_workspace = Workspace(temp, "other")
        other_workspace.open()
        assert (folder / "x").exists(), "the folder is locked again"
        other_workspace.close()
    workspace.close()


def test_a_run_whose_files_were_removed_is_a_machine_error(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "worker")
    workspace.open()
    with pytest.raises(MachineError), workspace.folder("run") as folder:
        shutil.rmtree(folder)
        raise InvalidAudioFormatError
    with pytest.raises(InvalidAudioFormatError), workspace.folder("run"):
        raise InvalidAudioFormatError
    workspace.close()
