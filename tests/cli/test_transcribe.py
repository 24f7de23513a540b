"""`stt transcribe` as a pipe and in a terminal: inputs, files, exit statuses, interruptions."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from internal import data_folder
from internal.cli.transcribing import engine_trial
from internal.cli.transcribing.reporters import JsonReporter, LineReporter
from internal.client import AsyncClient
from tests.cli.program import PROGRAM, Terminal, environment, in_terminal, piped
from tests.clients.external_server import ExternalServer
from tests.clients.front import Answer, run_front
from tests.e2e.service import ROOT, Service
from tests.servers.base import free_port, wait_until
from worker.engine_variants import installed

pytestmark = [pytest.mark.speech, pytest.mark.timeout(300)]
ENGLISH, VIETNAMESE = (ROOT / "assets" / "samples" / f"hello.{language}.mp3" for language in ("en", "vi"))
WORDS = "Where is the new contract?"


@pytest.fixture
def server(embedded_service: Service) -> dict[str, str]:
    """Variables that select the shared service as a server."""
    return {"STT_SERVER": embedded_service.url}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return Path(shutil.copy(ENGLISH, tmp_path / "talk.mp3"))


def wait_until_unused(folder: Path) -> None:
    """Wait until no service runs on the folder."""

    def unused() -> bool:
        try:
            return data_folder.find(folder) is None
        except data_folder.Starting:
            return False

    wait_until(unused, "the service has ended", 60)


def test_one_recording_on_demand_in_a_terminal_then_again(recording: Path, tmp_path: Path) -> None:
    """The newcomer's way: no server, no option. The service starts for the call, and ends with it."""
    shown = in_terminal("transcribe", "talk.mp3", folder=tmp_path, status=0).output
    assert WORDS in shown
    assert WORDS in (tmp_path / "talk.txt").read_text()
    assert list(tmp_path.glob(".stt-*.part")) == []
    wait_until_unused(tmp_path / "data")
    assert list((tmp_path / "data" / "objects").rglob("*.mp3")) == []
    again = piped("transcribe", "talk.mp3", folder=tmp_path, status=0, DATA_DIR="/nonexistent/folder")
    assert "done before" in again.errors


def test_the_first_call_on_a_machine_shows_the_choice_of_the_engine(recording: Path, tmp_path: Path) -> None:
    """It waits for the trial of the engines, whose results are kept in the home folder."""
    if len(installed()) == 1:
        pytest.skip("one engine needs no trial")
    with Terminal("transcribe", "talk.mp3", folder=tmp_path, variables={"ENGINE": "auto"}) as terminal:
        terminal.wait_for(f"choosing the fastest engine for this machine, 1 of {len(installed())}")
        assert WORDS in terminal.end(0).output
    wait_until_unused(tmp_path / "data")


