"""`stt doctor` as a pipe and in a terminal, on a machine that is well and on one that is not."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from core.config import load_settings
from internal.cli.doctor.checks import CHECKS
from internal.cli.doctor.findings import Check, Finding, Level, ok
from tests.cli.program import in_terminal, piped
from tests.e2e.service import Service
from tests.unit.test_texts import vietnamese

pytestmark = pytest.mark.speech
NAMES = [check.name for check in CHECKS]


def findings(folder: Path, status: int, **variables: str) -> dict[str, dict[str, str]]:
    lines = piped("doctor", "--json", folder=folder, status=status, **variables).output.splitlines()
    return {row["check"]: row for row in map(json.loads, lines)}


def test_a_new_machine(tmp_path: Path) -> None:
    """Nothing fails before the first start; the demo model is a warning with what to do."""
    found = findings(tmp_path, 0)
    assert list(found) == NAMES
    assert found["models"]["level"] == "warning"
    assert "stt models pull" in found["models"]["remedy"]
    assert "23 s of audio" in found["engine"]["text"]
    assert not (tmp_path / "data").exists(), "looking changes nothing"


def test_every_line_is_in_vietnamese_too(tmp_path: Path) -> None:
    """The locale selects the language, or --lang; names of checks and levels stay as they are in JSON."""
    found = findings(tmp_path, 0, ENGINE="whisper_cpp_wheel", LANG="vi_VN.UTF-8")
    assert list(found) == NAMES
    plain = [row for row in found.values() for text in (row["text"], row["remedy"]) if text and not vietnamese(text)]
    assert plain == []
    assert {row["level"] for row in found.values()} == {"ok", "warning"}
    shown = in_terminal("doctor", "--lang", "vi", folder=tmp_path, status=1, ENGINE="none", LANG="en_GB.UTF-8").output
    assert "bộ nhận dạng" in shown
    assert "lỗi" in shown
    assert "không dùng được: ENGINE" in shown


def test_a_running_service_in_a_terminal(tmp_path: Path, embedded_service: Service) -> None:
    data = str(embedded_service.folder / "data")
    shown = in_terminal("doctor", folder=tmp_path, status=0, DATA_DIR=data).output
    assert f"runs at {embedded_service.url}" in shown
    assert "written, read and deleted" in shown
    assert "warning" in shown


def test_a_machine_with_faults(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "models").mkdir(parents=True)
    (data / "objects").mkdir(mode=0o755)
    (data / "models" / "ggml-small.bin").write_bytes(b"lmgg" + bytes(1000))
    (data / "stt.db").write_bytes(b"no database" * 1000)
    (data / "stt.db").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        faults = {"API_PORT": port, "ENGINE": "none", "WORKER_CONCURRENCY": "9999999"}
        found = findings(tmp_path, 1, **faults, DEFAULT_MODEL="demo-q5_0")
    for name in ("models", "engine", "database", "memory"):
        assert found[name]["level"] == "failed", found[name]
        assert found[name]["remedy"], found[name]
    assert "small" in found["models"]["text"]
    assert found["port"]["level"] == "warning"
    assert found["permissions"]["level"] == "warning"
    assert "→" in in_terminal("doctor", folder=tmp_path, status=1, ENGINE="none").output


def test_servers_that_are_not_there(tmp_path: Path) -> None:
    variables = {
        "DATABASE_URL": "postgresql://stt:a-long-one@127.0.0.1:9/stt",
        "BROKER": "rabbitmq",
        "RABBITMQ_URL": "amqp://stt:a-long-one@127.0.0.1:9/",
        "STORAGE": "minio",
        "MINIO_ENDPOINT": "127.0.0.1:9",
        "MINIO_ACCESS_KEY": "stt",
        "MINIO_SECRET_KEY": "a-long-secret-of-ours",
    }
    found = findings(tmp_path, 1, **variables)
    assert [name for name in NAMES if found[name]["level"] == "failed"] == ["database", "broker", "storage"]
    assert "a-long" not in json.dumps(found)


@pytest.mark.servers
def test_servers_that_are_there(tmp_path: Path, real_service: Service) -> None:
    stores = {
        name: value
        for name, value in real_service.environment.items()
        if name.startswith(("DATABASE", "BROKER", "RABBITMQ", "STORAGE", "MINIO", "ALLOW"))
    }
    found = findings(tmp_path, 0, **stores)
    assert "PostgreSQL, schema" in found["database"]["text"]
    assert "stt_jobs" in found["broker"]["text"]
    assert "database's clock" in found["clock"]["text"]


def test_an_invalid_setting(tmp_path: Path) -> None:
    assert "API_PORT" in piped("doctor", folder=tmp_path, status=2, API_PORT="high").errors


def test_a_check_that_hangs_or_breaks_is_a_finding() -> None:
    settings = load_settings(_env_file=None)

    def hang(_: object) -> Finding:
        time.sleep(60)
        return ok("never")

    def fail(_: object) -> Finding:
        raise RuntimeError("unforeseen")

    assert Check("hang", "treo", hang, seconds=0.05).run(settings).level is Level.FAILED
    assert "unforeseen" in Check("fail", "lỗi", fail).run(settings).in_language("en")[0]


def test_a_plan_as_text_and_as_json(tmp_path: Path) -> None:
    words = ("doctor", "--plan", "--audio-hours", "100", "--retention-days", "30")
    text = piped(*words, folder=tmp_path, status=0).output
    assert "100 h a day" in text
    assert "messages a second" in text
    found = json.loads(piped(*words, "--json", folder=tmp_path, status=0).output)
    assert found["demand"]["hours_per_day"] == 100
    assert {row["model"] for row in found["cores"]} == {"base", "small"}
    assert not (tmp_path / "data").exists(), "planning changes nothing"
    piped("doctor", "--plan", "--minutes", "0", folder=tmp_path, status=2)
