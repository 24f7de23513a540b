"""The arithmetic of docs/deployment.md, from the speeds in docs/performance.md."""

from __future__ import annotations

import re

import yaml

from tests.deploy.tools import ROOT

CHUNK_SECONDS, CORES, TARGET_SECONDS = 27, 2, 30


def rows() -> list[tuple[str, str, list[float]]]:
    """Return model, engine, and the figures of each row."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    found = re.findall(r"^\| (\w+) \| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    return [(model, engine, [float(figure) for figure in figures]) for model, engine, *figures in found]


def test_the_figures_follow_from_the_measured_speeds() -> None:
    assert len(rows()) >= 4
    for _, _, (speed, hours, per_minute, messages) in rows():
        chunks = CORES * speed / CHUNK_SECONDS
        assert abs(hours - speed) <= 0.5
        assert per_minute == round(chunks * 60)
        assert messages == round(chunks * TARGET_SECONDS)


def test_the_speeds_are_those_of_the_benchmark() -> None:
    """Runs of the benchmark differ by some percent, and a run may leave rows out."""
    performance = (ROOT / "docs" / "performance.md").read_text()
    measured = 0
    for model, engine, (speed, *_) in rows():
        section = performance.partition(f"### {model}\n")[2].partition("\n### ")[0]
        name = {"openvino": "openvino, f16", "wheel, q4_k": "whisper_cpp_wheel, q4_k"}.get(engine, "whisper_cpp, q4_k")
        for row in re.findall(rf"^\| {re.escape(name)} \|(.*)$", section, re.M):
            measured += 1
            assert abs(float(row.split("|")[2]) / speed - 1) < 0.2, (model, engine)
    assert measured


def test_the_chart_has_the_default_of_the_table() -> None:
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "async-stt" / "values.yaml").read_text())
    per_consumer = values["autoscaling"]["queues"][0]["messagesPerConsumer"]
    (small,) = (figures for model, engine, figures in rows() if (model, engine) == ("small", "openvino"))
    assert abs(per_consumer - small[3]) <= 2
