"""`stt backup`: database and objects into a folder of encrypted backups."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import output, runner
from internal.cli.backup_key import KeyFile, passphrase
from internal.cli.exits import ExitStatus
from internal.cli.parameters import AsJson, examples

if TYPE_CHECKING:
    from internal.bootstrap import Application

app = typer.Typer()
SHOWN = 10
"""Missing objects that are named."""


@app.command(
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("STT_BACKUP_KEY=… stt backup /mnt/backups", "a first backup, later ones copy what is new"),
        ("stt backup /mnt/backups --key-file /etc/stt.key --keep 14", "every night, for two weeks"),
    ),
)
def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backups; made if it is missing.")],
    key_file: KeyFile = None,
    keep: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Remove all but the newest N backups. Default: keep all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Back up database and objects while the service runs, and print the backup's name.

    Everything is encrypted with the key, without which nothing can be restored. Content that is in the folder is not
    copied again. An interrupted backup is continued by the next one, and is never taken for a finished one. Model
    files, the configuration and a configured SECRET_KEY are not included. Exit status 1 if the storage lacks objects
    that jobs need; the backup is finished all the same.
    """
    from internal.backup.creating import Creation, Summary
    from internal.backup.folder import opened
    from internal.cli.backup_progress import shown

    key = passphrase(key_file)
    done: list[Summary] = []

    async def work(application: Application) -> None:
        with opened(folder, key, write=True) as target, shown() as report:
            creation = Creation(target, application.database, application.storage, application.secret, report)
            done.append(await creation.run(keep))

    try:
        runner.run("backup", work)
    except KeyboardInterrupt:
        output.say("Interrupted. What was copied is kept; the same command continues.")
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    (summary,) = done
    if as_json:
        output.json_line(asdict(summary))
    else:
        output.result(summary.name)
        output.say(
            "{rows} rows, {objects} objects ({size:.1f} MB), of which {copied} are new ({new_size:.1f} MB)",
            rows=summary.rows,
            objects=summary.objects,
            size=summary.bytes / 1e6,
            copied=summary.copied,
            new_size=summary.copied_bytes / 1e6,
        )
    for key in summary.missing[:SHOWN]:
        output.note(f"OBJECT_NOT_FOUND: {key}")
    if summary.missing:
        output.say("{count} objects that jobs need are not in the storage.", count=len(summary.missing))
        raise typer.Exit(ExitStatus.FAILED)
