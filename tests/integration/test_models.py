"""Model files of jobs: resolved once, pinned with their checksum, and waited for with few messages."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import update

from core.database import after
from core.domain.job import JobStatus, Priority
from core.domain.transcript import Segment
from core.messaging.memory import MemoryBroker
from core.messaging.port import Ack, Delivery, MessageType, QueueName
from internal import bootstrap
from internal.bootstrap import Application
from internal.consumer import model_selector
from internal.consumer.handlers.transcribe import TranscribeHandler
from internal.services import publishing
from internal.services.submit_options import SubmitOptions
from repositories.claims import WakeUp
from repositories.models import Chunk, Job, Worker
from tests.contract import invariants, rows
from tests.integration.bad_engines import FINE
from tests.integration.test_consumer import bad_audio, open_application, settings_for
from tests.model_files import tiny, write_tiny
from tests.speech import write_wav
from worker import pool_child
from worker.models import ModelCatalogue
from worker.transcriber import EngineOutput, EngineSpec


class Slots:
    """A fake pool whose slots return the content of the model file as the text."""

    slots = 2

    def __init__(self) -> None:
        self.model_contents: list[bytes] = []
        self.during: Callable[[Path], object] = lambda _: None

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Slots]:
        yield self

    async def transcribe(self, model: Path, *_: object, **__: object) -> EngineOutput:
        self.model_contents.append(model.read_bytes())
        self.during(model)
        return EngineOutput((Segment(0.0, 1.0, "heard", 1.0),), "en")


class Bench:
    """A consumer's handlers without its subscriptions; tests deliver messages by hand."""

    def __init__(self, app: Application, folder: Path) -> None:
        self.app, self.folder = app, folder
        self.consumer = bootstrap.consumer(app, "bench")
        self.pool = Slots()
        handler = cast(TranscribeHandler, self.consumer.handlers[MessageType.TRANSCRIBE])
        self.transcribe_handler = replace(handler, pool=self.pool)  # type: ignore[arg-type]
        self.consumer.workspace.open()

    def put(self, name: str, content: bytes = b"weights") -> Path:
        path = self.app.settings.models_dir / f"ggml-{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        write_tiny(new, content)
        return new.replace(path)

    async def submit_audio(self, model: str | None, asked: str, language: str = "en") -> str:
        intake = self.app.services.submissions.new_upload()
        await intake.begin("speech.wav")
        await intake.write(write_wav(self.folder / "speech.wav", bad_audio(FINE)).read_bytes())
        await intake.finish()
        submit_options = SubmitOptions(language, model, Priority.NORMAL, asked_model=asked)
        return (await self.app.services.submissions.create_from_upload(intake, "local", submit_options)).job_id

    async def prepare(self, job_id: str) -> Job:
        job = await rows.job(self.app.database, job_id)
        message = publishing.prepare_message(job, WakeUp(job_id, None, job.failures))
        assert await self.consumer.handlers[MessageType.PREPARE](Delivery(message, redelivered=False)) == Ack()
        await invariants.check(self.app.database)
        return await rows.job(self.app.database, job_id)

    async def transcribe(self, job_id: str) -> Chunk:
        job = await rows.job(self.app.database, job_id)
        message = publishing.transcribe_message(job, WakeUp(job_id, 0, 0))
        assert await self.transcribe_handler(Delivery(message, redelivered=False)) == Ack()
        await invariants.check(self.app.database)
        return await rows.chunk(self.app.database, job_id, 0)

    async def announce(self) -> None:
        await self.consumer.compute_checksums()
        await self.consumer.announce()

    async def older(self, seconds: float) -> None:
        """Date all consumers' starts and all waits back by `seconds`."""
        async with self.app.database.write() as session:
            await session.execute(update(Worker).values(started_at=after(-seconds)))
            missing = Job.model_missing_since.is_not(None)
            await session.execute(update(Job).where(missing).values(model_missing_since=after(-seconds)))

    def waiting(self) -> int:
        assert isinstance(self.app.broker, MemoryBroker)
        return sum(len(self.app.broker.waiting(queue)) for queue in (QueueName.JOBS, QueueName.CHUNKS))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_application(settings_for(tmp_path, model_wait_seconds=100)) as app:
        made_here = Bench(app, tmp_path)
        yield made_here
        made_here.consumer.workspace.close()


