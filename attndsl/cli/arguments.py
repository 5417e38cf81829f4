"""The words of a command line as values: every mistake in them is a diagnostic, as in a file."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attndsl import syntax as syn
from attndsl.files import write_file
from attndsl.frontend import Given
from attndsl.program_arguments import SIMPLIFICATIONS
from attndsl.source import AttnDslError, Diagnostic, Label, Source, Span

from .commands import mistake

T = TypeVar("T")

LONGEST = 1 << 40  # tokens
_PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)=(.*)", re.DOTALL)


def fault_in(option: str, text: str, part: str, title: str, label: str) -> AttnDslError:
    """A fault in the text of an option, with a caret under the part that is at fault."""
    source = Source(option, text or " ")
    start = max(0, text.rfind(part)) if part else len(text)
    span = Span(source, start, start + max(1, len(part)))
    return AttnDslError(Diagnostic("A602", title, (Label(span, label),)))


# ---------------------------------------------------------------------------- values


def whole(low: int, high: int = LONGEST) -> Callable[[str], int]:
    """A converter for numbers between two bounds, both included, as the language writes them."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9](_?[0-9])*", text) or not low <= int(text) <= high:
            bounds = f"at least {low}" if high >= LONGEST else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"expected a whole number, {bounds}, not {text!r}")
        return int(text)

    return convert


def seconds(text: str) -> float:
    """A positive number of seconds."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", text) or not 0 < float(text) <= 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text!r}")
    return float(text)


def share(text: str) -> float:
    """A probability from 0 to below 1."""
    if not re.fullmatch(r"0(\.[0-9]*)?", text):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, not {text!r}")
    return float(text)


def parameters(words: Sequence[str]) -> dict[str, Given]:
    """`-p name=value ...`: values are literals of the language, parsed by its parser, never run."""
    return _named(words, "-p", literal)


def extents(words: Sequence[str]) -> dict[str, int]:
    """`--extents y=56,x=56`, also given several times."""
    parts = [part for word in words for part in word.split(",")]
    return _named(parts, "--extents", _extent)


def files(words: Sequence[str]) -> dict[str, Path]:
    """`--input name=FILE.npy ...`."""
    return _named(words, "--input", lambda _, text: Path(text))


def _named(words: Sequence[str], option: str, convert: Callable[[str, str], T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for word in words:
        match = _PAIR.fullmatch(word.strip())
        if not match:
            title = f"`{option}` takes a name and a value"
            raise fault_in(option, word, word, title, "expected `name=value`")
        name, text = match.groups()
        if name in found:
            raise fault_in(option, word, name, f"`{name}` is given twice", "the second time")
        found[name] = convert(word, text)
    return found


def literal(word: str, text: str) -> Given:
    """A whole number, a real one, `true`, `false`, or a list of whole numbers."""
    title = "a value is a number, `true`, `false`, or a list such as `[0, 4]`"
    try:
        module = syn.parse(f"pattern value = {text}")
    except AttnDslError as error:
        raise fault_in("-p", word, text, title, error.diagnostics[0].title) from None
    match module.declarations:
        case (syn.Pattern(body=body, parameters=(), where=()),):
            value = _value(body)
        case _:
            value = None
    if value is None:
        raise fault_in("-p", word, text, title, "this is none of them")
    return value


def _value(body: syn.Expression) -> Given | None:
    match body:
        case syn.Int(value=value) | syn.Bool(value=value):
            return value
        case syn.Fraction(digits=digits):
            return float(digits)
        case syn.Neg(operand=syn.Int() | syn.Fraction() as operand):
            number = _value(operand)
            assert isinstance(number, int | float), "it is a number"
            return -number
        case syn.ListOf(items=items):
            values = [_value(item) for item in items]
            numbers = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
            return numbers if len(numbers) == len(values) else None
        case _:
            return None


def _extent(word: str, text: str) -> int:
    try:
        return whole(0)(text)
    except argparse.ArgumentTypeError as error:
        title = "an extent is a whole number of positions, at least 0"
        raise fault_in("--extents", word, text, title, str(error)) from None


# ---------------------------------------------------------------------------- arguments


def add_pattern(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Adds the arguments of every command about one pattern."""
    named = parser.add_argument(
        "pattern",
        nargs="?" if optional else None,
        metavar="PATTERN",
        help="a name (`attndsl list`), a file.attn or file.attn:name, or text of the language",
    )
    complete_names(named)
    parser.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter's value; may be given several times",
    )  # fmt: skip
    add_align(parser)
    add_without(parser)


