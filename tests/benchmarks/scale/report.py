"""The tables of `make bench-scale`, written to docs/scale.md between their markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.benchmarks.scale.fleet import Fleet
from tests.benchmarks.scale.leftovers import Table
from tests.benchmarks.scale.pipeline import Throughput
from tests.benchmarks.scale.retention import Rate
from tests.benchmarks.scale.routes import TARGET, Latency
from tests.benchmarks.scale.statements import Statement
from tests.benchmarks.scale.streams import JOBS, Streams
from tests.benchmarks.table import machine
from tests.speech import ROOT

PAGE = ROOT / "docs" / "scale.md"


def write(part: str, lines: Iterable[str], page: Path = PAGE) -> str:
    """Write one part of the page between its markers; return the text. Raises ValueError if the page lacks them."""
    begin, end = f"<!-- {part}: begin, written by make bench-scale -->", f"<!-- {part}: end -->"
    before, found, rest = page.read_text().partition(begin)
    if not found:
        raise ValueError(f"{page} has no marker {begin}")
    text = "\n".join([f"Measured on {machine()}.", "", *lines])
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
    return text


def routes(latencies: Sequence[Latency]) -> list[str]:
    lines = ["| Route | p50 | p99 | |", "|---|---|---|---|"]
    for each in latencies:
        missed = "" if each.percentile(0.99) < TARGET else f"over {TARGET * 1000:.0f} ms"
        lines.append(f"| `{each.name}` | {_ms(each, 0.5)} | {_ms(each, 0.99)} | {missed} |")
    return lines


def statements(found: Sequence[Statement], problems: dict[str, set[str]]) -> list[str]:
    lines = ["| Process | Statement | Times | p50 | p99 | Rows read, by index |", "|---|---|---|---|---|---|"]
    for each in found:
        latency = each.latency
        cells = [
            f"`{latency.name.replace('|', '¦')}`",
            str(len(latency.seconds)),
            _ms(latency, 0.5),
            _ms(latency, 0.99),
        ]
        lines.append(f"| {each.process} | {' | '.join(cells)} | {each.scans} |")
    lines += ["", f"Statements whose plan grows with the tables: {len(problems) or 'none'}."]
    return lines + [f"- `{statement[:300]}`: {', '.join(sorted(reasons))}" for statement, reasons in problems.items()]


def leftovers(tables: Sequence[Table], jobs: int, ended: int) -> list[str]:
    lines = ["| Table | Rows a job | Bytes a job | of these in indexes |", "|---|---|---|---|"]
    for table in tables:
        total = jobs if table.name == "jobs" else ended
        cells = [f"{table.rows / total:.2f}", f"{(table.data + table.indexes) / total:,.0f}"]
        lines.append(f"| `{table.name}` | {' | '.join(cells)} | {table.indexes / total:,.0f} |")
    return lines


def retention(rates: Sequence[Rate]) -> list[str]:
    return [
        "| Deleted by one scheduler | Items | A second | A million jobs a day need, a second |",
        "|---|---|---|---|",
        *(
            f"| {each.name} | {each.items:,} | {each.rate:,.0f} | {each.a_million_a_day / 86_400:,.0f} |"
            for each in rates
        ),
    ]


def pipeline(runs: Sequence[Throughput]) -> list[str]:
    names = list(runs[0].cpu)
    titles = ["Run", "Consumers", "Messages a second", *(f"CPU ms a message, {name}" for name in names)]
    titles += ["Commits", "Syncs of the log", "Bytes of the log, a message"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for run in sorted(runs, key=lambda run: (run.name, run.consumers)):
        cpu = " | ".join(f"{run.cpu[name] / run.messages * 1000:.2f}" for name in names)
        written = [f"{run.database[name] / run.messages:,.1f}" for name in ("commits", "syncs")]
        written.append(f"{run.database['bytes'] / run.messages:,.0f}")
        lines.append(f"| {run.name} | {run.consumers} | {run.rate:,.0f} | {cpu} | {' | '.join(written)} |")
    return lines


def fleet(seen: Fleet) -> list[str]:
    connections, channels, consumers = seen.amqp
    figures = {
        f"{seen.consumers} consumers are started at once, until all are announced": f"{seen.started:.0f} s",
        "Memory of all processes": f"{seen.memory:,.0f} MB",
        "Connections to PostgreSQL, with `DATABASE_CONNECTIONS=2`": f"{seen.connections}",
        "Connections, channels and subscriptions in RabbitMQ": f"{connections}, {channels}, {consumers}",
        f"Half of them are killed at work: until all of {seen.jobs} jobs have ended": f"{seen.half_killed:.0f} s",
        "Jobs that were completed; chunks that ran again; jobs completed twice": (
            f"{seen.completed}; {seen.repeated}; {seen.twice}"
        ),
        "The killed ones are started again at once, until all are announced": f"{seen.restarted:.0f} s",
    }
    return ["| What | Figure |", "|---|---|", *(f"| {name} | {figure} |" for name, figure in figures.items())]


def streams(seen: Streams) -> list[str]:
    figures = {
        f"{seen.streams:,} streams over {seen.processes} API processes are open after": f"{seen.opened:.0f} s",
        "Memory of the API before and with them": f"{seen.memory_before:.0f} MB, {seen.memory:.0f} MB",
        "Memory for each stream": f"{seen.kilobytes:.0f} KB",
        "CPU time of the API without events": f"{seen.idle_cpu:.2f} s a second",
        f"A commit in each of {JOBS} jobs, until it has reached all readers": f"{seen.reached:.1f} s",
        "CPU time of the API for these commits": f"{seen.commit_cpu:.1f} s",
    }
    return ["| What | Figure |", "|---|---|", *(f"| {name} | {figure} |" for name, figure in figures.items())]


def _ms(latency: Latency, share: float) -> str:
    return f"{latency.percentile(share) * 1000:.1f} ms"
