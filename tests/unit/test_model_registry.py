"""The table of models, and names of models outside it."""

from __future__ import annotations

import re
import tomllib

import pytest

from core.domain.models import QUANTISATIONS, SIZES, model_of_file
from core.errors_models import ModelNameError
from worker.model_store import registry
from worker.model_store.reference import ModelReference, parse

HEX = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha1": re.compile(r"[0-9a-f]{40}")}
NAMES = {
    *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
    *("tiny-q5_1", "tiny-q8_0", "base-q5_1", "base-q8_0", "small-q5_1", "small-q8_0", "medium-q5_0", "medium-q8_0"),
    *("tiny.en-q5_1", "tiny.en-q8_0", "base.en-q5_1", "base.en-q8_0", "small.en-q5_1", "small.en-q8_0"),
    *("medium.en-q5_0", "medium.en-q8_0", "large-v1", "large-v2", "large-v2-q5_0", "large-v2-q8_0"),
    *("large-v3", "large-v3-q5_0", "large-v3-turbo", "large-v3-turbo-q5_0", "large-v3-turbo-q8_0"),
}


def test_the_table_has_the_published_models() -> None:
    whisper = {name for name, entry in registry.entries().items() if entry.kind == registry.WHISPER}
    assert whisper == NAMES


@pytest.mark.parametrize("entry", registry.entries().values(), ids=lambda entry: entry.name)
def test_every_row_is_complete(entry: registry.ModelEntry) -> None:
    assert entry.checksums["sha256"]
    assert all(HEX[algorithm].fullmatch(digest) for algorithm, digest in entry.checksums.items())
    assert 500_000 < entry.size < 4_000_000_000
    assert (entry.licence, entry.revision) == ("MIT", "main")
    assert re.fullmatch(r"[\w-]+/[\w.-]+", entry.repository)
    assert model_of_file(entry.file, detectors=True) == entry.name
    if entry.kind == registry.WHISPER:
        assert entry.languages == ("en" if ".en" in entry.name else "multilingual")
        assert entry.memory > entry.size / 1_000_000
        assert entry.speed in ("very fast", "fast", "moderate", "slow", "very slow")
        assert "sha1" in entry.checksums
    assert parse(entry.name).checksums == entry.checksums


def test_no_two_models_have_the_same_checksum() -> None:
    digests = [digest for entry in registry.entries().values() for digest in entry.checksums.values()]
    assert len(digests) == len(set(digests))


def test_quantised_files_are_smaller() -> None:
    entries = registry.entries()
    for name, entry in entries.items():
        plain = re.sub(r"-q\d_\d$", "", name)
        assert plain == name or entry.size < entries[plain].size


def test_every_model_of_the_table_can_be_chosen() -> None:
    """A name that `resolve` does not know would never be selected for a family name."""
    for name, entry in registry.entries().items():
        if entry.kind == registry.WHISPER:
            assert any(name in {size + en + suffix for en in ("", ".en") for suffix in QUANTISATIONS} for size in SIZES)


def test_the_memory_of_unquantised_models_is_the_published_one() -> None:
    published = {"tiny": 273, "base": 388, "small": 852, "medium": 2100, "large-v3": 3900}
    assert {name: registry.entries()[name].memory for name in published} == pytest.approx(published, rel=0.01)


def test_recipes_are_complete() -> None:
    recipes = registry.recipes()
    assert set(recipes) == {f"phowhisper-{size}" for size in ("tiny", "base", "small", "medium", "large")}
    families = tomllib.loads(registry.FILE.read_text())["whisper"]["families"]
    for recipe in recipes.values():
        assert recipe.family in families
        assert (recipe.format, recipe.languages, recipe.licence) == ("transformers", ("vi",), "BSD-3-Clause")
        assert len(recipe.word_error_rates) == 4
        with pytest.raises(ModelNameError, match=f"stt models import {recipe.repository}"):
            parse(recipe.name)


