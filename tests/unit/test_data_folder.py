"""A service that starts while another one holds the lock of the folder."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import SettingsError
from internal import data_folder
from internal.data_folder import Address


def hold(folder: Path, *, on_demand: bool) -> int:
    descriptor = data_folder.lock(folder)
    data_folder.announce(descriptor, Address("http://127.0.0.1:1", os.getpid(), on_demand))
    return descriptor


def test_a_service_waits_for_one_that_was_started_for_a_command(tmp_path: Path) -> None:
    former = hold(tmp_path, on_demand=True)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(data_folder.lock, tmp_path)
        data_folder.unlock(former)
        data_folder.unlock(starting.result(30))


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_service_that_does_not_end_keeps_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_demand: bool
) -> None:
    monkeypatch.setattr(data_folder, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(data_folder, "ENDING_SECONDS", 0.05)
    former = hold(tmp_path, on_demand=on_demand)
    with pytest.raises(SettingsError, match="another async-stt is running"):
        data_folder.lock(tmp_path)
    data_folder.unlock(former)
