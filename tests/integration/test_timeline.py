"""The container's timeline: late starts, gaps and drift of the audio, and invalid timestamps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from core.errors import AudioTooLongError, CorruptedFileError
from tests.speech import ENCODINGS, RATE, Audio, encode, recording, silence, write_wav
from worker import ffmpeg
from worker.audio import decode

PICTURE = ["-f", "lavfi", "-i", "color=size=64x64:rate=10:duration=20"]
FAR = 18_000
"""Five hours, in seconds."""


@pytest.fixture(params=["system", "wheel"], autouse=True)
def each_ffmpeg(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """ffmpeg versions differ in how they resample by timestamps."""
    if request.param == "wheel":
        monkeypatch.setattr(ffmpeg, "program", lambda: str(imageio_ffmpeg.get_ffmpeg_exe()))


def speech() -> Audio:
    return recording("en", 2, seed=1)[0]


def convert(*words: str | Path) -> None:
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-v", "error", *map(str, words)]
    done = subprocess.run(call, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def codec(extension: str) -> list[str]:
    return ENCODINGS[extension][:2]


def with_timestamps(folder: Path, expression: str, name: str = "a.mkv", samples: Audio | None = None) -> Path:
    """Create a file whose packets of 64 ms have the timestamps of an asetpts `expression`."""
    source = write_wav(folder / "sound.wav", speech() if samples is None else samples)
    steps = f"asetnsamples=1024,asetpts='{expression}'"
    convert("-i", source, "-af", steps, "-c:a", "pcm_s16le", folder / name)
    return folder / name


def convert_plainly(source: Path) -> bytes:
    """Decode a file as ffmpeg does by default."""
    call = [ffmpeg.program(), "-v", "error", "-i", str(source), "-ac", "1", "-ar", str(RATE), "-f", "s16le", "pipe:1"]
    return subprocess.run(call, check=True, capture_output=True).stdout


async def decoded(source: Path, max_duration: float = 21_600) -> Audio:
    pcm = source.with_suffix(".pcm")
    await decode(source, pcm, max_duration=max_duration, deadline=300, on_pcm=lambda _: None)
    return np.fromfile(pcm, np.int16)


def first_sound(samples: Audio) -> float:
    """Return the seconds before the first sound."""
    return float(np.flatnonzero(np.abs(samples.astype(int)) > 500)[0]) / RATE


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("video", [True, False])
async def test_a_late_start_is_kept(tmp_path: Path, extension: str, video: bool) -> None:
    source, target = write_wav(tmp_path / "sound.wav", speech()), tmp_path / f"late.{extension}"
    picture = ["-c:v", "libvpx" if extension == "webm" else "mpeg4"] if video else []
    inputs = [*(PICTURE if video else ()), "-itsoffset", "3.99", "-i", str(source)]
    maps = ["-map", "0:v", "-map", "1:a"] if video else []
    convert(*inputs, *maps, *picture, *codec(extension), target)
    late = await decoded(target)
    assert first_sound(late) == pytest.approx(3.99 + first_sound(speech()), abs=0.05)
    assert len(late) / RATE == pytest.approx(3.99 + len(speech()) / RATE, abs=0.1)


async def test_a_late_start_in_an_avi_is_kept(tmp_path: Path) -> None:
    source = encode(speech(), tmp_path / "a.avi")
    data = bytearray(source.read_bytes())
    header = data.index(b"strh") + 8
    scale, rate = (int.from_bytes(data[header + at : header + at + 4], "little") for at in (20, 24))
    data[header + 28 : header + 32] = round(3.99 * rate / scale).to_bytes(4, "little")
    expected = first_sound(await decoded(source))
    source.write_bytes(data)
    assert first_sound(await decoded(source)) == pytest.approx(3.99 + expected, abs=0.1)


async def test_audio_before_the_video_is_kept(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "sound.wav", speech())
    convert(*PICTURE, "-itsoffset", "-1.5", "-i", source, "-c:v", "mpeg4", "-c:a", "pcm_s16le", tmp_path / "a.mkv")
    assert len(await decoded(tmp_path / "a.mkv")) == pytest.approx(len(speech()), abs=16)


@pytest.mark.parametrize("extension", sorted(ENCODINGS))
async def test_an_ordinary_recording_is_unchanged(tmp_path: Path, extension: str) -> None:
    """An encoder's delay is not a start offset, and a file without timestamps has no offset to follow."""
    source = encode(speech(), tmp_path / f"a.{extension}")
    assert (await decoded(source)).tobytes() == convert_plainly(source)


