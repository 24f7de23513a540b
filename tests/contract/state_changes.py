"""Record of every change of a row's state in a SQLite database, to be compared with the state machine."""

from __future__ import annotations

from sqlalchemy import text

from core.database import Database
from repositories.models import Chunk, Job
from repositories.state_machine import TRANSITIONS, State, Table

Change = tuple[Table, State, State]
TABLES: dict[str, Table] = {"jobs": Job, "chunks": Chunk}
ARROWS: set[Change] = {
    (table, source, target)
    for one in TRANSITIONS
    for table, arrows in one.arrows.items()
    for source, target in arrows.items()
}
MAIN_PATH: set[Change] = {
    (Job, State.ABSENT, State.PENDING),
    (Job, State.PENDING, State.PENDING_HELD),
    (Job, State.PENDING_HELD, State.PROCESSING),
    (Job, State.PROCESSING, State.PROCESSING_HELD),
    (Job, State.PROCESSING_HELD, State.COMPLETED),
    (Chunk, State.ABSENT, State.PENDING),
    (Chunk, State.PENDING, State.PROCESSING_HELD),
    (Chunk, State.PROCESSING_HELD, State.COMPLETED),
}
"""Changes of a job whose every step succeeds at once."""


def _columns(row: str, table: str) -> str:
    deleted = f"{row}.deleted_at IS NOT NULL" if table == "jobs" else "0"
    return f"{row}.status, {row}.holder IS NOT NULL, {deleted}"


async def record(database: Database) -> None:
    """Have the database record from now on which changes of state there are."""
    nothing = "NULL, 0, 0"
    async with database.write() as session:
        await session.execute(
            text(
                "CREATE TABLE IF NOT EXISTS state_changes "
                "(rows TEXT, old TEXT, was_held INT, was_deleted INT, new TEXT, is_held INT, is_deleted INT, "
                "UNIQUE (rows, old, was_held, was_deleted, new, is_held, is_deleted))"
            )
        )
        for table in TABLES:
            old, new = _columns("OLD", table), _columns("NEW", table)
            for event, change in (
                ("INSERT", f"{nothing}, {new}"),
                ("UPDATE", f"{old}, {new}"),
                ("DELETE", f"{old}, {nothing}"),
            ):
                differs = f"WHEN ({old}) IS NOT ({new}) " if event == "UPDATE" else ""
                await session.execute(
                    text(
                        f"CREATE TRIGGER IF NOT EXISTS {table}_{event} AFTER {event} ON {table} {differs}"
                        f"BEGIN INSERT OR IGNORE INTO state_changes VALUES ('{table}', {change}); END"
                    )
                )


async def seen(database: Database) -> set[Change]:
    """Return the changes that were recorded. Raises AssertionError if an ended row was held."""
    async with database.read() as session:
        rows = (await session.execute(text("SELECT * FROM state_changes"))).all()
    return {(TABLES[row[0]], _state(*row[1:4]), _state(*row[4:7])) for row in rows}


def _state(status: str | None, held: int, deleted: int) -> State:
    if status is None:
        return State.ABSENT
    try:
        return State.of(status, held=bool(held), deleted=bool(deleted))
    except KeyError:
        raise AssertionError(f"a row that is {status} is held") from None


async def check(database: Database) -> set[Change]:
    """Check that every change was an arrow of the state machine; return the changes."""
    changes = await seen(database)
    assert changes <= ARROWS, [
        f"{table.__tablename__}: {source.label} -> {target.label}" for table, source, target in changes - ARROWS
    ]
    return changes
