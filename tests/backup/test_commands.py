"""`stt backup` and `stt restore` as programs: killed at any moment, on full disks, with wrong keys, and to play on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.database import Database
from internal import data_folder
from tests.backup.service import KEY, Stores, fill, new_job, stores
from tests.contract import databases
from tests.e2e import service as services
from tests.e2e.service import ROOT, Service
from tests.servers.base import free_port, wait_until
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ
from tests.speech import encode, recording

OBJECTS = 150


def command(*words: str, environment: dict[str, str], key: str = KEY) -> subprocess.CompletedProcess[str]:
    variables = {**environment, "STT_BACKUP_KEY": key, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-m", "internal.cli", *words]
    return subprocess.run(call, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def environment(folder: Path, **more: str) -> dict[str, str]:
    return services.settings(folder, free_port(), **more)


@contextlib.contextmanager
def running(*words: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    variables = {**environment, "STT_BACKUP_KEY": KEY, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "internal.cli", *words], env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
async def source(tmp_path: Path) -> Stores:
    """A service that is not running, with many objects, in `{tmp_path}/source/data`."""
    data = tmp_path / "source" / "data"
    data.mkdir(parents=True)
    async with databases.migrated(f"sqlite+aiosqlite:///{data}/stt.db") as database:
        service = stores(database, data)
        await fill(service)
        for _ in range(OBJECTS):
            await new_job(service, size=random.Random(1).randint(1, 64) * 4096)
    return service


def contents(folder: Path) -> int:
    return len(list((folder / "contents").glob("*/*")))


@pytest.mark.parametrize("copied", [1, OBJECTS // 3, OBJECTS])
async def test_a_killed_backup_is_continued(source: Stores, tmp_path: Path, copied: int) -> None:
    """kill -9 leaves nothing that could be taken for a backup, and most of what was copied."""
    folder, settings = tmp_path / "backups", environment(tmp_path / "source")
    with running("backup", str(folder), environment=settings) as process:
        wait_until(lambda: contents(folder) >= copied or process.poll() is not None, "contents are copied", 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    listed = command("restore", str(folder), "--list", "--json", environment=settings)
    finished = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len(finished) == (process.returncode == 0)
    kept = contents(folder)
    done = command("backup", str(folder), "--json", environment=settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["copied"] <= json.loads(done.stdout)["objects"] - kept + 8  # those in progress
    checked = command("restore", str(folder), "--check", environment=settings)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("phase", ["objects", "rows"])
async def test_a_killed_restore_leaves_the_database_as_it_was(source: Stores, tmp_path: Path, phase: str) -> None:
    folder, target = tmp_path / "backups", environment(tmp_path / "target")
    assert command("backup", str(folder), environment=environment(tmp_path / "source")).returncode == 0
    with running("restore", str(folder), environment=target) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"{phase}:"):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = command("restore", str(folder), "--json", environment=target)
    if process.returncode == 0 and done.returncode:
        assert "DATABASE_NOT_EMPTY" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["jobs"] == OBJECTS + 3
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/target/data/stt.db")
    restored = stores(database, tmp_path / "target" / "data")
    assert await restored.contents() == await source.contents()
    await database.stop()
    await source.database.stop()


def test_errors_have_codes_in_both_languages(tmp_path: Path) -> None:
    folder, settings = tmp_path / "backups", environment(tmp_path)
    assert command("migrate", environment=settings).returncode == 0
    short = command("backup", str(folder), environment=settings, key="short")
    assert (short.returncode, short.stderr.split(":")[0]) == (2, "BACKUP_KEY_NEEDED")
    assert command("backup", str(folder), environment=settings).returncode == 0
    wrong = command("restore", str(folder), environment=settings | {"LANG": "vi_VN.UTF-8"}, key="k" * 16)
    assert (wrong.returncode, wrong.stderr.strip()) == (
        2,
        "BACKUP_KEY_WRONG: Khóa này không phải là khóa của thư mục sao lưu.",
    )
    nowhere = command("restore", str(tmp_path / "none"), environment=settings)
    assert (nowhere.returncode, nowhere.stderr.split(":")[0]) == (2, "BACKUP_NOT_FOUND")
    no_file = command("backup", str(folder), "--key-file", str(tmp_path / "none"), environment=settings)
    assert (no_file.returncode, no_file.stderr.split(":")[0]) == (2, "BACKUP_KEY_NEEDED")
    (tmp_path / "file").write_text("")
    blocked = command("backup", str(tmp_path / "file"), environment=settings)
    assert (blocked.returncode, blocked.stderr.split(":")[0]) == (1, "BACKUP_FOLDER")


def test_a_full_disk_is_named_and_the_next_run_continues(tmp_path: Path) -> None:
    small, settings = tmp_path / "small", environment(tmp_path)
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        assert command("migrate", environment=settings).returncode == 0

        async def add() -> None:
            service = stores(Database(f"sqlite+aiosqlite:///{tmp_path}/data/stt.db"), tmp_path / "data")
            await service.storage.start()
            for _ in range(20):
                await new_job(service, size=100_000)
            await service.database.stop()

        asyncio.run(add())
        full = command("backup", str(small), environment=settings)
        assert (full.returncode, full.stderr.splitlines()[-1].split(":")[0]) == (1, "BACKUP_DISK_FULL"), full.stderr
        listed = command("restore", str(small), "--list", environment=settings)
        assert listed.stdout == ""
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        done = command("backup", str(small), "--json", environment=settings)
        assert json.loads(done.stdout)["copied"] < 20, done
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


async def test_a_restore_beside_the_running_service_is_refused(tmp_path: Path) -> None:
    settings = environment(tmp_path)
    assert command("migrate", environment=settings).returncode == 0
    assert command("backup", str(tmp_path / "backups"), environment=settings).returncode == 0
    descriptor = data_folder.lock(tmp_path / "data")
    try:
        refused = command("restore", str(tmp_path / "backups"), environment=settings)
        assert (refused.returncode, refused.stderr.split(":")[0]) == (2, "SERVICE_RUNNING"), refused.stderr
    finally:
        data_folder.unlock(descriptor)


@pytest.fixture(scope="module")
def speech_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A clip, and a recording of several chunks."""
    folder = tmp_path_factory.mktemp("speech")
    clip = encode(recording("en", 1, seed=81, pause=0.2)[0], folder / "clip.flac")
    return clip, encode(recording("en", 24, seed=82)[0], folder / "long.flac")


