"""The page as an application, and a server for it on the loopback. Both need the extra ``explore``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from attndsl.source import AttnDslError, Diagnostic

from .starting import Start

_HOST: Final = "127.0.0.1"


def application(start: Start) -> Any:
    """The page and its questions as an ASGI application of starlette."""
    from .server import made

    return made(start)


def serve(start: Start, port: int, ready: Callable[[str], None]) -> None:
    """Serves the page on the loopback until it is interrupted; ``ready`` is called with its address.

    Raises:
        AttnDslError: A602, the port is taken.
    """
    import uvicorn

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        title = f"cannot serve on port {port}: {error.strerror}"
        helps = ("another: `--port 0` takes any that is free",)
        raise AttnDslError(Diagnostic("A602", title, helps=helps)) from None
    ready(f"http://{_HOST}:{listening.getsockname()[1]}/")
    config = uvicorn.Config(
        application(start), log_level="warning", access_log=False, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listening])
