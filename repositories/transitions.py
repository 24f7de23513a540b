"""Transitions of jobs and chunks: every statement that writes `status`, `holder`, `due_at` or `deleted_at`.

Each function returns the columns that its transition writes; the status and the holder follow from the arrows.
At `due_at` the scheduler publishes a free row, and ends the claim on a held one.
`docs/state_machine.md` draws the transitions and lists the condition and the caller of each.
"""

from __future__ import annotations

from sqlalchemy import Float, case, cast, func, literal, null

from core.database import after
from core.errors import SttError
from repositories.models import Chunk, Job
from repositories.state_machine import (
    CHUNK_STATES,
    ENDED_STATES,
    OPEN_STATES,
    State,
    Table,
    Values,
    stay,
    to,
    transition,
)

PENDING, PENDING_HELD = State.PENDING, State.PENDING_HELD
PROCESSING, PROCESSING_HELD = State.PROCESSING, State.PROCESSING_HELD
FREE = (PENDING, PROCESSING)
GIVEN_BACK = {PENDING_HELD: PENDING, PROCESSING_HELD: PROCESSING}

RELEASE_DELAY = 10.0
"""Seconds that a released row waits for a confirmed publish before the scheduler publishes it."""
RETRY_MARGIN = 60.0
"""Seconds after a retry's delay before the scheduler publishes it again."""
RESERVE = 30.0
"""Seconds that a reserved row waits for a confirmed publish before it is reserved again."""
FIRST_WAIT, LONGEST_WAIT = 300.0, 21_600.0
"""Seconds for which a published row may stay unclaimed: 5 min, doubled at each confirmed publish, up to 6 h."""
PUT_OFF = 300.0
"""Seconds after which a job that was put off is tried again unless it is admitted earlier."""


def _due(seconds: float) -> Values:
    """Make the row due after `seconds`, as one that was not published yet."""
    return {"due_at": after(seconds), "publishes": 0}


def _first_attempt() -> Values:
    return {"failures": 0, "lost": 0, "publishes": 0}


def _error(table: Table, error: SttError) -> Values:
    """Return the columns of the error. The English text is for logs, dead letters and webhooks.

    API responses render the message from code and details in the client's language.
    """
    values: Values = {"error_code": error.code, "error_message": error.message()}
    return {**values, "error_details": error.details or null()} if table is Job else values


def _no_error(table: Table) -> Values:
    values: Values = {"error_code": None, "error_message": None}
    return {**values, "error_details": null()} if table is Job else values


def _visible() -> Values:
    """Number a change that is visible in the job's event stream."""
    return {"event_seq": Job.event_seq + 1}


def _ended(ttl: float) -> Values:
    """End a job; it expires `ttl` seconds later (0: never)."""
    expires_at = after(ttl) if ttl else None
    return {**_visible(), "completed_at": after(), "progressed_at": after(), "expires_at": expires_at}


@transition(job=to(PENDING, State.ABSENT), chunk=to(PENDING, State.ABSENT))
def created(table: Table) -> Values:
    """A submit inserts the job, due for its first publish; Prepare inserts the chunks, which wait to be released."""
    if table is Chunk:
        return {}
    return {"due_at": after(RELEASE_DELAY), "created_at": after(), "queued_at": after(), "progressed_at": after()}


@transition(
    job={PENDING: PENDING_HELD, PROCESSING: PROCESSING_HELD} | stay(PENDING_HELD, PROCESSING_HELD),
    chunk=to(PROCESSING_HELD, PENDING, PROCESSING, PROCESSING_HELD),
)
def claimed(table: Table, worker: str, holder: str, lease: float) -> Values:
    """A consumer claims the row for one run. A claim may be repeated by its own holder, but not by another."""
    values: Values = {
        "holder": holder,
        "worker_id": worker,
        "claim": table.claim + 1,
        "claimed_at": after(),
        "due_at": after(lease),
    }
    if table is Chunk:
        return {**values, "attempts": Chunk.attempts + 1}
    return {**values, "put_off_at": None, "started_at": func.coalesce(Job.started_at, after())}


@transition(
    job={PENDING: PENDING_HELD, PROCESSING: PROCESSING_HELD} | stay(PENDING_HELD, PROCESSING_HELD),
    chunk=to(PROCESSING_HELD, PENDING, PROCESSING, PROCESSING_HELD),
    touches=False,
)
def renewed(table: Table, holder: str, lost: int, lease: float) -> Values:
    """The holder extends its lease. A lapsed claim is restored, and its lost run no longer counted."""
    return {"holder": holder, "lost": lost, "due_at": after(lease)}


@transition(job=GIVEN_BACK, chunk=to(PENDING, PROCESSING_HELD))
def retried(table: Table, error: SttError, delay: float) -> Values:
    """A run failed and is repeated after `delay` seconds; the failure is counted."""
    return {
        **_error(table, error),
        **_due(delay + RETRY_MARGIN),
        "failures": table.failures + 1,
        "first_failed_at": func.coalesce(table.first_failed_at, after()),
    }