def complete_names(argument: argparse.Action) -> None:
    """Lets a shell complete names of patterns, and files (argcomplete reads the attribute)."""

    def completer(prefix: str, **_: Any) -> list[str]:
        from attndsl import patterns

        names = (*patterns.names(), *patterns.published(), *patterns.attentions())
        files = (str(path) for path in Path().glob("*.attn"))
        return [name for name in (*names, *files) if name.startswith(prefix)]

    argument.completer = completer  # type: ignore[attr-defined]


def add_align(parser: argparse.ArgumentParser) -> None:
    """Where queries stand, if the pattern does not say so."""
    parser.add_argument(
        "--align", choices=("start", "end"),
        help="where queries stand, unless the pattern says so: at the first positions or the last, the default",
    )  # fmt: skip


def add_without(parser: argparse.ArgumentParser) -> None:
    """Simplifications to leave out."""
    parser.add_argument(
        "--without", action="append", default=[], metavar="PASS",
        help=f"leave a simplification out: {', '.join(SIMPLIFICATIONS)}",
    )  # fmt: skip


def add_call(parser: argparse.ArgumentParser) -> None:
    """Lengths, heads, extents and inputs: what a schedule depends on besides the pattern."""
    group = parser.add_argument_group("the call")
    length = whole(1)
    group.add_argument("--q-len", type=length, metavar="N", help="how many queries")
    group.add_argument("--k-len", type=length, metavar="N", help="how many keys, where it differs")
    group.add_argument("--heads", type=whole(1, 1024), metavar="N", help="how many heads")
    group.add_argument("--batch", type=whole(1, 1024), metavar="N", help="how many batch elements")
    group.add_argument("--layer", type=whole(0, 1 << 20), metavar="N", default=0, help="default 0")
    group.add_argument(
        "--extents", action="append", default=[], metavar="AXIS=N,...",
        help="sizes of grid axes, as y=56,x=56",
    )  # fmt: skip
    group.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE.npy",
        help="a run-time input; those not given are made up, which the output says",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=whole(0, 1 << 31), metavar="N", default=0, help="for inputs made up"
    )


def add_layout(group: argparse._ArgumentGroup, default: str) -> None:
    """In which order tokens are taken into tiles."""
    group.add_argument(
        "--layout", default=default, metavar="LAYOUT",
        help=f"order of tokens: auto, natural, residues(8), boxes(y=8, x=16), ...; default {default}",
    )  # fmt: skip


def write(path: Path, data: bytes, options: argparse.Namespace) -> None:
    """Writes a file that the user asked for, whole or not at all.

    Raises:
        AttnDslError: A603, it cannot be written, or the command line reads from it.
    """
    title = f"cannot write {path}"
    try:
        if _is_read(path, options):
            raise mistake("A603", f"{title}: the pattern is read from it", helps=("name another",))
        write_file(path, data)
    except OSError as error:
        raise mistake("A603", f"{title}: {error.strerror}") from None


def _is_read(path: Path, options: argparse.Namespace) -> bool:
    """Whether a file is the pattern, one that it may import, or an input."""
    if not os.path.exists(path):  # noqa: PTH110 - never raises, whatever the name
        return False
    file, suffix, _ = options.pattern.rpartition(".attn")
    sources = [file + suffix, *(word.partition("=")[2] for word in getattr(options, "input", ()))]
    is_source = path.resolve().suffix == ".attn"
    return is_source or any(os.path.exists(x) and path.samefile(x) for x in sources)  # noqa: PTH110
