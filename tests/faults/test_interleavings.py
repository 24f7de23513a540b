"""Random interleavings of events on the embedded stores; the invariants hold after each step.

The state machine steps two consumers, so that a crash, a duplicate, a user or the clock can come between a claim, its
work and its commit. Everything else is production code: settlement, scheduler, replays, API operations.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest.mock import AsyncMock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import event, select, update
from structlog.testing import capture_logs

from core import errors
from core.database import after
from core.domain import keys
from core.domain.job import OPEN, TERMINAL, JobStatus
from core.messaging.port import WORK_QUEUES, Delivery, Message, MessageType, QueueName, Retry, decode
from internal import bootstrap
from internal.consumer.runtime import Consumer
from internal.services import publishing
from internal.services.jobs import Jobs
from migrations.run import upgrade
from repositories import claims, commits, jobs, leases, schedule
from repositories.models import Chunk, Job, Metric, UploadIntent
from tests.contract import invariants, rows, state_changes
from tests.integration.test_consumer import settings_for

T = TypeVar("T")
WALKED: set[state_changes.Change] = set()
"""Arrows of the state machine that rows have taken in any example."""
LEASE = 60.0
LOSERS = {JobStatus.FAILED, JobStatus.CANCELLED}


def facts(job: Job) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return the client-visible state of a job, and the parts of an ended job that may not change."""
    end = (job.status, job.completed_at, job.error_code, job.replay_token, job.minio_result_path)
    return (job.status, job.deleted_at is None, job.chunks_total, job.chunks_completed), end


def check_step(old: Job, new: Job, reopened: bool) -> None:
    """Check that there is at most one visible change, numbered without a gap, and that ended jobs stay unchanged unless
    they are reopened or deleted.
    """
    (before, was), (now, ends) = facts(old), facts(new)
    assert new.event_seq == old.event_seq + (before != now), f"{old.event_seq} {before} -> {new.event_seq} {now}"
    assert old.deleted_at is None or new.deleted_at
    if old.status in TERMINAL and new.deleted_at is None and was != ends:
        assert reopened and old.status in LOSERS and new.status in OPEN, f"{was} -> {ends}"


