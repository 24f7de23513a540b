"""`stt jobs` and `stt serve` as a pipe and in a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.program import Terminal, in_terminal, piped
from tests.cli.test_transcribe import wait_until_unused
from tests.clients.external_server import ExternalServer
from tests.e2e.service import Service

pytestmark = pytest.mark.speech


@pytest.fixture
def server(embedded_service: Service) -> dict[str, str]:
    return {"STT_SERVER": embedded_service.url}


def test_a_job_from_list_to_removal(
    tmp_path: Path, server: dict[str, str], embedded_service: Service, sample: Path
) -> None:
    job_id = embedded_service.upload(sample, "interview.mp3", language="en")
    watched = piped("jobs", "watch", job_id, folder=tmp_path, status=0, **server)
    assert "0:00.0  The code is eight seven seven." in watched.output
    assert "The code is" in in_terminal("jobs", "watch", job_id, folder=tmp_path, status=0, **server).output
    rows = piped("jobs", "list", "--status", "completed", folder=tmp_path, status=0, **server).output.splitlines()
    assert any(row.split("\t")[0] == job_id and "interview.mp3" in row for row in rows)
    assert "interview.mp3" in in_terminal("jobs", "list", folder=tmp_path, status=0, **server).output
    newest = piped("jobs", "list", "--limit", "1", "--json", folder=tmp_path, status=0, **server).output
    assert json.loads(newest)["status"]
    assert "status: COMPLETED" in in_terminal("jobs", "show", job_id, folder=tmp_path, status=0, **server).output
    assert (
        json.loads(piped("jobs", "show", job_id, "--json", folder=tmp_path, status=0, **server).output)["language"]
        == "en"
    )
    assert "CONFLICT" in piped("jobs", "retry", job_id, folder=tmp_path, status=1, **server).errors
    removed = piped("jobs", "rm", job_id, "nonsense", "--json", folder=tmp_path, status=1, **server)
    assert json.loads(removed.output) == {"job_id": job_id, "status": "REMOVED"}
    assert "JOB_NOT_FOUND" in removed.errors
    assert "JOB_NOT_FOUND" in in_terminal("jobs", "show", job_id, folder=tmp_path, status=1, **server).output


def test_cancel_and_retry(
    tmp_path: Path, server: dict[str, str], embedded_service: Service, external_server: ExternalServer
) -> None:
    body = {"request_id": "cli-cancel", "media_url": external_server.url("/drip/a.mp3")}
    job_id = embedded_service.client.post("/api/v1/transcribe", json=body).json()["job_id"]
    assert piped("jobs", "cancel", job_id, folder=tmp_path, status=0, **server).output == f"{job_id}\tCANCELLED\n"
    assert "CONFLICT" in in_terminal("jobs", "cancel", job_id, folder=tmp_path, status=1, **server).output
    assert "CANCELLED" in piped("jobs", "watch", job_id, folder=tmp_path, status=1, **server).errors
    assert "PENDING" in in_terminal("jobs", "retry", job_id, folder=tmp_path, status=0, **server).output
    assert "CANCELLED" in in_terminal("jobs", "cancel", job_id, folder=tmp_path, status=0, **server).output
    assert "REMOVED" in in_terminal("jobs", "rm", job_id, folder=tmp_path, status=0, **server).output


def test_serve_in_a_terminal_is_joined_and_stops_with_ctrl_c(tmp_path: Path) -> None:
    with Terminal("serve", "--port", "0", folder=tmp_path) as terminal:
        terminal.wait_for("async-stt is ready")
        empty = piped("jobs", "list", folder=tmp_path, status=0)
        assert "No jobs" in empty.errors
        again = piped("serve", "--port", "0", folder=tmp_path, status=2)
        assert "another async-stt is running" in again.errors
        terminal.interrupt()
        terminal.end(0)
    wait_until_unused(tmp_path / "data")


def test_serve_refuses_a_port_that_is_none(tmp_path: Path) -> None:
    assert "--port" in piped("serve", "--port", "70000", folder=tmp_path, status=2).errors
    assert "API_HOST" in piped("serve", "--host", "203.0.113.1", folder=tmp_path, status=2).errors
