"""`attndsl check`: are these files right, and does what is compiled from them compute what they mean?"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

from attndsl import frontend
from attndsl import syntax as syn
from attndsl.analysis import Fact
from attndsl.claims import Judgement
from attndsl.frontend import Given
from attndsl.source import AttnDslError
from attndsl.sources import describe, open_module

from . import arguments as args
from .commands import Command, mistake
from .subjects import Subject, spelled, with_values
from .terminal import FAINT, GREEN, RED, Terminal

FINE, WRONG, MISTAKEN, UNDECIDED = 0, 1, 2, 3  # exit statuses
_GRAVEST_FIRST = (MISTAKEN, WRONG, UNDECIDED, FINE)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="*", metavar="FILE", help="file.attn, file.attn:name, or a pattern's name"
    )
    parser.add_argument(
        "--library", action="store_true",
        help="the library of published systems, against its oracles; FILE are then names or rows",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter's value, for every pattern that is checked",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=args.seconds, default=2.0, metavar="S",
        help="how long to look for a wrong result, for each pattern; default 2",
    )  # fmt: skip
    parser.add_argument(
        "--backend", action="append", metavar="NAME", help="only this one; may be given again"
    )
    args.add_align(parser)
    args.add_without(parser)
    parser.add_argument("--layer", type=args.whole(0, 1 << 20), default=0, metavar="N")
    parser.add_argument("--seed", type=args.whole(0, 1 << 31), default=0, metavar="N")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    if options.library:
        return _library(options.source, terminal)
    if not options.source:
        helps = ("see `attndsl check --help`",)
        raise mistake("A601", "attndsl check: name a file, a pattern, or --library", helps=helps)
    values = args.parameters(options.param)
    _warm_up(terminal)
    found: list[int] = []
    for source in options.source:
        try:
            names = _patterns(source)
        except AttnDslError as error:
            terminal.complain(error)
            found.append(MISTAKEN)
            continue
        if not names:
            terminal.say(f"{source}: nothing to check, it declares no pattern")
        checks = [_Check(source, name, values, options.align, options.layer) for name in names]
        found += [_judged(check, options, terminal) for check in checks]
    _sum_up(found, terminal)
    return min(found, key=_GRAVEST_FIRST.index, default=FINE)


def _warm_up(terminal: Terminal) -> None:
    """The first calls load half of torch: not at the expense of the first pattern's seconds."""
    with terminal.progress("loading") as progress:
        progress("torch")
        import attndsl

        attndsl.verify(attndsl.compile("diagonal"), seconds=1e-9)


def _library(wanted: list[str], terminal: Terminal) -> int:
    """Every row: whether its entries are what their oracles say, and what is missing of it."""
    from attndsl import library  # loads torch

    rows = faulty = partial = 0
    try:
        for found in library.check(wanted or None):
            colour = RED if not found.ok else FAINT if found.missing else GREEN
            head, _, rest = str(found).partition(found.entries[0].name)
            terminal.say(f"{terminal.paint(colour, head)}{found.entries[0].name}{rest}")
            rows, faulty = rows + 1, faulty + (not found.ok)
            partial += bool(found.ok and found.missing)
    except AttnDslError as error:
        terminal.complain(error)
        return MISTAKEN
    terminal.say(f"{rows - faulty - partial} rows ok, {partial} in part, {faulty} wrong")
    return WRONG if faulty else FINE


@dataclass(frozen=True)
class _Check:
    source: str
    name: str | None
    values: dict[str, Given]
    align: str | None
    layer: int

    def subject(self) -> Subject:
        """The pattern or attention with the values given, and with some for parameters left open."""
        shown = describe(self.source, self.name)
        return with_values(self.source, shown, self.values, self.name, self.align, self.layer)


def _patterns(source: str) -> list[str | None]:
    """The patterns and attentions to check: the one that is named, or all that the file declares."""
    module, entry, resolve = open_module(source)
    if entry is not None:
        return [None]
    kinds = syn.Pattern | syn.Attention
    names = [each.name for each in module.declarations if isinstance(each, kinds)]
    if not names:  # helpers are judged all the same, by naming a pattern that is always there
        frontend.signature(module, "causal", resolve)
    return [*names]


def _judged(check: _Check, options: argparse.Namespace, terminal: Terminal) -> int:
    """Checks the assertions beside the patterns, then what is compiled from them."""
    import attndsl
    from attndsl.explaining import Origin

    began = time.monotonic()
    try:
        about = check.subject()
        name, attention = about.signature.name, about.attention
        patterns = [attndsl.Pattern(mask, options.layer, options.without) for mask in about.masks]
        with terminal.progress(name) as progress:
            progress("assertions")
            claims = tuple(claim for pattern in patterns for claim in pattern.claims())
            held = tuple(claim.claim for claim in claims if claim.ok)  # others are wrong already
            whole: attndsl.Pattern | attndsl.Attention
            if attention is None:
                origin = Origin(check.source, check.name, about.values, check.align)
                hints = origin.hints(patterns[0].facts())
                whole = attndsl.Pattern(replace(about.mask, claims=held), options.layer)
            else:
                hints, whole = (), attndsl.Attention(attention, options.layer)
            report = attndsl.verify(
                whole,
                seconds=options.seconds,
                seed=options.seed,
                backends=options.backend,
                progress=lambda cases, share: progress(f"{cases} calls, {share:.0%}"),
            )
    except AttnDslError as error:
        terminal.complain(error)
        return MISTAKEN
    told = f"{name}{spelled(about.values)}"
    verdict = _verdict(report.ok, claims)
    colour = {FINE: GREEN, WRONG: RED}.get(verdict, FAINT)
    word = {FINE: "ok", WRONG: "wrong"}.get(verdict, "not decided")
    work = f"{report.cases} calls of up to {report.longest} tokens" if report.ok else ""
    spent = terminal.paint(FAINT, f"{time.monotonic() - began:.1f} s")
    terminal.say(f"{terminal.paint(colour, f'{word:5}')} {told:40} {work}  {spent}")
    for claim in claims:
        terminal.code(str(claim), "      ")
    for hint in hints:
        terminal.code(f"hint: {hint}", "      ")
    if not report.ok:
        terminal.code(str(report), "      ")
    return verdict


def _verdict(is_computed_right: bool, claims: tuple[Judgement, ...]) -> int:
    """An assert that is neither proved nor refuted, nor could be tried, is not known to be wrong."""
    if not is_computed_right or any(claim.fact is Fact.REFUTED for claim in claims):
        return WRONG
    return FINE if all(claim.ok for claim in claims) else UNDECIDED


def _sum_up(found: list[int], terminal: Terminal) -> None:
    words = {FINE: "ok", UNDECIDED: "not decided", WRONG: "wrong", MISTAKEN: "bad"}
    counts = {word: found.count(verdict) for verdict, word in words.items()}
    if len(found) > 1:
        terminal.say(", ".join(f"{count} {word}" for word, count in counts.items() if count))


COMMAND = Command(
    (
        "attndsl check patterns/*.attn",
        "attndsl check mine.attn:local -p w=64 --seconds 30",
        "attndsl check longformer --backend blocked",
        "attndsl check --library",
    ),
    configure,
    run,
    "Each pattern is run on generated calls: odd lengths, grids, heads, inputs and dtypes. Schedules,\n"
    "claimed facts, outputs and gradients are compared with the dense meaning, those of real inputs\n"
    "of attentions among them. What it asserts is judged, and held to these calls. Exit status: 0 all is well,\n"
    "1 something is wrong, 2 a file has errors, 3 nothing is wrong, but an assert could not be decided.",
)
