"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, Unpack
from urllib.parse import quote

import httpx

from core.texts import ENGLISH, translate
from internal.client.errors import (
    ClientError,
    ConflictError,
    InvalidResponseError,
    NotFoundError,
    RecordingChangedError,
    UnreachableError,
    service_error,
)
from internal.client.event_stream import decode
from internal.client.retries import (
    REPEATED_STATUSES,
    Attempts,
    RetryPolicy,
    is_final,
    retry_after,
    was_not_sent,
)
from internal.client.uploads import FileRecording, Form, Progress, Recording, ShortRecording, StreamRecording
from internal.client.values import Event, Job, Options, Submission

CONNECT_SECONDS = 10.0
RESPONSE_SECONDS = 120.0
"""Seconds without any byte of a response, or of the request, that count as a broken connection."""
STREAM_SECONDS = 45.0
"""The same for an event stream, in which the service sends something every 15 s."""
FIRST_POLL, LONGEST_POLL = 0.5, 5.0
"""Seconds between two polls of `wait`."""


class AsyncClient:
    """A client of one service. Use it as an asynchronous context manager, or call `close`.

    server: address such as https://stt.example.org; api_key: sent in a header, never in an address; language: of
    messages, `en` or `vi`; on_retry: called with the error and the pause in seconds before each retry; options: for
    httpx.AsyncClient, such as `verify` or `proxy`. Raises ValueError for an address that is not http(s) or has a
    password.

    Besides the errors that it names, every method raises NotAllowedError, UnavailableError, LimitError,
    UnreachableError and InvalidResponseError.
    """

    def __init__(
        self,
        server: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        language: str = ENGLISH,
        retries: RetryPolicy | None = None,
        on_retry: Callable[[Exception, float], None] | None = None,
        **options: Any,
    ) -> None:
        try:
            url = httpx.URL(server)
        except httpx.InvalidURL as error:
            raise ValueError(str(error)) from None
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise ValueError("server must be an http:// or https:// address without a user name, query or fragment")
        self.server = str(url).rstrip("/")
        self.language = language
        self._retries, self._on_retry = retries or RetryPolicy(), on_retry
        headers = {"Accept-Language": language}
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()):
                raise ValueError("api_key has characters that a header cannot have")
            headers["X-API-Key"] = api_key
        timeout = httpx.Timeout(RESPONSE_SECONDS, connect=CONNECT_SECONDS, pool=None)
        self._http = httpx.AsyncClient(base_url=self.server, headers=headers, timeout=timeout, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Jobs continue."""
        await self._http.aclose()

    # submits
    async def submit_file(
        self,
        recording: str | Path | BinaryIO,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Submission:
        """Upload a file, or an open seekable binary file, in pieces of 1 MiB. An upload that breaks is repeated.

        name: its extension is that of an accepted format; the file's own name by default; idempotency_key: the same
        key and request return the same job for 24 hours; a random one by default; on_progress: called with the bytes
        sent and the size. Raises OSError, RecordingChangedError; RefusedError.
        """
        if isinstance(recording, str | Path):
            with await asyncio.to_thread(Path(recording).open, "rb") as file:
                return await self._submit(
                    FileRecording(file), name or Path(recording).name, idempotency_key, on_progress, options
                )
        chosen = name or Path(str(getattr(recording, "name", ""))).name or "recording.wav"
        return await self._submit(FileRecording(recording), chosen, idempotency_key, on_progress, options)

    async def submit_stream(
        self,
        pieces: Iterable[bytes] | AsyncIterable[bytes],
        name: str,
        *,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Submission:
        """Upload pieces of unknown number as they come. They cannot be read twice, so a broken upload is not repeated.

        The parameters are those of `submit_file`. Raises RefusedError.
        """
        return await self._submit(StreamRecording(pieces), name, idempotency_key, on_progress, options)

    async def submit_url(self, url: str, *, request_id: str | None = None, **options: Unpack[Options]) -> Submission:
        """Submit a recording that the service fetches. The same request_id is the same job. Raises RefusedError."""
        body = {name: value for name, value in options.items() if value is not None}
        body |= {"request_id": request_id or f"client-{uuid.uuid4()}", "media_url": url}
        return Submission.of(await self._json("POST", "/api/v1/transcribe", json=body))

    async def _submit(
        self, recording: Recording, name: str, key: str | None, on_progress: Progress | None, options: Options
    ) -> Submission:
        fields = {option: _text(value) for option, value in options.items() if value is not None}
        key = key or str(uuid.uuid4())

        def build() -> httpx.Request:
            form = Form(fields, name, recording, on_progress)
            headers = {**form.headers, "Idempotency-Key": key}
            return self._http.build_request("POST", "/api/v1/upload", content=form.pieces(), headers=headers)

        try:
            response = await self._send(build, repeatable=lambda: recording.repeatable)
        except ShortRecording:
            text = "The file became shorter while it was being sent. Send it again once it is complete."
            raise RecordingChangedError(translate(text, self.language)) from None
        return Submission.of(self._object(response))

    # jobs
    async def job(self, job_id: str) -> Job:
        """Read a job. Raises NotFoundError."""
        return Job.of(await self._json("GET", f"/api/v1/jobs/{_segment(job_id)}"))

    async def list_jobs(self, *, status: str | None = None, language: str | None = None) -> AsyncGenerator[Job]:
        """Yield all jobs, newest first, in pages of 200. Raises RefusedError."""
        filters = {name: value for name, value in (("status", status), ("language", language)) if value}
        cursor: str | None = ""
        while cursor is not None:
            parameters = {**filters, "limit": 200, **({"cursor": cursor} if cursor else {})}
            page = await self._json("GET", "/api/v1/jobs", params=parameters)
            for body in page["jobs"]:
                yield Job.of(body)
            cursor = page.get("next_cursor")

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Poll until the job has ended, and return it. timeout: seconds; raises TimeoutError, NotFoundError."""
        async with asyncio.timeout(timeout):
            pause = FIRST_POLL
            while not (job := await self.job(job_id)).ended:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_POLL)
            return job

    async def events(self, job_id: str, *, last_event_id: str | None = None) -> AsyncGenerator[Event]:
        """Yield the events of a job until it has ended. A broken stream is resumed; no segment is repeated.

        last_event_id: continue after this event of an earlier stream. Raises NotFoundError.
        """
        path, attempts, seen = f"/api/v1/jobs/{_segment(job_id)}/events", self._attempts(), set[object]()
        timeout = httpx.Timeout(STREAM_SECONDS, connect=CONNECT_SECONDS)
        while True:
            headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
            try:
                async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    await self._check_stream(response)
                    async for event in decode(response.aiter_bytes() if response.is_success else _nothing()):
                        attempts.succeeded()
                        last_event_id = event.event_id or last_event_id
                        if event.kind != "segment" or event.data.get("id") not in seen:
                            seen |= {event.data.get("id")} if event.kind == "segment" else set()
                            yield event
                        if event.last:
                            return
                error = self._error(response) or self._unreachable()
                await asyncio.sleep(attempts.pause_after(error, retry_after(response)))
            except httpx.TransportError as broken:
                await self._pause(attempts, broken)

    async def _check_stream(self, response: httpx.Response) -> None:
        """Raise the error of a response to a stream, unless it is temporary."""
        if not response.is_success:
            await response.aread()
            error = self._error(response)
            if error is not None and response.status_code not in REPEATED_STATUSES:
                raise error

    async def download(self, job_id: str, output_format: str = "txt") -> bytes:
        """Return the transcript as a file: txt, srt, vtt, tsv or json. Raises NotFoundError, RefusedError."""
        parameters = {"format": output_format}
        response = await self._call("GET", f"/api/v1/download/{_segment(job_id)}", params=parameters)
        return response.content

    async def result(self, job_id: str, *, partial: bool = False) -> dict[str, Any]:
        """Return text, segments and figures of a job. partial: also of one that has not ended.

        Raises NotFoundError, RefusedError.
        """
        parameters = {"partial": "true"} if partial else {}
        return await self._json("GET", f"/api/v1/result/{_segment(job_id)}", params=parameters)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises ConflictError if it has ended, NotFoundError."""
        return await self._change(job_id, "cancel", ("CANCELLED",))

    async def retry(self, job_id: str) -> Job:
        """Run the unfinished chunks of a FAILED or CANCELLED job again. Raises ConflictError, NotFoundError."""
        return await self._change(job_id, "retry", ("PENDING", "PROCESSING"))

    async def _change(self, job_id: str, change: str, changed: tuple[str, ...]) -> Job:
        """Change a job. A conflict after a response that was lost may be the effect of the first request."""
        lost: list[Exception] = []
        try:
            response = await self._call("POST", f"/api/v1/jobs/{_segment(job_id)}/{change}", failures=lost)
        except ConflictError:
            job = await self.job(job_id)
            if lost and job.status in changed:
                return job
            raise
        return Job.of(self._object(response))

    async def delete(self, job_id: str) -> None:
        """Delete a job with its recording and transcript, also while it runs. Raises NotFoundError."""
        await self._call("DELETE", f"/api/v1/jobs/{_segment(job_id)}")

    async def health(self) -> dict[str, Any]:
        """Return the health of the service, also of one that is not healthy."""
        response = await self._http_get_once("/health")
        return self._object(response)

    async def about(self) -> dict[str, Any]:
        """Return name and version of the service, in one attempt."""
        response = await self._http_get_once("/")
        return self._object(response)

    async def check(self) -> None:
        """Raise an error, in one attempt, unless the service answers and accepts the key."""
        for path in ("/", "/api/v1/jobs?limit=1"):
            response = await self._http_get_once(path)
            error = self._error(response)
            if error is not None:
                raise error
            self._object(response)

    # requests
    async def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return self._object(await self._call(method, path, **arguments))

    async def _call(
        self, method: str, path: str, *, failures: list[Exception] | None = None, **arguments: Any
    ) -> httpx.Response:
        return await self._send(lambda: self._http.build_request(method, path, **arguments), failures=failures)

    async def _http_get_once(self, path: str) -> httpx.Response:
        try:
            return await self._http.get(path)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def _send(
        self,
        build: Callable[[], httpx.Request],
        *,
        repeatable: Callable[[], bool] = lambda: True,
        failures: list[Exception] | None = None,
    ) -> httpx.Response:
        """Send a request until it has a response other than a temporary refusal. failures: connections that broke."""
        attempts = self._attempts()
        while True:
            try:
                response = await self._http.send(build())
                error = self._error(response)
                if error is None:
                    return response
                if response.status_code not in REPEATED_STATUSES or not repeatable():
                    raise error
                await asyncio.sleep(attempts.pause_after(error, retry_after(response)))
            except httpx.TransportError as broken:
                if not was_not_sent(broken):
                    if failures is not None:
                        failures.append(broken)
                    if not repeatable():
                        raise self._unreachable(broken) from broken
                await self._pause(attempts, broken)

    async def _pause(self, attempts: Attempts, error: httpx.TransportError) -> None:
        unreachable = self._unreachable(error)
        if is_final(error):
            raise unreachable from error
        await asyncio.sleep(attempts.pause_after(unreachable))

    def _attempts(self) -> Attempts:
        return Attempts(self._retries, self._on_retry)

    def _error(self, response: httpx.Response) -> ClientError | None:
        if response.is_success:
            return None
        return service_error(response.status_code, _json_of(response), retry_after(response), self.language)

    def _object(self, response: httpx.Response) -> dict[str, Any]:
        body = _json_of(response)
        if not isinstance(body, dict):
            text = "The response (status {status}) is not that of an async-stt service. Check the address."
            raise InvalidResponseError(translate(text, self.language, status=response.status_code))
        return body

    def _unreachable(self, error: Exception | None = None) -> UnreachableError:
        reason = str(error or "") or (type(error).__name__ if error else "the stream ended early")
        text = "The service at {server} cannot be reached: {reason}."
        return UnreachableError(translate(text, self.language, server=self.server, reason=reason))


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _text(value: Any) -> str:
    """Return the value of a form field."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)


def _segment(job_id: str) -> str:
    """Return an id as one segment of a path, whatever characters it has. Raises NotFoundError if it cannot be one."""
    if not job_id.strip("."):
        raise NotFoundError(f"Job not found: {job_id}", code="JOB_NOT_FOUND", status=404, body={})
    return quote(job_id, safe="")


async def _nothing() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""
