"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, Unpack

from core.texts import ENGLISH
from internal.client.async_client import AsyncClient
from internal.client.retries import RetryPolicy
from internal.client.uploads import Progress
from internal.client.values import Event, Job, Options, Submission

Value = TypeVar("Value")


class Client:
    """AsyncClient without `async`, with the same methods, parameters and errors. One thread at a time may use it."""

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
        self._client = AsyncClient(
            server, api_key=api_key, language=language, retries=retries, on_retry=on_retry, **options
        )
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Jobs continue."""
        self._runner.run(self._client.close())
        self._runner.close()

    def submit_file(
        self,
        recording: str | Path | BinaryIO,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Submission:
        return self._runner.run(
            self._client.submit_file(
                recording, name=name, idempotency_key=idempotency_key, on_progress=on_progress, **options
            )
        )

    def submit_stream(
        self,
        pieces: Iterable[bytes],
        name: str,
        *,
        idempotency_key: str | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Submission:
        return self._runner.run(
            self._client.submit_stream(
                pieces, name, idempotency_key=idempotency_key, on_progress=on_progress, **options
            )
        )

    def submit_url(self, url: str, *, request_id: str | None = None, **options: Unpack[Options]) -> Submission:
        return self._runner.run(self._client.submit_url(url, request_id=request_id, **options))

    def job(self, job_id: str) -> Job:
        return self._runner.run(self._client.job(job_id))

    def list_jobs(self, *, status: str | None = None, language: str | None = None) -> Iterator[Job]:
        return self._iterate(self._client.list_jobs(status=status, language=language))

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        return self._runner.run(self._client.wait(job_id, timeout=timeout))

    def events(self, job_id: str, *, last_event_id: str | None = None) -> Iterator[Event]:
        return self._iterate(self._client.events(job_id, last_event_id=last_event_id))

    def download(self, job_id: str, output_format: str = "txt") -> bytes:
        return self._runner.run(self._client.download(job_id, output_format))

    def result(self, job_id: str, *, partial: bool = False) -> dict[str, Any]:
        return self._runner.run(self._client.result(job_id, partial=partial))

    def cancel(self, job_id: str) -> Job:
        return self._runner.run(self._client.cancel(job_id))

    def retry(self, job_id: str) -> Job:
        return self._runner.run(self._client.retry(job_id))

    def delete(self, job_id: str) -> None:
        self._runner.run(self._client.delete(job_id))

    def health(self) -> dict[str, Any]:
        return self._runner.run(self._client.health())

    def about(self) -> dict[str, Any]:
        return self._runner.run(self._client.about())

    def _iterate(self, values: AsyncGenerator[Value]) -> Iterator[Value]:
        """Yield the values of an asynchronous generator, which is closed as well if the reader stops early."""

        async def close() -> None:
            async with aclosing(values):
                pass

        try:
            while True:
                try:
                    yield self._runner.run(_next(values))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(close())


async def _next(values: AsyncGenerator[Value]) -> Value:
    return await anext(values)
