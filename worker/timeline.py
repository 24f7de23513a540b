"""The filter that puts sound where the container's timestamps say: late starts, gaps and drift included.

Timestamps may be broken or hostile, so each step between one frame's end and the next one's start is judged:

- under 0.1 s it is drift, followed 50 ms at a time while it sums up to less than a tenth of
  the sound and half a second;
- a longer gap becomes silence while all of these together are no longer than an hour, or than the sound before it;
- a longer overlap is cut while all of these together are under a tenth of the sound and half a second.

A step that is not followed is left out of the timeline: the sound goes on where it was. A start below 0.1 s is the
delay of an encoder, and a start before zero is the zero.
"""

from __future__ import annotations

import re

from core.domain.spans import SAMPLE_RATE

MAX_SILENCE = 3600.0
"""Seconds of silence that timestamps alone may add to a short recording."""
STEP = 0.1
"""Seconds between drift, which is followed in small pieces, and a gap, which is filled."""
DRIFT = 0.05
"""Seconds of silence added, or of sound cut, each time that drift sums up to them. The resampler's own stretching would
be smoother, but overshoots in versions in use (5.1: by 2 s in 3 min)."""
_REPORTS = 10_000
_LEFT_OUT = re.compile(r"^(?:\[Eval @ \w+\] )?(-?\d+\.\d{6})$", re.MULTILINE)

_TOLERANCE = "(0.5 + 0.1 * ld(4))"
# Registers, in seconds: 0 left out, 1 end of the frame before, 2 silence added, 3 net drift, 4 sound so far,
# 5 step, 7 whether the step is followed, 8 overlap cut, 9 left out when last printed; 6 counts what was printed.
# A step is printed one frame later: older versions evaluate the end of the stream as if it were a frame.
_TIMESTAMPS = f"""
    if(gte(abs(ld(0) - ld(9)), 1) * lt(ld(6), {_REPORTS}), print(ld(0)); st(9, ld(0)); st(6, ld(6) + 1));
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
    """The filter graph of one audio stream: 16 kHz mono s16, its first sample at the timeline's zero."""
    form = f"aresample={SAMPLE_RATE}:ochl=mono:osf=s16"
    timestamps = "".join(_TIMESTAMPS.split())
    # resampled first: silence of an hour is 115 MB in this form, and gigabytes in the source's
    return f"{form},asetpts='{timestamps}',aresample=async=1:min_hard_comp={DRIFT}:first_pts=0"


def skipped_seconds(log: str) -> float:
    """Seconds of the container's timeline that were left out, by ffmpeg's log."""
    totals = _LEFT_OUT.findall(log)
    return float(totals[-1]) if totals else 0.0
