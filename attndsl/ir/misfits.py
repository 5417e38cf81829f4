"""Errors of inputs that are not as they were declared: A501, with the line of the declaration."""

from __future__ import annotations

from attndsl.ir.mask import Table
from attndsl.source import AttnDslError, Diagnostic, Label


def declaration(table: Table) -> str:
    """`doc: int[batch, pos]`."""
    kind = "list" if table.is_list else table.kind.value
    return f"{table.name}: {kind}[{', '.join(map(str, table.dims))}]"


def misfit(
    table: Table, title: str, helps: tuple[str, ...] = (), notes: tuple[str, ...] = ()
) -> AttnDslError:
    """The error of an input that is not as it was declared; of one without a text the declaration is a note."""
    is_placed = bool(table.span.source.text)
    labels = (Label(table.span, "declared here"),) if is_placed else ()
    notes = notes if is_placed else (f"declared: {declaration(table)}", *notes)
    return AttnDslError(Diagnostic("A501", title, labels, notes, helps))
