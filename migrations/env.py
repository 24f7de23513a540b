"""Environment of Alembic, for PostgreSQL and SQLite, on a connection that the caller opened."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, event, text

from migrations.run import LOCK_TIMEOUT_SECONDS
from repositories.models import Base


def run(connection: Connection) -> None:
    """Run the migrations that the Alembic command selects."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        compare_server_default=False,
        transaction_per_migration=connection.dialect.name == "postgresql",
    )
    if connection.dialect.name == "postgresql":
        event.listen(connection, "begin", _limit_waits)
    with context.begin_transaction():
        context.run_migrations()


def _limit_waits(connection: Connection) -> None:
    # local to the transaction, since PgBouncer gives the next one another session
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))


run(context.config.attributes["connection"])
