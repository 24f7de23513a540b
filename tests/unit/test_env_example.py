"""`.env.example` and the settings: the same names, the same defaults, a meaning for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.config import OLD_NAMES, Settings, load_settings

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
SETTING = re.compile(r"([A-Z_]+)=(.*)")
LINES = EXAMPLE.read_text().splitlines()
NAMES = [match[1] for line in LINES if (match := SETTING.fullmatch(line))]


@pytest.fixture(autouse=True)
def _nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*Settings.model_fields, *OLD_NAMES.values(), "stt_config"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_there_once() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert set(NAMES) == {name.upper() for name in Settings.model_fields}


def test_taken_as_it_is_it_changes_nothing() -> None:
    Path(".env").write_text(EXAMPLE.read_text())
    assert load_settings() == load_settings(_env_file=None)


@pytest.mark.parametrize("name", NAMES)
def test_each_default_is_the_one_in_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = name.lower()
    shown = next(line.split("=", 1)[1] for line in LINES if line.startswith(f"{name}="))
    default = getattr(load_settings(), field)
    monkeypatch.setenv(name, shown)
    assert getattr(load_settings(), field) == default


def test_every_setting_has_its_meaning_above_it() -> None:
    for number, line in enumerate(LINES):
        if SETTING.fullmatch(line):
            assert LINES[number - 1].startswith("# "), line


def test_each_line_is_a_setting_a_comment_or_empty() -> None:
    assert [line for line in LINES if line and not line.startswith("# ") and not SETTING.fullmatch(line)] == []


OLD_VALUES = dict.fromkeys(OLD_NAMES, "2") | {
    "chunk_duration_seconds": "11",
    "upload_link_ttl_seconds": "90",
}


@pytest.mark.parametrize("name", sorted(OLD_NAMES))
def test_an_old_name_is_still_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(EXAMPLE.read_text())
    monkeypatch.setenv(OLD_NAMES[name].upper(), OLD_VALUES[name])
    assert getattr(load_settings(), name) == float(OLD_VALUES[name]), "the environment wins over .env"
