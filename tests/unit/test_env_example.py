"""`.env.example` compared with the settings: names, defaults and descriptions."""

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
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*Settings.model_fields, *OLD_NAMES.values(), "stt_config"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_listed_once() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert set(NAMES) == {name.upper() for name in Settings.model_fields}


def test_the_unchanged_file_gives_the_defaults() -> None:
    Path(".env").write_text(EXAMPLE.read_text())
    assert load_settings() == load_settings(_env_file=None)


@pytest.mark.parametrize("name", NAMES)
def test_each_value_is_the_default_of_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = name.lower()
    value = next(line.split("=", 1)[1] for line in LINES if line.startswith(f"{name}="))
    default = getattr(load_settings(), field)
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == default


def test_every_setting_has_a_comment_above_it() -> None:
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
def test_old_names_are_still_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(EXAMPLE.read_text())
    monkeypatch.setenv(OLD_NAMES[name].upper(), OLD_VALUES[name])
    assert getattr(load_settings(), name) == float(OLD_VALUES[name]), "the environment overrides .env"
