"""The language server: the answers of this room, in the words of the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path

from attndsl import __version__
from attndsl.source import Diagnostic, Span

from .answers import complete, definition, faults, formatted, hover

_KINDS: Final = {
    "keyword": lsp.CompletionItemKind.Keyword,
    "function": lsp.CompletionItemKind.Function,
    "variable": lsp.CompletionItemKind.Variable,
}


def server() -> LanguageServer:
    """A server with all its features; it is started by its caller."""
    features = {
        lsp.TEXT_DOCUMENT_DID_OPEN: _check,
        lsp.TEXT_DOCUMENT_DID_CHANGE: _check,
        lsp.TEXT_DOCUMENT_DID_SAVE: _check,
        lsp.TEXT_DOCUMENT_HOVER: _show,
        lsp.TEXT_DOCUMENT_DEFINITION: _define,
        lsp.TEXT_DOCUMENT_COMPLETION: _suggest,
        lsp.TEXT_DOCUMENT_FORMATTING: _lay_out,
    }
    made = LanguageServer("attndsl", __version__)
    for name, feature in features.items():
        made.feature(name)(feature)
    return made


def _check(ls: LanguageServer, asked: Any) -> None:
    uri = asked.text_document.uri
    document = ls.workspace.get_text_document(uri)
    found = faults(document.source, _path(uri))
    told = [_told(each, document) for each in found]
    ls.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, told))


def _show(ls: LanguageServer, asked: lsp.HoverParams) -> lsp.Hover | None:
    text, at = _asked(ls, asked)
    words = hover(text, at)
    return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, words)) if words else None


def _define(ls: LanguageServer, asked: lsp.DefinitionParams) -> lsp.Location | None:
    place = definition(*_asked(ls, asked))
    if place is None:
        return None
    uri = asked.text_document.uri if place.path is None else from_fs_path(str(place.path))
    if uri is None:
        return None
    document = ls.workspace.get_text_document(uri)
    return lsp.Location(uri, _range(document, place.start, place.stop))


def _suggest(ls: LanguageServer, asked: lsp.CompletionParams) -> list[lsp.CompletionItem]:
    text = ls.workspace.get_text_document(asked.text_document.uri).source
    return [
        lsp.CompletionItem(label=word, kind=_KINDS[kind], detail=said)
        for word, kind, said in complete(text)
    ]


def _lay_out(ls: LanguageServer, asked: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
    document = ls.workspace.get_text_document(asked.text_document.uri)
    text = document.source
    canonical = formatted(text)
    if canonical is None or canonical == text:
        return []
    return [lsp.TextEdit(_range(document, 0, len(text)), canonical)]


def _path(uri: str) -> Path | None:
    path = to_fs_path(uri) if uri.startswith("file:") else None
    return Path(path) if path else None


def _asked(ls: LanguageServer, asked: Any) -> tuple[str, int]:
    document = ls.workspace.get_text_document(asked.text_document.uri)
    return document.source, document.offset_at_position(asked.position)


def _range(document: Any, start: int, stop: int) -> lsp.Range:
    return lsp.Range(
        document.client_position_at_offset(start), document.client_position_at_offset(stop)
    )


def _told(fault: Diagnostic, document: Any) -> lsp.Diagnostic:
    """A fault where it lies in the document; one that lies elsewhere stands at its top."""
    span: Span | None = fault.span
    inside = span is not None and span.source.text == document.source
    start, stop = (span.start, max(span.stop, span.start + 1)) if inside and span else (0, 1)
    said = [fault.title, *(label.text for label in fault.labels if label.text and label.primary)]
    said += [*fault.notes, *(f"help: {text}" for text in fault.helps)]
    return lsp.Diagnostic(
        range=_range(document, start, min(stop, len(document.source))),
        message="\n".join(said),
        severity=lsp.DiagnosticSeverity.Error,
        code=fault.code,
        source="attndsl",
    )
