"""`stt demo`: start the embedded service, transcribe the sample recordings, print their text, and stop."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from core.domain.recordings import is_recording
from core.errors_command import NoSamplesError
from internal.cli.output import in_language
from internal.cli.service import connect
from internal.client import AsyncClient, Job

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "assets" / "samples"
DATA = ROOT / ".run" / "demo"
console = Console(highlight=False)


def run() -> int:
    """Run the demo; return the exit status, 0 if every sample was transcribed. Raises NoSamplesError."""
    if not SAMPLES.is_dir():
        raise NoSamplesError
    os.environ |= {"DATA_DIR": str(DATA), "TEMP_DIR": str(DATA / "tmp"), "LOG_FORMAT": "json"}
    return asyncio.run(_run())


async def _run() -> int:
    async with connect(None) as connection:
        client = connection.client
        console.print(in_language("async-stt is running at {url}; uploading the samples …", url=client.server))
        samples = [path for path in sorted(SAMPLES.iterdir()) if is_recording(path.name)]
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            bars = [progress.add_task(path.name, total=100) for path in samples]
            jobs = await asyncio.gather(
                *(_transcribe(client, path, progress, bar) for path, bar in zip(samples, bars, strict=True))
            )
        for path, job in zip(samples, jobs, strict=True):
            await _show(client, path, job)
        return 0 if all(job.completed for job in jobs) else 1


def _language_of(path: Path) -> str:
    """Return the language of a sample, which is named `{name}.{language}.{extension}`."""
    return path.suffixes[-2].lstrip(".")


async def _transcribe(client: AsyncClient, path: Path, progress: Progress, bar: TaskID) -> Job:
    submission = await client.submit_file(path, language=_language_of(path))
    async with aclosing(client.events(submission.job_id)) as events:
        async for event in events:
            if event.kind != "segment":
                progress.update(bar, completed=float(event.data.get("progress") or 0))
    return await client.job(submission.job_id)


async def _show(client: AsyncClient, path: Path, job: Job) -> None:
    console.print(f"\n[bold]{path.name}[/bold] ({_language_of(path)}): {job.status}")
    if not job.completed:
        console.print(f"  {job.error_code}: {job.error_message}", markup=False)
        return
    result = await client.result(job.job_id)
    console.print(f"  {result['text']}", soft_wrap=True)
    figures = in_language(
        "{audio} s of audio in {seconds} s, model {model}, confidence {confidence}",
        audio=f"{result['duration_seconds']:.1f}",
        seconds=f"{result['processing_time']:.1f}",
        model=result["model"],
        confidence=f"{result['confidence']:.2f}",
    )
    file = in_language("result file: {path}", path=str(DATA / "objects" / result["minio_result_path"]))
    console.print(f"  {figures}\n  {file}", soft_wrap=True)
