"""Decoding: results, rejected files, and no process left behind."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import psutil
import pytest

from core.errors import (
    AudioTooLongError,
    CorruptedFileError,
    DecodeTimeoutError,
    DiskFullError,
    InvalidAudioFormatError,
)
from tests.speech import encode, recording, silence, write_wav
from worker import audio, ffmpeg
from worker.audio import decode

HOW: dict[str, Any] = {"max_duration": 600.0, "deadline": 60.0}


async def pcm_of(source: Path, folder: Path) -> bytes:
    blocks: list[bytes] = []
    samples = await decode(source, folder / "pcm", on_pcm=blocks.append, **HOW)
    data = (folder / "pcm").read_bytes()
    assert data == b"".join(blocks)
    assert len(data) == samples * 2
    return data


async def test_a_wav_in_the_target_format_is_unchanged(tmp_path: Path) -> None:
    audio = recording("en", 2, seed=1)[0]
    assert await pcm_of(write_wav(tmp_path / "a.wav", audio), tmp_path) == audio.tobytes()


async def test_stereo_and_other_rates_are_converted_to_16_khz_mono(tmp_path: Path) -> None:
    audio = recording("en", 2, seed=1)[0]
    data = await pcm_of(encode(audio, tmp_path / "a.flac", rate=44_100, channels=2), tmp_path)
    assert len(data) / 2 == pytest.approx(len(audio), abs=50)


async def test_the_first_audio_track_of_a_video_is_used(tmp_path: Path) -> None:
    audio = recording("en", 2, seed=1)[0]
    data = await pcm_of(encode(audio, tmp_path / "a.mkv", video=True), tmp_path)
    assert len(data) / 2 == pytest.approx(len(audio), rel=0.05)


def with_longer_picture(audio: Path, path: Path) -> Path:
    picture = ["-f", "lavfi", "-i", "color=size=64x64:rate=5:duration=40"]
    call = [ffmpeg.program(), "-v", "error", "-i", str(audio), *picture, "-c:v", "mpeg4", "-c:a", "copy", str(path)]
    subprocess.run(call, check=True)
    return path


@pytest.mark.parametrize("ending", ["avi", "mp4", "mkv"])
async def test_a_video_may_be_longer_than_its_audio(tmp_path: Path, ending: str) -> None:
    audio = encode(recording("en", 2, seed=1)[0], tmp_path / "sound.mp3")
    assert len(await pcm_of(with_longer_picture(audio, tmp_path / f"a.{ending}"), tmp_path)) > 100_000


async def test_a_recording_that_is_too_long_is_rejected(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", silence(20))
    with pytest.raises(AudioTooLongError):
        await decode(source, tmp_path / "pcm", max_duration=10, deadline=60, on_pcm=lambda _: None)
    assert await decode(source, tmp_path / "pcm", max_duration=20, deadline=60, on_pcm=lambda _: None) == 320_000


async def test_a_flipped_bit_in_an_mp3_is_accepted(tmp_path: Path) -> None:
    path = encode(recording("en", 4, seed=1)[0], tmp_path / "a.mp3")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    assert len(await pcm_of(path, tmp_path)) > 100_000


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True) if "ffmpeg" in child.name()}


async def test_a_deadline_kills_ffmpeg(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", np.zeros(16_000 * 500, np.int16))
    with pytest.raises(DecodeTimeoutError):
        await decode(source, tmp_path / "pcm", max_duration=600, deadline=0.02, on_pcm=lambda _: None)
    assert not children()


async def test_cancelling_kills_ffmpeg(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", np.zeros(16_000 * 500, np.int16))
    started = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(
        decode(source, tmp_path / "pcm", on_pcm=lambda _: loop.call_soon_threadsafe(started.set), **HOW)  # type: ignore[arg-type]
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


async def test_cancelling_while_an_instalment_is_stored_leaves_no_pipe(tmp_path: Path) -> None:
    """ffmpeg's output is not read meanwhile, so its pipe does not close by itself."""
    source = write_wav(tmp_path / "a.wav", np.zeros(16_000 * 500, np.int16))
    waiting, before = asyncio.Event(), psutil.Process().num_fds()

    async def wait_forever(_samples: int, _stated: float | None) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(decode(source, tmp_path / "pcm", on_pcm=lambda _: None, on_written=wait_forever, **HOW))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()
    assert psutil.Process().num_fds() == before


