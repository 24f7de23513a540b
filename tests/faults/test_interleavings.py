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
from hypothesis import HealthCheck, note, settings
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
from internal.consumer.handlers.prepare import PlanLostError, PrepareRun
from internal.consumer.runtime import Consumer
from internal.services import publishing
from internal.services.jobs import Jobs
from repositories import claims, commits, jobs, leases, plans, schedule
from repositories.models import Chunk, Job, Metric, UploadIntent
from tests.contract import invariants, rows, state_changes
from tests.contract.databases import upgrade
from tests.integration.test_consumer import settings_for

T = TypeVar("T")
WALKED: set[state_changes.Change] = set()
"""Arrows of the state machine that rows have taken in any example."""
LEASE = 60.0
LOSERS = {JobStatus.FAILED, JobStatus.CANCELLED}


def facts(job: Job) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return the state of a job whose changes are numbered, and the parts of an ended job that may not change."""
    end = (job.status, job.completed_at, job.error_code, job.replay_token, job.minio_result_path)
    plan = (job.working_audio_path, job.chunks_total)
    return (job.status, job.deleted_at is None, *plan, job.chunks_completed), end


def check_step(old: Job, new: Job, reopened: bool) -> None:
    """Check that there is at most one visible change, numbered without a gap, and that ended jobs stay unchanged unless
    they are reopened or deleted.
    """
    (before, old_end), (now, new_end) = facts(old), facts(new)
    assert new.event_seq == old.event_seq + (before != now), f"{old.event_seq} {before} -> {new.event_seq} {now}"
    assert old.deleted_at is None or new.deleted_at
    if old.status in TERMINAL and new.deleted_at is None and old_end != new_end:
        assert reopened and old.status in LOSERS and new.status in OPEN, f"{old_end} -> {new_end}"


@dataclass(slots=True)
class StateChecker:
    """A comparison of each state with the previous one. `reopened`: jobs reopened in between.

    walked: arrows of the state machine that rows have taken.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    chunks: dict[tuple[str, int], Any] = field(default_factory=dict)
    reopened: set[str] = field(default_factory=set)
    walked: set[state_changes.Change] = field(default_factory=set)

    async def check(self, app: bootstrap.Application) -> None:
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
            completed = (await session.execute(select(*columns).where(Chunk.status == JobStatus.COMPLETED))).all()
            metrics = (await session.execute(select(Metric.job_id, Metric.metric_name, Metric.metric_value))).all()
        now = {(row[0], row[1]): (row[2], row[3]) for row in completed}
        assert all(now.get(key) == chunk for key, chunk in self.chunks.items() if key[0] in self.jobs)
        assert all(seq <= self.jobs[job_id].event_seq for (job_id, _), (seq, _) in now.items())
        assert sorted((job_id, value) for job_id, name, value in metrics if name == "chunk_seconds") == sorted(now)
        ended = sorted(job_id for job_id, name, _ in metrics if name == "total_seconds")
        assert ended == sorted(key for key, job in self.jobs.items() if job.status == JobStatus.COMPLETED)
        self.chunks = now

    async def _check_objects(self, app: bootstrap.Application, job: Job) -> None:
        """Check that a COMPLETED job's result has its chunks' text, and that every other planned job has its audio."""
        if job.status == JobStatus.COMPLETED:
            transcripts = sorted(
                (index, segments) for (owner, index), (_, segments) in self.chunks.items() if owner == job.job_id
            )
            texts = [segment["text"] for _, segments in transcripts for segment in segments]
            assert json.loads(await app.storage.get_bytes(keys.result_key(job.job_id))) == texts
        elif job.chunks_total or job.chunks_expected:
            async with app.database.read() as session:
                for key in await plans.list_audio(session, job.job_id):
                    assert await app.storage.stat(key), "the working audio is missing"


@dataclass(slots=True)
class Run:
    """A claim that a consumer holds, or still considers its own. written: its object is in storage.

    prepare: state of a Prepare, which releases up to two instalments.
    """

    consumer: Consumer
    message: Message
    claim: claims.Claim
    job: Job
    chunk: claims.ClaimedChunk | None
    written: bool = False
    prepare: PrepareRun | None = None