async def test_the_choice_of_the_engine_without_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JSON line, or one on standard error, for each engine that is tried; a service that is away has no trial."""
    monkeypatch.setattr(engine_trial, "PAUSE", 0.01)
    trials: list[dict[str, object]] = [{"model": "a", "worker": "w", "number": number, "count": 2} for number in (1, 2)]
    bodies = [{}, {"engine_trials": trials[:1]}, {"engine_trials": trials[:1]}, {"engine_trials": trials[1:]}, {}]
    for reporter in (JsonReporter(), LineReporter(1)):
        with run_front("http://127.0.0.1:9", free_port()) as front:
            front.answers = [Answer(200, body=json.dumps(body)) for body in bodies]
            async with AsyncClient(front.url) as client:
                watch = asyncio.create_task(engine_trial.follow(client, reporter))
                while front.answers:
                    await asyncio.sleep(0.02)
                watch.cancel()
    shown = capfd.readouterr()
    assert [json.loads(line) for line in shown.out.splitlines()] == [{"event": "engine_trial", **one} for one in trials]
    lines = [line for line in shown.err.splitlines() if "choosing the fastest engine" in line]
    assert [line[-6:] for line in lines] == ["1 of 2", "2 of 2"]


def test_two_calls_share_one_service(tmp_path: Path) -> None:
    """The second joins the service of the first, which ends after both, whoever is killed meanwhile."""
    folders = [tmp_path / "a", tmp_path / "b"]
    calls = []
    for folder in folders:
        folder.mkdir()
        shutil.copy(ENGLISH, folder / "talk.mp3")
        variables = environment(tmp_path, {"DATA_DIR": str(tmp_path / "data")})
        calls.append(subprocess.Popen([*PROGRAM, "transcribe", "talk.mp3"], env=variables, cwd=folder))
    try:
        assert [call.wait(120) for call in calls] == [0, 0]
    finally:
        for call in calls:
            call.kill()
    assert all(WORDS in (folder / "talk.txt").read_text() for folder in folders)
    wait_until_unused(tmp_path / "data")
    assert (tmp_path / "data" / "on-demand.log").read_text().count("async-stt is ready") == 1


def test_what_a_kill_leaves_behind(recording: Path, tmp_path: Path) -> None:
    """A killed service's address is not believed; the service of a killed command finishes its job and ends."""
    data = tmp_path / "data"
    with Terminal("serve", "--port", "0", folder=tmp_path) as terminal:
        terminal.wait_for("async-stt is ready")
        wait_until(lambda: bool((data / ".lock").read_text()), "the service has its address", 30)
    assert (data / ".lock").read_text(), "the service was killed and left its address"
    assert data_folder.find(data) is None
    call = [*PROGRAM, "transcribe", "talk.mp3", "--json", "--keep"]
    process = subprocess.Popen(call, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    job_id = next(row["job_id"] for row in map(json.loads, process.stdout) if row["event"] == "submitted")
    process.kill()
    process.wait()
    wait_until_unused(data)
    assert "status: COMPLETED" in piped("jobs", "show", job_id, folder=tmp_path, status=0).output


def test_a_service_that_does_not_start(recording: Path, tmp_path: Path) -> None:
    run = piped("transcribe", "talk.mp3", folder=tmp_path, status=3, ENGINE="none")
    assert "SERVICE_NOT_STARTED" in run.errors
    assert "ENGINE" in run.errors
    (tmp_path / "file").write_text("")
    assert (
        "DATA_DIR" in piped("transcribe", "talk.mp3", folder=tmp_path, status=3, DATA_DIR=str(tmp_path / "file")).errors
    )


def test_a_running_service_is_joined(recording: Path, tmp_path: Path, embedded_service: Service) -> None:
    data = str(embedded_service.folder / "data")
    run = piped("transcribe", "talk.mp3", "--output_format", "srt", folder=tmp_path, status=0, DATA_DIR=data)
    assert run.output.startswith("1\n00:00:00,000 --> ")
    assert not (tmp_path / "data").exists()


def test_a_folder_in_every_format_and_again(tmp_path: Path, server: dict[str, str]) -> None:
    """Names that clash, folders in folders, names that are not text; the second run has nothing to do."""
    folder = tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    odd = os.fsdecode(b"\xff\n\x1b[31m.mp3")
    for source, name in ((ENGLISH, "a.mp3"), (VIETNAMESE, "a.wav"), (ENGLISH, "deep/c.MP3"), (VIETNAMESE, odd)):
        shutil.copy(source, folder / name)
    (folder / "._a.mp3").write_bytes(b"of a file system")
    (folder / "notes.txt").write_text("mine")
    words = ["transcribe", str(folder), "--recursive", "--output_dir", "out", "--output_format", "all"]
    first = piped(*words, "--word_timestamps", "True", folder=tmp_path, status=0, **server)
    written = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("[!.]*") if path.is_file()
    )
    formats = ("json", "srt", "tsv", "txt", "vtt")
    stems = ("a.mp3", "a.wav", "deep/c", odd.removesuffix(".mp3"))
    assert written == sorted(f"{stem}.{kind}" for stem in stems for kind in formats)
    assert "words" in json.loads((tmp_path / "out" / "a.mp3.json").read_text())["segments"][0]
    assert "Bạn có thể" in (tmp_path / "out" / "a.wav.txt").read_text()
    assert len(first.output.splitlines()) == 20
    assert "\x1b" not in first.output + first.errors
    second = piped(*words, "--word_timestamps", "True", folder=tmp_path, status=0, STT_SERVER="http://127.0.0.1:9")
    assert "4 skipped" in second.errors
    assert (folder / "notes.txt").read_text() == "mine"


def test_files_that_stt_did_not_write_are_kept(recording: Path, tmp_path: Path, server: dict[str, str]) -> None:
    (tmp_path / "talk.txt").write_text("my notes")
    piped("transcribe", "talk.mp3", folder=tmp_path, status=0, **server)
    assert (tmp_path / "talk.txt").read_text() == "my notes"
    assert WORDS in (tmp_path / "talk.mp3.txt").read_text()
    (tmp_path / "talk.mp3.txt").write_text("corrected by hand")
    recording.write_bytes(VIETNAMESE.read_bytes())
    refused = piped("transcribe", "talk.mp3", folder=tmp_path, status=1, **server)
    assert "OUTPUT_EXISTS" in refused.errors
    piped("transcribe", "talk.mp3", "--overwrite", folder=tmp_path, status=0, **server)
    assert "Bạn có thể" in (tmp_path / "talk.txt").read_text()
    assert (tmp_path / "talk.mp3.txt").read_text() == "corrected by hand"


