"""Whisper on OpenVINO: weights to graphs, features, decoding."""

from __future__ import annotations

import sys

# OpenVINO reports each import to its authors, by a fork of this process, if this module of its wheel can be loaded
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
