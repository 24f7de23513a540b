"""One format for our lines and the libraries', nothing secret in it, files that rotate."""

from __future__ import annotations

import gzip
import json
import logging
import os
import time
from pathlib import Path

import pytest
import structlog

from core.config import LogFormat
from core.logging import RotatingFile, configure, own_file, without_secrets


@pytest.fixture(autouse=True)
def _restored() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_ours_and_theirs_look_alike(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", LogFormat.JSON, None, "test")
    with structlog.contextvars.bound_contextvars(job_id="j1", chunk_index=3):
        structlog.get_logger("ours").info("tiếng Việt", action="a")
        logging.getLogger("uvicorn.error").info("started on %s", "port")
    ours, theirs = lines(capsys)
    assert ours["event"] == "tiếng Việt"
    for line in (ours, theirs):
        assert (line["job_id"], line["chunk_index"], line["level"]) == ("j1", 3, "info")
        assert line["timestamp"]
    assert (theirs["event"], theirs["logger"]) == ("started on port", "uvicorn.error")


def test_a_traceback_is_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", LogFormat.JSON, None, "test")
    try:
        raise ValueError("wrong")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: wrong" in str(lines(capsys)[0]["exception"])


def test_the_level_counts(capsys: pytest.CaptureFixture[str]) -> None:
    configure("WARNING", LogFormat.JSON, None, "test")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_the_console_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
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
        ("path", "/api/v1/status/1", "/api/v1/status/1"),
    ],
)
def test_secrets_are_cut_out(key: str, value: str, shown: str) -> None:
    assert without_secrets(None, "info", {key: value})[key] == shown


def test_each_process_has_its_own_file(tmp_path: Path) -> None:
    configure("INFO", LogFormat.JSON, tmp_path / "stt.log", "consumer")
    structlog.get_logger().info("kept")
    path = own_file(tmp_path / "stt.log", "consumer")
    assert path.name == f"stt.consumer-{os.getpid()}.log"
    assert json.loads(path.read_text())["event"] == "kept"


def test_full_files_are_compressed_and_old_ones_go(tmp_path: Path) -> None:
    handler = RotatingFile(tmp_path / "stt.log", max_bytes=200)
    old = tmp_path / "stt.log.2020-01-01.1.gz"
    old.write_bytes(b"")
    os.utime(old, (time.time() - 8 * 86_400,) * 2)
    for number in range(20):
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, f"line {number} {'.' * 40}", None, None))
    handler.close()
    packed = sorted(tmp_path.glob("*.gz"))
    assert len(packed) >= 2
    assert old not in packed
    text = "".join(gzip.decompress(path.read_bytes()).decode() for path in packed) + (tmp_path / "stt.log").read_text()
    assert all(f"line {number} " in text for number in range(20))
