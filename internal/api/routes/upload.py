"""Upload of a recording as a multipart form, streamed to storage."""

from __future__ import annotations

from fastapi import APIRouter, Request

from core.texts import translate
from internal.api.dependencies import (
    IdempotencyKey,
    JobViewsDep,
    Language,
    Owner,
    SubmissionsDep,
    SubmitOptionsDep,
    upload_slot,
)
from internal.api.multipart import read_form
from internal.api.routes.responses import TEXT, form, form_properties, refusals
from internal.api.routes.upload_body import UploadBody, check_content_length
from internal.api.schemas.jobs import UPLOAD_ACCEPTED, UploadAccepted
from internal.api.schemas.submit import SubmitFields
from internal.services.idempotency import idempotent_request

router = APIRouter(tags=["upload"])
FORM = form(
    ["file"],
    **form_properties(SubmitFields)
    | {
        "priority": {**TEXT, "enum": ["high", "normal", "low"]},
        "metadata": {**TEXT, "description": "a JSON object; returned unchanged"},
    },
)


@router.post("/api/v1/upload", openapi_extra=FORM, responses=refusals(400, 408, 413, 422))
@router.post("/api/stt/upload", include_in_schema=False)
@router.post("/api/transcribe", include_in_schema=False)
async def upload(
    request: Request,
    submissions: SubmissionsDep,
    submit_options: SubmitOptionsDep,
    views: JobViewsDep,
    owner: Owner,
    idempotency_key: IdempotencyKey,
    language: Language,
) -> UploadAccepted:
    """Upload a recording. The response has the `job_id` to poll."""
    await check_content_length(request, submissions.max_upload_bytes)
    body = UploadBody(request)
    incoming = submissions.new_upload(fingerprint=idempotency_key is not None)
    async with upload_slot(request, owner) as slot, body.discarding(incoming):
        if idempotency_key is None:
            # before any byte is stored; with a key, the request may repeat one that already has its job
            await submissions.check_quota(owner)
        fields = await read_form(request.headers.get("content-type", ""), slot.pieces(body.pieces()), incoming)
        options = await submit_options.validate(fields)
        identity = {name: fields.get(name, "") for name in SubmitFields.model_fields} | {"name": incoming.filename}
        repeatable = idempotent_request(idempotency_key, identity, incoming.digest.hexdigest())
        job = await submissions.submit_upload(incoming, owner, options, repeatable)
    return UploadAccepted(
        job_id=job.job_id,
        status=job.status,
        estimated_time_seconds=await views.estimator.seconds(job),
        message=translate(UPLOAD_ACCEPTED, language),
        warning=options.warning and translate(options.warning, language),
    )
