"""`make bench-scale`: fill a database and measure; `python -m tests.benchmarks.scale routes` measures one part."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog

from tests.benchmarks.scale import fleet, leftovers, pipeline, report, retention, routes, statements, streams
from tests.benchmarks.scale.stores import Stores, filled_stores

CONSUMERS, JOBS = 50, 400
STREAMS, API_PROCESSES = 10_000, 4


def _routes(stores: Stores, folder: Path) -> list[str]:
    return report.routes(routes.measure(stores, folder))


def _statements(stores: Stores, folder: Path) -> list[str]:
    return report.statements(*statements.measure(stores, folder))


def _pipeline(stores: Stores, folder: Path) -> list[str]:
    return report.pipeline(pipeline.measure(stores, folder))


def _retention(stores: Stores, folder: Path) -> list[str]:
    return report.retention(retention.measure(stores, folder))


def _leftovers(stores: Stores, _folder: Path) -> list[str]:
    size = stores.size
    jobs = size.ended + size.waiting + size.running
    title = f"{size.ended:,} ended and {size.waiting:,} waiting jobs, filled in {stores.fill_seconds:.0f} s."
    return [title, "", *report.leftovers(leftovers.measure(stores), jobs, size.ended)]


def _fleet(stores: Stores, folder: Path) -> list[str]:
    return report.fleet(fleet.measure(stores.empty(), stores.broker.management, folder, CONSUMERS, JOBS))


def _streams(stores: Stores, folder: Path) -> list[str]:
    return report.streams(streams.measure(stores.empty(), folder, STREAMS, API_PROCESSES))


PARTS: dict[str, Callable[[Stores, Path], list[str]]] = {
    "leftovers": _leftovers,
    "routes": _routes,
    "pipeline": _pipeline,
    "fleet": _fleet,
    "streams": _streams,
    "statements": _statements,
    "retention": _retention,
}


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with filled_stores() as stores, tempfile.TemporaryDirectory() as name:
        for part in sys.argv[1:] or PARTS:
            print(report.write(part, PARTS[part](stores, Path(name) / part)), flush=True)


if __name__ == "__main__":
    main()
