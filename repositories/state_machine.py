"""States of jobs and chunks, and the statements that take a row from one state to another.

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


_BY_STATUS: dict[tuple[str, bool], State] = {(one.status, one.held): one for one in State if one.status is not None}
OPEN_STATES = (State.PENDING, State.PENDING_HELD, State.PROCESSING, State.PROCESSING_HELD)
ENDED_STATES = (State.COMPLETED, State.FAILED, State.CANCELLED)
JOB_STATES = (*OPEN_STATES, *ENDED_STATES, State.DELETED)
CHUNK_STATES = (State.PENDING, State.PROCESSING, State.PROCESSING_HELD, State.COMPLETED, State.FAILED)
Arrows = Mapping[State, State]


def stay(*states: State) -> dict[State, State]:
    """Return arrows that lead from each of these states to itself."""
    return {state: state for state in states}


def to(target: State, *sources: State) -> dict[State, State]:
    """Return arrows that lead from each source to one target."""
    return dict.fromkeys(sources, target)


@dataclass(frozen=True, slots=True)
class Transition(Generic[P]):
    """One kind of change of a job or a chunk.

    arrows: for each table, the target of every state in which the row may be. The status and the holder that a
    statement writes, and the states in which it applies, follow from them. writes: the other columns.
    touches: `updated_at` is set.
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
    """Make a Transition of a function that returns the columns it writes besides status, holder and `updated_at`."""
    arrows = {table: each for table, each in ((Job, job), (Chunk, chunk)) if each is not None}

    def register(writes: Callable[Concatenate[Table, P], Values]) -> Transition[P]:
        registered = Transition(writes.__name__.replace("_", " "), arrows, writes, touches)
        TRANSITIONS.append(registered)
        return registered

    return register


def _implied(arrows: Arrows) -> Values:
    """Return the status and the holder that lead from every source to its target."""
    changes = {source: target for source, target in arrows.items() if source is not target}
    values: Values = {}
    if any(source.status is not target.status for source, target in changes.items() if target.status is not None):
        (values["status"],) = {target.status for target in arrows.values()}
    if changes and not any(target.held for target in arrows.values()) and State.ABSENT not in arrows:
        values["holder"] = None
    return values


def in_state(table: Table, states: Collection[State]) -> ColumnElement[bool]:
    """Return the condition that a row is in one of these states.

    If the open ones among them are all held, or all free, the row has to be so. Ended states alone ask for no holder.
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
    living = and_(*conditions, Job.deleted_at.is_(None)) if statuses else false()
    return or_(living, Job.deleted_at.is_not(None)) if State.DELETED in states else living


async def apply(session: AsyncSession, statement: Executable) -> Result[*tuple[Any, ...]]:
    """Execute an UPDATE or DELETE; objects that the session has loaded keep the values they were read with."""
    return await session.execute(statement, execution_options={"synchronize_session": False})
