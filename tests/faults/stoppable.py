"""`python stoppable.py consumer|api`: the real process, stopped or broken at one step of its work.

STOP_AT names the step. At that step the process creates the file `{STOP_FOLDER}/reached` and waits for `go`: the test
kills it there or lets it continue. Everything else is production code.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from core.domain.spans import SAMPLE_RATE
from core.errors import WhisperCrashError
from core.messaging import rabbitmq
from core.messaging.port import Ack, Delivery, MessageType, decode
from core.storage.minio import MinioStorage
from internal.cli import processes
from internal.consumer.handlers.finalise import FinaliseHandler
from internal.consumer.handlers.prepare import PrepareHandler
from internal.consumer.handlers.transcribe import TranscribeHandler
from internal.consumer.step_runner import StepRunner
from internal.services.publishing import Publisher
from internal.services.submissions import Submissions
from worker import audio, preparer
from worker.pool import Slot

FOLDER = Path(os.environ.get("STOP_FOLDER", "."))
committing: contextvars.ContextVar[bool] = contextvars.ContextVar("committing", default=False)
Step = Callable[..., Awaitable[Any]]


async def stop_here() -> None:
    (FOLDER / "reached").touch()
    while not (FOLDER / "go").exists():
        await asyncio.sleep(0.01)


def replace(owner: Any, name: str, function: Step) -> None:
    setattr(owner, name, function)


def stop_before(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    original: Step = getattr(owner, name)

    async def wrapper(*args: Any, **more: Any) -> Any:
        if when(*args):
            await stop_here()
        return await original(*args, **more)

    replace(owner, name, wrapper)


def stop_after(owner: Any, name: str) -> None:
    original: Step = getattr(owner, name)

    async def wrapper(*args: Any, **more: Any) -> Any:
        result = await original(*args, **more)
        await stop_here()
        return result

    replace(owner, name, wrapper)


def publishes(kind: MessageType) -> Callable[..., bool]:
    return lambda _, messages: bool(messages) and messages[0].type is kind


def claims_a_chunk(_: StepRunner, delivery: Delivery, *__: Any) -> bool:
    return delivery.message.type is MessageType.TRANSCRIBE


def during_download() -> None:
    async def download_half(_: MinioStorage, _key: str, path: Path) -> int:
        path.write_bytes(b"half of it")
        await stop_here()
        raise AssertionError("the process is killed before this line")

    replace(MinioStorage, "download", download_half)


def during_decode() -> None:
    original = audio.decode

    async def wrapper(*args: Any, on_pcm: Callable[[bytes], None], **more: Any) -> int:
        def stop_and_forward(block: bytes) -> None:
            (FOLDER / "reached").touch()
            while not (FOLDER / "go").exists():
                time.sleep(0.01)
            on_pcm(block)

        return await original(*args, on_pcm=stop_and_forward, **more)

    replace(preparer, "decode", wrapper)


def decodes_to_silence() -> None:
    """Replace every recording with 0.2 seconds of silence: hundreds of runs of ffmpeg would take minutes."""

    async def decode_silence(_: Path, target: Path, *, on_pcm: Callable[[bytes], None], **more: Any) -> int:
        pcm = bytes(6400)
        target.write_bytes(pcm)
        on_pcm(pcm)
        return len(pcm) // 2

    replace(preparer, "decode", decode_silence)


def between_instalments() -> None:
    """Release the first instalment after 75 s, and stop before the audio of the next is stored."""
    preparer.FIRST_INSTALMENT = 75 * SAMPLE_RATE
    stop_before(PrepareHandler, "_store_audio", lambda _, plan, __: plan.first_index > 0)


def mid_chunk() -> None:
    original = Slot.transcribe

    async def wrapper(*args: Any, **more: Any) -> Any:
        running = asyncio.create_task(original(*args, **more))
        await stop_here()
        return await running

    replace(Slot, "transcribe", wrapper)


def after_commit() -> None:
    """Stop after the commit, before anything is published or acknowledged."""
    original = TranscribeHandler._commit

    async def commit_marked(*args: Any) -> None:
        committing.set(True)
        await original(*args)

    replace(TranscribeHandler, "_commit", commit_marked)
    stop_before(Publisher, "publish", lambda *_: committing.get())


def before_acknowledgement() -> None:
    def acknowledges_chunk(_: Any, message: Any, verdict: Any) -> bool:
        return isinstance(verdict, Ack) and decode(message.body).type is MessageType.TRANSCRIBE

    stop_before(rabbitmq._Subscription, "_execute", acknowledges_chunk)


def killed_by_poison() -> None:
    """Kill the whole consumer at each chunk of a recording named poison."""
    original = TranscribeHandler._run_pinned

    async def run_or_kill(self: TranscribeHandler, slot: Any, claimed: Any, pcm: bytes) -> Any:
        if claimed.job.original_filename.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        return await original(self, slot, claimed, pcm)

    replace(TranscribeHandler, "_run_pinned", run_or_kill)


def fails_second_chunk() -> None:
    original = TranscribeHandler._run_pinned

    async def run_or_fail(self: TranscribeHandler, slot: Any, claimed: Any, pcm: bytes) -> Any:
        if claimed.claim.chunk_index == 1:
            raise WhisperCrashError
        return await original(self, slot, claimed, pcm)

    replace(TranscribeHandler, "_run_pinned", run_or_fail)


STEPS: dict[str, Callable[[], None]] = {
    "before claiming": lambda: stop_before(StepRunner, "run"),
    "before claiming a chunk": lambda: stop_before(StepRunner, "run", claims_a_chunk),
    "before download": lambda: stop_before(MinioStorage, "download"),
    "during download": during_download,
    "during decode": during_decode,
    "decodes to silence": decodes_to_silence,
    "between instalments": between_instalments,
    "before the plan": lambda: stop_before(PrepareHandler, "_store_plan"),
    "after planning": lambda: stop_before(Publisher, "publish", publishes(MessageType.TRANSCRIBE)),
    "mid-chunk": mid_chunk,
    "before the chunk's commit": lambda: stop_before(TranscribeHandler, "_commit"),
    "after the chunk's commit": after_commit,
    "before the acknowledgement": before_acknowledgement,
    "before Finalise is published": lambda: stop_before(Publisher, "publish", publishes(MessageType.FINALISE)),
    "mid-finalise": lambda: stop_before(FinaliseHandler, "_write_result"),
    "after the result's upload": lambda: stop_after(FinaliseHandler, "_write_result"),
    "killed by poison": killed_by_poison,
    "fails its second chunk": fails_second_chunk,
    "stored, no row": lambda: stop_before(Submissions, "create_from_upload"),
    "committed, no answer": lambda: stop_before(Publisher, "publish", publishes(MessageType.PREPARE)),
}

if __name__ == "__main__":
    # child processes of the pool import this file under another name and skip this block
    STEPS[os.environ["STOP_AT"]]()
    {"consumer": processes.consumer, "api": processes.api}[sys.argv[1]]()