@pytest.mark.parametrize("extension", ["mp3", "aac", "ogg", "opus"])
async def test_concatenated_files_keep_all_audio(tmp_path: Path, extension: str) -> None:
    one = encode(speech(), tmp_path / f"one.{extension}")
    both = tmp_path / f"both.{extension}"
    both.write_bytes(one.read_bytes() * 2)
    assert len(await decoded(both)) == pytest.approx(2 * len(await decoded(one)), rel=0.02)


async def test_a_gap_becomes_silence(tmp_path: Path) -> None:
    samples = await decoded(with_timestamps(tmp_path, "PTS+gt(N,64000)*5/TB"))
    gap = samples[64_512:144_512]
    assert not np.any(gap)
    assert np.array_equal(np.concatenate([samples[:64_512], samples[144_512:]])[: len(speech())], speech())


@pytest.mark.parametrize("factor", [1.01, 0.99])
async def test_drift_is_corrected(tmp_path: Path, factor: float) -> None:
    samples = np.tile(speech(), 12)
    drifted = await decoded(with_timestamps(tmp_path, f"PTS*{factor}", samples=samples))
    assert len(drifted) / RATE == pytest.approx(len(samples) / RATE * factor, abs=0.15)


@pytest.mark.parametrize(
    "expression",
    [
        f"PTS+gt(N,64000)*{FAR}/TB",  # one jump of hours
        "PTS+floor(N/16000)*3000/TB",  # many shorter ones
        f"PTS+{FAR}/TB",  # all of it
        "if(gt(N,64000),PTS-4/TB,PTS)",  # backwards
        "PTS*2",
        "PTS/2",
    ],
)
async def test_invalid_timestamps_neither_add_hours_nor_lose_audio(tmp_path: Path, expression: str) -> None:
    samples = await decoded(with_timestamps(tmp_path, expression))
    assert 0.85 * len(speech()) <= len(samples) <= 3600 * RATE + 1.2 * len(speech())


async def test_a_cut_of_a_live_stream_starts_at_zero(tmp_path: Path) -> None:
    """Video and audio carry the stream's time of day; the audio is 3.99 s behind the video."""
    source = write_wav(tmp_path / "sound.wav", speech())
    late = [*PICTURE, "-itsoffset", "3.99", "-i", str(source), "-map", "0:v", "-map", "1:a", "-c:v", "mpeg4"]
    convert(*late, "-c:a", "pcm_s16le", "-output_ts_offset", str(FAR), tmp_path / "a.mkv")
    assert first_sound(await decoded(tmp_path / "a.mkv")) == pytest.approx(3.99 + first_sound(speech()), abs=0.05)


async def test_added_silence_counts_as_length(tmp_path: Path) -> None:
    with pytest.raises(AudioTooLongError):
        await decoded(with_timestamps(tmp_path, "PTS+600/TB"), max_duration=300)


async def test_nearly_an_hour_of_silence_fits_in_memory(tmp_path: Path) -> None:
    samples = await decoded(with_timestamps(tmp_path, "PTS+3500/TB"))
    assert first_sound(samples) == pytest.approx(3500 + first_sound(speech()), abs=0.05)


@pytest.mark.parametrize("start", [0, 60])
async def test_a_truncated_late_file_is_detected(tmp_path: Path, start: int) -> None:
    source = with_timestamps(tmp_path, f"PTS+{start}/TB", samples=np.tile(speech(), 10))
    assert len(await decoded(source)) == pytest.approx(10 * len(speech()) + start * RATE, abs=RATE)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 4])
    with pytest.raises(CorruptedFileError):
        await decoded(source)


async def test_silence_alone_is_accepted(tmp_path: Path) -> None:
    assert len(await decoded(write_wav(tmp_path / "a.wav", silence(3)))) == 3 * RATE
