"""The tables of the engine benchmark, their place in docs/performance.md, and the chart for README.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.benchmarks import chart
from tests.benchmarks.engines.measure import Measurement
from tests.benchmarks.ggml_shape import SHAPES
from tests.benchmarks.table import machine
from tests.speech import ROOT

PAGE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "engines.svg"
BEGIN, END = "<!-- engines: begin, written by make bench-engines -->", "<!-- engines: end -->"
WANTED = {"base": 1.3, "small": 1.3, "medium": 1.1, "large-v3-turbo": 1.3}
"""Least ratio of the service's speed to that of faster-whisper at its best."""
WANTED_SERVER = 3.0
"""Least ratio of the service's speed to that of whisper-server."""
WANTED_BARE = 0.95
"""Least ratio of the service's speed to that of its engine on the same chunks, without the rest of the pipeline."""
MISSING = "–"


def markdown(measurements: Sequence[Measurement], note: str) -> str:
    """Return the tables of all shapes measured. note: a sentence on how the run was made."""
    lines = [f"Measured on {machine()}. {note}", ""]
    for shape in SHAPES:
        chosen = [item for item in measurements if item.shape == shape]
        if chosen:
            lines += [f"### {shape}", "", *_engines(chosen), "", *_ratios(shape, chosen), ""]
    return "\n".join(lines).strip()


def _engines(measurements: Sequence[Measurement]) -> list[str]:
    slots = max(item.slots for item in measurements)
    head = ["engine, weights", "encode, s per window", "decode, ms per token", "audio s per CPU s, 1 slot"]
    head += [f"audio s per CPU s, {slots} slots", f"audio s per s, {slots} slots"]
    head += ["10 s clip, s", "peak memory, MB", "proportional memory, MB", "words wrong"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in dict.fromkeys(item.row for item in measurements):
        cells = _cells(row, [item for item in measurements if item.row == row], slots)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(row: str, measurements: Sequence[Measurement], slots: int) -> list[str]:
    good = [item for item in measurements if not item.error]
    if not good:
        return [row, measurements[0].error.replace("|", "/"), *[MISSING] * 8]
    one, many = ([item for item in good if item.slots == count] for count in (1, slots))
    last = (many or one)[-1]
    wrong, words = (sum(getattr(group, name) for group in last.groups.values()) for name in ("wrong", "words"))
    return [
        row,
        _least([item.encode_seconds for item in one], 1, 2),
        _least([item.decode_seconds for item in one], 1000, 1),
        _speed_text(one, cpu_speed),
        _speed_text(many, cpu_speed),
        _speed_text(many, wall_speed),
        _least([item.clip_seconds for item in many], 1, 2),
        f"{last.peak_bytes / 1e6:.0f}" if last.peak_bytes else MISSING,
        f"{last.pss_bytes / 1e6:.0f}" if last.pss_bytes else MISSING,
        f"{wrong * _share(last):.0f} of {words * _share(last):.0f}",
    ]


def _share(measurement: Measurement) -> float:
    """Return the part of the words that one slot transcribed: every slot has the same recordings."""
    return 1 / measurement.slots


def _least(values: Iterable[float | None], factor: float, digits: int) -> str:
    present = [value for value in values if value is not None]
    return f"{min(present) * factor:.{digits}f}" if present else MISSING


def _speed_text(measurements: Sequence[Measurement], speed: Callable[[Measurement], float]) -> str:
    return f"{max(speed(item) for item in measurements):.1f}" if measurements else MISSING


def cpu_speed(measurement: Measurement, group: str | None = None) -> float:
    """Return audio seconds per CPU second, of one group of recordings or of all."""
    return _speed(measurement, "cpu", group)


def wall_speed(measurement: Measurement, group: str | None = None) -> float:
    """Return audio seconds per second, of one group of recordings or of all."""
    return _speed(measurement, "wall", group)


def _speed(measurement: Measurement, cost: str, group: str | None) -> float:
    figures = [item for name, item in measurement.groups.items() if group in (None, name)]
    spent = sum(item.cpu if cost == "cpu" else item.wall for item in figures)
    return sum(item.audio for item in figures) / spent


def _ratios(shape: str, measurements: Sequence[Measurement]) -> list[str]:
    """Compare the service with the best row of each peer, with as many slots as cores, for each group of recordings."""
    slots = max(item.slots for item in measurements)
    good = [item for item in measurements if item.slots == slots and not item.error]
    services = [item for item in good if item.row.startswith("service")]
    if not services:
        return []
    lines = ["| ratio | speech | of CPU seconds | of elapsed seconds | wanted |", "|---|---|---|---|---|"]
    for service in services:
        engine = [item for item in good if item.row == service.row.removeprefix("service, ")]
        for group in service.groups if engine else ():
            cells = [_ratio([service], engine, speed, group) for speed in (cpu_speed, wall_speed)]
            lines.append(f"| {service.row} ÷ its bare engine | {group} | {' | '.join(cells)} | ≥ {WANTED_BARE} |")
    for peer, wanted in (
        ("faster-whisper", WANTED.get(shape, 1.3)),
        ("whisper-server", WANTED_SERVER),
    ):
        peers = [item for item in good if item.row.startswith(peer)]
        for row in dict.fromkeys(item.row for item in services) if peers else ():
            own = [item for item in services if item.row == row]
            for group in own[0].groups:
                cells = [_ratio(own, peers, speed, group) for speed in (cpu_speed, wall_speed)]
                lines.append(f"| {row} ÷ {peer} at its best | {group} | {' | '.join(cells)} | ≥ {wanted} |")
    return lines


def _ratio(own: list[Measurement], peers: list[Measurement], speed: Callable[..., float], group: str) -> str:
    best = max(peers, key=lambda item: speed(item, group))
    figure = max(speed(item, group) for item in own)
    return f"{figure / speed(best, group):.2f} ({figure:.1f} ÷ {speed(best, group):.1f}, {best.row.split(', ', 1)[-1]})"


def write(measurements: Sequence[Measurement], note: str, page: Path = PAGE, picture: Path = CHART) -> str:
    """Write the tables between the markers of the page, and the chart; return the tables."""
    text = markdown(measurements, note)
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    picture.write_text(
        chart.bars(
            "Seconds of audio per CPU second: the service (green), its engines (blue), others (grey)",
            _bars(measurements),
        )
    )
    return text


def _bars(measurements: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Return the speed of each row by shape, from the measurements with one slot, of the service from all cores."""
    result: dict[str, dict[str, float]] = {}
    for item in measurements:
        if not item.error and (item.slots == 1 or item.row.startswith("service")):
            speeds = result.setdefault(item.shape, {})
            speeds[item.row] = max(cpu_speed(item), speeds.get(item.row, 0.0))
    return {shape: result[shape] for shape in SHAPES if shape in result}


def spread(measurements: Sequence[Measurement]) -> float:
    """Return the median relative difference between the slowest and the fastest run of a row, in per cent."""
    runs: dict[tuple[str, str, int], list[float]] = {}
    for item in measurements:
        if not item.error:
            runs.setdefault((item.shape, item.row, item.slots), []).append(cpu_speed(item))
    return statistics.median(100 * (max(speeds) / min(speeds) - 1) for speeds in runs.values())