@dataclass(slots=True)
class Watch:
    """A comparison of each state with the previous one. `reopened`: jobs reopened in between.

    walked: arrows of the state machine that rows have taken.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    chunks: dict[tuple[str, int], Any] = field(default_factory=dict)
    reopened: set[str] = field(default_factory=set)
    walked: set[state_changes.Change] = field(default_factory=set)

    async def look(self, app: bootstrap.Application) -> None:
        await invariants.check(app.database)
        self.walked |= await state_changes.check(app.database)
        async with app.database.read() as session:
            now = {job.job_id: job for job in (await session.execute(select(Job))).scalars()}
            assert not [job_id for job_id in now if now[job_id].deleted_at and await jobs.get(session, job_id)]
        assert all(old.deleted_at for job_id, old in self.jobs.items() if job_id not in now)
        for job_id in now.keys() & self.jobs.keys():
            check_step(self.jobs[job_id], now[job_id], job_id in self.reopened)
        self.jobs, self.reopened = now, set()
        await self._check_chunks(app)
        for job in (job for job in now.values() if job.deleted_at is None):
            await self._check_objects(app, job)

    async def _check_chunks(self, app: bootstrap.Application) -> None:
        """Check that committed chunks are unchanged and that each chunk and each COMPLETED job was measured once."""
        columns = (Chunk.job_id, Chunk.chunk_index, Chunk.event_seq, Chunk.transcription)
        async with app.database.read() as session:
            done = (await session.execute(select(*columns).where(Chunk.status == JobStatus.COMPLETED))).all()
            metrics = (await session.execute(select(Metric.job_id, Metric.metric_name, Metric.metric_value))).all()
        now = {(row[0], row[1]): (row[2], row[3]) for row in done}
        assert all(now.get(key) == chunk for key, chunk in self.chunks.items() if key[0] in self.jobs)
        assert all(seq <= self.jobs[job_id].event_seq for (job_id, _), (seq, _) in now.items())
        assert sorted((job_id, value) for job_id, name, value in metrics if name == "chunk_seconds") == sorted(now)
        ended = sorted(job_id for job_id, name, _ in metrics if name == "total_seconds")
        assert ended == sorted(key for key, job in self.jobs.items() if job.status == JobStatus.COMPLETED)
        self.chunks = now

    async def _check_objects(self, app: bootstrap.Application, job: Job) -> None:
        """Check that a COMPLETED job's result has its chunks' text, and that every other planned job has its audio."""
        if job.status == JobStatus.COMPLETED:
            mine = sorted((index, heard) for (owner, index), (_, heard) in self.chunks.items() if owner == job.job_id)
            texts = [segment["text"] for _, heard in mine for segment in heard]
            assert json.loads(await app.storage.get_bytes(keys.result_key(job.job_id))) == texts
        elif job.chunks_total:
            assert await app.storage.stat(job.working_audio_path or ""), "the working audio is missing"


@dataclass(slots=True)
class Run:
    """A claim that a consumer holds, or still considers its own. written: its object is in storage."""

    who: Consumer
    message: Message
    claim: claims.Claim
    job: Job
    chunk: claims.ClaimedChunk | None
    written: bool = False


COIN, SELDOM = st.booleans(), st.sampled_from((False, False, False, True))
ERRORS = (errors.WhisperCrashError, errors.DiskFullError, errors.CorruptedFileError, errors.StorageUnavailable)
ENDS = st.sampled_from((*["well"] * 8, "crash", *ERRORS))
PICK, TIMES = st.integers(0, 11), st.sampled_from(("due_at", "due_at", "expires_at", "deleted_at", "progressed_at"))
ALLOWED: dict[Any, Any] = {Jobs.cancel: set(OPEN), Jobs.retry: LOSERS, Jobs.delete: set(JobStatus)}
STEPS: dict[str, tuple[str, int, dict[str, st.SearchStrategy[Any]]]] = {
    "submit": ("to_come", 1, {"language": st.sampled_from(("en", "auto"))}),
    "deliver": ("inbox", 6, {"again": SELDOM}),
    "go_on": ("runs", 8, {"ends": ENDS, "chunks": st.sampled_from((0, 1, 2, 3, 3)), "told": COIN, "again": SELDOM}),
    "work": ("inbox", 1, {}),
    "repeat": ("published", 1, {"failures": st.integers(0, 2)}),
    "restart": ("inbox runs", 1, {}),
    "renew": ("runs", 3, {"all_of_them": COIN}),
    "lapse": ("runs", 2, {}),
    "outage": ("job_ids", 1, {}),
    "let_time_pass": ("job_ids", 3, {"time": TIMES, "noticed": COIN}),
    "ask": ("job_ids", 2, {"what": st.sampled_from((*ALLOWED, *[Jobs.retry] * 2))}),
    "replay": ("letters", 2, {"times": st.integers(1, 2)}),
}
"""What may happen while there is anything to `pick` among these; how often; what else is drawn."""


def picked(things: list[T], pick: int, kept: bool = True) -> T:
    return things[pick % len(things)] if kept else things.pop(pick % len(things))


class Interleavings(RuleBasedStateMachine):
    """A state machine whose steps are those of consumers, the scheduler, the broker, users, the clock, or a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.to_come = [f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3)]
        self.job_ids, self.published = list[str](), list[Message]()
        self.runner, self.watch = asyncio.Runner(), Watch()
        self.run(self.start())

    async def start(self) -> None:
        """Start the service as internal/embedded.py does, but without deliveries to its two consumers."""
        self.app = bootstrap.build(settings_for(Path(self.folder.name), max_retries=1))
        engine = self.app.database.engine.sync_engine
        # there are no power losses here, and fsync would take most of the time
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF").close())
        await upgrade(self.app.database)
        await state_changes.record(self.app.database)
        async with self.app.database.write() as session:
            await schedule.release_all(session)
        await self.app.storage.start()
        await self.app.broker.start()
        self.consumers = [bootstrap.consumer(self.app, name) for name in ("one", "two")]
        self.inbox, self.runs = list[Message](), list[Run]()

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        """Run the action and deliver what it published."""
        result = self.runner.run(act)
        self.runner.run(self.arrive())
        return result

    async def arrive(self) -> None:
        for name in WORK_QUEUES:
            queue = cast(Any, self.app.broker)._queues[name]
            arrived = [decode((await queue.get()).body) for _ in range(len(queue))]
            self.inbox += arrived
            self.published += arrived
        self.letters = [decode(body) for body, _ in cast(Any, self.app.broker).waiting(QueueName.DEAD)]

    @invariant()
    def everything_holds(self) -> None:
        self.runner.run(self.watch.look(self.app))

    @rule(data=st.data())
    def somebody_acts(self, data: st.DataObject) -> None:
        """Use one rule for all steps: hypothesis disables rules at random, which would leave most examples idle."""
        some = {name for name in ("inbox", "job_ids", "letters", "published", "runs", "to_come") if getattr(self, name)}
        steps = [name for name, (among, often, _) in STEPS.items() if some & {*among.split()} for _ in range(often)]
        step = data.draw(st.sampled_from(steps), label="step")
        getattr(self, step)(**data.draw(st.fixed_dictionaries({"pick": PICK, **STEPS[step][2]}), label=step))

    def submit(self, pick: int, language: str) -> None:
        self.job_ids.append(self.to_come.pop(0))
        self.run(rows.new_job(self.app.database, job_id=self.job_ids[-1], language=language))
        job = self.run(rows.job(self.app.database, self.job_ids[-1]))
        self.run(self.app.publisher.publish([publishing.prepare_message(job, claims.WakeUp(job.job_id, None, 0))]))

    def deliver(self, pick: int, again: bool) -> None:
        """`again`: the broker delivers the message once more, although its holder may be alive."""
        message = picked(self.inbox, pick, again)
        self.runs += self.run(self.taken(self.consumers[pick % 2], message))

    def renew(self, pick: int, all_of_them: bool) -> None:
        """Renew leases, including those that were released or whose job has ended."""
        held = self.runs if all_of_them else [picked(self.runs, pick)]
        ended = self.run(self.in_transaction(lambda session: leases.renew(session, [r.claim for r in held], LEASE)))
        over = {job_id for job_id, job in self.watch.jobs.items() if job.deleted_at or job.status in LOSERS}
        assert {claim.job_id for claim in ended} <= over | ({r.job.job_id for r in held} - self.watch.jobs.keys())

    def lapse(self, pick: int) -> None:
        """A holder is silent for longer than its lease, and the scheduler notices."""
        job_id = picked(self.runs, pick).job.job_id
        self.run(self.pass_time(job_id, "due_at"))
        self.run(self.release())

    def outage(self, pick: int) -> None:
        """During a database outage all leases lapse; live holders renew before any is counted as lost."""

        async def losses() -> list[Any]:
            async with self.app.database.read() as session:
                return [(await session.execute(select(row.lost))).scalars().all() for row in (Job, Chunk)]

        for job_id in self.job_ids:
            self.run(self.pass_time(job_id, "due_at", leased=True))
        self.run(self.in_transaction(lambda session: leases.renew(session, [r.claim for r in self.runs], LEASE)))
        before = self.run(losses())
        living = {run.claim.holder for run in self.runs}
        self.run(self.release(only=living))
        assert self.run(losses()) == before

    async def release(self, only: set[str] | None = None) -> None:
        """`only`: holders whose claims may have lapsed."""

        async def work(session: Any) -> None:
            if only is not None:
                for row in (Job, Chunk):
                    others = (row.holder.is_not(None), row.holder.not_in(only))
                    await session.execute(update(row).where(*others).values(due_at=after(LEASE)))
            await leases.release_lapsed(session, await leases.current_time(session))

        await self.in_transaction(work)

    def in_transaction(self, work: Any) -> Coroutine[Any, Any, Any]:
        return self.consumers[0].steps.database.write(work)

    def go_on(self, pick: int, ends: Any, chunks: int, told: bool, again: bool) -> None:
        """Take a run's next step, or let it fail with an error; `again`: the answer is lost, so the step is repeated
        later.
        """
        run = picked(self.runs, pick, again)
        for _ in range(1 + again):
            if ends == "well":
                self.runs += [] if self.run(self.advanced(run, chunks, told)) or again else [run]
            elif ends != "crash":
                self.run(self.settle(run, ends))
            self.everything_holds()

    async def taken(self, who: Consumer, message: Message) -> list[Run]:
        """Claim as a consumer does; return an empty list if there was nothing to claim."""
        found: list[Run] = []

        async def claim(session: Any, claim_request: claims.ClaimRequest) -> Any:
            job_id, failures, index = message.job_id, message.failures, message.chunk_index or 0
            if message.type is MessageType.TRANSCRIBE:
                return await claims.claim_chunk(session, job_id, index, failures, claim_request)
            claim_job = claims.claim_prepare if message.type is MessageType.PREPARE else claims.claim_finalise
            return await claim_job(session, job_id, failures, claim_request)

        async def keep(taken: Any) -> None:
            chunk = taken if isinstance(taken, claims.ClaimedChunk) else None
            one, job = (chunk.claim, chunk.job) if chunk else taken
            found.append(Run(who, message, one, job, chunk))

        # a row that was lost too often is not started: its job fails
        await who.steps.run(Delivery(message), 60.0, claim, keep)
        return found

    async def advanced(self, run: Run, chunks: int, told: bool = True) -> bool:
        """Take the run's next step, an object or a commit; return True after the last. not `told`: publishing fails."""
        if not run.written and run.chunk is None:
            return await self.write(run)
        if not told:
            await self.app.broker.stop()
        await self.commit(run, chunks)
        await self.app.broker.start()
        return True

    async def write(self, run: Run) -> bool:
        key, data = keys.working_key(run.job.job_id, run.claim.number), b"audio"
        if run.message.type is MessageType.FINALISE:
            async with self.app.database.read() as session:
                heard = await jobs.list_transcripts(session, run.job.job_id)
            texts = [segment.text for chunk in heard for segment in chunk.segments]
            key, data = keys.result_key(run.job.job_id), json.dumps(texts).encode()
        await self.app.storage.put_bytes(key, data)
        run.written = True
        return False

    async def commit(self, run: Run, chunks: int) -> None:
        """Commit a text that names the claim, which reveals a second commit, and a metric that names the chunk."""
        job_id, number, handler = run.job.job_id, run.claim.number, cast(Any, run.who.handlers[run.message.type])
        if run.chunk:
            segment = {"start": 0.0, "end": 1.0, "text": str(run.claim), "confidence": 0.9}
            metrics = {"chunk_seconds": float(run.claim.chunk_index or 0)}
            await handler._commit(run.chunk, commits.ChunkOutcome([segment], 0.5, "en", metrics))
        elif run.message.type is MessageType.PREPARE:
            plan = rows.plan(chunks, number, first_release=1 if run.job.language == "auto" else 2)
            key = keys.working_key(job_id, number)
            await handler._store_plan(run.job, replace(plan, key=key))
            # a run whose plan was rejected has deleted its audio and writes it again before a repeated commit
            run.written = await self.app.storage.stat(key) is not None
        else:
            done = commits.JobOutcome(keys.result_key(job_id), "", 0.9, 1.0, 3600, {"total_seconds": 1.0})
            await run.who.steps.database.write(lambda session: commits.complete_job(session, job_id, done))

    async def settle(self, run: Run, error: type[errors.SttError]) -> None:
        verdict = await run.who.steps.run_claimed(run.claim, run.message, AsyncMock(side_effect=error))
        if isinstance(verdict, Retry):
            await self.app.broker.publish(verdict.message or run.message)

    def work(self, pick: int) -> None:
        """Work without faults for a while, so that examples make progress."""
        for _ in range(min(1 + pick // 3, len(self.inbox))):
            for run in self.run(self.taken(self.consumers[0], self.inbox.pop(0))):
                while not self.run(self.advanced(run, chunks=pick % 5)):
                    pass
            self.everything_holds()

    def repeat(self, pick: int, failures: int) -> None:
        """Publish the wake-up of any earlier moment again."""
        self.run(self.app.broker.publish(replace(picked(self.published[::-1], pick), failures=failures)))

    def restart(self, pick: int) -> None:
        """Crash the process with all its claims and messages."""
        self.run(self.app.stop())
        self.run(self.start())

    def let_time_pass(self, pick: int, time: str, noticed: bool) -> None:
        """Date these times of the job and its rows back, if set; `noticed`: the scheduler runs afterwards."""
        self.run(self.pass_time(picked(self.job_ids, pick), time))
        if noticed:
            self.run(self.release())
            self.run(bootstrap.maintenance(self.app).publish_due())
            self.run(bootstrap.maintenance(self.app).housekeep())

    async def pass_time(self, job_id: str, time: str, leased: bool = False) -> None:
        """`leased`: for held rows."""
        for table in (one for one in (Job, Chunk, UploadIntent) if hasattr(one, time)):
            mine = [table.job_id == job_id, getattr(table, time).is_not(None)]
            if leased:
                if table is UploadIntent:
                    continue
                mine.append(cast(Any, table).holder.is_not(None))
            statement = update(table).where(*mine).values({time: after(-100_000)})
            await self.in_transaction(lambda session, statement=statement: session.execute(statement))

    def ask(self, pick: int, what: Any) -> None:
        """Request an operation; it succeeds or is refused, according to the job's state."""
        job_id = picked(self.job_ids, pick)
        job = self.watch.jobs.get(job_id)
        fine = job is not None and job.deleted_at is None and job.status in ALLOWED[what]
        self.watch.reopened = {job_id} if what is Jobs.retry else set()
        with contextlib.nullcontext() if fine else pytest.raises((errors.ConflictError, errors.JobNotFoundError)):
            self.run(what(self.app.services.jobs, job_id, "local"))

    def replay(self, pick: int, times: int) -> None:
        """Deliver one or two copies of a dead letter to a consumer; the dead letter itself stays."""
        letter = picked(self.letters, pick)
        job = self.watch.jobs.get(letter.job_id)
        self.watch.reopened = {letter.job_id} if job and job.replay_token == letter.token else set()
        for _ in range(times):
            self.run(self.consumers[0].handle(Delivery(letter)))

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # otherwise this check would hide the first failure
                self.drain()
        finally:
            WALKED.update(self.watch.walked)
            self.runner.run(self.app.stop())
            self.runner.close()
            self.folder.cleanup()

    def drain(self) -> None:
        """Let only time, the scheduler and messages proceed; every job must end."""
        for _ in range(20):
            if all(job.deleted_at or job.status in TERMINAL for job in self.watch.jobs.values()):
                return
            for pick in range(len(self.job_ids)):
                self.let_time_pass(pick, "due_at", noticed=True)
                self.everything_holds()
            while self.inbox:
                self.work(11)
        raise AssertionError(f"not drained: {[facts(job) for job in self.watch.jobs.values()]}")


@pytest.mark.timeout(600)  # passing takes half a minute; shrinking a failing example takes hypothesis five minutes
def test_interleaved_events_end_every_job_without_repeated_work() -> None:
    """Each step checks invariants, the state machine, event numbers, commits and results; finally all jobs end."""
    options = settings(max_examples=25, stateful_step_count=50, deadline=None, print_blob=True)
    options = settings(options, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow])
    with capture_logs():
        run_state_machine_as_test(Interleavings, settings=options)
    assert state_changes.MAIN_PATH <= WALKED