def test_standard_input_and_a_reader_that_goes(tmp_path: Path, server: dict[str, str]) -> None:
    run = piped("transcribe", "-", folder=tmp_path, data=ENGLISH.read_bytes(), status=0, **server)
    assert WORDS in run.output
    assert list(tmp_path.iterdir()) == []
    shutil.copy(ENGLISH, tmp_path / "talk.mp3")
    variables = environment(tmp_path, server)
    call = [*PROGRAM, "transcribe", "talk.mp3", "--json"]
    process = subprocess.Popen(call, env=variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 0
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert WORDS in (tmp_path / "talk.txt").read_text()


def test_a_pipe_with_a_name(tmp_path: Path, server: dict[str, str]) -> None:
    """Such as the shell's `<(command)`."""
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["cp", str(ENGLISH), str(tmp_path / "pipe")])
    assert WORDS in piped("transcribe", "pipe", folder=tmp_path, status=0, **server).output
    assert writer.wait(60) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_events_as_json(recording: Path, tmp_path: Path, server: dict[str, str]) -> None:
    words = ["transcribe", "talk.mp3", "missing.docx", "--json"]
    (tmp_path / "missing.docx").write_bytes(b"not a recording")
    lines = [json.loads(line) for line in piped(*words, folder=tmp_path, status=1, **server).output.splitlines()]
    kinds = [line["event"] for line in lines if line.get("file") == "talk.mp3"]
    assert kinds[0] == "upload"
    assert kinds[-2:] == ["completed", "written"]
    assert {"submitted", "segment"} <= set(kinds)
    [failed] = [line for line in lines if line["event"] == "failed"]
    assert failed["code"] == "UNSUPPORTED_FORMAT"
    assert lines[-1] == {"event": "summary", "written": 1, "skipped": 0, "detached": 0, "failed": 1}


def test_detached_jobs_are_found_again(recording: Path, tmp_path: Path, server: dict[str, str]) -> None:
    words = ["transcribe", "talk.mp3", "--output_dir", "out"]
    job_id = piped(*words, "--detach", folder=tmp_path, status=0, **server).output.strip()
    assert f"job {job_id}" in in_terminal(*words, "--json", folder=tmp_path, status=0, **server).output.replace(
        f'"job_id": "{job_id}"', f"job {job_id}"
    )
    assert WORDS in (tmp_path / "out" / "talk.txt").read_text()


@contextmanager
def slow_job(tmp_path: Path, url: str, variables: dict[str, str], *words: str) -> Iterator[Terminal]:
    """Run the command in a terminal on a recording that never arrives, until its job is waiting."""
    with Terminal("transcribe", url, *words, folder=tmp_path, variables=variables) as terminal:
        terminal.wait_for("waiting")
        terminal.interrupt()
        terminal.wait_for("Ctrl-C again quits")
        yield terminal


@pytest.mark.parametrize(("answer", "status"), [("c\n", "CANCELLED"), ("d\n", "PENDING")])
def test_ctrl_c_asks(
    answer: str,
    status: str,
    tmp_path: Path,
    server: dict[str, str],
    external_server: ExternalServer,
    embedded_service: Service,
) -> None:
    url = external_server.url(f"/drip/{status}.mp3")
    with slow_job(tmp_path, url, server) as terminal:
        shown = len(terminal.shown)
        terminal.press("\n")
        shown = terminal.wait_for("waiting", after=shown)
        terminal.interrupt()
        terminal.wait_for("Ctrl-C again quits", after=shown)
        terminal.press(answer)
        assert terminal.end(130).status == 130
    [job] = [
        job
        for job in embedded_service.client.get("/api/v1/jobs").json()["jobs"]
        if job["original_filename"] == f"{status}.mp3"
    ]
    assert job["status"] in (status, "PROCESSING")
    embedded_service.client.delete(f"/api/v1/jobs/{job['job_id']}")


