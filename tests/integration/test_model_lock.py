"""The lock of a models folder: one holder at a time, and nobody waits for a process that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from core.errors_models import PullLockLostError
from tests.e2e.service import ROOT
from worker.model_store import lock
from worker.model_store.lock import Owner

HOLD = """
import sys
from pathlib import Path
from worker.model_store import lock
with lock.hold(Path(sys.argv[1]), "test", lambda owner: None, renew_seconds=0.05):
    print("held", flush=True)
    sys.stdin.read()
"""


class GaveUp(Exception):
    pass


def give_up(owner: Owner | None) -> None:
    raise GaveUp(str(owner))


def other_process(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_lock_is_held_and_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.hold(path, "small", give_up) as held:
        assert json.loads(path.read_text())["purpose"] == "small"
        held.check()
        held.confirm()
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_waits(tmp_path: Path) -> None:
    process = other_process(tmp_path / "lock")
    with pytest.raises(GaveUp, match=str(process.pid)), lock.hold(tmp_path / "lock", "b", give_up):
        pass
    process.communicate()
    with lock.hold(tmp_path / "lock", "b", give_up):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    process = other_process(tmp_path / "lock")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "lock").exists()
    with lock.hold(tmp_path / "lock", "b", give_up):
        pass
    assert list(tmp_path.iterdir()) == []


def foreign(path: Path, token: str = "theirs") -> Owner:
    """Write the lock of a process of another machine."""
    owner = replace(Owner.current("small"), machine="another boot", host="elsewhere", token=token)
    path.write_text(json.dumps(asdict(owner)))
    return owner


@pytest.mark.parametrize("skew", [-86_400, 0, 86_400], ids=["behind", "agreeing", "ahead"])
def test_a_lock_of_another_machine_is_stale_when_it_is_no_longer_renewed(tmp_path: Path, skew: int) -> None:
    """Only the change of the file's time counts, so the machines' clocks need not agree."""
    path = tmp_path / "lock"
    foreign(path)
    os.utime(path, (time.time() + skew,) * 2)
    waits: list[Owner | None] = []
    with lock.hold(path, "b", waits.append, pause_seconds=0.01, stale_seconds=0.1):
        assert waits
        assert str(waits[0]) == f"elsewhere, process {os.getpid()}"


def test_a_renewed_lock_is_respected(tmp_path: Path) -> None:
    """The other machine's clock stands still in 1970, but every renewal changes the time."""
    path, count = tmp_path / "lock", 0
    foreign(path)

    def renew(_: Owner | None) -> None:
        nonlocal count
        count += 1
        os.utime(path, (count, count))
        if count == 40:
            raise GaveUp

    with pytest.raises(GaveUp), lock.hold(path, "b", renew, pause_seconds=0.01, stale_seconds=0.2):
        pass


def test_an_unreadable_lock_is_waited_for_and_then_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("{")
    waits: list[Owner | None] = []
    with lock.hold(path, "b", waits.append, pause_seconds=0.01, stale_seconds=0.05):
        assert set(waits) == {None}


def test_an_owner_that_lost_its_lock_stops(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.hold(path, "a", give_up, renew_seconds=0.01) as held:
        other = foreign(path)
        with pytest.raises(PullLockLostError):
            held.confirm()
        held._thread.join(10)
        with pytest.raises(PullLockLostError):
            held.check()
    assert lock._read(path) == other, "the lock of another owner stays"


def test_a_new_lock_moved_in_a_race_is_put_back(tmp_path: Path) -> None:
    """Two processes found the lock stale; the first one has replaced it already."""
    path = tmp_path / "lock"
    stale = foreign(path, token="old")
    current = foreign(path, token="new")
    lock._remove_stale(path, stale)
    assert lock._read(path) == current
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_many_threads_never_hold_it_together(tmp_path: Path) -> None:
    holding, most, done = 0, 0, 0

    def work() -> None:
        nonlocal holding, most, done
        for _ in range(5):
            with lock.hold(tmp_path / "lock", "x", lambda _: None, pause_seconds=0.001):
                holding += 1
                most = max(most, holding)
                holding -= 1
                done += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, done) == (1, 30)


def test_without_hard_links_the_lock_is_created_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("worker.model_store.lock.os.link", no_links)
    with lock.hold(tmp_path / "lock", "a", give_up):  # noqa: SIM117
        with pytest.raises(GaveUp), lock.hold(tmp_path / "lock", "b", give_up):
            pass
    assert list(tmp_path.iterdir()) == []