@pytest.mark.parametrize(
    ("text", "name", "repository", "revision", "file"),
    [
        ("small", "small", "ggerganov/whisper.cpp", "main", "ggml-small.bin"),
        ("large", "large-v3", "ggerganov/whisper.cpp", "main", "ggml-large-v3.bin"),
        ("large-q5_0", "large-v3-q5_0", "ggerganov/whisper.cpp", "main", "ggml-large-v3-q5_0.bin"),
        ("me/repo:ggml-mine.bin", "mine", "me/repo", "main", "ggml-mine.bin"),
        ("me/repo@v1.2:ggml-mine.bin", "mine", "me/repo", "v1.2", "ggml-mine.bin"),
        ("me/PhoWhisper-small:ggml-model-q5_0.bin", "phowhisper-small-q5_0", "me/PhoWhisper-small", "main", None),
        ("me/repo:ggml-model.bin", "repo", "me/repo", "main", None),
        ("me/repo:sub/folder/mine.bin", "mine", "me/repo", "main", "sub/folder/mine.bin"),
    ],
)
def test_references(text: str, name: str, repository: str, revision: str, file: str | None) -> None:
    reference = parse(text)
    assert (reference.name, reference.repository, reference.revision) == (name, repository, revision)
    assert reference.file == file or file is None


def test_a_reference_is_written_as_it_is_read() -> None:
    for text in ("me/repo:ggml-mine.bin", "me/repo@v1.2:sub/ggml-mine.bin"):
        assert str(parse(text)) == text


def test_a_file_from_elsewhere_with_a_published_name_needs_the_published_checksum() -> None:
    reference = parse("stranger/repo:ggml-medium.bin")
    assert reference.checksums == registry.entries()["medium"].checksums
    assert reference.size == registry.entries()["medium"].size
    other = parse("stranger/repo:ggml-medium.bin", "theirs")
    assert other == ModelReference("theirs", "stranger/repo", "main", "ggml-medium.bin")


@pytest.mark.parametrize(
    "text",
    [
        *("", "huge", "../etc/passwd", "a/b", "a/b:", ":x.bin", "a/b:/etc/passwd", "a/b:../x.bin", "a/b:x/../../y.bin"),
        *("a/..:x.bin", "../b:x.bin", "a/b@..:x.bin", "a/b@x/../y:x.bin", "a/b:x\n.bin", "a/b:x.bin\n", "small\n"),
        *("a/b:\x1b[31mx.bin", "a/b:x.bin?download=true", "a/b:x.bin#y", "a/b:x%2e%2e.bin", "a/b:.hidden", "-rf"),
        *("https://example.org/x.bin", "a/b:x.bin:y", "a/b:x y.bin", "á/b:x.bin", "a\\b:x.bin", "a" * 97 + "/b:x.bin"),
        *("a/b:" + "c" * 97, "a/b:" + "/".join("abcdefghi"), "a/b:ggml-.bin", "\0", "small\0"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ModelNameError) as raised:
        parse(text)
    message = raised.value.message("vi")
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "-x", "x\n", "", "x..y", "\x1b[0m", "a" * 101])
def test_names_given_by_the_user_are_checked(name: str) -> None:
    if name:
        with pytest.raises(ModelNameError):
            parse("me/repo:ggml-mine.bin", name)


def test_a_voice_detector_is_no_model_to_transcribe_with() -> None:
    assert model_of_file("ggml-silero-v6.2.0.bin") is None
    assert model_of_file("ggml-silero-v6.2.0.bin", detectors=True) == "silero-v6.2.0"


def test_the_table_of_bad_days_names_tests_that_exist() -> None:
    root = registry.FILE.parents[2]
    files = [f"integration/test_model_{name}.py" for name in ("pull", "lock", "installation")] + ["cli/test_models.py"]
    code = "".join((root / "tests" / name).read_text() for name in files)
    document = (root / "docs" / "models.md").read_text()
    named = re.findall(r"`(test_[a-z0-9_]+)`", document)
    assert len(named) > 30
    assert [name for name in named if f"def {name}(" not in code] == []