@transition(job=GIVEN_BACK, chunk=to(PENDING, PROCESSING_HELD))
def handed_back(table: Table, delay: float) -> Values:
    """A consumer hands the row back without counting an attempt; it is published after `delay` seconds."""
    return {**_due(delay), "attempts": Chunk.attempts - 1} if table is Chunk else _due(delay)


@transition(job=GIVEN_BACK, chunk=to(PENDING, PROCESSING_HELD))
def lapsed(table: Table) -> Values:
    """The scheduler ends a lease that was not renewed: the row has lost a run and is due at once."""
    return {**_due(0.0), "lost": table.lost + 1}


@transition(job=stay(PENDING_HELD, PROCESSING_HELD), chunk=to(State.FAILED, PROCESSING_HELD))
def exhausted(table: Table, error: SttError) -> Values:
    """The run that fails the job records its error on its own row, in the same transaction."""
    values = {**_error(table, error), "first_failed_at": func.coalesce(table.first_failed_at, after())}
    return {**values, "failures": Chunk.failures + 1, "due_at": None} if table is Chunk else values


@transition(job=stay(*FREE, State.FAILED), chunk=to(PENDING, *FREE))
def reserved(table: Table) -> Values:
    """A scheduler reserves a due row to publish it: the dead letter of a FAILED job, the wake-up of any other row."""
    return {"due_at": after(RESERVE)}


@transition(job=stay(*FREE), chunk=stay(*FREE))
def published(table: Table) -> Values:
    """The broker confirmed the row's wake-up; each confirmed publish doubles the wait for the next."""
    doubled = FIRST_WAIT * cast(literal(1).bitwise_lshift(table.publishes), Float)
    wait = case((table.publishes > 6, LONGEST_WAIT), else_=doubled)
    return {"due_at": after(wait), "publishes": table.publishes + 1}


@transition(job=stay(*FREE), chunk=stay(*FREE))
def postponed(table: Table, delay: float) -> Values:
    """The broker refused the row's wake-up; it is published again in `delay` seconds."""
    return {"due_at": after(delay)}


@transition(job=stay(*FREE), chunk=stay(*FREE))
def made_due(table: Table) -> Values:
    """The row's wake-up is lost (a purged queue, a restart of the embedded mode): it is published again at once."""
    return {"due_at": after()}


@transition(
    job=stay(*ENDED_STATES, State.DELETED),
    chunk=stay(*CHUNK_STATES) | to(PROCESSING, PROCESSING_HELD),
    touches=False,
)
def repaired(table: Table) -> Values:
    """The scheduler stops publishing a row of an ended job. Only older versions leave such rows."""
    return {"due_at": None, "holder": None}


@transition(job=to(PENDING, PENDING, PENDING_HELD))
def fetched(table: Table) -> Values:
    """The recording of a job by URL is in storage; its Prepare is due."""
    return {**_first_attempt(), "due_at": after(RELEASE_DELAY), "progressed_at": after()}


@transition(job=stay(PENDING))
def put_off(table: Table) -> Values:
    """The owner has reached a limit: the job waits until it is admitted."""
    return {"put_off_at": func.coalesce(Job.put_off_at, after()), "due_at": after(PUT_OFF)}


@transition(job=stay(PENDING))
def admitted(table: Table) -> Values:
    """The owner has room again for a job that was put off."""
    return {"put_off_at": None, "due_at": after(RELEASE_DELAY)}


@transition(job=to(PROCESSING_HELD, PENDING_HELD, PROCESSING_HELD))
def extended(table: Table) -> Values:
    """Prepare stored an instalment of the plan, whose chunks may run while it decodes the rest of the recording.

    The plan is open until `planned`: `chunks_total` is NULL, so no commit is the last one and Finalise cannot be
    claimed. Only the holder extends or closes an open plan, so every stretch of the recording is planned once. A run
    that ends in between leaves its instalments; the next one continues after their last chunk. Failures and lost runs
    stay counted, so a recording that always fails in its middle fails its job. The caller adds the plan's columns.
    """
    return {**_visible(), "model_missing_since": None, "boosted_at": None, "progressed_at": after()}


@transition(job=to(PROCESSING, PENDING, PENDING_HELD, PROCESSING_HELD))
def planned(table: Table, *, finalise: bool) -> Values:
    """Prepare stored the plan, or the rest of it. If no chunk is left to run, the job's Finalise is due.

    The caller adds the plan's columns.
    """
    return {
        **_first_attempt(),
        **_no_error(Job),
        **_visible(),
        "due_at": after(RELEASE_DELAY) if finalise else None,
        "model_missing_since": None,
        "boosted_at": None,
        "progressed_at": after(),
    }


@transition(job=stay(PROCESSING, PROCESSING_HELD, State.FAILED, State.CANCELLED, State.DELETED))
def counted(table: Table, language: str) -> Values:
    """A chunk was committed, possibly after the job's end. The first one committed sets the detected language."""
    return {
        **_visible(),
        "chunks_completed": Job.chunks_completed + 1,
        "detected_language": func.coalesce(Job.detected_language, language),
        "progressed_at": after(),
    }


