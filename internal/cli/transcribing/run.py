"""The run of `stt transcribe`: submits recordings, follows their jobs, and writes the transcripts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.error_base import SttError
from core.errors_command import RecordingUnreadableError
from core.files import BLOCK_SIZE
from internal.cli import output
from internal.cli.exits import ExitStatus, status_of
from internal.cli.service import Connection
from internal.cli.transcribing import engine_trial
from internal.cli.transcribing.inputs import Input
from internal.cli.transcribing.interruption import CANCEL, Interruption
from internal.cli.transcribing.reporters import Reporter
from internal.cli.transcribing.targets import OutputFolder
from internal.client import (
    AsyncClient,
    ClientError,
    NotAllowedError,
    Options,
    RefusedError,
    Submission,
    UnreachableError,
)

FATAL_CODES = ("INVALID_FIELD", "UNKNOWN_MODEL", "UNSUPPORTED_LANGUAGE")
"""Refusals that concern the options, and so every recording."""
FREE_BYTES = 256 * 1024**2
"""Bytes that stay free on the disk of temporary files while a stream is copied, which may never end."""
ENDINGS = ("written", "skipped", "detached", "failed")


@dataclass(frozen=True, slots=True)
class Request:
    """Arguments of the run. output_dir: None for the folder of each recording; keep: leave the job in the service."""

    formats: tuple[str, ...]
    options: Options
    output_dir: Path | None = None
    overwrite: bool = False
    detach: bool = False
    keep: bool = False
    at_once: int = 4
    on_interrupt: str = CANCEL
    prints: bool = True

    def folder_of(self, entry: Input) -> Path:
        """Return the folder of a recording's transcript."""
        return entry.beside if self.output_dir is None else self.output_dir / entry.inside


