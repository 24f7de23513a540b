"""The download of one file: resumed after a cut, checked, and complete or not there."""

from __future__ import annotations

import errno
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from core.errors_models import (
    HubAnswerError,
    HubBusyError,
    HubInterruptedError,
    HubUnreachableError,
    ModelChecksumError,
    ModelDiskFullError,
    ModelSizeError,
    ModelStoreError,
    PullStoppedError,
)
from worker.model_store.hub import Answer, Hub, Metadata
from worker.model_store.part import Part, PartInfo, digests
from worker.model_store.progress import CHECKING, DOWNLOADING, Progress, RateMeter, Report
from worker.model_store.reference import ModelReference

log = structlog.get_logger(__name__)
FREE_MARGIN = 64 * 1024 * 1024
"""Bytes that a download leaves free on the disk."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """attempts: in a row without a new byte. Waits double from `first_seconds` to `max_seconds`.

    retry_after_seconds: the longest Retry-After that is waited for. min_rate: bytes per second over `rate_seconds`.
    """

    attempts: int = 5
    first_seconds: float = 1.0
    max_seconds: float = 30.0
    retry_after_seconds: float = 300.0
    min_rate: float = 1024.0
    rate_seconds: float = 60.0


class Download:
    """Fetches a file of a hub into its part. check: called between blocks, raises to stop."""

    def __init__(
        self,
        hub: Hub,
        reference: ModelReference,
        part: Part,
        report: Report,
        check: Callable[[], None],
        stop: threading.Event,
        limits: RetryLimits,
    ) -> None:
        self._hub, self._reference, self._part = hub, reference, part
        self._report, self._check, self._stop, self._limits = report, check, stop, limits
        self._reached = False
        self._resumed = False
        self._refuses_ranges = False
        self._most = part.size

    def run(self) -> dict[str, str]:
        """Complete and verify the part; return its digests. The part is kept if it can be continued.

        Raises a ModelStoreError; OSError.
        """
        metadata = self._complete()
        try:
            return self._verified(metadata)
        except ModelStoreError:
            resumed, self._resumed = self._resumed, False
            self._part.drop()
            if not resumed:
                raise
            log.warning(
                "continued download is damaged, starting again", action="model_restart", file=str(self._reference)
            )
        self._most = 0
        try:
            return self._verified(self._complete())
        except (ModelChecksumError, ModelSizeError):
            self._part.drop()
            raise

    def _complete(self) -> Metadata:
        """Repeat attempts until the part is complete."""
        failures = 0
        while True:
            try:
                return self._attempt()
            except (HubUnreachableError, HubInterruptedError, HubBusyError) as error:
                failures = 1 if self._part.size > self._most else failures + 1
                self._most = max(self._most, self._part.size)
                offline = isinstance(error, HubUnreachableError) and not self._reached
                if offline or failures >= self._limits.attempts:
                    raise
                self._wait(error, failures)

    def _wait(self, error: ModelStoreError, failures: int) -> None:
        """Wait before the next attempt. Raises `error` if the hub asks for a longer wait than is allowed."""
        asked = error.retry_after if isinstance(error, HubBusyError) and error.retry_after else 0.0
        if asked > self._limits.retry_after_seconds:
            raise error
        seconds = min(self._limits.first_seconds * 2 ** (failures - 1), self._limits.max_seconds)
        seconds = max(asked, seconds * random.uniform(0.8, 1.2))
        log.info("download continues later", action="model_retry", code=error.code, seconds=round(seconds, 1))
        if self._stop.wait(seconds):
            raise PullStoppedError

    def _attempt(self) -> Metadata:
        """Request what is missing and append it. Return the file's metadata once the part is complete."""
        info = self._part.info()
        start = self._part.size if info is not None and self._can_continue(info) else 0
        with self._hub.open(self._reference, start, info.validator if info and start else "") as answer:
            self._reached = True
            metadata = answer.metadata
            self._compare(metadata)
            if answer.status == 416:
                return self._unsatisfiable(info)
            if not start or not self._continues(answer, info, start):
                self._begin(answer, metadata)
                start = 0
            self._resumed = self._resumed or start > 0
            self._append(answer, metadata, start)
        size = self._size(metadata)
        if size is not None and self._part.size < size:
            raise HubInterruptedError(
                "The hub sent {received} of {expected} bytes.", received=self._part.size, expected=size
            )
        return metadata

    def _can_continue(self, info: PartInfo) -> bool:
        """Return True if the part belongs to this file, and a change of the file on the hub would be noticed."""
        noticed = info.validator or info.sha256 or self._reference.checksums
        return info.source == str(self._reference) and bool(noticed) and not self._refuses_ranges

    def _size(self, metadata: Metadata) -> int | None:
        return self._reference.size if self._reference.size is not None else metadata.size

    def _compare(self, metadata: Metadata) -> None:
        """Compare what the hub announces with what is published, before anything is downloaded."""
        name, size, sha256 = self._reference.file, self._reference.size, self._reference.checksums.get("sha256")
        if sha256 and metadata.sha256 and metadata.sha256 != sha256:
            raise _wrong_checksum(name, "sha256", sha256, metadata.sha256)
        if size is not None and metadata.size is not None and metadata.size != size and metadata.sha256 is None:
            raise _wrong_size(name, size, metadata.size)

    def _continues(self, answer: Answer, info: PartInfo | None, start: int) -> bool:
        """Return True if the response continues the part; False if it is the whole file or belongs to another one."""
        if answer.status != 206:
            return False
        new = answer.metadata
        same = info is not None and new.sha256 == info.sha256 and info.size in (None, new.size)
        if same and answer.ranged and answer.start == start and not answer.content_type.startswith("multipart/"):
            return True
        # a range that was not asked for: ask for the whole file from now on
        self._refuses_ranges = True
        self._part.drop()
        raise HubInterruptedError("The hub sent another part of the file than requested.")

    def _unsatisfiable(self, info: PartInfo | None) -> Metadata:
        """Return if the part is complete already; otherwise start again."""
        if info is not None and info.size == self._part.size:
            self._resumed = True
            return Metadata(info.size, info.sha256)
        self._part.drop()
        raise HubInterruptedError("The hub sent another part of the file than requested.")

    def _begin(self, answer: Answer, metadata: Metadata) -> None:
        if answer.status == 206 and answer.start:
            raise HubAnswerError("The hub's response is not the file {file}.", file=str(self._reference))
        size = self._size(metadata)
        if size is not None:
            self._check_disk(size - self._part.size)
        self._part.start(PartInfo(str(self._reference), metadata.size, metadata.sha256, answer.etag))

    def _check_disk(self, more: int) -> None:
        """Raise ModelDiskFullError unless `more` bytes fit on the disk, and FREE_MARGIN."""
        free = shutil.disk_usage(self._part.path.parent).free
        if more + FREE_MARGIN > free:
            raise ModelDiskFullError(
                "The disk of the models folder has {free} MB free; {name} needs {needed} MB.",
                free=free // 1_000_000,
                name=self._reference.name,
                needed=(more + FREE_MARGIN) // 1_000_000,
            )

    def _append(self, answer: Answer, metadata: Metadata, start: int) -> None:
        size, done, meter = self._size(metadata), start, RateMeter()
        checked = start
        slow = _SlowConnection(self._limits, start)
        try:
            with self._part.path.open("ab") as file:
                for block in answer.blocks():
                    self._check()
                    if self._stop.is_set():
                        raise PullStoppedError
                    if done >= checked + FREE_MARGIN // 2:  # nobody may have said how long the file is
                        checked = done
                        self._check_disk(0)
                    if size is not None and done + len(block) > size:
                        self._part.drop()
                        raise ModelSizeError(
                            "{name} is longer than {expected} bytes.", name=self._reference.file, expected=size
                        )
                    file.write(block)
                    done += len(block)
                    self._report(Progress(DOWNLOADING, done, size, meter.add(done)))
                    slow.check(done)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ModelDiskFullError from error

    def _verified(self, metadata: Metadata) -> dict[str, str]:
        """Return the digests of the complete part. Raises ModelSizeError, ModelChecksumError."""
        name, size = self._reference.file, self._part.size
        expected_size = self._size(metadata)
        if expected_size is not None and size != expected_size:
            raise _wrong_size(name, expected_size, size)
        self._part.sync()
        expected = dict(self._reference.checksums)
        if "sha256" not in expected and metadata.sha256:
            expected["sha256"] = metadata.sha256
        found = digests(self._part.path, {"sha256", *expected}, lambda done: self._checking(done, size))
        for algorithm, digest in expected.items():
            if found[algorithm] != digest:
                raise _wrong_checksum(name, algorithm, digest, found[algorithm])
        return found

    def _checking(self, done: int, size: int) -> None:
        self._check()
        if self._stop.is_set():
            raise PullStoppedError
        self._report(Progress(CHECKING, done, size))


def _wrong_checksum(name: str, algorithm: str, expected: str, received: str) -> ModelChecksumError:
    return ModelChecksumError(
        "{name} has the {algorithm} checksum {received}, expected {expected}.",
        name=name,
        algorithm=algorithm,
        expected=expected,
        received=received,
    )


def _wrong_size(name: str, expected: int, received: int) -> ModelSizeError:
    return ModelSizeError(
        "{name} has {received} bytes, expected {expected}.", name=name, expected=expected, received=received
    )


class _SlowConnection:
    """Ends a connection that sends a few bytes now and then, which no read timeout notices."""

    def __init__(self, limits: RetryLimits, done: int) -> None:
        self._limits, self._done, self._since = limits, done, time.monotonic()

    def check(self, done: int) -> None:
        seconds = time.monotonic() - self._since
        if seconds < self._limits.rate_seconds:
            return
        if done - self._done < self._limits.min_rate * seconds:
            raise HubInterruptedError("The hub sends data too slowly.")
        self._done, self._since = done, time.monotonic()