COIN, SELDOM = st.booleans(), st.sampled_from((False, False, False, True))
ERRORS = (errors.WhisperCrashError, errors.DiskFullError, errors.CorruptedFileError, errors.StorageUnavailable)
OUTCOMES = st.sampled_from((*["well"] * 8, "crash", *ERRORS))
PICK, TIMES = st.integers(0, 11), st.sampled_from(("due_at", "due_at", "expires_at", "deleted_at", "progressed_at"))
ALLOWED: dict[Any, Any] = {Jobs.cancel: set(OPEN), Jobs.retry: LOSERS, Jobs.delete: set(JobStatus)}
STEPS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "submit": ("unsubmitted", 1, ("language",)),
    "deliver": ("inbox", 6, ("repeated",)),
    "advance": ("runs", 8, ("outcome", "chunks", "broker_up", "repeated")),
    "work": ("inbox", 1, ()),
    "republish": ("published", 1, ("failures",)),
    "restart": ("inbox runs", 1, ()),
    "renew": ("runs", 3, ("all_runs",)),
    "lapse": ("runs", 2, ()),
    "outage": ("job_ids", 1, ()),
    "let_time_pass": ("job_ids", 3, ("time", "scheduler_runs")),
    "request": ("job_ids", 2, ("operation",)),
    "replay": ("dead_letters", 2, ("times",)),
}
"""Rules that apply while there is anything to `pick` among these: how often, and which other choices they take."""
CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "step": st.integers(0, 2**16 - 1),
    "pick": PICK,
    "language": st.sampled_from(("en", "auto")),
    "repeated": SELDOM,
    "outcome": OUTCOMES,
    "chunks": st.sampled_from((0, 1, 2, 3, 3)),
    "broker_up": COIN,
    "failures": st.integers(0, 2),
    "all_runs": COIN,
    "time": TIMES,
    "scheduler_runs": COIN,
    "operation": st.sampled_from((*ALLOWED, *[Jobs.retry] * 2)),
    "times": st.integers(1, 2),
}
"""All choices of a step. Each step draws all of them: the stores use the real clock, so a slow machine may offer other
steps in the same place, and hypothesis rejects a test whose draws depend on that.
"""


def pick_from(items: list[T], pick: int, keep_item: bool = True) -> T:
    return items[pick % len(items)] if keep_item else items.pop(pick % len(items))


