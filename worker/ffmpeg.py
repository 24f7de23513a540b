"""Which ffmpeg there is, how it is called, and what its complaints mean for the sender.

Only the demuxers and decoders of the accepted formats may run: a playlist named .mp3 can open nothing.
"""

from __future__ import annotations

import errno
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg

from core.domain.spans import SAMPLE_RATE
from core.errors import CorruptedFileError, DecodeTimeoutError, InvalidAudioFormatError, OutOfMemoryError, SttError
from worker import launch, timeline

DEMUXERS = "mp3,wav,w64,mov,mp4,m4a,aac,ogg,flac,asf,matroska,webm,avi,aiff,amr"
DECODERS = ",".join(
    (
        "mp3,mp3float,mp2,mp2float,mp1,mp1float,aac,aac_fixed,aac_latm,vorbis,opus,libopus,flac,alac",
        "wmav1,wmav2,wmapro,wmalossless,wmavoice,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,ac3,ac3_fixed,eac3",
        "pcm_s16le,pcm_s16be,pcm_u16le,pcm_u16be,pcm_s8,pcm_u8,pcm_s24le,pcm_s24be,pcm_u24le,pcm_u24be,pcm_s32le",
        "pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt",
        "adpcm_g726,gsm,gsm_ms,speex,libspeex,g723_1,g729",
    )
)
ADDRESS_SPACE = 2 * 1024**3
EXACT_DURATION = ("mov", "matroska", "wav", "flac", "asf", "avi", "aiff")
"""Containers whose header states the true length; elsewhere it is an estimate or read from the file's end."""
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)(?:, start: (-?\d+\.\d+))?")
_INPUT = re.compile(r"Input #0, ([^,\s]+)")
_TRUNCATED = ("moov atom not found", "partial file", "truncated", "error reading header")


def program() -> str:
    """The path of the system's ffmpeg, else of the one that a wheel carries."""
    return shutil.which("ffmpeg") or str(imageio_ffmpeg.get_ffmpeg_exe())


def command(source: Path, *, limit: float, cpu_seconds: float, rebase: bool = False) -> list[str]:
    """Decode the first audio stream of `source` to 16 kHz mono s16le on standard output, at most `limit` seconds.

    Times are the container's own; with `rebase`, the earliest stream's first timestamp is their zero.
    """
    call = [
        *(program(), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "info"),
        *(() if rebase else ("-copyts",)),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS, "-codec_whitelist", DECODERS),
        *("-threads", "1", "-i", f"file:{source.absolute()}"),
        *("-map", "0:a:0", "-vn", "-sn", "-dn", "-t", f"{limit:.3f}", "-af", timeline.filters()),
        *("-threads", "1", "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1"),
    ]
    return [*_launcher(cpu_seconds), *call]


def _launcher(cpu_seconds: float) -> list[str]:
    return [sys.executable, "-I", "-S", "-B", launch.__file__, str(ADDRESS_SPACE), str(int(cpu_seconds) + 1)]


def network_isolated() -> bool:
    """Whether ffmpeg runs without a network here. Raises OSError where its limits cannot be set."""
    status = subprocess.run(_launcher(60), env={}, check=False, stderr=subprocess.DEVNULL).returncode
    if status == launch.REFUSED:
        raise launch_error()
    return status == 0


def launch_error() -> OSError:
    """The error of a machine on which ffmpeg, or the limits it runs under, cannot be had."""
    return OSError(errno.EAGAIN, "ffmpeg was not started: its resource limits could not be set, or it is missing")


def deadline(size: int) -> float:
    """Seconds that decoding a file of `size` bytes may take: five minutes, and two more seconds for each MiB.

    Six hours of sound in the smallest of files are decoded at 72 times its speed in five minutes, which takes a
    quarter of one core.
    """
    return 300.0 + 2.0 * size / 1024**2


def starts_late(log: str) -> bool:
    """Whether the whole file starts later than a recording's silence may last: a cut from a live stream does."""
    found = _DURATION.search(log)
    return bool(found and found[4] and float(found[4]) > timeline.MAX_SILENCE)


def skipped_seconds(log: str) -> float:
    """Seconds of the container's timeline that are not in the sound: its far start, or steps that are not followed."""
    found = _DURATION.search(log)
    start = float(found[4]) if found and starts_late(log) else 0.0
    return start or timeline.skipped_seconds(log)


def decode_error(status: int, log: str, samples: int) -> SttError | None:
    """What a finished run's exit status and log mean, or None: the sound is whole."""
    lower = log.lower()
    if status == launch.REFUSED:
        raise launch_error()
    if status == -signal.SIGXCPU:
        return DecodeTimeoutError()
    if status == -signal.SIGKILL:
        return OutOfMemoryError()
    if any(phrase in lower for phrase in _TRUNCATED):
        return CorruptedFileError()
    if "matches no streams" in lower:
        return InvalidAudioFormatError("The file has no audio track. Upload a recording, or a video with sound.")
    if status != 0 and samples == 0:
        return InvalidAudioFormatError()
    if samples == 0:
        return InvalidAudioFormatError("The file's audio track is empty. Record it again.")
    if status != 0 or _shorter_than_stated(log, samples):
        return CorruptedFileError()
    return None


def _shorter_than_stated(log: str, samples: int) -> bool:
    found, container = _DURATION.search(log), _INPUT.search(log)
    # of a video the header states the longest track's length, and its sound may rightly be shorter
    if not found or not container or container[1] not in EXACT_DURATION or "Video:" in log:
        return False
    stated = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    return samples / SAMPLE_RATE < (stated - max(skipped_seconds(log), 0.0)) * 0.95 - 1.0
