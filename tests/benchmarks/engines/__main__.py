"""`make bench-engines`: every engine and its peers on the same recordings and weights, in one run.

Settings, all in the environment: SHAPES (names, default "base small"), MINUTES (of recordings, default 3), REPEATS
(runs of each row, interleaved; the best one counts; default 1), ROWS (parts of names, separated by semicolons; only
rows that contain one of them are measured). Each result is appended to the file RESULTS at once; `--render` writes the
tables of that file without measuring.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.engines import catalogue, measure, models, recordings, report, service
from tests.benchmarks.engines.measure import Measurement

RESULTS = Path(os.environ.get("RESULTS", models.CACHE / "engines.jsonl"))


def main() -> None:
    if "--render" not in sys.argv:
        run(os.environ.get("SHAPES", "base small").split(), float(os.environ.get("MINUTES", "3")))
    measurements = [Measurement.from_json(line) for line in RESULTS.read_text().splitlines()]
    print(report.write(measurements, note(measurements)))


def note(measurements: list[Measurement]) -> str:
    audio = max(sum(group.audio for group in item.groups.values()) / item.slots for item in measurements)
    runs = Counter((item.shape, item.row, item.slots) for item in measurements)
    if max(runs.values()) == 1:
        return f"{audio:.0f} s of speech; one run of each row."
    between = f"between which the median row differs by {report.spread(measurements):.0f} %"
    return f"{audio:.0f} s of speech; the best of interleaved runs, {between}."


def run(shapes: list[str], minutes: float) -> None:
    """Measure all rows of the shapes, and append each measurement to RESULTS."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("")
    inputs = models.CACHE / "recordings"
    spoken = recordings.prepare(inputs, minutes)
    for shape in shapes:
        for repeat in range(int(os.environ.get("REPEATS", "1"))):
            for name, call in calls(shape, inputs, spoken):
                print(f"… {shape}, run {repeat + 1}: {name}", file=sys.stderr, flush=True)
                result = call()
                with RESULTS.open("a") as file:
                    file.write(result.to_json() + "\n")
                print(f"  {summary(result)}", file=sys.stderr, flush=True)


def calls(
    shape: str, inputs: Path, spoken: list[recordings.Recording]
) -> Iterator[tuple[str, Callable[[], Measurement]]]:
    """Yield the name and the function of each measurement: every row with one slot and with a slot per core."""
    words = [word.strip() for word in os.environ.get("ROWS", "").split(";") if word.strip()]
    audio: dict[str, float] = {}
    for item in spoken:
        audio[item.group] = audio.get(item.group, 0.0) + item.seconds
    for row in catalogue.rows():
        for slots in dict.fromkeys(row.slots):
            if not words or any(word in row.name for word in words):
                yield f"{row.name}, {slots} slots", partial(engine, row, shape, slots, inputs, audio)
    for name, quantisation in catalogue.services():
        row_name = service.row_name(name, quantisation)
        if not words or any(word in row_name for word in words):
            yield row_name, partial(service.measure, shape, name, quantisation, catalogue.cores(), spoken, inputs)


def engine(row: catalogue.EngineRow, shape: str, slots: int, inputs: Path, audio: dict[str, float]) -> Measurement:
    task = row.task(shape, slots)
    for one in task.tasks:
        one["recordings"] = str(inputs)
    return measure.measure(shape, row.name, slots, task, audio)


def summary(result: Measurement) -> str:
    if result.error:
        return result.error
    return f"{report.cpu_speed(result):.1f} audio s per CPU s, {report.wall_speed(result):.1f} per s"


if __name__ == "__main__":
    main()