class Interleavings(RuleBasedStateMachine):
    """A state machine whose steps are those of consumers, the scheduler, the broker, users, the clock, or a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.unsubmitted = [f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3)]
        self.job_ids, self.published = list[str](), list[Message]()
        self.runner, self.watch = asyncio.Runner(), StateChecker()
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
        self.runner.run(self.receive_published())
        return result

    async def receive_published(self) -> None:
        for name in WORK_QUEUES:
            queue = cast(Any, self.app.broker)._queues[name]
            messages = [decode((await queue.get()).body) for _ in range(len(queue))]
            self.inbox += messages
            self.published += messages
        self.dead_letters = [decode(body) for body, _ in cast(Any, self.app.broker).waiting(QueueName.DEAD)]

    @invariant()
    def check_all(self) -> None:
        self.runner.run(self.watch.check(self.app))

    @rule(choices=st.fixed_dictionaries(CHOICES))
    def take_random_step(self, choices: dict[str, Any]) -> None:
        """Use one rule for all steps: hypothesis disables rules at random, which would leave most examples idle."""
        available = {
            name
            for name in ("inbox", "job_ids", "dead_letters", "published", "runs", "unsubmitted")
            if getattr(self, name)
        }
        steps = [
            name for name, (among, weight, _) in STEPS.items() if available & {*among.split()} for _ in range(weight)
        ]
        step = steps[choices["step"] % len(steps)]
        arguments = {name: choices[name] for name in ("pick", *STEPS[step][2])}
        note(f"{step}: {arguments}")
        getattr(self, step)(**arguments)

    def submit(self, pick: int, language: str) -> None:
        self.job_ids.append(self.unsubmitted.pop(0))
        self.run(rows.new_job(self.app.database, job_id=self.job_ids[-1], language=language))
        job = self.run(rows.job(self.app.database, self.job_ids[-1]))
        self.run(self.app.publisher.publish([publishing.prepare_message(job, claims.WakeUp(job.job_id, None, 0))]))

    def deliver(self, pick: int, repeated: bool) -> None:
        """`repeated`: the broker delivers the message once more, although its holder may be alive."""
        message = pick_from(self.inbox, pick, repeated)
        self.runs += self.run(self.claim_runs(self.consumers[pick % 2], message))

    def renew(self, pick: int, all_runs: bool) -> None:
        """Renew leases, including those that were released or whose job has ended."""
        held = self.runs if all_runs else [pick_from(self.runs, pick)]
        ended = self.run(self.in_transaction(lambda session: leases.renew(session, [r.claim for r in held], LEASE)))
        ended_jobs = {job_id for job_id, job in self.watch.jobs.items() if job.deleted_at or job.status in LOSERS}
        assert {claim.job_id for claim in ended} <= ended_jobs | ({r.job.job_id for r in held} - self.watch.jobs.keys())

    def lapse(self, pick: int) -> None:
        """A holder is silent for longer than its lease, and the scheduler notices."""
        job_id = pick_from(self.runs, pick).job.job_id
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
        live_holders = {run.claim.holder for run in self.runs}
        self.run(self.release(only=live_holders))
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

    def advance(self, pick: int, outcome: Any, chunks: int, broker_up: bool, repeated: bool) -> None:
        """Take a run's next step, or let it fail with an error; `repeated`: the answer is lost, so the step is repeated
        later.
        """
        run = pick_from(self.runs, pick, repeated)
        for _ in range(1 + repeated):
            if outcome == "well":
                self.runs += [] if self.run(self.take_step(run, chunks, broker_up)) or repeated else [run]
            elif outcome != "crash":
                self.run(self.settle(run, outcome))
            self.check_all()

    async def claim_runs(self, consumer: Consumer, message: Message) -> list[Run]:
        """Claim as a consumer does; return an empty list if there was nothing to claim."""
        runs: list[Run] = []

        async def claim(session: Any, claim_request: claims.ClaimRequest) -> Any:
            job_id, failures, index = message.job_id, message.failures, message.chunk_index or 0
            if message.type is MessageType.TRANSCRIBE:
                return await claims.claim_chunk(session, job_id, index, failures, claim_request)
            claim_job = claims.claim_prepare if message.type is MessageType.PREPARE else claims.claim_finalise
            return await claim_job(session, job_id, failures, claim_request)

        async def keep(claimed: Any) -> None:
            chunk = claimed if isinstance(claimed, claims.ClaimedChunk) else None
            held_claim, job = (chunk.claim, chunk.job) if chunk else claimed
            runs.append(Run(consumer, message, held_claim, job, chunk))

        # a row that was lost too often is not started: its job fails
        await consumer.steps.run(Delivery(message), 60.0, claim, keep)
        return runs

    async def take_step(self, run: Run, chunks: int, broker_up: bool = True) -> bool:
        """Take the run's next step; return True after the last. Without `broker_up` its publishes fail."""
        if not run.written and run.chunk is None:
            return await self.write(run)
        if not broker_up:
            await self.app.broker.stop()
        ended = await self.commit(run, chunks)
        await self.app.broker.start()
        return ended

    async def write(self, run: Run) -> bool:
        key, data = "", b"audio"
        if run.message.type is MessageType.PREPARE:
            run.prepare = run.prepare or await self.begin_prepare(run)
            key = run.prepare.plan.key
        if run.message.type is MessageType.FINALISE:
            async with self.app.database.read() as session:
                transcripts = await jobs.list_transcripts(session, run.job.job_id)
            texts = [segment.text for chunk in transcripts for segment in chunk.segments]
            key, data = keys.result_key(run.job.job_id), json.dumps(texts).encode()
        await self.app.storage.put_bytes(key, data)
        run.written = True
        return False

    async def begin_prepare(self, run: Run) -> PrepareRun:
        """Return the state of a Prepare that continues the plan of its job, if it has one."""
        count, first_release = 0, 1 if run.job.language == "auto" else 2
        if run.job.plan is not None:
            async with self.app.database.read() as session:
                count, _ = await plans.find_released(session, run.job.job_id)
        plan = replace(
            rows.plan(0, run.job.plan or run.claim.number, first_release),
            key=keys.working_key(run.job.job_id, run.claim.number),
            claim=None if run.job.plan is None else run.claim,
            first_index=count,
        )
        return PrepareRun(run.claim, run.job, plan)

    async def commit(self, run: Run, chunks: int) -> bool:
        """Commit a text that names the claim, which reveals a second commit, and a metric that names the chunk.

        Returns True if the run has ended.
        """
        job_id, handler = run.job.job_id, cast(Any, run.consumer.handlers[run.message.type])
        if run.chunk:
            segment = {"start": 0.0, "end": 1.0, "text": str(run.claim), "confidence": 0.9}
            metrics = {"chunk_seconds": float(run.claim.chunk_index or 0)}
            await handler._commit(run.chunk, commits.ChunkOutcome([segment], 0.5, "en", metrics))
        elif run.prepare is not None:
            return await self.commit_plan(run, run.prepare, handler, chunks)
        else:
            completed = commits.JobOutcome(keys.result_key(job_id), "", 0.9, 1.0, 3600, {"total_seconds": 1.0})
            await run.consumer.steps.database.write(lambda session: commits.complete_job(session, job_id, completed))
        return True

    async def commit_plan(self, run: Run, prepare: PrepareRun, handler: Any, chunks: int) -> bool:
        """Store the rest of the plan, or with three chunks an instalment of two, up to two times."""
        part = replace(prepare.plan, chunks=rows.plan(min(chunks, 2)).chunks)
        if chunks == 3 and prepare.parts < 2:
            prepare.parts += 1
            next_key = keys.working_key(run.job.job_id, run.claim.number, prepare.parts)
            try:
                await handler._store_instalment(prepare, part, 9, next_key)
            except PlanLostError:
                run.written = False  # as below
                return True
            prepare.plan = replace(prepare.plan, key=next_key, first_index=part.total, claim=run.claim)
            run.written = False
            return False
        await handler._store_plan(run.job, part)
        # a run whose plan was rejected has deleted its audio and writes it again before a repeated commit
        run.written = await self.app.storage.stat(part.key) is not None
        return True

    async def settle(self, run: Run, error: type[errors.SttError]) -> None:
        verdict = await run.consumer.steps.run_claimed(run.claim, run.message, AsyncMock(side_effect=error))
        if isinstance(verdict, Retry):
            await self.app.broker.publish(verdict.message or run.message)

    def work(self, pick: int) -> None:
        """Work without faults for a while, so that examples make progress."""
        for _ in range(min(1 + pick // 3, len(self.inbox))):
            for run in self.run(self.claim_runs(self.consumers[0], self.inbox.pop(0))):
                while not self.run(self.take_step(run, chunks=pick % 5)):
                    self.check_all()
            self.check_all()

    def republish(self, pick: int, failures: int) -> None:
        """Publish the wake-up of any earlier moment again."""
        self.run(self.app.broker.publish(replace(pick_from(self.published[::-1], pick), failures=failures)))

    def restart(self, pick: int) -> None:
        """Crash the process with all its claims and messages."""
        self.run(self.app.stop())
        self.run(self.start())

    def let_time_pass(self, pick: int, time: str, scheduler_runs: bool) -> None:
        """Date these times of the job and its rows back, if set; `scheduler_runs`: the scheduler runs afterwards."""
        self.run(self.pass_time(pick_from(self.job_ids, pick), time))
        if scheduler_runs:
            self.run(self.release())
            self.run(bootstrap.maintenance(self.app).publish_due())
            self.run(bootstrap.maintenance(self.app).housekeep())

    async def pass_time(self, job_id: str, time: str, leased: bool = False) -> None:
        """`leased`: for held rows."""
        for table in (model for model in (Job, Chunk, UploadIntent) if hasattr(model, time)):
            conditions = [table.job_id == job_id, getattr(table, time).is_not(None)]
            if leased:
                if table is UploadIntent:
                    continue
                conditions.append(cast(Any, table).holder.is_not(None))
            statement = update(table).where(*conditions).values({time: after(-100_000)})
            await self.in_transaction(lambda session, statement=statement: session.execute(statement))

    def request(self, pick: int, operation: Any) -> None:
        """Request an operation; it succeeds or is refused, according to the job's state."""
        job_id = pick_from(self.job_ids, pick)
        job = self.watch.jobs.get(job_id)
        allowed = job is not None and job.deleted_at is None and job.status in ALLOWED[operation]
        self.watch.reopened = {job_id} if operation is Jobs.retry else set()
        with contextlib.nullcontext() if allowed else pytest.raises((errors.ConflictError, errors.JobNotFoundError)):
            self.run(operation(self.app.services.jobs, job_id, "local"))

    def replay(self, pick: int, times: int) -> None:
        """Deliver one or two copies of a dead letter to a consumer; the dead letter itself stays."""
        dead_letter = pick_from(self.dead_letters, pick)
        job = self.watch.jobs.get(dead_letter.job_id)
        self.watch.reopened = {dead_letter.job_id} if job and job.replay_token == dead_letter.token else set()
        for _ in range(times):
            self.run(self.consumers[0].handle(Delivery(dead_letter)))

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
                self.let_time_pass(pick, "due_at", scheduler_runs=True)
                self.check_all()
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
