"""Runner of the commands that need the adapters and services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internal.bootstrap import Application


def run(command: str, work: Callable[[Application], Awaitable[None]], *, needs_broker: bool = False) -> None:
    """Run `work` on an application, then stop the application. An outage exits with status 1 and a message.

    needs_broker: connect to RabbitMQ first. With an in-memory queue, which no other process can read, exit as well.
    """
    from core.config import BrokerKind
    from core.errors import DatabaseUnavailable, InfrastructureError
    from internal import bootstrap
    from internal.process import settings_or_exit

    settings = settings_or_exit(command)
    if needs_broker and settings.broker is BrokerKind.MEMORY:
        raise SystemExit(
            "With BROKER=memory the queue is inside the service: use POST /api/v1/jobs/{job_id}/retry instead."
        )

    async def main() -> None:
        application = bootstrap.build(settings)
        try:
            if needs_broker:
                await application.broker.start()
            await work(application)
        finally:
            await application.stop()

    try:
        asyncio.run(main())
    except InfrastructureError as error:
        hint = " (`stt migrate` creates the tables)" if isinstance(error, DatabaseUnavailable) else ""
        raise SystemExit(f"{error.code}: {error}{hint}") from None
