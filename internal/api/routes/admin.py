"""Routes of the operator: dead letters, keys, and the figures of the last hour."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from core.errors import InvalidFieldError
from internal.api.dependencies import (
    Admin,
    ApiKeysDep,
    AuthenticatorDep,
    Author,
    DeadLettersDep,
    Owner,
    StatisticsDep,
)
from internal.api.routes.responses import refusals
from internal.api.schemas.admin import (
    DeadLetterBody,
    DeadLettersBody,
    DeadLetterSelection,
    FiguresBody,
    HourBody,
    KeyBody,
    KeysBody,
    MeBody,
    PurgedBody,
    ReplayedBody,
)
from internal.services.dead_letters import ALL, DeadLetter
from internal.services.statistics import FIGURE_SECONDS

router = APIRouter(tags=["admin"])
MAX_LETTERS = 1000


@router.get("/api/v1/me", responses=refusals())
async def me(authenticator: AuthenticatorDep, owner: Owner, author: Author) -> MeBody:
    """Read who the key belongs to."""
    return MeBody(owner=owner, author=author, admin=authenticator.is_admin(owner))


@router.get("/api/v1/admin/dead-letters", responses=refusals(422))
async def list_dead_letters(
    dead_letters: DeadLettersDep, _: Admin, limit: Annotated[int, Query(ge=1, le=MAX_LETTERS)] = 200
) -> DeadLettersBody:
    """List the dead letters, oldest first."""
    letters = await dead_letters.list_all()
    return DeadLettersBody(dead_letters=[_body(letter) for letter in letters[:limit]], total=len(letters))


@router.post("/api/v1/admin/dead-letters/replay", responses=refusals(400, 413, 422))
async def replay(selection: DeadLetterSelection, dead_letters: DeadLettersDep, _: Admin) -> ReplayedBody:
    """Run failed jobs again: their unfinished chunks."""
    reopened, stale = await dead_letters.replay(_selected(selection))
    return ReplayedBody(reopened=reopened, stale=stale)


@router.post("/api/v1/admin/dead-letters/purge", responses=refusals(400, 413, 422))
async def purge(selection: DeadLetterSelection, dead_letters: DeadLettersDep, _: Admin) -> PurgedBody:
    """Remove dead letters. Their jobs stay FAILED."""
    return PurgedBody(removed=await dead_letters.purge(_selected(selection)))


@router.get("/api/v1/admin/keys", responses=refusals())
async def list_keys(api_keys: ApiKeysDep, _: Admin) -> KeysBody:
    """List the API keys, oldest first, without their secrets."""
    return KeysBody(keys=[KeyBody.model_validate(key) for key in await api_keys.list_all()])


@router.get("/api/v1/admin/figures", responses=refusals())
async def figures(statistics: StatisticsDep, _: Admin) -> HourBody:
    """Read how many jobs ended in the last hour, and how long they took."""
    buckets = [FiguresBody.model_validate(each) for each in await statistics.figures()]
    return HourBody(bucket_seconds=FIGURE_SECONDS, buckets=buckets)


def _selected(selection: DeadLetterSelection) -> str:
    if selection.all == bool(selection.job_id):
        raise InvalidFieldError("job_id", "Send either `job_id` or `all`: true.")
    return selection.job_id or ALL


def _body(letter: DeadLetter) -> DeadLetterBody:
    headers = letter.headers
    return DeadLetterBody(
        job_id=letter.job_id,
        replayable=letter.token is not None,
        code=str(headers.get("code", "")),
        message=str(headers.get("message", headers.get("reason", ""))),
        attempts=_number(headers.get("attempts")),
        chunk=_number(headers.get("chunk")),
        first_failure=headers.get("first_failure") or None,
        last_failure=headers.get("last_failure") or None,
    )


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
