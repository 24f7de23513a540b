"""The arithmetic of `stt doctor --plan`."""

from __future__ import annotations

import pytest

from internal.cli.doctor import plan_figures as figures
from internal.cli.doctor.plan import Demand, lines, plan


def test_an_hour_a_day_by_hand() -> None:
    """One recording of an hour: 95 chunks, as the benchmark `scaling` counts."""
    result = plan(Demand(hours_per_day=1, retention_days=10, minutes=60, upload_mb=58, busiest=1))
    chunks = 3600 / figures.CHUNK_SECONDS
    assert round(chunks) == 95
    assert result.jobs_per_day == 1
    assert result.database_rows == pytest.approx(4800, rel=0.01)  # 480 rows an hour in docs/performance.md
    assert result.messages_busiest_hour * 3600 == pytest.approx(97, rel=0.01)
    assert result.upload_bytes == 580_000_000
    assert result.working_bytes == 3600 * 32_000
    base = next(cores for cores in result.cores if (cores.model, cores.engine) == ("base", "openvino"))
    assert base.busiest_hour == pytest.approx(1 / 21.1)
    assert base.average == pytest.approx(1 / 24 / 21.1)


def test_short_recordings_have_one_chunk() -> None:
    """3,596 rows an hour for jobs of 10 s in docs/performance.md, 1,079 messages."""
    result = plan(Demand(hours_per_day=1, retention_days=1, minutes=1 / 6, busiest=1))
    assert result.chunks_per_day == result.jobs_per_day == pytest.approx(360)
    assert result.database_rows == pytest.approx(3596, rel=0.01)
    assert result.messages_busiest_hour * 3600 == pytest.approx(1079, rel=0.01)


def test_everything_grows_with_the_demand() -> None:
    small, large = (plan(Demand(hours, 30)) for hours in (10, 1000))
    assert large.database_bytes == pytest.approx(100 * small.database_bytes, rel=1e-6)
    assert large.upload_bytes == 100 * small.upload_bytes
    assert large.cores[0].average == pytest.approx(100 * small.cores[0].average)


def test_nothing_needs_nothing() -> None:
    result = plan(Demand(0, 0))
    assert (result.database_rows, result.upload_bytes, result.messages_average) == (0, 0, 0)
    assert any("not measured" in line for line in lines(result))