def _back_up_and_lose(service: Service, folder: Path, files: tuple[Path, Path]) -> tuple[str, bytes, dict[str, str]]:
    """Complete a job, start others, back up meanwhile; return the completed job, its result, and the others' texts."""
    clip, long = files
    completed = service.upload(clip, language="en")
    service.wait(completed)
    result = service.client.get(f"/api/v1/result/{completed}").content
    others = [service.upload(path, language="en") for path in (long, long, clip)]
    wait_until(lambda: service.status(others[0])["status"] == "PROCESSING", "the long recording is transcribed", 60)
    separate = "consumer" in service.processes
    if separate:
        service.kill("consumer")  # with a chunk in progress
    done = command("backup", str(folder), "--json", environment=service.environment)
    assert done.returncode == 0, done.stderr
    if separate:
        service.start("consumer")
    texts = {}
    for job_id in others:
        assert service.wait(job_id)["status"] == "COMPLETED"
        texts[job_id] = service.client.get(f"/api/v1/result/{job_id}").json()["text"]
    return completed, result, texts


def _play_on(service: Service, completed: str, result: bytes, texts: dict[str, str]) -> None:
    assert service.client.get(f"/api/v1/result/{completed}").content == result
    for job_id, text in texts.items():
        assert service.wait(job_id)["status"] == "COMPLETED", service.logs()
        assert service.client.get(f"/api/v1/result/{job_id}").json()["text"] == text


@pytest.mark.speech
@pytest.mark.timeout(400)
def test_the_embedded_service_plays_on_in_an_empty_folder(tmp_path: Path, speech_files: tuple[Path, Path]) -> None:
    """The generated secret comes back too, so that an API key stays valid."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with services.embedded(tmp_path / "first", WORKER_CONCURRENCY="1") as service:
        found = _back_up_and_lose(service, tmp_path / "backups", speech_files)
        key = json.loads(command("keys", "create", "--json", environment=service.environment).stdout)["key"]
        again = command("backup", str(tmp_path / "backups"), "--json", environment=service.environment)
        assert again.returncode == 0, again.stderr
    first, newest = sorted(path.name for path in (tmp_path / "backups" / "backups").iterdir())
    settings = environment(tmp_path / "second")
    done = command("restore", str(tmp_path / "backups"), "--backup", first, "--json", environment=settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["unfinished"] > 0
    with services.embedded(tmp_path / "second", WORKER_CONCURRENCY="1") as service:
        _play_on(service, *found)
    done = command("restore", str(tmp_path / "backups"), "--backup", newest, "--replace", environment=settings)
    assert done.returncode == 0, done.stderr
    with services.embedded(tmp_path / "second", WORKER_CONCURRENCY="1") as service:
        service.client.headers["X-API-Key"] = key
        assert service.client.get(f"/api/v1/status/{found[0]}").status_code in (200, 404)


@pytest.mark.servers
@pytest.mark.speech
@pytest.mark.timeout(400)
def test_a_service_plays_on_on_empty_servers(
    tmp_path: Path,
    speech_files: tuple[Path, Path],
    shared_postgres: Postgres,
    shared_rabbitmq: RabbitMQ,
    shared_minio: Minio,
) -> None:
    """PostgreSQL, RabbitMQ and MinIO are new; jobs that were in flight are finished from where they were."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    secret = {"SECRET_KEY": "s" * 32, "WORKER_CONCURRENCY": "1"}
    lost = services.stores_of(shared_postgres, shared_rabbitmq, shared_minio) | secret
    with services.on_real_servers(tmp_path / "first", lost) as service:
        found = _back_up_and_lose(service, tmp_path / "backups", speech_files)
    empty = services.stores_of(shared_postgres, shared_rabbitmq, shared_minio) | secret
    done = command(
        "restore", str(tmp_path / "backups"), "--json", environment=environment(tmp_path / "second", **empty)
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["unfinished"] > 0
    with services.on_real_servers(tmp_path / "second", empty) as service:
        _play_on(service, *found)
