"""Modules that a process does not load: each costs every start of the process time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTTP = {"fastapi", "starlette", "uvicorn", "opentelemetry", "internal.api", "internal.services.registry"}
"""opentelemetry: the API of the library, which FastAPI imports."""
ENGINE = {"numpy", "pebble", "worker.pool"}
RARE = {
    "alembic",
    "limits",
    "yaml",
    "opentelemetry.sdk",
    "google.protobuf",
    "core.tracing_export",
    "core.tracing_sender",
}
"""Loaded when first used: for an old schema, a counted request, a configuration file, traces."""
BUILD = """
from core.config import load_settings
from internal import bootstrap
app = bootstrap.build(load_settings(_env_file=None))
"""
CASES = {
    "stt": ("import internal.cli.app", HTTP | ENGINE | RARE | {"sqlalchemy", "pydantic", "asyncpg", "minio"}),
    "scheduler": (f"{BUILD}bootstrap.scheduler(app)", HTTP | ENGINE | RARE | {"rapidfuzz", "core.storage.local"}),
    "consumer": (f"{BUILD}bootstrap.consumer(app)", HTTP | RARE | {"core.storage.local", "core.messaging.memory"}),
    "api": (f"import internal.api_process{BUILD}app.services", ENGINE | RARE | {"internal.consumer"}),
    "embedded": (
        f"import internal.embedded{BUILD}internal.embedded.Embedded(app)",
        RARE | {"minio", "aio_pika", "aiormq"},
    ),
    "engine process": (
        "import worker.pool_child, worker.engine.whisper_cpp",
        HTTP | RARE | {"structlog", "sqlalchemy", "pydantic", "core.config", "importlib.metadata"},
    ),
}
SEPARATE = {
    "DATABASE_URL": "postgresql://stt@127.0.0.1/stt",
    "BROKER": "rabbitmq",
    "RABBITMQ_URL": "amqp://127.0.0.1/",
    "STORAGE": "minio",
    "MINIO_ACCESS_KEY": "key",
    "MINIO_SECRET_KEY": "secret",
    "ALLOW_DEFAULT_CREDENTIALS": "true",
}


@pytest.mark.parametrize("process", CASES)
def test_a_process_loads_no_library_that_it_does_not_use(process: str, tmp_path: Path) -> None:
    code, unused = CASES[process]
    stores = {} if process == "embedded" else SEPARATE
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATA_DIR": str(tmp_path), **stores}
    call = [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"]
    completed = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    loaded = set(json.loads(completed.stdout.splitlines()[-1]))
    assert not loaded & unused
