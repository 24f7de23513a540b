"""Settings of OpenVINO that its engine and whisper.cpp's encoder share. It loads without OpenVINO."""

from __future__ import annotations

import os

FOLDER = ".openvino"
"""Folder beside the models, and in the cache, that keeps their graphs."""
SAFE_ISA = "AVX512_CORE_BF16"
"""oneDNN's greatest instruction set without AMX, which some virtual machines advertise without executing it."""
QUANTISATION_GROUP = 128
"""Channels that share a scale of quantised activations."""


def limit_instructions() -> str:
    """Limit oneDNN, before its first use, to SAFE_ISA unless the environment names another set; return the set."""
    return os.environ.setdefault("ONEDNN_MAX_CPU_ISA", SAFE_ISA)
