"""Running one asynchronous command on the adapters and services of the settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.config import Settings
    from internal.bootstrap import Application


def run(command: str, work: Callable[[Application], Awaitable[None]], *, needs_broker: bool = False) -> None:
    """Run `work` on an application and stop it. An outage ends the process with status 1 and a message.

    needs_broker: connect to RabbitMQ first; a queue in memory, which no other process can see, ends it as well.
    """
    from core.errors import InfrastructureError
    from internal import bootstrap
    from internal.process import settings_or_exit

    settings = settings_or_exit(command)
    if needs_broker:
        _require_rabbitmq(settings)

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
        raise SystemExit(f"{error.code}: {error} (`stt migrate` creates the tables)") from None


def _require_rabbitmq(settings: Settings) -> None:
    from core.config import BrokerKind

    if settings.broker is BrokerKind.MEMORY:
        raise SystemExit(
            "With BROKER=memory the queue is inside the service: use POST /api/v1/jobs/{job_id}/retry instead."
        )