@pytest.mark.parametrize(
    ("asked", "language", "present", "expected"),
    [
        ("medium", "vi", ["medium-q5_0"], "medium-q5_0"),
        ("medium", "en", ["medium-q5_0", "medium.en-q5_0"], "medium.en-q5_0"),
        ("medium", "auto", ["medium-q5_0", "medium.en-q5_0"], "medium-q5_0"),
        ("large", "vi", ["large-v3-q5_0"], "large-v3-q5_0"),
        ("", "vi", ["tiny", "small-q5_1"], "small-q5_1"),
    ],
)
async def test_a_name_is_resolved_once_and_pinned(
    bench: Bench, asked: str, language: str, present: list[str], expected: str
) -> None:
    """Regression: if no consumer ran at the submit, the job had a family's name, and each chunk failed for good."""
    for name in present:
        bench.put(name, name.encode())
    job_id = await bench.submit_audio(asked or None, asked, language)
    job = await bench.prepare(job_id)
    sha256 = hashlib.sha256(tiny(expected.encode())).hexdigest()
    assert (job.model, job.options.file_sha256) == (expected, sha256)
    bench.put("medium", b"a better one, added later")
    assert (await bench.transcribe(job_id)).status == JobStatus.COMPLETED
    assert bench.pool.model_contents == [tiny(expected.encode())]


async def test_the_model_of_the_answer_is_preferred_to_its_family(bench: Bench) -> None:
    bench.put("medium")
    bench.put("medium-q5_0")
    assert (await bench.prepare(await bench.submit_audio("medium-q5_0", "medium"))).model == "medium-q5_0"
    assert (await bench.prepare(await bench.submit_audio("medium-q8_0", "medium"))).model == "medium"


async def test_a_file_replaced_after_the_plan_is_not_used(bench: Bench) -> None:
    """A rollout replaces a file: the job continues on consumers that still have the planned one."""
    bench.put("tiny", b"planned")
    job_id = await bench.submit_audio("tiny", "tiny")
    await bench.prepare(job_id)
    bench.put("tiny", b"another")
    chunk = await bench.transcribe(job_id)
    assert (chunk.status, chunk.holder, chunk.failures, chunk.lost, chunk.attempts) == (
        JobStatus.PENDING,
        None,
        0,
        0,
        0,
    )
    assert bench.pool.model_contents == []
    bench.put("tiny", b"planned")
    assert (await bench.transcribe(job_id)).status == JobStatus.COMPLETED


async def test_the_planned_file_in_another_folder_is_found(bench: Bench, tmp_path: Path) -> None:
    bench.put("tiny", b"planned")
    job_id = await bench.submit_audio("tiny", "tiny")
    await bench.prepare(job_id)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    write_tiny(moved / "ggml-tiny.bin", b"planned")
    bench.put("tiny", b"another")
    bench.consumer.catalogue.folders += (moved,)
    assert (await bench.transcribe(job_id)).status == JobStatus.COMPLETED


async def test_output_of_a_file_replaced_meanwhile_is_discarded(bench: Bench) -> None:
    bench.put("tiny", b"planned")
    job_id = await bench.submit_audio("tiny", "tiny")
    await bench.prepare(job_id)
    bench.pool.during = lambda _: bench.put("tiny", b"another")
    assert (await bench.transcribe(job_id)).status == JobStatus.PENDING


@pytest.mark.parametrize("step", ["prepare", "transcribe"])
async def test_a_waiting_row_has_one_message(bench: Bench, step: str) -> None:
    """Regression: each hand-back published before any claim, and the scheduler added one every 40 s."""
    bench.put("tiny")
    job_id = await bench.submit_audio("tiny", "tiny")
    if step == "transcribe":
        await bench.prepare(job_id)
    (bench.app.settings.models_dir / "ggml-tiny.bin").unlink()
    await bench.announce()
    for _ in range(12):
        before = bench.waiting()
        await (bench.prepare(job_id) if step == "prepare" else bench.transcribe(job_id))
        assert bench.waiting() == before, "a consumer without the file publishes nothing"
        await rows.expire(bench.app.database, job_id)
        for _ in range(3):
            await bootstrap.maintenance(bench.app).publish_due()
            await bootstrap.maintenance(bench.app).boost_starving()
        assert bench.waiting() == before + 1
    job = await rows.job(bench.app.database, job_id)
    assert job.status in (JobStatus.PENDING, JobStatus.PROCESSING)
    assert (job.failures, job.lost, job.retry_count) == (0, 0, 0)


