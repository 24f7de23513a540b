"""The engine benchmark: widened models, tables, chart, and figures read back from tables."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.benchmarks import chart, compare, ggml_shape
from tests.benchmarks.engines import report
from tests.benchmarks.engines.measure import GroupFigures, Measurement
from tests.benchmarks.ggml_shape import SHAPES, Shape, WideModel, shape_of
from tests.benchmarks.table import Row, markdown
from tests.speech import MODEL, plain, recording
from worker.engine import build
from worker.model_files import open_model
from worker.transcriber import Call, EngineOutput, EngineSpec, Options


@pytest.mark.speech
def test_a_widened_model_gives_the_same_words(tmp_path: Path) -> None:
    target = Shape(width=256, heads=4, encoder_layers=5, decoder_layers=5, mel_bands=128)
    path = tmp_path / "ggml-wide.bin"
    ggml_shape.write(path, WideModel(open_model(MODEL), target), "q8_0")
    audio, text = recording("en", 3, seed=9)
    samples = np.asarray(audio, np.float32) / np.float32(32768)

    engine = build(EngineSpec("whisper_cpp", path))
    (output,) = engine.transcribe([Call(samples, Options("en"))], 1)

    assert isinstance(output, EngineOutput)
    assert plain(" ".join(segment.text for segment in output.segments)) == plain(text)
    assert shape_of(open_model(path)) == target


def test_a_width_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        WideModel(open_model(MODEL), Shape(200, 4, 4, 4))


def measurement(row: str, slots: int, cpu: float) -> Measurement:
    groups = {
        name: GroupFigures(60.0 * slots, cpu * slots, cpu, 100 * slots, 1.0 * slots) for name in ("steady", "pauses")
    }
    return Measurement("base", row, slots, groups, 0.5, 0.004, 100_000_000, 80_000_000)


def test_the_table_compares_the_service_with_the_best_peer(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "chart.svg"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    runs = [
        measurement("whisper_cpp, q5_0", 1, 6.0),
        measurement("faster-whisper int8, batch 4", 2, 3.0),
        measurement("faster-whisper int8, batch 8", 2, 4.0),
        measurement("service, whisper_cpp, q4_k", 2, 2.0),
        Measurement("base", "whisper-cli", 1, error="SIGILL"),
    ]
    report.write([Measurement.from_json(run.to_json()) for run in runs], "A note.", page, picture)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| whisper_cpp, q5_0 | 0.50 | 4.0 | 10.0 | – | – | – | 100 | 80 | 2 of 200 |" in text
    assert "| whisper-cli | SIGILL |" in text
    assert "| service, whisper_cpp, q4_k ÷ faster-whisper at its best | steady | 1.50 (30.0 ÷ 20.0, batch 4) |" in text
    assert picture.exists()


def test_the_page_has_a_place_for_the_table() -> None:
    text = report.PAGE.read_text()
    assert text.index(report.BEGIN) < text.index(report.END)


def test_a_chart_has_a_bar_for_each_value() -> None:
    picture = ElementTree.fromstring(chart.bars("a < b", {"base": {"x": 2.0, "y & z": 4.0}, "small": {"x": 1.0}}))
    assert len(picture.findall("{http://www.w3.org/2000/svg}rect")) == 3


def test_figures_are_read_from_the_table_of_the_benchmarks() -> None:
    rows = [Row("pipeline ÷ engine", "1.088", "79 s ÷ 72 s", "≤ 1.10"), Row("overhead", "137 ms", "", "")]
    assert compare.figures_of(markdown(rows)) == {"pipeline ÷ engine": 1.088, "overhead": 137.0}


def test_a_comparison_shows_medians_and_ratio() -> None:
    text = compare.table(
        "HEAD~1", {"overhead": [100.0, 120.0, 110.0], "gone": [1.0]}, {"overhead": [55.0], "new": [2.0]}
    )
    assert "| overhead | 110 (100 to 120) | 55 (55 to 55) | 0.500 |" in text
    assert "gone" not in text


def test_all_shapes_are_multiples_of_the_demo_model() -> None:
    assert all(shape.width % 128 == 0 for shape in SHAPES.values())
