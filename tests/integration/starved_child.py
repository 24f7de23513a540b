"""A consumer in a separate process that runs out of file descriptors while a claimed chunk runs.

`python -m tests.integration.starved_child FOLDER OPERATION` prints the chunk's state as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from core.messaging.port import Message, MessageType
from internal import bootstrap
from internal.bootstrap import Application
from internal.consumer.recordings import RecordingLimits, Recordings
from internal.consumer.runtime import Consumer
from repositories.models import Job
from tests.contract import rows
from tests.integration.test_consumer import open_application, settings_for
from worker import ffmpeg

LIMIT = 64


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Limit this process to LIMIT open files and open all of them: the kernel refuses the next one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, before[1]))
    fillers: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def operations(app: Application, consumer: Consumer) -> dict[str, Callable[[], Awaitable[object]]]:
    async def write() -> None:
        with consumer.workspace.folder("run") as run:
            await asyncio.to_thread((run / "source").write_bytes, b"x")

    async def read_object() -> None:
        await consumer.outage_retry.run(lambda: app.storage.get_bytes("work/audio.pcm"))

    async def start_ffmpeg() -> None:
        await asyncio.create_subprocess_exec(ffmpeg.program(), "-version")

    async def connect() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    async def fetch(url: str) -> None:
        recordings = Recordings(
            app.database, app.storage, app.media, consumer.outage_retry, RecordingLimits.from_settings(app.settings)
        )
        await recordings.fetch(Job(job_id="j", media_url=url, original_filename="a.mp3"), Path("unused"))

    return {
        "fetch from an address": partial(fetch, "http://127.0.0.1:9/a.mp3"),
        "fetch from a name": partial(fetch, "http://localhost:9/a.mp3"),
        "write a file": write,
        "read an object": read_object,
        "start ffmpeg": start_ffmpeg,
        "connect": connect,
    }


async def run(folder: Path, operation: str) -> None:
    async with open_application(settings_for(folder, media_url_allowed_hosts="127.0.0.1:9,localhost:9")) as app:
        await app.storage.put_bytes("work/audio.pcm", b"x")
        consumer = bootstrap.consumer(app)
        consumer.workspace.open()
        job_id = await rows.planned_job(app.database, 1)
        claimed = await rows.claim(app.database, job_id)
        assert claimed is not None

        async def starved() -> None:
            with no_descriptor_left():
                await operations(app, consumer)[operation]()

        message = Message(MessageType.TRANSCRIBE, job_id, 0)
        for _ in range(3):
            verdict = await consumer.steps.run_claimed(claimed.claim, message, starved)
        chunk = await rows.chunk(app.database, job_id, 0)
        consumer.workspace.close()
        outcome = {"verdict": type(verdict).__name__, "status": chunk.status, "failures": chunk.failures}
        print(json.dumps({**outcome, "error": chunk.error_code, "sick": consumer.health.reason}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2]))
