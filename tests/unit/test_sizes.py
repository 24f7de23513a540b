"""The table of installed sizes."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import sizes
from tests.speech import ROOT


def test_the_extra_adds_the_packages_that_the_base_lacks() -> None:
    base, extra = (sizes.pinned(ROOT / name) for name in ("requirements.lock", "requirements-openvino.lock"))
    assert "pywhispercpp" in base
    assert extra > base
    assert "openvino" in extra - base


def test_the_table_is_written_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{sizes.BEGIN}\nold\n{sizes.END}\nafter\n")
    text = sizes.write(page)
    assert page.read_text() == f"before\n{sizes.BEGIN}\n{text}\n{sizes.END}\nafter\n"
    assert "| numpy " in text
    assert "old" not in text
    assert sizes.BEGIN in sizes.PAGE.read_text()
