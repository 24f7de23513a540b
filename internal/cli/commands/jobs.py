"""`stt jobs`: list, show, watch, cancel, retry and remove jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internal.cli import output
from internal.cli.parameters import AsJson, Server, examples

if TYPE_CHECKING:
    from internal.client import AsyncClient, Job

app = typer.Typer(
    help="List, show, watch, cancel, retry and remove jobs.",
    no_args_is_help=True,
    rich_help_panel=output.TRANSCRIBING,
    epilog=examples(
        ("stt jobs list --status failed", "the newest jobs that failed"),
        ("stt jobs watch JOB", "the text as it is finished"),
        ("stt jobs list --status failed --json | jq -r .job_id | xargs stt jobs retry", "all of them again"),
    ),
)
COLUMNS = ("job", "status", "progress", "created", "file", "length", "error")
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job_id.")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB…", help="One or more job_ids.")]


@app.command("list", epilog=examples(("stt jobs list --status failed --limit 10", "the newest that failed")))
def list_jobs(
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="pending, processing, completed, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The newest N jobs.")] = 50,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""

    async def work(client: AsyncClient) -> None:
        jobs: list[Job] = []
        async for job in client.list_jobs(status=status.upper() if status else None):
            if len(jobs) == limit:
                break
            jobs.append(job)
        if as_json:
            for job in jobs:
                output.json_line(_fields(job))
        else:
            output.table(COLUMNS, [_row(job) for job in jobs], "No jobs.")

    _with_client(server, work)


@app.command(epilog=examples(("stt jobs show 4f0a… --json | jq .progress", "one value")))
def show(job_id: JobId, server: Server = None, as_json: AsJson = False) -> None:
    """Print a job with all its options."""

    async def work(client: AsyncClient) -> None:
        fields = _fields(await client.job(job_id))
        if as_json:
            output.json_line(fields)
        else:
            shown = [f"{name}: {output.printable(str(value))}" for name, value in fields.items() if value is not None]
            output.result("\n".join(shown))

    _with_client(server, work)


@app.command(epilog=examples(("stt jobs watch 4f0a… > talk.txt", "the text as it is finished")))
def watch(job_id: JobId, server: Server = None, as_json: AsJson = False) -> None:
    """Print the segments of a job as they are finished, until it has ended. Exit status 1 if it failed."""

    async def work(client: AsyncClient) -> None:
        async for event in client.events(job_id):
            if as_json:
                output.json_line({"event": event.kind, **event.data})
            elif event.kind == "segment":
                output.result(f"{_time(event.data['start'])}  {event.data['text']}")
            elif event.kind == "progress":
                output.note(f"{event.data.get('status')}, {event.data.get('progress')} %")
        job = await client.job(job_id)
        if not job.completed:
            output.note(f"{job.error_code or job.status}: {job.error_message or job.status}")
            raise typer.Exit(1)

    _with_client(server, work)


@app.command(epilog=examples(("stt jobs cancel 4f0a… 81c2…", "two jobs")))
def cancel(job_ids: JobIds, server: Server = None, as_json: AsJson = False) -> None:
    """Cancel jobs. Finished chunks stay readable."""
    _change_all(server, job_ids, as_json, lambda client, job_id: client.cancel(job_id))


@app.command(epilog=examples(("stt jobs retry 4f0a…", "what is finished is kept")))
def retry(job_ids: JobIds, server: Server = None, as_json: AsJson = False) -> None:
    """Run the unfinished chunks of failed or cancelled jobs again."""
    _change_all(server, job_ids, as_json, lambda client, job_id: client.retry(job_id))


@app.command(epilog=examples(("stt jobs rm 4f0a…", "with its recording and transcript")))
def rm(job_ids: JobIds, server: Server = None, as_json: AsJson = False) -> None:
    """Remove jobs with their recordings and transcripts, also while they run."""
    _change_all(server, job_ids, as_json, lambda client, job_id: client.delete(job_id))


def _change_all(
    server: str | None, job_ids: list[str], as_json: bool, change: Callable[[AsyncClient, str], Awaitable[Job | None]]
) -> None:
    """Change each job and print its new status. Exit status 1 if one could not be changed."""

    async def work(client: AsyncClient) -> None:
        from internal.client import ConflictError, NotFoundError

        failed = False
        for job_id in job_ids:
            try:
                job = await change(client, job_id)
            except (ConflictError, NotFoundError) as error:
                failed = True
                output.error(error)
                continue
            status = "REMOVED" if job is None else job.status
            if as_json:
                output.json_line({"job_id": job_id, "status": status})
            else:
                output.result(f"{output.printable(job_id)}\t{status}")
        if failed:
            raise typer.Exit(1)

    _with_client(server, work)


def _with_client(server: str | None, work: Callable[[AsyncClient], Awaitable[None]]) -> None:
    import asyncio

    from internal.cli.service import connect

    async def run() -> None:
        async with connect(server) as connection:
            await work(connection.client)

    asyncio.run(run())


def _fields(job: Job) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(job)


def _row(job: Job) -> tuple[object, ...]:
    length = "" if job.duration_seconds is None else _time(job.duration_seconds)
    created = (job.created_at or "")[:19].replace("T", " ")
    progress = f"{job.progress:.0f} %"
    return (job.job_id, job.status, progress, created, job.original_filename, length, job.error_code)


def _time(seconds: float) -> str:
    minutes, rest = divmod(float(seconds), 60)
    return f"{int(minutes)}:{rest:04.1f}"
