"""The server: starlette on the loopback. It reads the text it was started with, and files of its own page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files as resources
from typing import Any, Final

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from attndsl.source import AttnDslError

from .questions import LONGEST_TEXT, BadQuestion
from .starting import Start, known, start_of
from .workers import Budget, Busy, Lane, TookTooLong

_HOSTS: Final = ["127.0.0.1", "localhost", "[::1]"]
_MOST_BYTES: Final = 8 * LONGEST_TEXT  # of a request: two texts of characters of up to four bytes
_PAGE: Final = {
    "/": ("index.html", "text/html"),
    "/explorer.css": ("explorer.css", "text/css"),
    "/state.js": ("state.js", "text/javascript"),
    "/drawing.js": ("drawing.js", "text/javascript"),
    "/editor.js": ("editor.js", "text/javascript"),
    "/explorer.js": ("explorer.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
# Nothing but what this server sends is loaded, run or framed, whatever a text holds.
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Questions answered while somebody drags a slider, and those that may take a while: neither waits for the other.
_QUICK: Final = Budget(seconds=8.0)
_PATIENT: Final = Budget(seconds=40.0)
_LANE_OF: Final = {
    "check": "quick", "look": "quick", "sight": "quick", "compare": "quick",
    "tiles": "patient", "explain": "patient", "kernel": "patient", "export": "patient",
}  # fmt: skip


def made(start: Start, quick: Budget = _QUICK, patient: Budget = _PATIENT) -> Starlette:
    """The application; workers start with it and end with it."""
    lanes = {"quick": Lane(quick), "patient": Lane(patient)}

    async def page(request: Request) -> Response:
        name, kind = _PAGE[request.url.path]
        body = (resources("attndsl") / "explorer" / "page" / name).read_bytes()
        return Response(body, media_type=kind, headers=_HEADERS)

    async def begin(_: Request) -> Response:
        return _json(
            {"text": start.text, "entry": start.entry, "name": start.name, "names": known()}
        )

    async def named(request: Request) -> Response:
        name = request.query_params.get("name", "")
        if not name.isidentifier():  # a path is none: nothing beyond the package is opened
            return _json({"error": "a pattern of the library has a name"}, 400)
        try:
            found = start_of(name)
        except AttnDslError as error:
            return _json({"error": error.diagnostics[0].title}, 404)
        return _json({"text": found.text, "entry": found.entry, "name": found.name})

    async def ask(request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in _LANE_OF:
            return _json({"error": "there is no such question"}, 404)
        if refusal := _refusal(request):
            return _json({"error": refusal}, 403)
        try:
            data = json.loads(await _body(request))
            lane = lanes[_LANE_OF[kind]]
            found = await to_thread.run_sync(lane.ask, kind, data)
            return _json(found, 400 if "error" in found else 200)
        except ClientDisconnect:
            return _json({"error": "nobody waits"}, 400)
        except (BadQuestion, ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, BadQuestion) else "a question is a JSON object"
            return _json({"error": said}, 400)
        except (Busy, TookTooLong) as error:
            return _json({"error": str(error)}, 503)

    routes = [Route(path, page) for path in _PAGE]
    routes += [
        Route("/api/start", begin),
        Route("/api/library", named),
        Route("/api/{kind}", ask, methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts], lifespan=_lifespan(list(lanes.values())))


def _lifespan(lanes: list[Lane]) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Starts the workers with the application, and ends them with it."""

    @asynccontextmanager
    async def run(_: Starlette) -> AsyncIterator[None]:
        async def warm() -> None:
            for lane in lanes:  # the one that draws comes first
                await to_thread.run_sync(lane.warm)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(warm)
            yield
        for lane in lanes:
            lane.close()

    return run


def _refusal(request: Request) -> str | None:
    """Why a question is not taken: it comes from another page, which a browser lets post plain text anywhere."""
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        return "questions are sent as application/json"
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host')}":
        return "questions are taken from this page only"
    return None


async def _body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        BadQuestion: It is too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise BadQuestion(f"a question has at most {_MOST_BYTES:,} bytes")
    return bytes(body)


def _json(data: Any, status: int = 200) -> Response:
    return JSONResponse(data, status, headers=_HEADERS)
