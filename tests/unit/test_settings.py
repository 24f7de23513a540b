"""Settings: precedence of their sources, and messages about invalid values."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import Settings, load_settings
from core.errors import SettingsError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*Settings.model_fields, "max_concurrent_jobs", "stt_config"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_run_the_embedded_service() -> None:
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
        ("CHUNK_DURATION_SECONDS", "61"),
        ("CHUNK_DURATION_SECONDS", "nan"),
        ("CHUNK_OVERLAP_SECONDS", "20"),
        ("MIN_CHUNK_DURATION_SECONDS", "29"),
        ("DEFAULT_LANGUAGE", "fr"),
        ("LOG_LEVEL", "LOUD"),
        ("WORKER_CONCURRENCY", "0"),
        ("CHUNK_TIMEOUT_SECONDS", "901"),
        ("SILENCE_THRESHOLD", "3"),
        ("MAX_RETRIES", "-1"),
        ("JOB_TIMEOUT_SECONDS", "inf"),
        ("RABBITMQ_URL", "http://host"),
        ("QUEUE_TYPE", "lazy"),
        ("MINIO_ENDPOINT", "http://host:9000"),
        ("MINIO_PUBLIC_ENDPOINT", "https://files.example.org"),
        ("MINIO_BUCKET", "Our_Files"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("LANGUAGES", ","),
        ("MERGE_METHOD", "clever"),
        ("LOG_FORMAT", "xml"),
        ("LOG_FILE", "."),
        ("DEBUG", "maybe"),
        ("MAX_CONCURRENT_UPLOADS", "0"),
    ],
)
def test_the_error_for_an_invalid_value_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


def test_minio_requires_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE", "minio")
    with pytest.raises(SettingsError, match="MINIO_ACCESS_KEY"):
        load_settings()


def test_the_error_for_an_unknown_name_in_a_file_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path(".env").write_text("CHUNK_LENGHT=20\n")
    with pytest.raises(SettingsError, match="CHUNK_LENGHT"):
        load_settings()
    Path(".env").unlink()
    (tmp_path / "stt.yaml").write_text("chunk_lenght: 20\n")
    monkeypatch.setenv("STT_CONFIG", str(tmp_path / "stt.yaml"))
    with pytest.raises(SettingsError, match="CHUNK_LENGHT"):
        load_settings()


def test_the_environment_overrides_env_which_overrides_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stt.yaml").write_text("api_port: 1\nmax_retries: 1\nchunk_timeout: 10\n")
    monkeypatch.setenv("STT_CONFIG", str(tmp_path / "stt.yaml"))
    Path(".env").write_text("API_PORT=2\nMAX_RETRIES=2\n")
    monkeypatch.setenv("API_PORT", "3")
    settings = load_settings()
    assert (settings.api_port, settings.max_retries, settings.chunk_timeout_seconds) == (3, 2, 10)


@pytest.mark.parametrize("content", ["api_port: [1", "- api_port\n", "just words", b"\xff\xfe\x00"])
def test_the_error_for_a_file_without_a_mapping_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes
) -> None:
    path = tmp_path / "stt.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("STT_CONFIG", str(path))
    with pytest.raises(SettingsError, match=r"STT_CONFIG: .*stt\.yaml"):
        load_settings()


def test_the_error_for_a_missing_file_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_CONFIG", "missing.yaml")
    with pytest.raises(SettingsError, match=r"STT_CONFIG: the file missing\.yaml does not exist"):
        load_settings()


def test_yaml_values_are_converted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stt.yaml").write_text("languages: [en, vi, fr]\ndefault_language: fr\nMAX_RETRIES: 0\n")
    monkeypatch.setenv("STT_CONFIG", "stt.yaml")
    settings = load_settings()
    assert (settings.languages, settings.default_language, settings.max_retries) == (("en", "vi", "fr"), "fr", 0)


def test_an_empty_file_gives_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stt.yaml").write_text("")
    monkeypatch.setenv("STT_CONFIG", "stt.yaml")
    with_file = load_settings()
    monkeypatch.delenv("STT_CONFIG")
    assert with_file == load_settings()


def test_all_invalid_settings_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "eighty")
    monkeypatch.setenv("BROKER", "kafka")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["API_PORT", "BROKER"]


def test_an_invalid_value_is_not_shown_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value may be a password."""
    monkeypatch.setenv("DATABASE_URL", "mysql://user:hidden@host/d")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "hidden" not in str(error.value)


def test_a_new_name_overrides_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CONCURRENT_JOBS", "7")
    monkeypatch.setenv("WORKER_CONCURRENCY", "5")
    assert load_settings().worker_concurrency == 5


def test_the_old_name_of_worker_concurrency_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CONCURRENT_JOBS", "7")
    assert load_settings().worker_concurrency == 7


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("sqlite:////x/y.db", "sqlite+aiosqlite:////x/y.db"),
    ],
)
def test_database_urls_get_their_driver(monkeypatch: pytest.MonkeyPatch, value: str, parsed: str) -> None:
    monkeypatch.setenv("DATABASE_URL", value)
    assert load_settings().database_url == parsed


def test_languages_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGES", "en, DE ,vi")
    assert load_settings().languages == ("en", "de", "vi")


@pytest.mark.parametrize(("value", "parsed"), [("auto", "auto"), ("AUTO", "auto"), ("EN", "en")])
def test_the_default_language_may_be_auto(monkeypatch: pytest.MonkeyPatch, value: str, parsed: str) -> None:
    monkeypatch.setenv("DEFAULT_LANGUAGE", value)
    assert load_settings().default_language == parsed


def test_retry_delays_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "6")
    assert load_settings().retry_delays == (2, 6, 18, 54, 162, 300)
