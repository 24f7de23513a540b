"""`stt doctor`: looks for what is wrong with this machine and its settings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from internal.cli import output
from internal.cli.doctor.plan import Demand
from internal.cli.parameters import AsJson, examples

if TYPE_CHECKING:
    from internal.cli.doctor.findings import Check, Finding

app = typer.Typer()
COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}


@app.command(
    rich_help_panel=output.OPERATING,
    epilog=examples(
        ("stt doctor", "a line for each check, with what to do"),
        ("stt doctor --json | jq -r 'select(.level == \"failed\").remedy'", "what to do about failures"),
        ("stt doctor --plan --audio-hours 100 --retention-days 30", "cores, disks and messages for that much audio"),
    ),
)
def doctor(
    as_json: AsJson = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what an amount of audio needs, and check nothing.")
    ] = False,
    audio_hours: Annotated[
        float, typer.Option(min=0, max=1e7, metavar="N", help="With --plan: hours of audio a day.")
    ] = 24.0,
    retention_days: Annotated[
        float, typer.Option(min=0, max=1e5, metavar="N", help="With --plan: days for which jobs and objects are kept.")
    ] = 30.0,
    minutes: Annotated[
        float, typer.Option(min=0.05, max=360, metavar="N", help="With --plan: length of a recording.")
    ] = 10.0,
    upload_mb: Annotated[
        float, typer.Option(min=0, max=1e4, metavar="N", help="With --plan: MB of an uploaded hour (128 kbit/s: 58).")
    ] = 58.0,
    busiest: Annotated[
        float, typer.Option(min=0.04, max=1, metavar="N", help="With --plan: share of a day in its busiest hour.")
    ] = 0.1,
) -> None:
    """Check everything that the service needs, a line for each, with what to do about it. Exit status 1 on a failure.

    ffmpeg, the model files, the engine (tried in a child process), database and schema, broker and topology, storage,
    keys, the running service, its port, the clock, memory, disk and permissions, with the settings of this shell.

    --plan computes cores by model, rows, bytes and messages from the measurements of docs/performance.md.
    """
    if plan:
        _plan(Demand(audio_hours, retention_days, minutes, upload_mb, busiest), as_json)
        return
    from core.config import LogFormat, load_settings
    from core.logging import configure
    from internal.cli.doctor.checks import CHECKS
    from internal.process import private_files

    private_files()
    settings = load_settings()
    configure("ERROR", LogFormat.AUTO, None, "doctor")
    findings = []
    for check in CHECKS:
        finding = check.run(settings)
        findings.append(finding)
        if as_json:
            text, remedy = finding.in_language(output.language())
            output.json_line({"check": check.name, "level": finding.level, "text": text, "remedy": remedy})
        else:
            _print(check, finding)
    if any(finding.level == "failed" for finding in findings):
        raise typer.Exit(1)


def _plan(demand: Demand, as_json: bool) -> None:
    from internal.cli.doctor.plan import lines
    from internal.cli.doctor.plan import plan as planned

    result = planned(demand)
    if as_json:
        output.json_line(result.to_json())
    else:
        output.result("\n".join(lines(result)))


def _print(check: Check, finding: Finding) -> None:
    language = output.language()
    text, remedy = finding.in_language(language)
    level = f"{finding.label(language):<9}"
    if sys.stdout.isatty():
        level = typer.style(level, fg=COLOURS[finding.level])
    lines = [f"{check.label(language):<14} {level} {output.printable(text)}"]
    if remedy:
        lines.append(f"{'':<25}→ {output.printable(remedy)}")
    output.result("\n".join(lines), styled=True)