def test_ctrl_c_twice_quits(tmp_path: Path, server: dict[str, str], external_server: ExternalServer) -> None:
    with slow_job(tmp_path, external_server.url("/drip/twice.mp3"), server) as terminal:
        terminal.interrupt()
        run = terminal.end(130)
    job_id = run.output.split("`stt jobs cancel ")[1].split("`")[0]
    piped("jobs", "rm", job_id, folder=tmp_path, status=0, **server)


@pytest.mark.parametrize("choice", ["cancel", "detach"])
def test_an_interruption_without_a_terminal(
    choice: str, tmp_path: Path, server: dict[str, str], external_server: ExternalServer, embedded_service: Service
) -> None:
    call = [*PROGRAM, "transcribe", external_server.url("/drip/a.mp3"), "--on-interrupt", choice, "--json"]
    process = subprocess.Popen(call, env=environment(tmp_path, server), cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    job_id = json.loads(process.stdout.readline())["job_id"]
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert (embedded_service.status(job_id)["status"] == "CANCELLED") == (choice == "cancel")
    embedded_service.client.delete(f"/api/v1/jobs/{job_id}")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nowhere.mp3"], "RECORDING_NOT_FOUND"),
        (["*.flac"], "RECORDING_NOT_FOUND"),
        (["talk.mp3", "--task", "translate"], "TASK_NOT_SUPPORTED"),
        (["talk.mp3", "--language", "tlh"], "UNSUPPORTED_LANGUAGE"),
        (["talk.mp3", "--model", "large"], "UNKNOWN_MODEL"),
        (["talk.mp3", "--output_format", "doc"], "Invalid value for '--output-format'"),
        (["talk.mp3", "--server", "localhost"], "INVALID_SERVER"),
        (["talk.mp3", "--server", "http://user:secret@localhost"], "INVALID_SERVER"),
    ],
)
def test_usage(words: list[str], code: str, recording: Path, tmp_path: Path, server: dict[str, str]) -> None:
    run = piped("transcribe", *words, folder=tmp_path, status=2, **server)
    assert code in run.errors
    assert "Traceback" not in run.errors
    assert "secret" not in run.errors


def test_unreachable_and_not_allowed(recording: Path, tmp_path: Path, embedded_service: Service) -> None:
    gone = piped("transcribe", "talk.mp3", "--server", "http://127.0.0.1:9", folder=tmp_path, status=3)
    assert "SERVICE_UNREACHABLE" in gone.errors
    assert len(gone.errors.splitlines()) == 1, "a first connection that is refused is not repeated"
    with run_front(embedded_service.url, free_port()) as front:
        front.answers = [Answer(200, body="{}"), Answer(401)]
        variables = {"STT_SERVER": front.url, "STT_API_KEY": "stt_0123456789abcdef_" + "s" * 40}
        refused = piped("transcribe", "talk.mp3", folder=tmp_path, status=4, **variables)
        assert "PLANNED_401" in refused.errors
        assert "STT_API_KEY" in refused.errors
        assert "sssss" not in refused.errors + str([line for line, _ in front.requests])
        front.answers = [Answer(200, body="<html>")]
        assert "INVALID_RESPONSE" in piped("transcribe", "talk.mp3", folder=tmp_path, status=1, **variables).errors


def test_a_folder_that_cannot_be_written(recording: Path, tmp_path: Path, server: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    run = piped("transcribe", "talk.mp3", "--output_dir", "file/out", folder=tmp_path, status=1, **server)
    assert "OUTPUT_NOT_WRITABLE" in run.errors


def test_a_recording_that_is_none(tmp_path: Path, server: dict[str, str]) -> None:
    (tmp_path / "noise.mp3").write_bytes(b"no sound at all " * 1000)
    run = piped("transcribe", "noise.mp3", folder=tmp_path, status=1, LANG="vi_VN.UTF-8", **server)
    assert "INVALID_AUDIO" in run.errors
    assert not (tmp_path / "noise.txt").exists()
    (tmp_path / "empty").mkdir()
    assert "no recordings" in piped("transcribe", "empty", folder=tmp_path, status=0, **server).errors


def test_arguments_of_other_whisper_programs(recording: Path, tmp_path: Path, server: dict[str, str]) -> None:
    line = (
        "talk.mp3 --model demo-q5_0 --language English --task transcribe --output_format vtt --output_dir o "
        "--fp16 False --device cpu --threads=2 --word_timestamps False --initial_prompt Hello --verbose True"
    )
    words = line.split()
    run = piped("transcribe", *words, folder=tmp_path, status=0, **server)
    assert run.output.startswith("WEBVTT")
    assert (tmp_path / "o" / "talk.vtt").exists()
    assert "--fp16 has no effect" in run.errors
