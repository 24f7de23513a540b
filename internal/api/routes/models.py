"""Models: those installed, those that can be, and installing and removing them."""

from __future__ import annotations

from fastapi import APIRouter, Response

from core.failure_text import failure_text
from internal.api.dependencies import Admin, Language, ModelsDep, Owner
from internal.api.routes.responses import refusals
from internal.api.schemas.models import ModelBody, ModelFailure, ModelRequest, ModelsBody
from internal.services.models import ModelView

router = APIRouter(tags=["models"])


@router.get("/api/v1/models", response_model=ModelsBody, responses=refusals())
async def list_models(models: ModelsDep, _: Owner, language: Language) -> ModelsBody:
    """List the models of the live workers, with the progress of downloads, and those that can be installed."""
    return ModelsBody(models=[_body(view, language) for view in await models.list_all()])


@router.post("/api/v1/models", response_model=ModelBody, status_code=202, responses=refusals(400, 413, 422))
async def install_model(request: ModelRequest, models: ModelsDep, _: Admin, language: Language) -> ModelBody:
    """Install a model on every consumer. Idempotent; the list shows the progress."""
    return _body(await models.install(request.model, request.name), language)


@router.delete("/api/v1/models/{name}", status_code=202, response_class=Response, responses=refusals(404, 409))
async def remove_model(name: str, models: ModelsDep, _: Admin) -> Response:
    """Remove a model that was installed by a pull from every consumer. Files put there by hand stay."""
    await models.remove(name)
    return Response(status_code=202)


def _body(view: ModelView, language: str) -> ModelBody:
    body, failure = ModelBody.model_validate(view), view.failure
    if failure is not None and failure.error is not None:
        details = None if failure.detail is None else {"detail": failure.detail, "values": failure.values}
        message = failure_text(failure.error, details, None, language)
        body.error = ModelFailure(code=failure.error, message=message or failure.error)
    return body
