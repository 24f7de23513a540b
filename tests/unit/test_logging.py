"""Logging: one format for our lines and those of libraries, redacted secrets, rotated files."""

from __future__ import annotations

import gzip
import json
import logging
import os
import time
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text

from core.config import LogFormat
from core.database import Database
from core.logging import RotatingLogFile, configure, expired_files, process_file, redact_secrets
from internal.api_process import application
from internal.process import settings_or_exit

pytestmark = pytest.mark.usefixtures("restored_logging")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_library_lines_have_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", LogFormat.JSON, None, "test")
    with structlog.contextvars.bound_contextvars(job_id="j1", chunk_index=3):
        structlog.get_logger("ours").info("tiếng Việt", action="a")
        logging.getLogger("uvicorn.error").info("started on %s", "port")
    our_line, library_line = lines(capsys)
    assert our_line["event"] == "tiếng Việt"
    for line in (our_line, library_line):
        assert (line["job_id"], line["chunk_index"], line["level"]) == ("j1", 3, "info")
        assert line["timestamp"]
    assert (library_line["event"], library_line["logger"]) == ("started on port", "uvicorn.error")


def test_a_traceback_is_part_of_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", LogFormat.JSON, None, "test")
    try:
        raise ValueError("wrong")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: wrong" in str(lines(capsys)[0]["exception"])


def test_lines_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure("WARNING", LogFormat.JSON, None, "test")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_the_console_format_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", LogFormat.CONSOLE, None, "test")
    structlog.get_logger().info("hello", job_id="j")
    assert "hello" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("api_key", "abc", "***"),
        ("MINIO_SECRET_KEY", "abc", "***"),
        ("authorization", "Bearer x", "***"),
        ("replay_token", "t", "***"),
        ("url", "amqp://user:pw@host:5672/v", "amqp://host:5672/v"),
        ("url", "http://h/b/k?X-Amz-Signature=abc", "http://h/b/k"),
        ("event", "cannot reach postgresql://u:p@h/d now", "cannot reach postgresql://h/d now"),
        ("url", "amqp://user:p@ss@host/", "amqp://host/"),
        ("url", "https://h/b#access=abc", "https://h/b"),
        ("event", '"PUT /bucket/key?X-Amz-Signature=abc HTTP/1.1"', '"PUT /bucket/key HTTP/1.1"'),
        ("event", "sent Authorization: Bearer abc.def-123", "sent Authorization: Bearer ***"),
        ("event", "the Bearer of news? yes", "the Bearer of news? yes"),
        ("compass", "north", "north"),
        ("event", "PUT /api/v1/uploads/1?expires=2&signature=abc", "PUT /api/v1/uploads/1"),
        ("event", "see http://a/http://u:p@b/c", "see http://a/http://b/c"),
        ("event", "://u:p@b/c?d", "://b/c"),
        ("event", "key stt_01234567_" + "x" * 32 + " sent", "key stt_01234567_*** sent"),
        ("event", "whsec_" + "x" * 32, "whsec_***"),
        ("error", OSError("http://u:p@h/d"), "OSError('http://h/d')"),
        ("path", "/api/v1/status/1", "/api/v1/status/1"),
    ],
)
def test_secrets_are_redacted(key: str, value: str, shown: str) -> None:
    assert redact_secrets(None, "info", {key: value})[key] == shown


def test_each_process_has_its_own_log_file(tmp_path: Path) -> None:
    configure("INFO", LogFormat.JSON, tmp_path / "stt.log", "consumer")
    structlog.get_logger().info("kept")
    path = process_file(tmp_path / "stt.log", "consumer")
    assert path.name == f"stt.consumer-{os.getpid()}.log"
    assert json.loads(path.read_text())["event"] == "kept"


def test_secrets_in_tracebacks_are_redacted_in_both_formats(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for style in (LogFormat.JSON, LogFormat.CONSOLE):
        configure("INFO", style, tmp_path / "stt.log", "test")
        try:
            raise ConnectionError("cannot fetch http://u:hidden@h/a?X-Amz-Signature=hidden")
        except ConnectionError:
            structlog.get_logger().exception("ours")
            logging.getLogger("library").exception("theirs")
        shown = capsys.readouterr().err
        assert shown.count("ConnectionError: cannot fetch http://h/a") == 2
        assert "hidden" not in shown
    content = process_file(tmp_path / "stt.log", "test").read_text()
    assert content.count("ConnectionError: cannot fetch http://h/a") == 4
    assert "hidden" not in content


def test_secrets_in_lists_and_mappings_are_redacted() -> None:
    event = {"headers": {"X-API-Key": "k", "Accept": "a"}, "urls": ["http://u:p@h/x"], "tokens": 12, "done": True}
    assert redact_secrets(None, "info", event) == {
        "headers": {"X-API-Key": "***", "Accept": "a"},
        "urls": ["http://h/x"],
        "tokens": 12,
        "done": True,
    }


def test_bound_values_are_not_modified() -> None:
    headers = {"authorization": "Bearer x"}
    redact_secrets(None, "info", {"headers": headers})
    assert headers == {"authorization": "Bearer x"}


def _record(number: int) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "", 0, f"line {number} {'.' * 40}", None, None)


