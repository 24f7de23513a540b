"""Exit of a process whose service fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.config import load_settings
from internal import process
from internal.bootstrap import Application


class Failing:
    """A service that fails after it has started."""

    stopped = False

    def __init__(self, app: Application) -> None:
        self.app = app

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        Failing.stopped = True

    async def failed(self) -> Exception:
        await asyncio.sleep(0)
        return RuntimeError("the queue 'stt_jobs' has other arguments")


def test_a_failed_service_exits_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: the consumer kept running without deliveries, with a heartbeat, and no supervisor restarted it."""
    settings = load_settings(_env_file=None, data_dir=tmp_path / "data", temp_dir=tmp_path / "tmp")
    monkeypatch.setattr(process, "settings_or_exit", lambda _: settings)
    monkeypatch.setattr(process, "_limit_shutdown", lambda: None)  # it would exit the test process
    with pytest.raises(SystemExit) as system_exit:
        process.run("consumer", Failing)
    assert system_exit.value.code == 1
    assert Failing.stopped
    assert "stt_jobs" in capsys.readouterr().err