@pytest.mark.parametrize("step", ["prepare", "transcribe"])
async def test_a_missing_model_fails_the_job_and_a_retry_resolves_again(bench: Bench, step: str) -> None:
    bench.put("tiny-q5_0")
    job_id = await bench.submit_audio("tiny", "tiny")
    if step == "transcribe":
        await bench.prepare(job_id)
    (bench.app.settings.models_dir / "ggml-tiny-q5_0.bin").unlink()
    await bench.announce()
    run = bench.prepare if step == "prepare" else bench.transcribe
    await run(job_id)
    await bench.older(50)
    await run(job_id)
    assert (await rows.job(bench.app.database, job_id)).status != JobStatus.FAILED
    await bench.older(101)
    await run(job_id)
    job = await rows.job(bench.app.database, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "MODEL_MISSING")
    assert "ggml-tiny" in (job.error_message or "")
    assert job.replay_token is not None
    bench.put("tiny-q8_0", b"the new variant")
    await bench.app.services.jobs.retry(job_id, "local")
    job = await bench.prepare(job_id)
    assert (job.model, job.model_missing_since) == ("tiny-q8_0", None)
    assert (await bench.transcribe(job_id)).status == JobStatus.COMPLETED


async def test_a_consumer_that_starts_with_the_file_ends_the_wait(bench: Bench) -> None:
    bench.put("tiny")
    job_id = await bench.submit_audio("tiny", "tiny")
    await bench.prepare(job_id)
    path = bench.app.settings.models_dir / "ggml-tiny.bin"
    path.rename(path.with_suffix(".away"))
    await bench.announce()
    await bench.transcribe(job_id)
    assert (await rows.job(bench.app.database, job_id)).model_missing_since is not None
    path.with_suffix(".away").rename(path)
    await bench.announce()
    assert (await rows.job(bench.app.database, job_id)).model_missing_since is None


def test_the_delay_grows_to_half_a_minute() -> None:
    delays = [model_selector.hand_back_delay(claims, model_selector.MAX_DELAY) for claims in range(1, 1000)]
    assert delays[0] < 5
    assert all(24 <= value <= 36 for value in delays[10:])
    assert len(set(delays[10:])) > 900, "spread"


# -- the catalogue ---------------------------------------------------------------------------------------------------
def test_a_file_is_read_once_per_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = tmp_path / "ggml-tiny.bin", 0
    write_tiny(path, b"one")
    digest = hashlib.file_digest

    def counting(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return digest(*arguments)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    catalogue = ModelCatalogue([tmp_path])
    assert catalogue.checksums(compute=False) == {}
    threads = [threading.Thread(target=catalogue.sha256, args=("tiny",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = catalogue.sha256("tiny")
    assert (reads, catalogue.checksums(compute=False)) == (1, {"tiny": [first]})
    state = path.stat()
    replaced = tmp_path / "new"
    write_tiny(replaced, b"two")
    os.utime(replaced, ns=(state.st_atime_ns, state.st_mtime_ns))
    replaced.replace(path)
    assert catalogue.sha256("tiny") != first, "same size, same time, other content"
    assert (reads, catalogue.find("tiny", first)) == (2, None)


def test_a_loaded_engine_is_not_used_for_a_replaced_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a slot kept the old weights after the file was replaced."""
    path = tmp_path / "ggml-tiny.bin"
    path.write_bytes(b"old")

    class Engine:
        def __init__(self, spec: EngineSpec) -> None:
            self.text = spec.model_path.read_text()

        def transcribe(self, *_: Any) -> Any:
            return self.text

    monkeypatch.setattr(pool_child, "build", Engine)
    monkeypatch.setattr(pool_child, "_loaded", {})
    spec = EngineSpec("fake", path)
    assert [str(pool_child.transcribe(spec, [], 1)) for _ in range(2)] == ["old", "old"]
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").replace(path)
    assert str(pool_child.transcribe(spec, [], 1)) == "new"
