"""Environment of Alembic, for PostgreSQL and SQLite, on a connection that the caller opened."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from repositories.models import Base


def run(connection: Connection) -> None:
    """Run the migrations that the Alembic command selects."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        compare_server_default=False,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
