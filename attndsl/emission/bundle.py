"""One stand-alone file for one pattern: the pattern as a function on tensors, the package's kernels and what runs them.

The kernels, their configs and their host are the very text of the package's files, read from the folder of the
package: their imports are gathered at the top, nothing else is changed.
"""

from __future__ import annotations

import ast
import functools
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attndsl import analysis, ir
from attndsl.emission.bounds import Limits, limits
from attndsl.emission.names import commented
from attndsl.emission.relations import prepared, written
from attndsl.emission.signature import Traits, attention_function
from attndsl.passes import normalise

_BACKENDS: Final = Path(__file__).parents[1] / "backends"
FILES: Final = (
    "kernels/tiles", "kernels/forward", "kernels/backward", "kernels/merging", "configs", "integers",
    "live_tiles", "standalone_positions", "standalone_inputs", "standalone",
)  # fmt: skip
SCORED_FILES: Final = (
    *FILES,
    "kernels/pairs",
    "score_tables",
    "denominators",
    "standalone_reals",
    "standalone_scores",
    "standalone_forms",
)


def emit(mask: ir.Mask, layer: int = 0, *, definition: str = "") -> str:
    """A Python file that computes attention within the mask: forward, log-sum-exp and backward.

    It imports torch and triton, and nothing of this package; it serves every length, head count, width
    and dtype that the kernels do. Equal masks give equal bytes.

    Args:
        mask: The relation.
        layer: The value of ``layer`` in it.
        definition: How the user wrote it, to be quoted; the relation itself is quoted anyway.

    Returns:
        The text, as the formatter would leave it.

    Raises:
        AttnDslError: A403, numbers of the mask do not fit 64 bits however short sequences are.
    """
    known = limits(mask, prepared(mask, layer))
    relation = written(mask, layer, known.magnitudes)
    asked, sample = attention_function(mask, relation, traits(mask))
    parts = [
        constants([known], has_inputs=bool(mask.tables)),
        relation.in_pattern,
        relation.zero_keys,
        relation.conditions,
        asked,
    ]
    about = f"Pattern {mask.name}." if mask.name else "A pattern without a name."
    quoted = [
        about,
        *([f"\n{mask.doc}"] if mask.doc else []),
        *defined(definition),
        *_meaning(mask),
    ]
    return whole_file(quoted, sample, parts)


def constants(known: Sequence[Limits], *, has_inputs: bool) -> str:
    """The bounds of calls as constants of the file."""
    lines = [
        f"LONGEST = {min(x.longest for x in known)}  # more tokens than any sequence has",
        f"HEADS = {min(x.heads for x in known)}  # the most query heads",
    ]
    if has_inputs:
        most = min(x.most for x in known)
        lines.append(f"LARGEST = {most}  # the greatest absolute value in an input")
    return "\n".join(lines)


def whole_file(
    quoted: Sequence[str],
    sample: str,
    parts: Sequence[str],
    names: Sequence[str] = FILES,
    end: str = "",
) -> str:
    """The file: what it says of itself, its imports, its own parts, files of the package, and what stands behind."""
    files = [source(name) for name in names]
    texts = [*parts, *(part for file in files for part in (file.title, file.body)), end]
    body = "\n\n\n".join(part.strip("\n") for part in texts if part)
    imports = _imports(
        [("functools", ""), ("torch", ""), *(x for file in files for x in file.imports)]
    )
    return f"{_opening(quoted, sample)}\n{imports}\n\n{body}\n"


def traits(mask: ir.Mask) -> Traits:
    deps = mask.root.deps | mask.zeros.deps
    far = analysis.reach(mask, normalise(mask))
    back, ahead = (x if isinstance(x, int) else None for x in (far.back, far.ahead))
    return Traits(bool(deps & ir.Deps.BATCH), bool(deps & ir.Deps.HEAD), back, ahead)


@functools.cache
def source(name: str) -> _Source:
    """A file of the back ends."""
    return _Source(_BACKENDS / f"{name}.py")


class _Source:
    """A file of the package: what it says of itself, what it imports of others, and the rest of its text."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        doc, *statements = ast.parse(text).body
        lines = text.splitlines()
        said = ast.get_docstring(ast.parse(text)) or ""
        self.title = f"# {'-' * 76} {path.stem}\n\n{commented(said)}"
        self.imports: list[tuple[str, str]] = []  # (module, name in it)
        dropped = [doc]
        for node in statements:
            match node:
                case ast.Import(names=names):
                    self.imports += [
                        (each.name, f"as {each.asname}" * bool(each.asname)) for each in names
                    ]
                case ast.ImportFrom(module=str(module), names=names):
                    self.imports += [(module, each.name) for each in names]
                case _:
                    continue
            dropped.append(node)
        for node in dropped:
            for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[line] = ""
        self.body = "\n".join(lines).strip("\n")


def defined(definition: str) -> list[str]:
    """How the user wrote it, quoted."""
    return ["\nDefinition:\n", textwrap.indent(definition, "    ")] if definition else []


def _meaning(mask: ir.Mask) -> list[str]:
    found = ["\nA query q sees the keys k for which\n", f"    {ir.show(mask.root)}"]
    if mask.zeros is not ir.ZERO:
        found += [
            "\nand so many keys more, of score 0 and value 0:\n",
            f"    {ir.show(mask.zeros)}",
        ]
    return found


def _opening(quoted: Sequence[str], sample: str) -> str:
    """Where it comes from, what it computes, how it is called."""
    return f'''# SPDX-License-Identifier: Apache-2.0
# Copyright The attndsl authors: kernels and host code. Written by attndsl.

{commented(chr(10).join(quoted))}

"""Attention over the pairs of one pattern: forward, log-sum-exp and backward.

It needs torch, triton and a GPU; the CPU does under TRITON_INTERPRET=1, slowly.

    out = attention({sample})
    out, lse = attention({sample}, return_lse=True)
"""
'''


def _imports(found: Sequence[tuple[str, str]]) -> str:
    """Imports of the file, each once: the standard library first, nothing of the package."""
    plain, of_module = set[str](), dict[str, set[str]]()
    for module, name in found:
        if module.partition(".")[0] in ("attndsl", "__future__"):
            continue
        if not name or name.startswith("as "):
            plain.add(f"import {module} {name}".strip())
        else:
            of_module.setdefault(module, set()).add(name)
    lines = sorted(plain) + [
        f"from {module} import {', '.join(sorted(names))}"
        for module, names in sorted(of_module.items())
    ]
    outside = [
        line for line in lines if line.split()[1].partition(".")[0] not in sys.stdlib_module_names
    ]
    return "\n".join([*(line for line in lines if line not in outside), "", *outside])
