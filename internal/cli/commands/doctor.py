"""`stt doctor`: looks for what is wrong with this machine and its settings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from internal.cli import output
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
    ),
)
def doctor(as_json: AsJson = False) -> None:
    """Check everything that the service needs, a line for each, with what to do about it. Exit status 1 on a failure.

    ffmpeg, the model files, the engine (tried in a child process), database and schema, broker and topology, storage,
    keys, the running service, its port, the clock, memory, disk and permissions, with the settings of this shell.
    """
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
