"""The result file itself."""

from __future__ import annotations

import json

from core.domain.result import Result

FORMAT = "json"
MEDIA_TYPE = "application/json"


def export(result: Result) -> bytes:
    return (json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n").encode()
