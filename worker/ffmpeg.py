"""ffmpeg's command line, and the interpretation of its exit status and log.

Only demuxers and decoders of the accepted formats are allowed, so that a playlist named .mp3 cannot open other files.
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
PIPE_BLOCK = 64 * 1024
"""Bytes that ffmpeg writes at a time: the size of a pipe."""
ADDRESS_SPACE = 2 * 1024**3
"""Bytes of memory that ffmpeg may reserve."""
EXACT_DURATION = ("mov", "matroska", "wav", "flac", "asf", "avi", "aiff")
"""Containers with the exact duration in their header. For others ffmpeg estimates it."""
# The log also holds the file's tags and path, which may contain any words. Lines of tags are indented by four or more.
_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+)(?:, start: (-?\d+\.\d+))?", re.MULTILINE)
_INPUT = re.compile(r"^Input #0, ([^,\s]+)", re.MULTILINE)
_VIDEO = re.compile(r"^  Stream #\S+ Video:", re.MULTILINE)
_NO_AUDIO = re.compile(r"^(?:\[.*\] )?Stream map .* matches no streams", re.MULTILINE)
_TRUNCATED = re.compile(
    r"^\[[^\]]* @ \w+\].*(?:moov atom not found|partial file|truncated|error reading header)",
    re.MULTILINE | re.IGNORECASE,
)


def program() -> str:
    """Return the path of imageio-ffmpeg's program, or of the system's if it has none for this platform.

    It is linked statically: it starts in 20 ms of CPU time, a distribution's with its 200 libraries in 65.
    """
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return shutil.which("ffmpeg") or "ffmpeg"


def command(source: Path, *, limit: float, cpu_seconds: float, rebase: bool = False) -> list[str]:
    """Return the command that decodes up to `limit` seconds of the first audio stream to 16 kHz mono s16le on stdout.

    Times are those of the container, or with `rebase` relative to the first timestamp of the earliest stream.
    """
    call = [
        *(program(), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "info"),
        *(() if rebase else ("-copyts",)),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS, "-codec_whitelist", DECODERS),
        *("-threads", "1", "-i", f"file:{source.absolute()}"),
        *("-map", "0:a:0", "-vn", "-sn", "-dn", "-t", f"{limit:.3f}", "-af", timeline.filters()),
        # written in whole blocks, not packet by packet of 4 KiB
        *("-threads", "1", "-c:a", "pcm_s16le", "-f", "s16le"),
        *("-flush_packets", "0", "-blocksize", str(PIPE_BLOCK), "pipe:1"),
    ]
    return [*_launcher(cpu_seconds), *call]


def _launcher(cpu_seconds: float) -> list[str]:
    return [sys.executable, "-I", "-S", "-B", launch.__file__, str(ADDRESS_SPACE), str(int(cpu_seconds) + 1)]


def network_isolated() -> bool:
    """Return True if ffmpeg is run without network access. Raises OSError if its limits cannot be set."""
    status = subprocess.run(_launcher(60), env={}, check=False, stderr=subprocess.DEVNULL).returncode
    if status == launch.NOT_STARTED:
        raise launch_error()
    return status == 0


def launch_error() -> OSError:
    """Return the error for a machine that lacks ffmpeg or cannot set its limits."""
    return OSError(errno.EAGAIN, "ffmpeg was not started: its resource limits could not be set, or it is missing")


def deadline(size: int) -> float:
    """Return the deadline in seconds for decoding a file of `size` bytes: five minutes plus two seconds per MiB.

    To decode six hours of audio in five minutes, 72 times real time, takes a quarter of a core.
    """
    return 300.0 + 2.0 * size / 1024**2


def starts_late(log: str) -> bool:
    """Return True if the file starts later than MAX_SILENCE, like some recordings of live streams."""
    match = _DURATION.search(log)
    return bool(match and match[4] and float(match[4]) > timeline.MAX_SILENCE)


def stated_seconds(log: str) -> float | None:
    """Return the length of the recording according to its header or ffmpeg's estimate; None if unknown."""
    match = _DURATION.search(log)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def skipped_seconds(log: str) -> float:
    """Return the seconds of the container's timeline that the audio omits: a late start, or jumps."""
    match = _DURATION.search(log)
    start = float(match[4]) if match and starts_late(log) else 0.0
    return start or timeline.skipped_seconds(log)


def decode_error(status: int, log: str, samples: int) -> SttError | None:
    """Return the error for a run with this exit status and log, or None if the audio is complete.

    Raises OSError if ffmpeg could not be started.
    """
    if status == launch.NOT_STARTED:
        raise launch_error()
    if status == -signal.SIGXCPU:
        return DecodeTimeoutError()
    if status == -signal.SIGKILL:
        return OutOfMemoryError()
    if _TRUNCATED.search(log):
        return CorruptedFileError()
    if _NO_AUDIO.search(log):
        return InvalidAudioFormatError("The file has no audio track. Upload a recording, or a video with sound.")
    if status != 0 and samples == 0:
        return InvalidAudioFormatError()
    if samples == 0:
        return InvalidAudioFormatError("The file's audio track is empty. Record it again.")
    if status != 0 or _shorter_than_stated(log, samples):
        return CorruptedFileError()
    return None


def _shorter_than_stated(log: str, samples: int) -> bool:
    stated, container = stated_seconds(log), _INPUT.search(log)
    # a video's duration is that of its longest track, and the audio may be shorter
    if stated is None or not container or container[1] not in EXACT_DURATION or _VIDEO.search(log):
        return False
    return samples / SAMPLE_RATE < (stated - max(skipped_seconds(log), 0.0)) * 0.95 - 1.0