@transition(job=stay(PROCESSING))
def finalise_released(table: Table) -> Values:
    """The last chunk was committed: the job's Finalise is due."""
    return _due(RELEASE_DELAY)


@transition(job=to(State.COMPLETED, PROCESSING, PROCESSING_HELD))
def completed(table: Table, ttl: float) -> Values:
    """Finalise stored the result; the caller adds its columns."""
    return {**_ended(ttl), **_no_error(Job), "due_at": None}


@transition(job=to(State.FAILED, *OPEN_STATES))
def failed(table: Table, error: SttError, replay_token: str, ttl: float) -> Values:
    """The job ends without a result; it stays due until the publish of its dead letter is confirmed."""
    return {**_ended(ttl), **_error(Job, error), **_due(RELEASE_DELAY), "replay_token": replay_token}


@transition(job=to(State.CANCELLED, *OPEN_STATES))
def cancelled(table: Table, ttl: float) -> Values:
    """The owner ended the job."""
    return {**_ended(ttl), "cancel_requested_at": after(), "due_at": None}


@transition(job=stay(State.FAILED))
def dead_letter_made_due(table: Table) -> Values:
    """A restart of the embedded mode lost the dead letters in memory: they are published again."""
    return {"due_at": after()}


@transition(job=stay(State.FAILED))
def dead_letter_published(table: Table) -> Values:
    """The broker confirmed the dead letter."""
    return {"due_at": None}


@transition(
    job=to(PENDING, State.FAILED, State.CANCELLED),
    chunk=to(PENDING, PENDING, PROCESSING, PROCESSING_HELD, State.FAILED),
)
def reopened(table: Table) -> Values:
    """A retry or a replay reopens the job: without a plan it is due, and unfinished chunks wait to be released."""
    if table is Chunk:
        return {**_first_attempt(), **_no_error(Chunk), "first_failed_at": None, "due_at": None}
    return _reopened(due=True)


@transition(job=to(PROCESSING, State.FAILED, State.CANCELLED))
def resumed(table: Table, *, finalise: bool) -> Values:
    """A retry or a replay reopens a job with a plan, for its unfinished chunks, or for Finalise if there are none."""
    return _reopened(due=finalise)


def _reopened(*, due: bool) -> Values:
    return {
        **_first_attempt(),
        **_no_error(Job),
        **_visible(),
        "first_failed_at": None,
        "replay_token": None,
        "model_missing_since": None,
        "cancel_requested_at": None,
        "completed_at": None,
        "expires_at": None,
        "boosted_at": None,
        "progressed_at": after(),
        "due_at": after(RELEASE_DELAY) if due else None,
    }


@transition(job=to(State.DELETED, *OPEN_STATES, *ENDED_STATES))
def deleted(table: Table) -> Values:
    """The owner deleted the job; it is hidden at once, its row removed a day later."""
    return _hidden()


@transition(job=to(State.DELETED, *ENDED_STATES))
def expired(table: Table) -> Values:
    """The scheduler hides a job whose `expires_at` has passed."""
    return _hidden()


def _hidden() -> Values:
    return {**_visible(), "deleted_at": after(), "due_at": None, "replay_token": None, "request_id": None}


@transition(job=to(State.COMPLETED, State.DELETED))
def restored_completed(table: Table) -> Values:
    """The owner undid the deletion of a completed job."""
    return _shown_again()


@transition(job=to(State.FAILED, State.DELETED))
def restored_failed(table: Table) -> Values:
    """The owner undid the deletion of a failed job. Its dead letter stays stale; a retry reopens it."""
    return _shown_again()


@transition(job=to(State.CANCELLED, State.DELETED))
def restored_cancelled(table: Table) -> Values:
    """The owner undid the deletion of a cancelled job."""
    return _shown_again()


def _shown_again() -> Values:
    return {**_visible(), "deleted_at": None}


@transition(job=to(State.ABSENT, State.DELETED), chunk=to(State.ABSENT, *CHUNK_STATES))
def removed(table: Table) -> Values:
    """The scheduler removes the rows of a deleted job; a retry removes the chunks of a plan that cannot be used."""
    return {}


@transition(chunk=stay(PENDING))
def released(table: Table) -> Values:
    """One of the plan's next chunks is due: at the plan, at each commit, or when the job is reopened."""
    return _due(RELEASE_DELAY)


@transition(chunk=to(State.COMPLETED, PENDING, PROCESSING, PROCESSING_HELD, State.FAILED))
def committed(table: Table, worker: str, event_seq: int) -> Values:
    """The first finished run of a chunk wins, whatever its claim. The caller adds the outcome's columns."""
    return {
        **_no_error(Chunk),
        "worker_id": worker,
        "event_seq": event_seq,
        "due_at": None,
        "processed_at": after(),
    }


@transition(chunk=to(PENDING, PENDING, PROCESSING, PROCESSING_HELD))
def parked(table: Table) -> Values:
    """The job ended: its chunks are neither published nor started, but running ones may still commit."""
    return {"due_at": None}
