"""Which model file a job runs on here: the one it asked for, or the default; a consumer without it leaves the job."""

from __future__ import annotations

import structlog

from core.domain.models import default_model, resolve
from internal.consumer.context import Context

log = structlog.get_logger(__name__)


async def choose(context: Context, asked: str | None, language: str | None) -> str | None:
    """The full name of a model this consumer has, or None: hand the message back for a consumer that has it."""
    have = context.catalogue.names()
    wanted = asked or context.parts.settings.default_model
    found = resolve(wanted, language or "", have) if wanted else default_model(language or "", have)
    if found is None:
        log.warning("no such model here, message handed back", action="model_missing", model=wanted, models=have)
    return found
