"""`stt restore`: a backup into an empty database and storage."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import output, runner
from internal.cli.backup_key import KeyFile, passphrase
from internal.cli.exits import ExitStatus
from internal.cli.parameters import AsJson, examples

if TYPE_CHECKING:
    from core.config import Settings
    from internal.backup.folder import Folder
    from internal.backup.restoring import Restored
    from internal.bootstrap import Application

app = typer.Typer()


@app.command(
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("stt restore /mnt/backups --key-file /etc/stt.key", "the newest backup, with all processes stopped"),
        ("stt restore /mnt/backups --check", "read and verify every byte of it instead"),
    ),
)
def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backups.")],
    name: Annotated[
        str | None, typer.Option("--backup", metavar="NAME", help="A name of --list. Default: the newest one.")
    ] = None,
    key_file: KeyFile = None,
    replace: Annotated[bool, typer.Option("--replace", help="Delete the rows that the database has.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Verify the backup and restore nothing.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List the finished backups.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore database and objects, from any mode into any mode. Stop all processes first.

    The schema is that of the backup, upgraded to this version. Jobs that were unfinished continue when the processes
    start. Until the end the database is as it was; an interrupted restore is run again, and objects that are there are
    not written again.
    """
    from internal.backup.folder import opened

    with opened(folder, passphrase(key_file), write=False) as source:
        if list_all:
            _list(source, as_json)
        elif check:
            _check(source, name, as_json)
        else:
            _print(_restore(source, name, replace), as_json)


def _list(source: Folder, as_json: bool) -> None:
    from internal.backup.manifest import read_manifest

    rows = []
    for name in source.names():
        manifest = read_manifest(source, name)
        rows.append((name, manifest.version, manifest.revision, manifest.objects.rows, f"{manifest.bytes / 1e6:.1f}"))
    columns = ("name", "version", "schema", "objects", "MB")
    if as_json:
        for row in rows:
            output.json_line(dict(zip(columns, row, strict=True)))
    else:
        output.table(columns, rows, "The folder has no finished backup.")


def _check(source: Folder, name: str | None, as_json: bool) -> None:
    import asyncio

    from internal.backup.restoring import check
    from internal.cli.backup_progress import shown

    with shown() as report:
        manifest = asyncio.run(check(source, name, report))
    if as_json:
        output.json_line({"name": manifest.name, "objects": manifest.objects.rows, "bytes": manifest.bytes})
    else:
        output.result(output.in_language("{name}: every byte is as it was written", name=manifest.name))


def _restore(source: Folder, name: str | None, replace: bool) -> Restored:
    from internal.backup.restoring import Restoration
    from internal.cli.backup_progress import shown

    done: list[Restored] = []

    async def work(application: Application) -> None:
        with ExitStack() as stack:
            _lock(application.settings, stack)
            report = stack.enter_context(shown())
            stores = (application.database, application.storage, application.secret)
            done.append(await Restoration(source, *stores, report).run(name, replace=replace))

    try:
        runner.run("restore", work)
    except KeyboardInterrupt:
        output.say("Interrupted. The database is as it was; the same command starts again.")
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    return done[0]


def _lock(settings: Settings, stack: ExitStack) -> None:
    """Keep the embedded service from using DATA_DIR. Raises ServiceRunningError."""
    from core.config import BrokerKind
    from core.errors import SettingsError
    from core.errors_backup import ServiceRunningError
    from internal import data_folder

    if settings.broker is BrokerKind.MEMORY:
        try:
            stack.callback(data_folder.unlock, data_folder.lock(settings.data_dir))
        except SettingsError:
            raise ServiceRunningError from None


def _print(restored: Restored, as_json: bool) -> None:
    if as_json:
        output.json_line(asdict(restored))
    else:
        output.result(restored.name)
        output.say(
            "{rows} rows, {objects} objects, {jobs} jobs, {unfinished} of which continue ({again} from the recording)",
            rows=restored.rows,
            objects=restored.objects,
            jobs=restored.jobs,
            unfinished=restored.unfinished,
            again=restored.prepared_again,
        )
    if restored.missing:
        output.say(
            "OBJECT_NOT_FOUND: {count} objects had been lost before the backup was made.", count=restored.missing
        )
    if not restored.same_secret:
        output.say("SECRET_KEY is not that of the backup: its API keys and webhook secrets are not valid.")
