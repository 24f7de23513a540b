"""Upload: the body is read as it arrives, never held. What is refused leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request

from core.texts import translate
from internal.api.dependencies import ApplicationOf, EstimatorOf, Language, Owner, slot_for
from internal.api.multipart import read_form
from internal.api.routes.body import Body, refuse_stated
from internal.api.routes.responses import TEXT, form, refusals
from internal.api.schemas.jobs import ACCEPTED, Accepted
from internal.bootstrap import Application
from internal.services import submissions
from internal.services.submissions import Intake
from internal.services.submit_options import FIELDS, check
from repositories.models import Job

router = APIRouter(tags=["upload"])
FORM = form(
    ["file"],
    language={**TEXT, "description": "`en`, `vi` or `auto`"},
    model={**TEXT, "description": "one that GET /health lists"},
    priority={**TEXT, "enum": ["high", "normal", "low"]},
    callback_url={**TEXT, "description": "called when the job has ended"},
    metadata={**TEXT, "description": "a JSON object; comes back as it is"},
    prompt={**TEXT, "description": "names and words to expect"},
    words={"type": "boolean", "description": "also tell when each word was said"},
)


@router.post("/api/v1/upload", openapi_extra=FORM, responses=refusals(400, 408, 413, 422))
@router.post("/api/stt/upload", include_in_schema=False)
@router.post("/api/transcribe", include_in_schema=False)
async def upload(
    request: Request, parts: ApplicationOf, owner: Owner, estimator: EstimatorOf, language: Language
) -> Accepted:
    """Send a recording; answers at once with the `job_id` to come back with."""
    await refuse_stated(request, parts)
    body = Body(request)
    intake = Intake(parts, fingerprint="idempotency-key" in request.headers)
    async with slot_for(request, owner) as slot, body.refusing(intake):
        if not intake.fingerprint:
            # before the first byte is kept; a repeated request may still find its job
            await parts.limiter.submit(owner)
        job, warning = await _receive(request, slot.pieces(body.pieces()), parts, owner, intake)
    return Accepted(
        job_id=job.job_id,
        status=job.status,
        estimated_time_seconds=await estimator.seconds(job),
        message=translate(ACCEPTED, language),
        warning=warning and translate(warning, language),
    )


async def _receive(
    request: Request, pieces: AsyncIterator[bytes], parts: Application, owner: str, intake: Intake
) -> tuple[Job, str | None]:
    fields = await read_form(request.headers.get("content-type", ""), pieces, intake)
    submit_options = await check(parts, fields)
    key = request.headers.get("idempotency-key")
    known = {name: fields.get(name, "") for name in FIELDS} | {"name": intake.filename}
    idempotent_request = None if key is None else submissions.request_of(key, known, intake.digest.hexdigest())

    async def make() -> Job:
        await intake.finish()
        return await submissions.accept(parts, intake, owner, submit_options, idempotent_request)

    # two at once both stream; one insert wins, the loser removes its object and answers like the winner
    job, new = await submissions.once(parts, owner, idempotent_request, make)
    if not new:
        await intake.discard()
    return job, submit_options.warning