def _old_file(path: Path, days: float) -> Path:
    path.write_bytes(b"")
    os.utime(path, (time.time() - days * 86_400,) * 2)
    return path


def _all_lines(folder: Path) -> str:
    compressed = "".join(gzip.decompress(path.read_bytes()).decode() for path in folder.glob("*.gz"))
    return compressed + "".join(path.read_text() for path in folder.glob("*.log"))


def test_rotation_compresses_full_files_without_losing_lines(tmp_path: Path) -> None:
    handler = RotatingLogFile(tmp_path / "stt.api-1.log", tmp_path / "stt.log", max_bytes=200)
    for number in range(20):
        handler.emit(_record(number))
    handler.close()
    assert len(list(tmp_path.glob("stt.api-1.log.*.gz"))) >= 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".gz", ".log"}
    assert all(_all_lines(tmp_path).count(f"line {number} ") == 1 for number in range(20))


def test_files_are_rotated_daily(tmp_path: Path) -> None:
    handler = RotatingLogFile(tmp_path / "stt.api-1.log", tmp_path / "stt.log")
    handler.emit(_record(1))
    handler.rolloverAt = int(time.time()) - 1
    handler.emit(_record(2))
    handler.close()
    assert len(list(tmp_path.glob("*.gz"))) == 1
    assert "line 2 " in (tmp_path / "stt.api-1.log").read_text()


def test_only_expired_log_files_are_removed(tmp_path: Path) -> None:
    old = [
        _old_file(tmp_path / name, 8)
        for name in ("stt.api-7.log", "stt.api-7.log.2026-01-01.17.gz", "stt.consumer-8.log.2026-01-01.17.part")
    ]
    kept = [
        _old_file(tmp_path / name, 8)
        for name in ("stt.db", "stt.db.gz", "stt.log", "other.api-7.log", "stt.api.log.gz")
    ]
    kept.append(_old_file(tmp_path / "stt.api-9.log", 6))
    RotatingLogFile(tmp_path / "stt.api-1.log", tmp_path / "stt.log").close()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)
    assert expired_files(tmp_path / "stt.log", time.time()) == [tmp_path / "stt.api-9.log"]


def test_a_deleted_log_file_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "stt.api-1.log"
    handler = RotatingLogFile(path, tmp_path / "stt.log")
    handler.emit(_record(1))
    path.unlink()
    handler.emit(_record(2))
    handler.close()
    assert path.read_text().startswith("line 2 ")


def test_reconfiguring_closes_the_previous_file(tmp_path: Path) -> None:
    configure("INFO", LogFormat.JSON, tmp_path / "a.log", "test")
    structlog.get_logger().info("one")
    former = logging.getLogger().handlers[-1]
    configure("INFO", LogFormat.JSON, tmp_path / "b.log", "test")
    structlog.get_logger().info("two")
    assert isinstance(former, RotatingLogFile)
    assert former.stream is None
    assert json.loads(process_file(tmp_path / "b.log", "test").read_text())["event"] == "two"


HOSTILE = [
    "://",
    "a://",
    "a",
    "?",
    "?x-amz-",
    "@",
    "://u@",
    "Bearer ",
    "stt_01234567_",
    "whsec_",
    "_",
    "a+",
    "/?",
    '"?',
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("://", ""), ("?", ""), ("", "://x"), ("Bearer", "!")])
def test_redaction_takes_linear_time(piece: str, before: str, after: str) -> None:
    """Quadratic time would take hours, so the test's timeout is the assertion."""
    text = before + piece * (500_000 // len(piece)) + after
    cleaned = redact_secrets(None, "info", {"event": text, "path": text})
    assert len(cleaned["event"]) < 3000


def test_truncation_does_not_expose_part_of_a_secret() -> None:
    text = "x" * 900 + " http://user:" + "p" * 3000 + "@host/ " + "y" * 900
    assert redact_secrets(None, "info", {"event": text})["event"] == "x" * 900 + " http://host/ " + "y" * 900


def test_deep_and_wide_values_are_truncated() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    shown = redact_secrets(None, "info", {"a": deep, "b": {str(n): n for n in range(10_000)}})
    assert len(json.dumps(shown)) < 3000


@pytest.mark.parametrize(("debug", "level"), [(True, logging.DEBUG), (False, logging.WARNING)])
def test_debug_applies_to_every_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, debug: bool, level: int
) -> None:
    """uvicorn's worker processes are configured by `application`, all others by `settings_or_exit`."""
    environment = {"DEBUG": str(debug), "LOG_LEVEL": "WARNING", "BROKER": "rabbitmq", "DATA_DIR": str(tmp_path)}
    for name, value in (environment | {"RABBITMQ_URL": "amqp://u:a-long-one@localhost/"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for start in (lambda: settings_or_exit("api"), application):
        logging.getLogger().setLevel(logging.CRITICAL)
        start()
        assert logging.getLogger().level == level


async def test_statement_parameters_are_never_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The database driver's own log would show them."""
    configure("DEBUG", LogFormat.JSON, None, "test")
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/stt.db")
    async with database.read() as session:
        await session.execute(text("SELECT :word"), {"word": "s3cret-word"})
    await database.stop()
    assert "s3cret" not in capsys.readouterr().err
