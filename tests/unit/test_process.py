"""The end of a process: told to stop, or unable to go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.config import load_settings
from internal import process
from internal.bootstrap import Application


class Failing:
    """A service that cannot go on once it has started."""

    stopped = False

    def __init__(self, parts: Application) -> None:
        self.parts = parts

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        Failing.stopped = True

    async def failed(self) -> Exception:
        await asyncio.sleep(0)
        return RuntimeError("the queue 'stt_jobs' has other arguments")


def test_a_service_that_cannot_go_on_ends_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: it lived on, deaf, with a heartbeat, and no supervisor started it again."""
    settings = load_settings(_env_file=None, data_dir=tmp_path / "data", temp_dir=tmp_path / "tmp")
    monkeypatch.setattr(process, "settings_or_exit", lambda _: settings)
    monkeypatch.setattr(process, "_limit_shutdown", lambda: None)  # it would end the tests' own process
    with pytest.raises(SystemExit) as ended:
        process.run("consumer", Failing)
    assert ended.value.code == 1
    assert Failing.stopped
    assert "stt_jobs" in capsys.readouterr().err
