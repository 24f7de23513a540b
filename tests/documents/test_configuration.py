"""The generated documents of the settings are up to date, and the example file changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import OLD_NAMES, Settings, load_settings
from tests.documents.configuration import FILES
from tests.e2e.service import ROOT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_up_to_date(path: Path) -> None:
    assert path.read_text() == FILES[path](), "run `make docs`"


def test_the_example_file_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*Settings.model_fields, *OLD_NAMES.values(), "stt_config"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    defaults = load_settings()
    monkeypatch.setenv("STT_CONFIG", str(ROOT / "config.example.yaml"))
    assert load_settings() == defaults
