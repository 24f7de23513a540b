"""The web page and the reference of the API, from local files, with policies that run no script but the page's own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

from core.version import VERSION
from internal.api.page_files import PageFile, find_page_file
from internal.api.reference import render_reference
from internal.api.schemas.service import About

router = APIRouter(tags=["service"])
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REFERENCE_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PERMISSIONS = "camera=(), geolocation=(), microphone=(self)"
INDEX = "index.html"


@router.get("/", response_model=About, responses={200: {"content": {"text/html": {}}}})
async def root(request: Request, accept: Annotated[str, Header()] = "") -> Response | About:
    """Return the web page to browsers, and the version to clients that do not ask for HTML."""
    page = await run_in_threadpool(find_page_file, INDEX) if "text/html" in accept else None
    if page is None:
        return About(version=VERSION)
    return _send(request, page, vary="Accept, Accept-Encoding")


@router.get("/page/{name}", include_in_schema=False)
async def file(request: Request, name: str) -> Response:
    page_file = await run_in_threadpool(find_page_file, name)
    if page_file is None:
        raise HTTPException(404)
    return _send(request, page_file, vary="Accept-Encoding")


@router.get("/docs", include_in_schema=False)
async def reference(request: Request) -> Response:
    """Return the reference of the API."""
    html = await run_in_threadpool(render_reference, request.app.openapi())
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": REFERENCE_POLICY})


def _send(request: Request, page_file: PageFile, vary: str) -> Response:
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "ETag": page_file.etag,
        "Permissions-Policy": PERMISSIONS,
        "Vary": vary,
    }
    if page_file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(page_file.compressed, media_type=page_file.media_type, headers=headers)
    return Response(page_file.data, media_type=page_file.media_type, headers=headers)