async def test_storing_an_instalment_does_not_count_towards_the_deadline() -> None:
    async def store(_samples: int, _stated: float | None) -> None:
        await asyncio.sleep(0.2)

    async with asyncio.timeout(0.1) as timer:
        await audio._untimed(store, timer)(1, None)
    assert not timer.expired()


async def test_the_samples_continue_in_the_file_that_the_callback_names(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", np.arange(16_000 * 40).astype(np.int16))
    files, stated = [tmp_path / "first"], []

    async def next_file(samples: int, seconds: float | None) -> Path | None:
        stated.append((samples, seconds))
        files.append(tmp_path / str(samples))
        return files[-1]

    samples = await decode(source, files[0], on_pcm=lambda _: None, on_written=next_file, **HOW)
    assert samples == 16_000 * 40
    assert b"".join(file.read_bytes() for file in files) == np.arange(16_000 * 40).astype("<i2").tobytes()
    assert {seconds for _, seconds in stated} == {40.0}


async def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", recording("en", 1, seed=1)[0])
    with pytest.raises(DiskFullError):
        await decode(source, Path("/dev/full"), on_pcm=lambda _: None, **HOW)
    assert not children()


async def test_the_systems_ffmpeg_is_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "imageio_ffmpeg" in ffmpeg.program()
    source = encode(recording("en", 1, seed=1)[0], tmp_path / "a.ogg")

    def missing() -> str:
        raise RuntimeError

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    assert ffmpeg.program() == shutil.which("ffmpeg")
    assert await decode(source, tmp_path / "pcm", on_pcm=lambda _: None, **HOW) > 16_000


async def test_a_name_cannot_be_an_option_or_an_address(tmp_path: Path) -> None:
    with pytest.raises(InvalidAudioFormatError):
        await decode(Path("http://127.0.0.1:1/x.mp3"), tmp_path / "pcm", on_pcm=lambda _: None, **HOW)
    with pytest.raises(InvalidAudioFormatError):
        await decode(Path("-version"), tmp_path / "pcm", on_pcm=lambda _: None, **HOW)


TITLES = ("partial file", "Truncated", "Duration: 10:00:00.00, start: 0.000000", "Stream map x matches no streams")


def with_title(source: Path, target: Path, title: str) -> Path:
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(source), "-c", "copy"]
    subprocess.run([*call, "-metadata", f"title={title}", str(target)], check=True)
    return target


@pytest.mark.parametrize("title", [*TITLES, "\n".join(["a", *TITLES]), "a\n-3600.000000"])
@pytest.mark.parametrize("extension", ["flac", "mp3", "mkv"])
async def test_words_of_a_title_are_not_read_as_errors(tmp_path: Path, extension: str, title: str) -> None:
    """Regression: ffmpeg logs the tags, and a recording called "partial file" failed as a damaged one."""
    plain = encode(recording("en", 1, seed=4)[0], tmp_path / f"plain.{extension}")
    titled = with_title(plain, tmp_path / f"Truncated, partial file.{extension}", title)
    assert await pcm_of(titled, tmp_path) == await pcm_of(plain, tmp_path)


async def test_a_title_does_not_hide_a_cut(tmp_path: Path) -> None:
    whole = encode(recording("en", 6, seed=3)[0], tmp_path / "whole.flac")
    titled = with_title(whole, tmp_path / "titled.flac", "Video: x")
    titled.write_bytes(titled.read_bytes()[: titled.stat().st_size // 2])
    with pytest.raises(CorruptedFileError):
        await pcm_of(titled, tmp_path)
