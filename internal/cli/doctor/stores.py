"""Checks of database, broker, storage and keys."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from internal.cli.doctor.findings import Finding, failed, ok, warning

if TYPE_CHECKING:
    from core.config import Settings
    from internal.bootstrap import Application

Value = TypeVar("Value")
PROBE = "doctor"
"""Prefix of the object that is written, read and deleted."""
SAMPLED = 20
"""Recent objects that are looked for."""


def with_application(settings: Settings, work: Callable[[Application], Awaitable[Value]]) -> Value:
    """Run `work` on the adapters, then stop them."""
    from internal import bootstrap

    async def run() -> Value:
        application = bootstrap.build(settings)
        try:
            return await work(application)
        finally:
            await application.stop()

    return asyncio.run(run())


def sqlite_file(settings: Settings) -> Path | None:
    """Return the file of an SQLite database; None for PostgreSQL."""
    scheme, _, path = settings.database_url.partition(":///")
    return Path(path) if scheme.startswith("sqlite") else None


def database(settings: Settings) -> Finding:
    """Check that the database answers and has the newest schema."""
    from core import database_errors
    from core.errors import DatabaseUnavailable
    from migrations import revisions

    file = sqlite_file(settings)
    if file is not None and not file.exists():
        return ok("SQLite, {file}, which the first start makes", file=str(file))

    async def revision(application: Application) -> str | None:
        await application.database.ping()
        return await revisions.current_revision(application.database)

    try:
        current = with_application(settings, revision)
    except DatabaseUnavailable as error:
        return failed(
            "it cannot be used: {reason}", "Check DATABASE_URL and the server.", reason=database_errors.describe(error)
        )
    newest, *_ = known = revisions.known_revisions()
    if current is not None and current not in known:
        return failed(
            "the schema {current} is newer than this program ({newest})",
            "Update the program.",
            current=current,
            newest=newest,
        )
    kind = "PostgreSQL" if file is None else f"SQLite, {file}"
    if current is None:
        return failed("{kind}: it has no tables", "Run `stt migrate`.", kind=kind)
    if current != newest:
        return failed(
            "{kind}: the schema is {current}, not {newest}",
            "Run `stt migrate`.",
            kind=kind,
            current=current,
            newest=newest,
        )
    return ok("{kind}, schema {newest}", kind=kind, newest=newest)


def broker(settings: Settings) -> Finding:
    """Connect to RabbitMQ and declare the topology."""
    from core.config import BrokerKind
    from core.errors import BrokerUnavailable, SettingsError

    if settings.broker is BrokerKind.MEMORY:
        return ok("in memory, inside the service")

    async def queues(application: Application) -> list[str]:
        await application.broker.start()
        await application.broker.ping()
        return [queue.name for queue in await application.broker.stats()]

    try:
        names = with_application(settings, queues)
    except BrokerUnavailable as error:
        return failed("RabbitMQ cannot be used: {reason}", "Check RABBITMQ_URL and the server.", reason=error)
    except SettingsError as error:
        return failed("a setting is wrong: {reason}", "Follow the message.", reason=str(error))
    return ok("RabbitMQ, queues {queues}", queues=", ".join(sorted(map(str, names))))


def storage(settings: Settings) -> Finding:
    """Write an object, read it and delete it; look for the objects that the newest jobs name."""
    from core.config import StorageKind
    from core.error_base import SttError

    key, data = f"{PROBE}/{uuid.uuid4()}", b"written by stt doctor"

    async def probe(application: Application) -> tuple[bytes, list[str], int]:
        named = await _named_objects(application, settings)
        if named:
            await application.storage.ping()  # before `start`, which would make a lost bucket anew
        else:
            await application.storage.start()
        await application.storage.put_bytes(key, data)
        try:
            read = await application.storage.get_bytes(key)
        finally:
            await application.storage.delete(key)
        return read, [name for name in named if await application.storage.stat(name) is None], len(named)

    local = settings.storage is StorageKind.LOCAL
    place = str(settings.data_dir / "objects") if local else f"{settings.minio_endpoint}, {settings.minio_bucket}"
    if local and not settings.data_dir.exists():
        return ok("{place}, which the first start makes", place=place)
    try:
        found, lost, count = with_application(settings, probe)
    except SttError as error:
        return failed(
            "{name} cannot be used: {reason}",
            "Check STORAGE, the MINIO_ settings, and the permissions.",
            name=place,
            reason=error,
        )
    if found != data:
        return failed(
            "{place}: what was read differs from what was written", "Check the disk or the server.", place=place
        )
    if lost:
        return failed(
            "{place}: {count} of {total} objects of the newest jobs are missing, such as {key}",
            "Bring the objects back with `stt restore`, or from a copy of the bucket.",
            place=place,
            count=len(lost),
            total=count,
            key=lost[0],
        )
    return ok("{place}: written, read and deleted", place=place)


async def _named_objects(application: Application, settings: Settings) -> list[str]:
    """Return the keys of objects that the newest jobs need; none if the database cannot be read."""
    from core.errors import DatabaseUnavailable
    from repositories import restoration

    file = sqlite_file(settings)
    if file is not None and not file.exists():
        return []
    try:
        async with application.database.read() as session:
            return await restoration.list_newest_objects(session, SAMPLED)
    except DatabaseUnavailable:
        return []


def keys(settings: Settings) -> Finding:
    """Check that other machines can be served if the service listens for them."""
    from core.errors import DatabaseUnavailable

    open_to_network = not settings.loopback and not settings.allow_anonymous
    file = sqlite_file(settings)
    if file is not None and not file.exists():
        count = 0
    else:

        async def valid(application: Application) -> int:
            rows = await application.services.api_keys.list_all()
            return len([row for row in rows if row.revoked_at is None])

        try:
            count = with_application(settings, valid)
        except DatabaseUnavailable:
            return warning("not known without the database", "See the line of the database.")
    if open_to_network and not count and not settings.api_key:
        return warning("no key: other machines are refused", "Run `stt keys create`, or set API_KEY.")
    if settings.allow_anonymous and not settings.loopback:
        return warning("ALLOW_ANONYMOUS serves everybody who reaches the port", "Run `stt keys create` instead.")
    if not count:
        return ok("no keys: only this machine is served")
    return ok("{count} keys", count=count)
