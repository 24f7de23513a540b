"""deploy/systemd/: the units are valid, and their sandbox leaves little exposed, as systemd-analyze judges."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from core.config import Settings
from internal.process import STOP_TIMEOUT
from tests.deploy.tools import ROOT, program, run

FOLDER = ROOT / "deploy" / "systemd"
EXPOSURE = {
    "async-stt-api.service": 14,
    "async-stt-scheduler.service": 14,
    "async-stt-migrate.service": 14,
    "async-stt-consumer@9801.service": 14,
}
"""Tenths of systemd's scale from 0 to 10, which calls up to 2 safe. A unit without any sandbox has 96."""


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units for the clone that the tests run in."""
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for path in [*folder.glob("*.service"), *folder.glob("*/*.conf")]:
        path.write_text(path.read_text().replace("/opt/async-stt", str(ROOT)))
    template = folder / "async-stt-consumer@.service"
    (folder / "async-stt-consumer@9801.service").symlink_to(template.name)
    return folder


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_unit_is_valid(unit: str, units: Path) -> None:
    done = run(program("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(units / unit))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_sandbox_is_tight(unit: str, units: Path) -> None:
    words = ["security", "--offline=true", f"--threshold={EXPOSURE[unit]}", "--no-pager", str(units / unit)]
    done = run(program("systemd-analyze"), *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fault_in_a_unit_is_found(units: Path, tmp_path: Path) -> None:
    """The drop-in for all units takes part in both checks."""
    shutil.copytree(units, tmp_path, dirs_exist_ok=True)
    drop_in = tmp_path / "async-stt-.service.d" / "sandbox.conf"
    drop_in.write_text(drop_in.read_text().replace("ProtectSystem=strict", "ProtectSystem=stricter"))
    unit = str(tmp_path / "async-stt-api.service")
    assert "Failed to parse protect system value" in run(program("systemd-analyze"), "verify", "--man=no", unit).stderr
    shutil.rmtree(drop_in.parent)
    words = ["security", "--offline=true", "--threshold=60", "--no-pager", unit]
    assert run(program("systemd-analyze"), *words).returncode != 0


def variables(text: str) -> set[str]:
    return {name for line in re.findall(r"^Environment=(.*)$", text, re.M) for name in re.findall(r"(\w+)=", line)}


def test_the_units_set_settings_that_exist() -> None:
    known = {name.upper() for name in Settings.model_fields}
    for path in [*FOLDER.glob("*.service"), *FOLDER.glob("*/*.conf")]:
        others = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "HOME", "XDG_CACHE_HOME"}
        assert variables(path.read_text()) <= known | others, path.name


def test_processes_end_before_they_are_killed() -> None:
    for name in ("api", "consumer@", "scheduler"):
        text = (FOLDER / f"async-stt-{name}.service").read_text()
        assert int(re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)[0]) > STOP_TIMEOUT
        assert "KillMode=mixed" in text
        assert "RestartPreventExitStatus=2" in text


def test_api_and_scheduler_load_without_executable_memory() -> None:
    """Their units deny it (MemoryDenyWriteExecute=)."""
    script = """
import ctypes, mmap, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    import internal.api_process, internal.api.app, internal.scheduler.runtime, asyncpg, aio_pika, migrations.run
else:
    sys.exit("writable memory is executable")
"""
    done = run(sys.executable, "-c", script, cwd=ROOT)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr


def test_the_consumer_gets_no_signing_secret() -> None:
    readers = {path.name for path in FOLDER.glob("*.service") if "signing.env" in path.read_text()}
    assert readers == {"async-stt-api.service", "async-stt-scheduler.service"}
