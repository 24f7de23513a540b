"""The estimate of memory, and the refusal of a start that does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.config import Settings
from core.errors import SettingsError
from internal.consumer import memory_check
from internal.consumer.memory_check import check_memory
from tests.e2e.service import ROOT
from tests.model_files import write_tiny
from tests.speech import MODEL
from worker.memory import process_bytes
from worker.models import ModelCatalogue


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, worker_concurrency=4, **values)  # type: ignore[arg-type, call-arg]


def test_the_estimate_depends_on_engine_and_model(tmp_path: Path) -> None:
    plain = process_bytes("whisper_cpp", MODEL)
    assert plain == process_bytes("auto", MODEL) == 100_000_000 + MODEL.stat().st_size
    assert process_bytes("openvino", MODEL) == pytest.approx(0.36e9 + 5.9 * 9.3e6, rel=0.02)
    assert process_bytes("whisper_cpp", write_tiny(tmp_path / "ggml-tiny.bin")) < plain


def test_a_start_that_does_not_fit_is_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = ModelCatalogue([MODEL.parent])
    each = process_bytes("whisper_cpp", MODEL)
    monkeypatch.setattr(memory_check, "memory_limit", lambda: 4 * each)
    check_memory(settings(), catalogue)
    monkeypatch.setattr(memory_check, "memory_limit", lambda: 4 * each - 1)
    with pytest.raises(SettingsError) as caught:
        check_memory(settings(), catalogue)
    for part in ("4 engine processes × 0.1 GB", "demo-q5_0", "= 0.4 GB", "WORKER_CONCURRENCY=3", "MEMORY_CHECK=false"):
        assert part in str(caught.value)
    check_memory(settings(memory_check=False), catalogue)
    check_memory(settings(), ModelCatalogue([]))
    check_memory(settings(default_model="large-v3"), catalogue)


def test_a_process_that_does_not_fit_exits_with_the_reason(tmp_path: Path) -> None:
    call = [sys.executable, str(ROOT / "cmd" / "embedded" / "main.py")]
    variables = {"HOME": str(tmp_path), "DATA_DIR": str(tmp_path), "WORKER_CONCURRENCY": "100000", "PORT": "0"}
    done = subprocess.run(call, env=variables, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "WORKER_CONCURRENCY: 100000 engine processes" in done.stderr.decode()
