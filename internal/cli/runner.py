"""Runner of the commands that need the adapters and services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from internal.cli import output

if TYPE_CHECKING:
    from internal.bootstrap import Application


def run(command: str, work: Callable[[Application], Awaitable[None]], *, needs_broker: bool = False) -> None:
    """Run `work` on an application, then stop the application. Raises InfrastructureError, SchemaNeededError.

    needs_broker: connect to RabbitMQ first. With an in-memory queue, which no other process can read, raise
    QueueInsideServiceError.
    """
    from core.config import BrokerKind
    from core.database_errors import NO_SCHEMA, OTHER_SCHEMA, describe
    from core.errors import DatabaseUnavailable
    from core.errors_command import QueueInsideServiceError, SchemaNeededError
    from internal import bootstrap
    from internal.process import settings_or_exit

    settings = settings_or_exit(command)
    if needs_broker and settings.broker is BrokerKind.MEMORY:
        raise QueueInsideServiceError

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
    except DatabaseUnavailable as error:
        if describe(error) in (NO_SCHEMA, OTHER_SCHEMA):
            raise SchemaNeededError from None
        output.note(f"DATABASE_URL: {output.in_language(describe(error))}")
        raise
