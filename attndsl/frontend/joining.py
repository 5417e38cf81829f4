"""Nodes joined in long chains, and demands that parts of an expression make on its user."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .errors import make_error

if TYPE_CHECKING:
    from .embedding import Expr

SORT_WORDS = {ir.Sort.INT: "an int", ir.Sort.BOOL: "a bool", ir.Sort.REAL: "a real"}
Kind: TypeAlias = type[ir.And] | type[ir.Or] | type[ir.Sum] | type[ir.Min] | type[ir.Max]


@dataclass(frozen=True, slots=True)
class Asked:
    """Demands on whoever uses an expression: how queries are placed, what inputs must satisfy, what is chosen."""

    align: str | None = None
    conditions: tuple[ir.Condition, ...] = ()
    selections: tuple[ir.Chosen, ...] = ()

    def and_(self, other: Asked) -> Asked:
        """Both.

        Raises:
            AttnDslError: A212, they are aligned in different ways.
        """
        if None not in (self.align, other.align) and self.align != other.align:
            title = "parts of this pattern are aligned in different ways: one at the start, one at the end"
            raise AttnDslError(make_error("A212", title, here()))
        both = {each.node: each for each in (*self.conditions, *other.conditions)}
        chosen = dict.fromkeys((*self.selections, *other.selections))
        return Asked(self.align or other.align, tuple(both.values()), tuple(chosen))


def sort_of(kind: Kind) -> ir.Sort:
    return ir.Sort.BOOL if kind in (ir.And, ir.Or) else ir.Sort.INT


def joined(kind: Kind, nodes: list[ir.Node]) -> ir.Node:
    if kind is ir.And or kind is ir.Or:
        return ir.chained(kind, nodes)
    return {ir.Sum: ir.add, ir.Min: ir.minimum, ir.Max: ir.maximum}[kind](*nodes)


def checked(node: ir.Node) -> ir.Node:
    if ir.largest(node) >= ir.LARGEST:
        raise AttnDslError(make_error("A305", "this constant is too large", here()))
    return node


ASKS_NOTHING: Final = Asked()


def some_of(what: str, items: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a function that takes one or more.

    Raises:
        AttnDslError: A205, there are none.
    """
    if not items:
        raise AttnDslError(make_error("A205", f"`{what}` takes 1 or more arguments", here()))
    return items


class Scalable:
    """Base of attentions: a product of an expression and one is for them to build."""


class Container(abc.ABC):
    """Base of rows of list tables: an expression may be in one."""

    @abc.abstractmethod
    def holds(self, item: Expr) -> Expr:
        """Whether the item is one of its entries."""


class Readable(abc.ABC):
    """Base of tables: one without dims stands for its only value."""

    @abc.abstractmethod
    def only_value(self) -> Expr | None:
        """Its value; None where an index is needed."""
