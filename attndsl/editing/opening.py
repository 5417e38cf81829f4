"""The start of the language server, which needs the extra ``lsp``."""

from __future__ import annotations


def serve() -> None:
    """Serves the language server protocol on the standard streams, until the editor closes them."""
    from .server import server

    server().start_io()
