"""ffmpeg filter that places audio at the container's timestamps, including late starts, gaps and drift.

Timestamps may be broken or malicious, so each step from one frame's end to the next one's start is checked:

- A step under 0.1 s is drift. It is corrected by 50 ms at a time, up to a tenth of the audio plus 0.5 s in total.
- A longer gap becomes silence, up to one hour in total, or up to the length of the preceding audio if that is longer.
- A longer overlap is cut, up to a tenth of the audio plus 0.5 s in total.

Other steps are skipped: the audio continues without a gap. A start below 0.1 s is encoder delay, and a negative start
counts as zero.
"""

from __future__ import annotations

import re

from core.domain.spans import SAMPLE_RATE

MAX_SILENCE = 3600.0
"""Seconds of silence that timestamps may add to a short recording."""
STEP = 0.1
"""Seconds from which a step is a gap or overlap, not drift."""
DRIFT = 0.05
"""Seconds of accumulated drift at which silence is added or audio cut.

The resampler's own stretching would be smoother, but overshoots in some versions (5.1: by 2 s in 3 min).
"""
_MAX_PRINTS = 10_000
_SKIPPED = re.compile(r"^(?:\[Eval @ \w+\] )?(-?\d+\.\d{6})$", re.MULTILINE)

_TOLERANCE = "(0.5 + 0.1 * ld(4))"
# Registers, in seconds: 0 skipped, 1 end of the previous frame, 2 silence added, 3 net drift, 4 audio so far,
# 5 step, 7 if the step is followed, 8 overlap cut, 9 skipped at the last print; 6 counts the prints.
# A step is printed one frame later, since older versions evaluate the end of the stream like a frame.
_TIMESTAMPS = f"""
    if(gte(abs(ld(0) - ld(9)), 1) * lt(ld(6), {_MAX_PRINTS}), print(ld(0)); st(9, ld(0)); st(6, ld(6) + 1));
    st(4, NB_CONSUMED_SAMPLES / SR);
    st(5, if(isnan(PTS), 0, PTS * TB - ld(0) - ld(1)));
    st(7, if(lt(abs(ld(5)), {STEP}), lte(abs(ld(3) + ld(5)), {_TOLERANCE}) * gt(ld(4), 0),
          if(gt(ld(5), 0), lte(ld(2) + ld(5), max({MAX_SILENCE}, ld(4))),
             lte(ld(8) - ld(5), {_TOLERANCE}) * gt(ld(4), 0))));
    if(ld(7),
       if(lt(abs(ld(5)), {STEP}), st(3, ld(3) + ld(5)), if(gt(ld(5), 0), st(2, ld(2) + ld(5)), st(8, ld(8) - ld(5)))),
       st(0, ld(0) + ld(5)));
    st(1, ld(1) + ld(7) * ld(5) + NB_SAMPLES / SR);
    round((ld(1) - NB_SAMPLES / SR) / TB)
"""


def filters() -> str:
    """Return the filter graph for an audio stream. Its output is 16 kHz mono s16 from the zero of the timeline."""
    resample = f"aresample={SAMPLE_RATE}:ochl=mono:osf=s16"
    timestamps = "".join(_TIMESTAMPS.split())
    # resampled first: one hour of silence has 115 MB in this format, and gigabytes in the source's
    return f"{resample},asetpts='{timestamps}',aresample=async=1:min_hard_comp={DRIFT}:first_pts=0"


def skipped_seconds(log: str) -> float:
    """Return the seconds of the container's timeline that were skipped, according to ffmpeg's log."""
    totals = _SKIPPED.findall(log)
    return float(totals[-1]) if totals else 0.0
