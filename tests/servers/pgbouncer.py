"""PgBouncer in transaction mode, in front of a test's database."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers import postgres
from tests.servers.base import Server, Unavailable, free_port

CONNECTIONS = 4
"""Connections to PostgreSQL that all clients share."""


class PgBouncer(Server):
    """A pooler of one database; `url` is the database through it."""

    name = "pgbouncer"

    def __init__(self, database_url: str) -> None:
        """Raises Unavailable if the program is not installed."""
        program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
        if program is None:
            raise Unavailable("no PgBouncer: apt-get install pgbouncer")
        super().__init__()
        self._program = program
        self._target = urlsplit(database_url)
        self.port = free_port()
        self.url = self._target._replace(netloc=f"{self._target.username}@127.0.0.1:{self.port}").geturl()
        self._configure()

    def _configure(self) -> None:
        target = self._target
        password = f" password={target.password}" if target.password else ""
        database = f"host={target.hostname} port={target.port} user={target.username}{password}"
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": str(CONNECTIONS),
        }
        lines = ["[databases]", f"* = {database}", "[pgbouncer]", *(f"{name} = {options[name]}" for name in options)]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        if user := self.user():
            shutil.chown(self.folder, user)
            self.folder.chmod(0o755)

    def user(self) -> str | None:
        """Return an unprivileged user: PgBouncer refuses to run as root."""
        return postgres.unprivileged_user()

    def command(self) -> list[str]:
        return [self._program, str(Path(self.folder) / "pgbouncer.ini")]

    def is_ready(self) -> bool:
        postgres.run(self.url, "SELECT 1")
        return True
