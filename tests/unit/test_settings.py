"""Settings: the same names everywhere, and a clear word about a wrong one."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from core.config import Settings, load_settings
from core.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / ".env.example"


@pytest.fixture(autouse=True)
def _nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("STT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_lists_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if "=" in line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    assert set(example) == {name.upper() for name in Settings.model_fields}
    Path(".env").write_text(EXAMPLE.read_text())
    assert load_settings() == load_settings(_env_file=None)


def test_every_line_of_the_example_has_its_meaning_above() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"[A-Z_]+=", line):
            assert before.startswith("# "), line


def test_defaults_are_the_embedded_service() -> None:
    settings = load_settings()
    assert settings.database_url.startswith("sqlite+aiosqlite:///")
    assert (settings.broker, settings.storage, settings.api_host) == ("memory", "local", "127.0.0.1")
    assert settings.models_dir == settings.data_dir / "models"
    assert settings.retry_delays == (2, 6, 18)
    assert settings.worker_concurrency >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "99999"),
        ("API_PORT", "eighty"),
        ("BROKER", "kafka"),
        ("STORAGE", "ftp"),
        ("DATABASE_URL", "mysql://x"),
        ("CHUNK_DURATION", "61"),
        ("CHUNK_DURATION", "nan"),
        ("CHUNK_OVERLAP", "20"),
        ("MIN_CHUNK_DURATION", "29"),
        ("DEFAULT_LANGUAGE", "fr"),
        ("LOG_LEVEL", "LOUD"),
        ("WORKER_CONCURRENCY", "0"),
        ("CHUNK_TIMEOUT", "901"),
        ("SILENCE_THRESHOLD", "3"),
        ("MAX_RETRIES", "-1"),
    ],
)
def test_impossible_values_name_the_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


def test_minio_needs_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE", "minio")
    with pytest.raises(SettingsError, match="MINIO_ACCESS_KEY"):
        load_settings()


def test_an_unknown_name_in_a_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path(".env").write_text("CHUNK_LENGHT=20\n")
    with pytest.raises(SettingsError, match="CHUNK_LENGHT"):
        load_settings()
    Path(".env").unlink()
    (tmp_path / "stt.yaml").write_text("chunk_lenght: 20\n")
    monkeypatch.setenv("STT_CONFIG", str(tmp_path / "stt.yaml"))
    with pytest.raises(SettingsError, match="CHUNK_LENGHT"):
        load_settings()


def test_the_environment_wins_over_env_over_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stt.yaml").write_text("api_port: 1\nmax_retries: 1\nchunk_timeout: 10\n")
    monkeypatch.setenv("STT_CONFIG", str(tmp_path / "stt.yaml"))
    Path(".env").write_text("API_PORT=2\nMAX_RETRIES=2\n")
    monkeypatch.setenv("API_PORT", "3")
    settings = load_settings()
    assert (settings.api_port, settings.max_retries, settings.chunk_timeout) == (3, 2, 10)


def test_the_older_name_of_worker_concurrency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CONCURRENT_JOBS", "7")
    assert load_settings().worker_concurrency == 7


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("sqlite:////x/y.db", "sqlite+aiosqlite:////x/y.db"),
    ],
)
def test_addresses_get_their_driver(monkeypatch: pytest.MonkeyPatch, given: str, used: str) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    assert load_settings().database_url == used


def test_languages_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGES", "en, de ,vi")
    monkeypatch.setenv("DEFAULT_LANGUAGE", "auto")
    assert load_settings().languages == ("en", "de", "vi")


def test_retry_delays_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "6")
    assert load_settings().retry_delays == (2, 6, 18, 54, 162, 300)
