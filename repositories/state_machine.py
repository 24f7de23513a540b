"""States of jobs and chunks, and the machinery of their transitions.

The transitions themselves are in `repositories/transitions.py`; `docs/state_machine.md` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Concatenate, Generic, ParamSpec

from sqlalchemy import ColumnElement, Delete, Executable, Result, Update, and_, delete, false, or_, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.models import Chunk, Job

Table = type[Job] | type[Chunk]
Values = dict[str, Any]
P = ParamSpec("P")


class State(Enum):
    """State of a row: its status, and whether a claim holds it.

    A deleted job keeps its status until its row is removed. A chunk is never PENDING and held.
    """

    ABSENT = ("[*]", None, False)
    PENDING = ("Pending", JobStatus.PENDING, False)
    PENDING_HELD = ("PendingHeld", JobStatus.PENDING, True)
    PROCESSING = ("Processing", JobStatus.PROCESSING, False)
    PROCESSING_HELD = ("ProcessingHeld", JobStatus.PROCESSING, True)
    COMPLETED = ("Completed", JobStatus.COMPLETED, False)
    FAILED = ("Failed", JobStatus.FAILED, False)
    CANCELLED = ("Cancelled", JobStatus.CANCELLED, False)
    DELETED = ("Deleted", None, False)

    def __init__(self, label: str, status: JobStatus | None, held: bool) -> None:
        self.label = label
        self.status = status
        self.held = held

    @classmethod
    def of(cls, status: str, *, held: bool, deleted: bool = False) -> State:
        """Return the state of a row. Raises KeyError if an ended row is held."""
        return cls.DELETED if deleted else _BY_STATUS[status, held]


_BY_STATUS: dict[tuple[str, bool], State] = {
    (state.status, state.held): state for state in State if state.status is not None
}
OPEN_STATES = (State.PENDING, State.PENDING_HELD, State.PROCESSING, State.PROCESSING_HELD)
ENDED_STATES = (State.COMPLETED, State.FAILED, State.CANCELLED)
JOB_STATES = (*OPEN_STATES, *ENDED_STATES, State.DELETED)
CHUNK_STATES = (State.PENDING, State.PROCESSING, State.PROCESSING_HELD, State.COMPLETED, State.FAILED)
Arrows = Mapping[State, State]


def stay(*states: State) -> dict[State, State]:
    """Return arrows from each state to itself."""
    return {state: state for state in states}


def to(target: State, *sources: State) -> dict[State, State]:
    """Return arrows from each source to the target."""
    return dict.fromkeys(sources, target)


@dataclass(frozen=True, slots=True)
class Transition(Generic[P]):
    """A transition of a job or a chunk.

    arrows: by table, the target of every source state. They determine the rows to which a statement applies, and the
    status and the holder that it writes. writes: returns the other columns. touches: `updated_at` is set.
    """

    name: str
    arrows: Mapping[Table, Arrows]
    writes: Callable[Concatenate[Table, P], Values]
    touches: bool = True

    def __call__(self, table: Table, *args: P.args, **kwargs: P.kwargs) -> Update:
        """Return the UPDATE of the rows that are in a source state; the caller adds its own conditions and columns."""
        return update(table).where(self.applies(table)).values(**self.values(table, *args, **kwargs))

    def applies(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row is in a source state."""
        return in_state(table, self.arrows[table])

    def values(self, table: Table, *args: P.args, **kwargs: P.kwargs) -> Values:
        """Return the columns that the transition writes: those of an UPDATE, or of the INSERT of a new row."""
        touched = {"updated_at": after()} if self.touches else {}
        return {**_implied(self.arrows[table]), **self.writes(table, *args, **kwargs), **touched}

    def deletion(self, table: Table) -> Delete:
        """Return the DELETE of the rows that are in a source state."""
        return delete(table).where(self.applies(table))


TRANSITIONS: list[Transition[Any]] = []


def transition(
    *, job: Arrows | None = None, chunk: Arrows | None = None, touches: bool = True
) -> Callable[[Callable[Concatenate[Table, P], Values]], Transition[P]]:
    """Turn a function that returns the columns besides status, holder and `updated_at` into a Transition."""
    arrows = {table: each for table, each in ((Job, job), (Chunk, chunk)) if each is not None}

    def register(writes: Callable[Concatenate[Table, P], Values]) -> Transition[P]:
        new = Transition(writes.__name__.replace("_", " "), arrows, writes, touches)
        TRANSITIONS.append(new)
        return new

    return register


def _implied(arrows: Arrows) -> Values:
    """Return the status and the holder to write, so that every source state becomes its target."""
    changes = {source: target for source, target in arrows.items() if source is not target}
    values: Values = {}
    if any(source.status is not target.status for source, target in changes.items() if target.status is not None):
        (values["status"],) = {target.status for target in arrows.values()}
    if changes and not any(target.held for target in arrows.values()) and State.ABSENT not in arrows:
        values["holder"] = None
    return values


def in_state(table: Table, states: Collection[State]) -> ColumnElement[bool]:
    """Return the condition that a row is in one of these states.

    If the open states among them are all held or all free, so must be the row. Ended states do not restrict the holder.
    """
    if set(states) >= set(JOB_STATES if table is Job else CHUNK_STATES):
        return true()
    statuses = [status for status in JobStatus if any(state.status is status for state in states)]
    held = {state.held for state in states if state.status in OPEN}
    conditions = [table.status.in_(statuses)]
    if len(held) == 1:
        conditions.append(table.holder.is_not(None) if held.pop() else table.holder.is_(None))
    if table is not Job:
        return and_(*conditions)
    visible = and_(*conditions, Job.deleted_at.is_(None)) if statuses else false()
    return or_(visible, Job.deleted_at.is_not(None)) if State.DELETED in states else visible


async def apply(session: AsyncSession, statement: Executable) -> Result[*tuple[Any, ...]]:
    """Execute an UPDATE or DELETE. Objects already loaded in the session keep their old values."""
    return await session.execute(statement, execution_options={"synchronize_session": False})
