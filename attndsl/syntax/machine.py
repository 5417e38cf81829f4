"""A parse by lark's tables, word by word: words and signs of a text, shifts, reductions.

lark can do so itself, in several times the time; what people generate has hundreds of thousands of words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

from lark.lexer import PatternStr

from .clauses import Word
from .grammar import parser
from .parse_errors import END

STRANGE: Final = "STRANGE"  # a character that no word and no sign begins with
_SKIPPED: Final = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Reduction:
    """The last ``size`` symbols become one ``symbol``. Without ``make``, a single one that keeps its value."""

    symbol: str
    size: int
    make: Callable[[list[Any]], Any] | None


State: TypeAlias = dict[str, int | Reduction]  # by symbol; a number is the state to go to


@dataclass(frozen=True, slots=True)
class Machine:
    """The parser's states, and the expression that splits a text into words and signs."""

    states: dict[int, State]
    first: int
    last: int
    scan: re.Pattern[str]
    reserved: dict[str, str]
    _settled: dict[tuple[int, str, str], int] = field(default_factory=dict)

    def settled(self, below: int, symbol: str, kind: str) -> int:
        """The state upon ``below`` that a symbol leads to, where such a word comes next.

        A name is a product, a sum, a comparison and so on of one operand: all that change no value is done at once.
        """
        found = self._settled.get(key := (below, symbol, kind))
        if found is None:
            found = self.goto(below, symbol)
            while isinstance(step := self.states[found].get(kind), Reduction) and not step.make:
                found = self.goto(below, step.symbol)
            self._settled[key] = found
        return found

    def goto(self, below: int, symbol: str) -> int:
        """The state upon ``below`` that a symbol leads to."""
        return cast(int, self.states[below][symbol])

    def words(self, text: str, start: int = 0) -> Iterator[Word]:
        """The words and signs of a text from an offset on, STRANGE ones included."""
        reserved = self.reserved
        for match in self.scan.finditer(text, start):
            kind = match.lastgroup
            if kind is None or kind == _SKIPPED:
                continue
            word = Word(match[0])
            word.kind = reserved.get(word, kind) if kind == "NAME" else kind
            word.start, word.stop = match.span()
            yield word


class Stack:
    """An unfinished parse: states, and the values of symbols that are not yet part of another."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._states = machine.states
        self.stack = [machine.first]
        self.values: list[Any] = []
        self.clauses = frozenset[str]()  # words that open a clause of the declaration that is read

    def allows(self, kind: str) -> bool:
        """Whether the state knows what to do next where such a word comes; it may be an error none the less."""
        return kind in self._states[self.stack[-1]]

    def feed(self, kind: str, word: Word | None) -> bool:
        """Takes one word, after all reductions that it allows. False: it cannot stand here."""
        states, stack, values = self._states, self.stack, self.values
        while True:
            step = states[stack[-1]].get(kind)
            if isinstance(step, int):
                stack.append(step)
                values.append(word)
                return True
            if step is None or step.make is None:
                return False
            if size := step.size:
                values[-size:] = (step.make(values[-size:]),)
                del stack[-size:]
            else:
                values.append(step.make([]))
            stack.append(self._machine.settled(stack[-1], step.symbol, kind))
            if kind == END and stack[-1] == self._machine.last:
                return True

    def expected(self) -> frozenset[str]:
        """All kinds of words that can stand next."""
        choices = self._states[self.stack[-1]]
        return frozenset(kind for kind in choices if kind.isupper() and self._takes(kind))

    def _takes(self, kind: str) -> bool:
        stack = self.stack.copy()
        while not isinstance(step := self._states[stack[-1]].get(kind), int):
            if step is None:
                return False
            del stack[len(stack) - step.size :]
            stack.append(self._machine.goto(stack[-1], step.symbol))
            if kind == END and stack[-1] == self._machine.last:
                return True
        return True


@lru_cache(maxsize=1)
def machine() -> Machine:
    """The machine of the language's grammar."""
    made: Any = parser()  # lark leaves parts of it without types
    inner = made.parser.parser.parser
    table, callbacks = inner.parse_table, inner.callbacks
    states = {
        number: {kind: _step(goal, callbacks) for kind, (_, goal) in row.items()}
        for number, row in table.states.items()
    }
    scan, reserved = _scanner(made)
    return Machine(states, table.start_states["start"], table.end_states["start"], scan, reserved)


def _step(goal: Any, callbacks: dict[Any, Any]) -> int | Reduction:
    if isinstance(goal, int):
        return goal
    size, symbol = len(goal.expansion), goal.origin.name
    return Reduction(symbol, size, None if _is_itself(goal) else callbacks[goal])


def _is_itself(rule: Any) -> bool:
    """Whether a rule of one symbol gives its value, which is what lark's `?` says."""
    if not rule.options.expand1 or rule.alias or len(rule.expansion) != 1:
        return False
    (symbol,) = rule.expansion
    return not symbol.is_term and not symbol.name.startswith("_")


def _scanner(made: Any) -> tuple[re.Pattern[str], dict[str, str]]:
    """One expression for all words and signs, longer ones before their beginnings; and the reserved words."""
    reserved, kinds = dict[str, str](), []
    for each in made.terminals:
        spelled = each.pattern.value
        if isinstance(each.pattern, PatternStr) and spelled.isalpha():
            reserved[spelled] = each.name
        else:
            kinds.append(each)
    kinds.sort(key=lambda each: (-each.priority, -each.pattern.max_width, -len(each.pattern.value)))
    skipped = set(made.lexer_conf.ignore)
    ways = {each.name: each.pattern.to_regexp() for each in kinds}
    ignored = "|".join(way for name, way in ways.items() if name in skipped)
    others = [f"(?P<{name}>{way})" for name, way in ways.items() if name not in skipped]
    groups = (f"(?P<{_SKIPPED}>{ignored})", *others, f"(?P<{STRANGE}>.)")
    return re.compile("|".join(groups), re.DOTALL), reserved
