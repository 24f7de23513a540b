"""Bar charts as plain SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, LABELS, BAR, GAP, TITLE = 800, 350, 16, 6, 34
"""Pixels: of the picture, of the labels, of a bar, between bars, of a title."""
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.own { fill: #1f77b4 } .peer { fill: #9aa4af } .service { fill: #2ca02c }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .own { fill: #58a6ff } .peer { fill: #6e7681 } .service { fill: #56d364 }
}
"""
PEERS = ("faster-whisper", "whisper-server", "whisper-cli")


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return a picture with a group of bars for each key of `groups`, the longest first, each to its own scale."""
    place, parts = TITLE, [_text(0, 16, title, "title")]
    for name, values in groups.items():
        parts.append(_text(0, place + 16, name, "title"))
        place += TITLE - 8
        longest = max(values.values())
        for label, value in sorted(values.items(), key=lambda item: -item[1]):
            parts += _bar(place, label, value, (WIDTH - LABELS - 60) * value / longest)
            place += BAR + GAP
        place += GAP
    size = f'viewBox="0 0 {WIDTH} {place}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _bar(place: int, label: str, value: float, length: float) -> list[str]:
    kind = "service" if label.startswith("service") else "peer" if label.startswith(PEERS) else "own"
    return [
        _text(0, place + 13, label),
        f'<rect class="{kind}" x="{LABELS}" y="{place}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        _text(LABELS + length + 6, place + 13, f"{value:.1f}"),
    ]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
