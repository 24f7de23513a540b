"""`make bench`: all benchmarks, or those named on the command line: `python -m tests.benchmarks pipeline upload`."""

from __future__ import annotations

import sys

from tests.benchmarks import (
    consumers,
    event_streams,
    fairness,
    first_text,
    leftovers,
    overhead,
    page,
    pipeline,
    scaling,
    silence,
    sizes,
    upload,
    words,
)
from tests.benchmarks.table import Row, markdown

ALL = {
    "pipeline": pipeline.run,
    "silence": silence.run,
    "upload": upload.run,
    "overhead": overhead.run,
    "first_text": first_text.run,
    "fairness": fairness.run,
    "words": words.run,
    "event_streams": event_streams.run,
    "page": page.run,
}
BY_NAME = {"leftovers": leftovers.run, "scaling": scaling.run, "consumers": consumers.run, "sizes": sizes.run}
"""Benchmarks that run only if they are named."""


def main() -> None:
    rows: list[Row] = []
    for name in sys.argv[1:] or ALL:
        print(f"… {name}", file=sys.stderr, flush=True)
        rows += (ALL | BY_NAME)[name]()
    print(markdown(rows))


if __name__ == "__main__":
    main()
