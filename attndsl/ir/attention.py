"""An attention: a pattern, and what is done with the scores of its pairs.

    attention = coefficient * softmax over (part ++ part ++ ...) + coefficient * ...

Each part has a mask of its own; a pair that is in no mask adds nothing to numerator or denominator, whatever the form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from attndsl.ir.interning import Node
from attndsl.ir.mask import Mask, Table
from attndsl.ir.nodes import Load, Size
from attndsl.ir.reals import SCORE, UNITY, Row
from attndsl.ir.selection import Chosen
from attndsl.ir.walks import postorder


class Form(StrEnum):
    """How the scores t of a query become weights.

    - SOFTMAX: exp(t - L), L the log-sum-exp of the query, with all mass in it.
    - POINTWISE: ``weight`` of t, without a normaliser.
    - L1: ``weight`` of t over the sum of ``weight`` over the query's keys; 0 where that is 0.
    - ENTMAX: 1.5-entmax, max(t / 2 - tau, 0)^2 with the tau that makes them sum to one (Peters et al., 2019).
    - STICK: sigmoid(t_j) times the product of 1 - sigmoid(t_m) over the query's keys m > j (Tan et al., 2024).
    - COLUMNS: exp(t - C), C the log-sum-exp over the queries that see the key.
    """

    SOFTMAX = "softmax"
    POINTWISE = "pointwise"
    L1 = "l1"
    ENTMAX = "entmax"
    STICK = "stick"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class Scored:
    """The pairs of one mask, and their scores.

    ``score`` is a real expression in `Score`, the scaled product of query and key. ``form`` makes weights of it:
    ``weight``, of POINTWISE and L1, is an expression in which `Score` stands for the value of ``score``. ``factor``
    multiplies the weights of a query after they are normalised. ``keys`` names a pair of inputs of the call, (k, v),
    that stand in the place of its keys and values; "" is the call's own. ``member`` (i, n) takes the heads i, i + n,
    i + 2n ... of the call's q and k alone, with all heads of v.
    """

    mask: Mask
    score: Node = SCORE
    form: Form = Form.SOFTMAX
    weight: Node | None = None
    factor: Node | None = None
    keys: str = ""
    member: tuple[int, int] | None = None

    def expressions(self) -> Iterator[Node]:
        """The real expressions."""
        yield from (each for each in (self.score, self.weight, self.factor) if each is not None)

    def spelled(self) -> bytes:
        """Everything that has meaning, as bytes."""
        each = self.score, self.weight, self.factor
        nodes = b"".join(b"-" if node is None else node.digest for node in each)
        return repr((self.mask.digest, self.form.value, self.keys, self.member)).encode() + nodes


@dataclass(frozen=True, slots=True)
class Term:
    """A multiple of one normalised attention over the parts, which share their denominator.

    ``coefficient`` depends on batch, head and query at most. ``log_mass`` is the logarithm of what is added to the
    denominator of each query, likewise.
    """

    parts: tuple[Scored, ...]
    coefficient: Node = UNITY
    log_mass: Node | None = None

    def expressions(self) -> Iterator[Node]:
        """The real expressions, those of its parts included."""
        yield self.coefficient
        if self.log_mass is not None:
            yield self.log_mass
        for part in self.parts:
            yield from part.expressions()


@dataclass(frozen=True, slots=True)
class Attention:
    """A sum of terms.

    ``tables`` are the inputs that its real expressions read, beside those of its masks; ``selections`` make those of
    them that a call does not bring. ``unread`` names inputs that were declared and may be given though nothing reads
    them, see `ignored`.
    """

    terms: tuple[Term, ...]
    tables: tuple[Table, ...] = ()
    name: str = field(default="", compare=False)
    doc: str = field(default="", compare=False)
    selections: tuple[Chosen, ...] = field(default=(), repr=False)
    unread: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def inputs(self) -> tuple[Table, ...]:
        """The inputs that its masks and real expressions read, each once."""
        read = (*(table for mask in self.masks for table in mask.tables), *self.tables)
        return tuple({table.name: table for table in read}.values())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of inputs that a call may be given though nothing reads them, its masks' among them."""
        return (*self.unread, *(name for mask in self.masks for name in mask.unread))

    @property
    def digest(self) -> str:
        """Stable across processes and machines: 32 hex digits of everything that has meaning."""
        hasher = hashlib.blake2b(repr(self.tables).encode(), digest_size=16)
        for term in self.terms:
            mass = b"-" if term.log_mass is None else term.log_mass.digest
            hasher.update(b"+" + term.coefficient.digest + mass)
            for part in term.parts:
                hasher.update(part.spelled())
        return hasher.hexdigest()

    @property
    def masks(self) -> tuple[Mask, ...]:
        """The masks of all parts, in order."""
        return tuple(part.mask for term in self.terms for part in term.parts)

    @property
    def key_inputs(self) -> tuple[str, ...]:
        """The names of the keys and values that a call is given beside its own, each once."""
        named = (part.keys for term in self.terms for part in term.parts if part.keys)
        return tuple(dict.fromkeys(named))


def tables_read(*roots: Node) -> frozenset[str]:
    """The names of the tables that expressions read, or whose dims they name."""
    found = set[str]()
    for root in roots:
        for node in postorder(root):
            match node:
                case Load(table=name) | Row(table=name):
                    found.add(name)
                case Size(name=name) if ":" in name:
                    found.add(name.partition(":")[0])
                case _:
                    pass
    return frozenset(found)
