"""PostgreSQL from TEST_DATABASE_URL, else this machine's own programs, else a container."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from tests.servers.base import Control, External, Server, Unavailable, free_port, only_containers

IMAGE = "postgres:16-bookworm"


class Postgres(Control, Protocol):
    """A PostgreSQL server; `url` is a superuser's database, `postgresql://…/postgres`."""

    url: str


class ExternalPostgres(External):
    def __init__(self, url: str) -> None:
        self.url = url


class LocalPostgres(Server):
    name = "postgresql"
    stop_signal = signal.SIGINT  # SIGTERM would wait for the last client to disconnect

    def __init__(
        self, programs: Path, folder: Path | None = None, port: int | None = None, *, durable: bool = True
    ) -> None:
        """durable: commits survive a power loss; otherwise only a killed server, which is all that the tests need."""
        super().__init__(folder)
        self.durable = durable
        self.programs = programs
        self.port = port or free_port()
        self.data = self.folder / "data"
        self.url = f"postgresql://stt@127.0.0.1:{self.port}/postgres"
        if not self.data.exists():
            self._initialise()

    def user(self) -> str | None:
        """Return an unprivileged user: PostgreSQL refuses to run as root."""
        return unprivileged_user()

    def _initialise(self) -> None:
        user = self.user()
        if user:
            shutil.chown(self.folder, user)
            self.folder.chmod(0o755)
        call = [str(self.programs / "initdb"), "-D", str(self.data), "-U", "stt", "-A", "trust", "-E", "UTF8"]
        subprocess.run(
            [*call, "--no-locale", "--no-instructions", "--no-sync"],
            check=True,
            capture_output=True,
            user=user,
            cwd="/",
        )

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on" if self.durable else "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), *words]

    def is_ready(self) -> bool:
        run(self.url, "SELECT 1")
        return True


class ContainerPostgres(External):
    def __init__(self) -> None:
        from testcontainers.postgres import PostgresContainer

        self._container: Any = PostgresContainer(IMAGE, username="stt", dbname="postgres", driver=None)
        self._container.start()
        self.url = self._container.get_connection_url()

    def remove(self) -> None:
        self._container.stop()


def unprivileged_user() -> str | None:
    """Return a user for servers that refuse to run as root; None if this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def find(*, durable: bool = False) -> Postgres:
    """Start and return a server from the first of the three sources available. Raise Unavailable."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        return ExternalPostgres(url)
    if not only_containers() and (programs := programs_folder()):
        server = LocalPostgres(programs, durable=durable)
        server.start()
        return server
    return _container()


def by_address(server: Postgres) -> ExternalPostgres:
    """Return the same server, known only by its address."""
    return ExternalPostgres(server.url)


def _container() -> Postgres:
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        raise Unavailable("no PostgreSQL: set TEST_DATABASE_URL, or apt-get install postgresql, or start Docker")
    return ContainerPostgres()


def programs_folder() -> Path | None:
    """Return the folder of initdb, which Debian keeps off the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return versions[0].parent if versions else None


def run(url: str, statement: str) -> None:
    """Execute one statement outside a transaction."""

    async def work() -> None:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(work())


def create_database(url: str) -> str:
    """Create an empty database and return its URL."""
    name = f"t{uuid.uuid4().hex[:16]}"
    run(url, f'CREATE DATABASE "{name}"')
    return url.rsplit("/", 1)[0] + f"/{name}"


def drop_database(url: str, database: str) -> None:
    run(url, f'DROP DATABASE IF EXISTS "{database.rsplit("/", 1)[1]}" WITH (FORCE)')