class JobFailed(Exception):
    """A job that failed or was cancelled by somebody else."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(code)


@dataclass
class Run:
    """A run over several recordings."""

    connection: Connection | None
    request: Request
    inputs: list[Input]
    reporter: Reporter
    counts: Counter[str] = field(default_factory=Counter)
    _jobs: dict[Input, str] = field(default_factory=dict)
    _folders: dict[Path, OutputFolder] = field(default_factory=dict)
    _stems: Counter[tuple[Path, str]] = field(default_factory=Counter)
    _fatal: SttError | ClientError | None = None
    _trial: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._stems.update((self.request.folder_of(entry), entry.stem) for entry in self.inputs)

    async def run(self) -> ExitStatus:
        """Transcribe all recordings and return the exit status."""
        interruption = Interruption(
            self.request.on_interrupt,
            pause=self.reporter.pause,
            resume=self.reporter.resume,
            last_words=self._name_jobs,
        )
        work = asyncio.create_task(self._all(), name="transcribe")
        try:
            either: list[asyncio.Future[Any]] = [work, interruption.chosen]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return await self._interrupted(work, interruption.chosen.result())
            work.result()
        finally:
            self._stop_watching()
            interruption.close()
            self.reporter.close({ending: self.counts[ending] for ending in ENDINGS})
        if self._fatal is not None:
            refused = getattr(self._fatal, "code", "") in FATAL_CODES
            return ExitStatus.USAGE if refused else status_of(self._fatal)
        return ExitStatus.FAILED if self.counts["failed"] else ExitStatus.OK

    async def _interrupted(self, work: asyncio.Task[None], choice: str) -> ExitStatus:
        jobs = dict(self._jobs)
        work.cancel()
        await asyncio.wait([work])
        if choice == CANCEL:
            for job_id in jobs.values():
                with contextlib.suppress(ClientError):
                    await self._client.cancel(job_id)
            output.say("{count} jobs cancelled.", count=len(jobs))
        else:
            self._jobs = jobs
            self._name_jobs()
        return ExitStatus.INTERRUPTED

    @property
    def _client(self) -> AsyncClient:
        assert self.connection is not None, "only a run that has nothing to do has no connection"
        return self.connection.client

    def _name_jobs(self) -> None:
        """Print the jobs that continue."""
        for entry, job_id in self._jobs.items():
            output.say("{file}: job {job} continues. `stt jobs cancel {job}` ends it.", file=entry.label, job=job_id)

    async def _all(self) -> None:
        queue = iter(self.inputs)
        workers = [self._worker(queue) for _ in range(min(self.request.at_once, len(self.inputs)))]
        await asyncio.gather(*workers)

    async def _worker(self, queue: Iterator[Input]) -> None:
        for entry in queue:
            if self._fatal is not None:
                return
            try:
                await self._one(entry)
            except (SttError, ClientError, JobFailed) as error:
                if isinstance(error, UnreachableError | NotAllowedError) or (
                    isinstance(error, RefusedError) and error.code in FATAL_CODES
                ):
                    self._fatal = error
                message = output.text_of(error) if isinstance(error, SttError) else error.message
                self._end(entry, "failed", code=error.code, message=message, job_id=self._jobs.get(entry))
            finally:
                self._jobs.pop(entry, None)

    async def _one(self, entry: Input) -> None:
        """Transcribe one recording. Raises SttError, ClientError, JobFailed."""
        folder = self._folder(entry) if self._writes(entry) else None
        with contextlib.ExitStack() as stack:
            try:
                file = await asyncio.to_thread(_open, entry, stack) if entry.url is None else None
                digest = await asyncio.to_thread(digest_of, entry, file, self.request)
            except OSError as error:
                text = "The recording cannot be read: {reason}."
                raise RecordingUnreadableError(text, reason=error.strerror or str(error)) from None
            if folder is not None and not self.request.overwrite and entry.path is not None:
                done = folder.find_done(digest, self.request.formats)
                if done is not None:
                    self._end(entry, "skipped", files=[str(path) for path in done])
                    return
            paths = self._paths(entry, folder)
            submission = await self._submit(entry, file, digest)
        self._jobs[entry] = submission.job_id
        self.reporter.submitted(entry, submission)
        if self._trial is None and not self.request.detach:
            self._trial = asyncio.create_task(engine_trial.follow(self._client, self.reporter), name="engine trial")
        if self.request.detach:
            self._end(entry, "detached", job_id=submission.job_id)
            self._print(submission.job_id)
            return
        await self._follow(entry, submission.job_id)
        await self._finish(entry, submission.job_id, digest, folder, paths)

    def _stop_watching(self) -> None:
        """End the watch for an engine trial: once a chunk is transcribed, the engine is chosen."""
        if self._trial is not None:
            self._trial.cancel()

    def _writes(self, entry: Input) -> bool:
        """Return False for standard input and pipes, whose transcript is only printed unless a folder is given."""
        return self.request.output_dir is not None or not entry.is_stream

    def _folder(self, entry: Input) -> OutputFolder:
        path = self.request.folder_of(entry)
        if path not in self._folders:
            self._folders[path] = OutputFolder.open(path)
        return self._folders[path]

    def _paths(self, entry: Input, folder: OutputFolder | None) -> dict[str, Path]:
        if folder is None:
            return {}
        clash = self._stems[folder.path, entry.stem] > 1
        return folder.choose(entry, self.request.formats, full_name=clash, overwrite=self.request.overwrite)

    async def _submit(self, entry: Input, file: BinaryIO | None, digest: str) -> Submission:
        client = self._client
        if file is None:
            return await client.submit_url(entry.url or "", **self.request.options)
        # the same file, given again after an interruption, finds its job
        key = (
            None if self.request.overwrite else f"stt {hashlib.sha256(f'{digest} {entry.name!r}'.encode()).hexdigest()}"
        )
        submission = await client.submit_file(
            file,
            name=entry.name,
            idempotency_key=key,
            on_progress=lambda sent, size: self.reporter.uploading(entry, sent, size),
            **self.request.options,
        )
        if submission.status in ("FAILED", "CANCELLED"):
            await client.retry(submission.job_id)
        return submission

    async def _follow(self, entry: Input, job_id: str) -> None:
        """Report the events of a job until it is COMPLETED. Raises JobFailed."""
        async with aclosing(self._client.events(job_id)) as events:
            async for event in events:
                if event.kind != "progress" or event.data.get("chunks_completed"):
                    self._stop_watching()
                self.reporter.received(entry, event)
        job = await self._client.job(job_id)
        if not job.completed:
            raise JobFailed(job.error_code or job.status, job.error_message or job.status)

    async def _finish(
        self, entry: Input, job_id: str, digest: str, folder: OutputFolder | None, paths: dict[str, Path]
    ) -> None:
        client = self._client
        contents = {kind: await client.download(job_id, kind) for kind in self.request.formats}
        if folder is not None:
            await asyncio.to_thread(folder.write, entry, digest, contents, paths)
        self._end(entry, "written", job_id=job_id, files=[str(path) for path in paths.values()])
        if len(self.inputs) == 1:
            self._print(next(iter(contents.values())).decode(errors="replace").rstrip("\n"))
        else:
            self._print("\n".join(output.printable(str(path)) for path in paths.values()))
        if not self.request.keep:
            with contextlib.suppress(ClientError):
                await client.delete(job_id)

    def _print(self, text: str) -> None:
        if self.request.prints:
            self.reporter.pause()
            output.result(text)
            self.reporter.resume()

    def _end(self, entry: Input, outcome: str, **details: Any) -> None:
        self.counts[outcome] += 1
        self.reporter.ended(entry, outcome, **details)


def digest_of(entry: Input, file: BinaryIO | None, request: Request) -> str:
    """Return the checksum of content and options; of the URL if the service fetches the recording. Raises OSError."""
    options = json.dumps(request.options, sort_keys=True)
    if file is None:
        content = entry.url or ""
    else:
        content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
    return hashlib.sha256(f"{content} {options}".encode()).hexdigest()


def is_done(entry: Input, request: Request) -> bool:
    """Return True if the transcript is there, so that no service is needed. Raises OutputNotWritableError."""
    if request.overwrite or entry.path is None or entry.is_stream:
        return False
    folder = OutputFolder.open(request.folder_of(entry))
    try:
        with entry.path.open("rb") as file:
            return folder.find_done(digest_of(entry, file, request), request.formats) is not None
    except OSError:
        return False


def _open(entry: Input, stack: contextlib.ExitStack) -> BinaryIO:
    """Open the recording. What can be read once is copied to a temporary file first. Raises OSError."""
    if not entry.is_stream:
        assert entry.path is not None
        return stack.enter_context(entry.path.open("rb"))
    copy: BinaryIO = stack.enter_context(_temporary_file())
    with contextlib.nullcontext(sys.stdin.buffer) if entry.path is None else entry.path.open("rb") as stream:
        while block := stream.read(BLOCK_SIZE):
            free = os.fstatvfs(copy.fileno())
            if free.f_bavail * free.f_frsize < FREE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            copy.write(block)
    copy.seek(0)
    return copy


@contextlib.contextmanager
def _temporary_file() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        yield file
