"""Request body of a webhook."""

from __future__ import annotations

import json
from typing import Any

from core.domain.job import JobStatus


def webhook_body(payload: dict[str, Any]) -> bytes:
    """Return the stored payload as JSON, with the path of the job's result added."""
    data = payload["data"]
    result_url = f"/api/v1/result/{data['job_id']}" if data["status"] == JobStatus.COMPLETED else None
    complete = {**payload, "data": {**data, "result_url": result_url}}
    return json.dumps(complete, ensure_ascii=False, separators=(",", ":")).encode()
