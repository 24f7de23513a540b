"""`stt transcribe`: recordings to text files."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from internal.cli import output
from internal.cli.parameters import AsJson, Server, examples
from internal.cli.transcribing.whisper_flags import normalise

app = typer.Typer()
HOW, WHERE, RUN = "How to transcribe", "Where to write", "How to run"
FORMATS = ("txt", "srt", "vtt", "tsv", "json")
LANGUAGES = {"english": "en", "vietnamese": "vi"}
"""Names that the whisper command lines accept besides codes."""
EPILOG = examples(
    ("stt transcribe talk.mp3", "print the text and write talk.txt"),
    ("stt transcribe talk.mp4 --output_format srt --language vi", "subtitles in talk.srt"),
    ("stt transcribe recordings/ --recursive --output_dir texts", "a folder; again: only what is new or changed"),
    ("ffmpeg -i talk.mkv -f wav - | stt transcribe -", "from standard input"),
    ("stt transcribe https://media.example.org/talk.mp3 --detach", "print the job's id and end"),
    ("STT_SERVER=https://stt.example.org STT_API_KEY=stt_… stt transcribe talk.mp3", "on a server"),
)


class WhisperCommand(TyperCommand):
    """A command that takes the arguments of other whisper command lines as well."""

    def parse_args(self, ctx: Any, args: Sequence[str]) -> list[str]:
        known, ignored = normalise(args)
        for name in ignored:
            output.say("--{name} has no effect: the service decides this.", name=name)
        return super().parse_args(ctx, known)


class Format(StrEnum):
    """Formats of transcripts."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    JSON = "json"
    ALL = "all"


class Task(StrEnum):
    """Tasks of Whisper."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


class Priority(StrEnum):
    """Priorities of jobs."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class OnInterrupt(StrEnum):
    """Action of Ctrl-C without a terminal."""

    CANCEL = "cancel"
    DETACH = "detach"


@app.command(cls=WhisperCommand, rich_help_panel=output.TRANSCRIBING, epilog=EPILOG, no_args_is_help=True)
def transcribe(
    recordings: Annotated[
        list[str],
        typer.Argument(metavar="FILE|DIR|GLOB|URL|-…", help="Recordings; - is standard input."),
    ],
    language: Annotated[
        str,
        typer.Option("--language", "-l", rich_help_panel=HOW, help="en, vi, or auto to detect it."),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", rich_help_panel=HOW, help="A model of the service, or a family such as medium."),
    ] = None,
    task: Annotated[Task, typer.Option(rich_help_panel=HOW, help="Only transcribe is supported.")] = Task.TRANSCRIBE,
    initial_prompt: Annotated[
        str | None, typer.Option(rich_help_panel=HOW, help="Names and words to expect, at most 2000 characters.")
    ] = None,
    word_timestamps: Annotated[
        bool,
        typer.Option("--word-timestamps", rich_help_panel=HOW, help="Times of every word, in json."),
    ] = False,
    temperature: Annotated[
        float, typer.Option(min=0, max=1, rich_help_panel=HOW, help="Randomness of the decoder.")
    ] = 0.0,
    priority: Annotated[
        Priority, typer.Option(rich_help_panel=HOW, help="Order among the jobs of the service.")
    ] = Priority.NORMAL,
    output_format: Annotated[
        Format,
        typer.Option("--output-format", "-f", rich_help_panel=WHERE, help="Format of the files; all: every one."),
    ] = Format.TXT,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", rich_help_panel=WHERE, help="Folder of the files. (beside each recording)"),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            rich_help_panel=WHERE,
            help="Transcribe again what is done, and replace files that stt did not write.",
        ),
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", rich_help_panel=RUN, help="Folders in folders as well.")
    ] = False,
    server: Server = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", rich_help_panel=RUN, help="Submit, print the ids of the jobs, and end."),
    ] = False,
    at_once: Annotated[
        int, typer.Option(min=1, max=64, rich_help_panel=RUN, help="Recordings that are submitted at once.")
    ] = 4,
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--no-keep",
            rich_help_panel=RUN,
            help="Leave finished jobs in the service. (with --server; otherwise they are removed)",
        ),
    ] = None,
    on_interrupt: Annotated[
        OnInterrupt, typer.Option(rich_help_panel=RUN, help="Effect of Ctrl-C without a terminal, which would ask.")
    ] = OnInterrupt.CANCEL,
    as_json: AsJson = False,
) -> None:
    """Transcribe recordings, and write the text beside each or into a folder.

    Without --server, the service of DATA_DIR is used if it runs, and otherwise started for this command. The transcript
    of one recording is printed as well; of several, the names of the files are. A recording whose transcript is there
    is skipped, if its content and the options are the same.
    """
    import asyncio
    import os
    import sys

    from core.errors_command import TaskNotSupportedError
    from internal.cli.exits import ExitStatus
    from internal.cli.service import connect
    from internal.cli.transcribing.inputs import expand
    from internal.cli.transcribing.reporters import choose_reporter
    from internal.cli.transcribing.run import Request, Run, is_done

    if task is not Task.TRANSCRIBE:
        raise TaskNotSupportedError
    inputs = expand(recordings, recursive=recursive)
    if not inputs:
        return

    request = Request(
        formats=FORMATS if output_format is Format.ALL else (output_format.value,),
        options={
            "language": LANGUAGES.get(language.lower(), language.lower()),
            "model": model,
            "priority": priority.value,
            "prompt": initial_prompt,
            "words": word_timestamps or None,
            "temperature": temperature or None,
        },
        output_dir=output_dir,
        overwrite=overwrite,
        detach=detach,
        keep=detach or (bool(server) if keep is None else keep),
        at_once=at_once,
        on_interrupt=on_interrupt.value,
        prints=not as_json,
    )

    async def run() -> ExitStatus:
        if all(is_done(entry, request) for entry in inputs):
            return await Run(None, request, inputs, choose_reporter(as_json=as_json, count=len(inputs))).run()
        async with connect(server) as connection:
            reporter = choose_reporter(as_json=as_json, count=len(inputs))
            return await Run(connection, request, inputs, reporter).run()

    status = asyncio.run(run())
    if status is ExitStatus.INTERRUPTED:
        # a thread may still wait for standard input
        sys.stdout.flush()
        os._exit(status)
    raise typer.Exit(status)
