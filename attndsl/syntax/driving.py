"""Lark's tables, driven over a text: what lark's own loop does, in a third of its time, as texts may be long.

text -> tokens    one regular expression of lark's terminals, which skips blanks and comments
tokens -> tree    a rule of one symbol that makes no node changes the state and nothing else
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import lark
from lark.lexer import PatternStr

from .parse_errors import END

# By state and symbol: the state after it, or the rule that is complete there.
_Table: TypeAlias = dict[int, dict[str, "int | _Rule"]]


class Unexpected(Exception):
    """The grammar does not read on."""

    def __init__(self, token: lark.Token | None, before: lark.Token | None, count: int) -> None:
        """Take the token, None for characters that are none, the one before it, and how many were read."""
        super().__init__(token)
        self.token, self.before, self.count = token, before, count
        self.offset = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    origin: str
    size: int
    make: Callable[[list[Any]], Any] | None  # None: the value is that of the only symbol


class Driver:
    """A parser that lark made, with its callbacks tied in."""

    def __init__(self, parser: lark.Lark) -> None:
        steps: Any = parser.parse_interactive("")  # lark leaves parts of it without types
        made = steps.parser_state.parse_conf
        rules: dict[Any, _Rule] = {}

        def of(argument: Any) -> int | _Rule:
            if isinstance(argument, int):
                return argument
            if argument not in rules:
                symbols = argument.expansion
                make = None if _is_passed_on(argument) else made.callbacks[argument]
                rules[argument] = _Rule(argument.origin.name, len(symbols), make)
            return rules[argument]

        self._first, self._last = made.start_state, made.end_state
        self._table: _Table = {
            state: {symbol: of(argument) for symbol, (_, argument) in row.items()}
            for state, row in made.states.items()
        }
        self._after = {
            (state, symbol): found
            for state, row in self._table.items()
            for symbol, found in row.items()
            if isinstance(found, int)
        }
        self._words, token, self._blank = _scanner(parser)
        self._scan = token.match

    def tokens(self, text: str) -> Iterator[lark.Token]:
        """The tokens of a text, up to characters that are none.

        Raises:
            Unexpected: there are such characters; its offset says where.
        """
        words, at, token, count = self._words, 0, None, 0
        match = self._scan(text)
        while match is not None:
            kind = match.lastgroup
            assert kind is not None, "each token has a name"
            value, at = match[kind], match.end()
            if kind == "NAME":
                kind = words.get(value, kind)
            token = lark.Token(kind, value, at - len(value), end_pos=at)
            count += 1
            yield token
            match = self._scan(text, at)
        blank = self._blank.match(text, at)
        at = blank.end() if blank else at
        if at < len(text):
            error = Unexpected(None, token, count)
            error.offset = at
            raise error

    def parse(self, text: str, see: Callable[[lark.Token, Mapping[str, object], int], None]) -> Any:
        """Parses a text, and gives the value that the callbacks make of it.

        ``see`` is shown each token before it is read, what may stand there, and how many values are held.

        Raises:
            Unexpected: a token that cannot stand where it does, or characters that are none.
        """
        table, states = self._table, [self._first]
        values: list[Any] = []
        before, count = None, 0
        for token in self.tokens(text):
            see(token, table[states[-1]], len(values))
            self._feed(token, states, values, before, count)
            before, count = token, count + 1
        end = lark.Token.new_borrow_pos(END, "", before) if before else lark.Token(END, "")
        self._feed(end, states, values, before, count)
        return values[-1]

    def _feed(
        self,
        token: lark.Token,
        states: list[int],
        values: list[Any],
        before: lark.Token | None,
        count: int,
    ) -> None:
        """Reduces as far as the token asks for, and shifts it."""
        table, after, kind = self._table, self._after, token.type
        while True:
            found = table[states[-1]].get(kind)
            if isinstance(found, int):
                states.append(found)
                values.append(token)
                return
            if found is None:
                raise Unexpected(token, before, count)
            size, make = found.size, found.make
            if make is None:
                states.pop()
            elif size:
                made = make(values[-size:])
                del states[-size:], values[-size:]
                values.append(made)
            else:
                values.append(make([]))
            states.append(after[states[-1], found.origin])
            if kind == END and states[-1] == self._last:
                return


def _is_passed_on(rule: Any) -> bool:
    """Whether the value of a rule is that of its only symbol."""
    symbols = rule.expansion
    is_alone = len(symbols) == 1 and rule.options.expand1 and not rule.alias
    return is_alone and not symbols[0].is_term and not symbols[0].name.startswith("_")


def _scanner(parser: lark.Lark) -> tuple[dict[str, str], re.Pattern[str], re.Pattern[str]]:
    """Reserved words with their terminals, the expression of a token after blanks, and that of blanks."""
    by_name = {terminal.name: terminal for terminal in parser.terminals}
    name = re.compile(by_name["NAME"].pattern.to_regexp())
    words = {
        terminal.pattern.value: terminal.name
        for terminal in parser.terminals
        if isinstance(terminal.pattern, PatternStr) and name.fullmatch(terminal.pattern.value)
    }
    ignored = set(parser.lexer_conf.ignore)
    others = [t for t in parser.terminals if t.name not in ignored and t.name not in words.values()]
    # as lark orders them
    others.sort(key=lambda t: (-t.priority, -t.pattern.max_width, -len(t.pattern.value), t.name))
    kinds = "|".join(by_name[each].pattern.to_regexp() for each in sorted(ignored))
    blank = f"(?>(?:{kinds})*)"  # atomic: a comment ends where its line does, whatever follows
    tokens = "|".join(f"(?P<{t.name}>{t.pattern.to_regexp()})" for t in others)
    return words, re.compile(f"{blank}(?:{tokens})"), re.compile(blank)
