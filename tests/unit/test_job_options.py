"""Job options, read back from JSON that this or another version wrote."""

from __future__ import annotations

import pytest

from core.domain.job_options import JobOptions, MergeMethod

FULL = JobOptions("Mai", True, 0.5, "ab" * 32, "hybrid", MergeMethod.SIMPLE)


@pytest.mark.parametrize("options", [JobOptions(), JobOptions(prompt="Mai"), JobOptions(words=True), FULL])
def test_options_survive_a_round_trip(options: JobOptions) -> None:
    assert JobOptions.from_json(options.to_json()) == options


def test_empty_options_are_not_stored() -> None:
    assert JobOptions(prompt="Mai").to_json() == {"prompt": "Mai", "merge_method": "smart"}


def test_keys_of_another_version_are_kept() -> None:
    data = {"speakers": 2, "words": True, "merge_method": "none"}
    options = JobOptions.from_json(data)
    assert (options.words, options.merge_method, dict(options.unknown)) == (True, MergeMethod.NONE, {"speakers": 2})
    assert options.to_json() == data


@pytest.mark.parametrize("value", [None, "clever", [], {}])
def test_values_that_cannot_be_read_get_their_defaults(value: object) -> None:
    data = {"temperature": value, "merge_method": value, "chunk_strategy": "hybrid"}
    assert JobOptions.from_json(data) == JobOptions(chunk_strategy="hybrid")


def test_missing_keys_get_their_defaults() -> None:
    assert JobOptions.from_json({}) == JobOptions()
