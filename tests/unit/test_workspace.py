"""Temporary folders beside other people's files: only what a consumer of ours left behind is removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest

from core.errors import InvalidAudioFormatError, MachineError, SettingsError
from internal.consumer.workspace import MARKER, MARKER_TEXT, Workspace, private_folder


def gone_worker(root: Path, name: str = "gone") -> Path:
    """What a killed consumer leaves behind."""
    left = Workspace(root, name)
    left.open()
    (left.path / "rest.pcm").write_bytes(b"x")
    assert left._lock is not None
    os.close(left._lock)
    return left.path


def test_a_gone_consumers_files_are_removed_and_a_live_ones_stay(tmp_path: Path) -> None:
    live, gone = Workspace(tmp_path, "live"), gone_worker(tmp_path)
    live.open()
    new = Workspace(tmp_path, "new")
    new.open()
    assert not gone.exists()
    assert live.path.exists()
    with new.folder("run") as folder:
        (folder / "x").write_bytes(b"x")
    assert not folder.exists()
    new.close()
    new.close()
    assert not new.path.exists()
    live.close()


def tree(root: Path) -> dict[str, bytes | str | None]:
    """Every path below `root`: a file's bytes, a link's target, None for a folder."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        link = str(path.readlink()) if path.is_symlink() else None
        found[str(path.relative_to(root))] = link or (path.read_bytes() if path.is_file() else None)
    return found


def test_a_folder_in_use_by_others_is_left_as_it_is(tmp_path: Path) -> None:
    """Regression: two folders of somebody else were gone after a start."""
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
def test_hostile_layouts_in_the_private_folder(tmp_path: Path, kind: str) -> None:
    """Only a real folder with our marker, written and free, is removed; no link is followed."""
    precious = tmp_path / "precious"
    gone_worker(tmp_path / "elsewhere", "x").rename(precious)
    root = private_folder(tmp_path / "tmp")
    root.mkdir(parents=True, mode=0o700)
    there, held = root / "worker-1", None
    match kind:
        case "no marker":
            there.mkdir()
        case "other marker":
            there.mkdir()
            (there / MARKER).write_text("somebody else's")
        case "fifo":
            there.mkdir()
            os.mkfifo(there / MARKER)
        case "link":
            there.symlink_to(precious)
        case "marker link":
            there.mkdir()
            (there / MARKER).symlink_to(precious / MARKER)
        case "file":
            there.write_bytes(MARKER_TEXT)
        case "held":
            there.mkdir()
            (there / MARKER).write_bytes(MARKER_TEXT)
            held = (there / MARKER).open("rb")
            fcntl.flock(held, fcntl.LOCK_EX)
        case "empty":
            there.mkdir()
            (there / MARKER).touch()
    workspace = Workspace(tmp_path / "tmp", "worker-2")
    workspace.open()
    assert there.exists()
    assert (precious / "rest.pcm").exists()
    workspace.close()
    if held is not None:
        held.close()


def test_a_link_inside_a_left_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x")
    gone = gone_worker(tmp_path / "tmp")
    (gone / "link").symlink_to(precious)
    Workspace(tmp_path / "tmp", "new").open()
    assert not gone.exists()
    assert (precious / "file").exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_private_folder_that_is_not_ours_is_refused(tmp_path: Path, kind: str) -> None:
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
        pytest.skip("needs the right to give files away")
    private_folder(tmp_path).mkdir()
    os.chown(private_folder(tmp_path), 12345, 12345)
    with pytest.raises(SettingsError, match="not a folder of this user"):
        Workspace(tmp_path, "worker").open()


def test_nobody_else_may_look(tmp_path: Path) -> None:
    private_folder(tmp_path).mkdir(mode=0o777)
    workspace = Workspace(tmp_path, "worker")
    workspace.open()
    with workspace.folder("run") as folder:
        for path in (workspace.root, workspace.path, folder):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((workspace.path / MARKER).stat().st_mode) == 0o600
    workspace.close()


@pytest.mark.parametrize("level", ["marker", "worker", "private", "temp"])
def test_what_a_cleaner_removes_is_made_again(tmp_path: Path, level: str) -> None:
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
        other = Workspace(temp, "other")
        other.open()
        assert (folder / "x").exists(), "it is locked again: nobody takes it for a gone consumer's"
        other.close()
    workspace.close()


def test_a_run_whose_files_were_removed_says_so(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "worker")
    workspace.open()
    with pytest.raises(MachineError), workspace.folder("run") as folder:
        shutil.rmtree(folder)
        raise InvalidAudioFormatError
    with pytest.raises(InvalidAudioFormatError), workspace.folder("run"):
        raise InvalidAudioFormatError
    workspace.close()
