"""A models folder: installing, listing, checking and removing its files.

Unfinished downloads, the lock and the records of installed files are in the folder `.pull` below it. Only files that a
record describes are ever replaced or removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import structlog

from core.errors_models import (
    FileInTheWayError,
    ModelChecksumError,
    ModelDiskFullError,
    ModelNotInstalledError,
    ModelNotManagedError,
    ModelsFolderError,
    ModelSizeError,
    NotAModelError,
    PullStoppedError,
)
from worker import model_files
from worker.model_store import installed, lock, registry
from worker.model_store.download import Download, RetryLimits
from worker.model_store.hub import Hub, HubSettings
from worker.model_store.installed import FILE_FORMAT, InstalledModel, Record
from worker.model_store.part import Part, looks_like_ggml, sync_folder, write_json
from worker.model_store.progress import CHECKING, WAITING, Progress, Report
from worker.model_store.reference import ModelReference

log = structlog.get_logger(__name__)
FOLDER = ".pull"


class ModelStore:
    """The models of one folder. Thread-safe; other processes and machines may use the same folder."""

    def __init__(
        self,
        folder: Path,
        hub: HubSettings,
        limits: RetryLimits | None = None,
        check: Callable[[Path], None] = model_files.check,
    ) -> None:
        """check: raises an SttError for a file that is no complete model; used where no checksum is published."""
        self.folder, self._check_model = folder, check
        self._own = folder / FOLDER
        self._hub_settings = hub
        self._limits = limits or RetryLimits()

    def installed(self) -> list[InstalledModel]:
        """Return the models in the folder, by name."""
        found = (self.get(name) for name in installed.names(self.folder))
        return [model for model in found if model is not None]

    def get(self, name: str) -> InstalledModel | None:
        """Return the installed model with this name, a file before a folder, or None."""
        model = installed.find(self.folder, name)
        record = None if model is None else self._record(model.path)
        if model is None or record is None or (record.size, record.mtime_ns) != model.identity:
            return model
        return replace(model, record=record)

    def pull(
        self, reference: ModelReference, report: Report = lambda _: None, stop: threading.Event | None = None
    ) -> InstalledModel:
        """Install a file unless it is there and valid, which needs no network. Another pull is waited for.

        Raises a ModelStoreError. What has been downloaded is kept if it can be continued.
        """
        stop = stop or threading.Event()
        present = self._valid(reference, report)
        if present is not None:
            return present
        with self._file_errors():
            self._own.mkdir(parents=True, exist_ok=True)
            with lock.hold(self._own / "lock", reference.name, _waiting(report, stop)) as held:
                return self._valid(reference, report) or self._download(reference, report, stop, held)

    @staticmethod
    def is_recorded(model: InstalledModel, reference: ModelReference) -> bool:
        """Return True if the file's record says that it is the wanted one. Reads no file."""
        return model.record is not None and _describes(model.record, reference)

    def verify(self, name: str, report: Report = lambda _: None) -> InstalledModel:
        """Read the whole file: its structure, and its checksum against the published one or that of its download.

        Raises ModelNotInstalledError, NotAModelError, ModelSizeError, ModelChecksumError, and the errors of `check`.
        """
        model = self._installed(name)
        published = model.format == FILE_FORMAT and not (model.record is not None and model.record.made)
        entry = registry.find(name) if published else None
        if model.format == FILE_FORMAT and not looks_like_ggml(model.path):
            raise NotAModelError("{name} is not a ggml model.", name=model.path.name)
        expected = entry.checksums if entry else model.record.checksums if model.record else {}
        if entry is not None and entry.size != model.size:
            raise ModelSizeError(
                "{name} has {received} bytes, expected {expected}.",
                name=model.path.name,
                received=model.size,
                expected=entry.size,
            )
        if model.transcribes:
            self._check_model(model.path)
        found = self._digests(model, expected, report)
        for algorithm, digest in expected.items():
            if found[algorithm] != digest:
                raise ModelChecksumError(
                    "{name} has the {algorithm} checksum {received}, expected {expected}.",
                    name=model.path.name,
                    algorithm=algorithm,
                    expected=digest,
                    received=found[algorithm],
                )
        return self._remember(model, found)

    def remove(self, name: str) -> InstalledModel:
        """Remove a model that was pulled or made here.

        Raises ModelNotInstalledError, ModelNotManagedError, ModelsFolderError.
        """
        model = self._installed(name)
        if not model.removable:
            raise ModelNotManagedError(
                "{name} was not written by `stt models pull`. Remove it by hand.", name=str(model.path)
            )
        with self._file_errors():
            installed.remove(model)
            self._record_path(model.path).unlink(missing_ok=True)
        return model

    def drop_part(self, reference: ModelReference) -> None:
        """Remove the unfinished download of a model, unless another process continues it."""

        def leave(_: lock.Owner | None) -> None:
            raise PullStoppedError

        with contextlib.suppress(PullStoppedError, OSError), lock.hold(self._own / "lock", reference.name, leave):
            Part(self._own, reference.local_file).drop()

    def remember_made(self, name: str, source: str) -> InstalledModel:
        """Record a model that was made here, which `remove` may then remove. source: a text for `stt models show`."""
        model = self._installed(name)
        found = installed.checksums(model, {"sha256"})
        record = Record(source, model.size, model.mtime_ns, found, time.time(), written=True, made=True)
        with self._file_errors():
            self._own.mkdir(exist_ok=True)
            write_json(self._record_path(model.path), asdict(record))
        return replace(model, record=record)

    def _installed(self, name: str) -> InstalledModel:
        model = self.get(name)
        if model is None:
            raise ModelNotInstalledError(
                "The model {name} is not installed in {folder}.", name=name, folder=str(self.folder)
            )
        return model

    def _valid(self, reference: ModelReference, report: Report) -> InstalledModel | None:
        """Return the installed file if it is the wanted one; None if there is none or a pull may replace it.

        Raises FileInTheWayError if the name is taken by a file that no pull wrote.
        """
        model, target = self.get(reference.name), self.folder / reference.local_file
        if model is None or model.format != FILE_FORMAT:  # the file will come before the folder
            if os.path.lexists(target):
                raise FileInTheWayError("{path} is not a file. Move it away, then pull again.", path=str(target))
            return None
        wanted, record = reference.checksums, model.record
        if record is not None and _describes(record, reference):
            return model
        if model.record is None and reference.size in (None, model.size) and looks_like_ggml(model.path):
            found = self._digests(model, wanted, report)
            if all(found[key] == value for key, value in wanted.items()):
                return self._remember(model, found)
        if record is not None and record.written and (record.made or not wanted):
            raise FileInTheWayError(
                "The name {name} is taken by a file from {source}. Remove it, or pull with another name.",
                name=model.name,
                source=record.source,
            )
        if model.removable:
            return None
        raise FileInTheWayError(
            "{path} ({received} bytes) is not the published {name} ({expected} bytes). Move it away, then pull again.",
            path=str(model.path),
            received=model.size,
            name=reference.name,
            expected=reference.size or "?",
        )

    def _digests(self, model: InstalledModel, wanted: Iterable[str], report: Report) -> dict[str, str]:
        algorithms = {"sha256", *wanted}
        return installed.checksums(model, algorithms, lambda done: report(Progress(CHECKING, done, model.size)))

    def _remember(self, model: InstalledModel, found: dict[str, str]) -> InstalledModel:
        """Record the checksums of a file, so that it need not be read again, if the folder can be written."""
        if model.record is not None:
            return model
        record = Record("", *model.identity, found, time.time(), written=False)
        try:
            self._own.mkdir(exist_ok=True)
            write_json(self._record_path(model.path), asdict(record))
        except OSError as error:
            log.info("checksum not recorded", action="model_unrecorded", reason=repr(error))
        return replace(model, record=record)

    def _download(
        self, reference: ModelReference, report: Report, stop: threading.Event, held: lock.FolderLock
    ) -> InstalledModel:
        part = Part(self._own, reference.local_file)
        hub = Hub(self._hub_settings)
        try:
            found = Download(hub, reference, part, report, held.check, stop, self._limits).run()
        finally:
            hub.close()
        if not looks_like_ggml(part.path):
            part.drop()
            raise NotAModelError("{name} is not a ggml model.", name=reference.file)
        if not reference.checksums:  # nothing is published that would show what the file is
            self._check_model(part.path)
        held.confirm()
        return self._install(reference, part, found)

    def _install(self, reference: ModelReference, part: Part, found: dict[str, str]) -> InstalledModel:
        """Give the complete part its name. The record comes first: a record without a file has no effect."""
        target, name = self.folder / reference.local_file, reference.name
        self._valid(reference, lambda _: None)  # a file put there meanwhile by hand is not replaced
        state = part.path.stat()
        record = Record(str(reference), state.st_size, state.st_mtime_ns, found, time.time(), written=True)
        write_json(self._record_path(target), asdict(record))
        part.path.chmod(0o644)
        part.finish(target)
        sync_folder(self._own)
        log.info("model installed", action="model_installed", model=name, bytes=state.st_size, sha256=found["sha256"])
        return InstalledModel(name, target, state.st_size, state.st_mtime_ns, record)

    def _record_path(self, path: Path) -> Path:
        return self._own / f"{path.name}.json"

    def _record(self, path: Path) -> Record | None:
        try:
            return Record(**json.loads(self._record_path(path).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @contextlib.contextmanager
    def _file_errors(self) -> Iterator[None]:
        """Translate OSError of the block, which writes to the folder."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ModelDiskFullError from error
            raise ModelsFolderError(
                "{folder} cannot be written ({reason}). Check MODELS_DIR and its permissions.",
                folder=str(self.folder),
                reason=error.strerror or str(error),
            ) from error


def _describes(record: Record, reference: ModelReference) -> bool:
    """Return True if the recorded file is the wanted one. Without a checksum, files put there by hand count as such."""
    wanted = reference.checksums
    if wanted:
        return all(record.checksums.get(key) == value for key, value in wanted.items())
    return not record.written or record.source == str(reference)


def _waiting(report: Report, stop: threading.Event) -> Callable[[lock.Owner | None], None]:
    def wait(owner: lock.Owner | None) -> None:
        if stop.is_set():
            raise PullStoppedError
        report(Progress(WAITING, detail=str(owner or "")))

    return wait
