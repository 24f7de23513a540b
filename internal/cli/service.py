"""The service that a command uses: a server, or the embedded service of DATA_DIR, started if none runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from core.errors_command import InvalidServerError, ServiceElsewhereError, ServiceStartError
from internal import data_folder
from internal.cli import output
from internal.client import AsyncClient, RetryPolicy

ROOT = Path(__file__).resolve().parents[2]
KEY = "STT_API_KEY"
LOG = "on-demand.log"
"""Log of a service that was started for a command, in DATA_DIR."""
START_SECONDS = 120.0
POLL_SECONDS = 0.05
RETRIES = RetryPolicy(total=60.0)


@dataclass(frozen=True, slots=True)
class Connection:
    """A client of a running service. embedded: it is that of DATA_DIR; started: for this command."""

    client: AsyncClient
    embedded: bool
    started: bool = False


@contextlib.asynccontextmanager
async def connect(server: str | None) -> AsyncIterator[Connection]:
    """Yield a connection to a service that answers and accepts the key.

    server: its address; None or empty: the embedded service of DATA_DIR. Raises InvalidServerError, ServiceStartError,
    ServiceElsewhereError, ClientError.
    """
    if server:
        async with _client(server) as client:
            await client.check()
            yield Connection(client, embedded=False)
        return
    async with _embedded() as (url, started), _client(url, proxies=False) as client:
        await client.check()
        yield Connection(client, embedded=True, started=started)


def _client(server: str, *, proxies: bool = True) -> AsyncClient:
    def on_retry(error: Exception, pause: float) -> None:
        output.note(f"{getattr(error, 'message', error)} ({pause:.1f} s)")

    try:
        return AsyncClient(
            server,
            api_key=os.environ.get(KEY) or None,
            language=output.language(),
            retries=RETRIES,
            on_retry=on_retry,
            trust_env=proxies,
        )
    except ValueError as error:
        raise InvalidServerError("The address of the server is not valid: {reason}.", reason=str(error)) from None


@contextlib.asynccontextmanager
async def _embedded() -> AsyncIterator[tuple[str, bool]]:
    """Yield the address of the embedded service, and True if it was started for this command."""
    from core.config import load_settings

    folder = Path(load_settings().data_dir)
    try:
        descriptor = await _share(folder)
    except OSError as error:
        raise ServiceStartError("DATA_DIR cannot be used: {reason}.", reason=str(error)) from None
    try:
        address, started = await _find_or_start(folder)
        if not address.on_this_machine:
            raise ServiceElsewhereError
        yield address.url, started
    finally:
        os.close(descriptor)


async def _share(folder: Path) -> int:
    """Become a user of the folder's service, after one that is ending has gone."""
    end = time.monotonic() + START_SECONDS
    while (descriptor := data_folder.share(folder)) is None:
        if time.monotonic() > end:
            raise ServiceStartError("The previous service does not end. Its log is {path}.", path=str(folder / LOG))
        await asyncio.sleep(POLL_SECONDS)
    return descriptor


async def _find_or_start(folder: Path) -> tuple[data_folder.Address, bool]:
    child: subprocess.Popen[bytes] | None = None
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            address = data_folder.find(folder)
        except data_folder.Starting:
            pass
        else:
            if address is not None:
                return address, child is not None and child.pid == address.pid
            if child is None:
                child = start(folder)
            elif child.poll() is not None:
                break
        await asyncio.sleep(POLL_SECONDS)
    raise ServiceStartError(
        "The service did not start. Its log {path} ends with: {reason}", path=str(folder / LOG), reason=_tail(folder)
    )


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a service on the folder that outlives this command if it has to, and ends once it is unused."""
    environment = os.environ | {
        "API_HOST": "127.0.0.1",
        "API_PORT": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    environment.pop(KEY, None)
    descriptor = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "internal.cli", "serve", "--on-demand"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,  # Ctrl-C is for the command
        )
    finally:
        os.close(descriptor)


def _tail(folder: Path) -> str:
    with contextlib.suppress(OSError):
        lines = (folder / LOG).read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-1000:]
    return ""
