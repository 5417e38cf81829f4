"""One stand-alone file for one pattern: its predicate, the package's kernels cut to it, and a host around them."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from attndsl import analysis, ir
from attndsl.emission.asking import attention_function
from attndsl.emission.bounds import LONGEST
from attndsl.emission.cutting import (
    Edit,
    called,
    cut,
    defined,
    definitions,
    double_quoted,
    without_idle_parameters,
)
from attndsl.emission.names import commented
from attndsl.emission.relation import Function, Relation, written
from attndsl.passes import normalise

_HERE: Final = Path(__file__).parent
_BACKENDS: Final = _HERE.parent / "backends"
_OWN: Final = {
    "ITEM",
    "deal",
    "positions",
    "_split_tile",
}  # written anew in device.txt, or not needed
_ENTRIES: Final = frozenset({
    "forward", "backward_queries", "backward_keys", "prepare_backward", "merge_outputs", "sum_chunks",
    "classify", "pack", "count_zeros",
})  # fmt: skip
_CONFIGS: Final = (
    "Pass", "Arch", "SHARED_MEMORY", "Config", "_DEFAULTS", "fitting", "shared_memory", "_smaller",
    "padded", "architecture",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Traits:
    """What the file has to provide for."""

    masks: bool  # PARTIAL tiles read bits
    batches: bool  # each batch element has its own schedule
    heads: bool  # each head has
    split: bool  # some tiles have far more work than others
    needs_heads: bool

    @property
    def plans(self) -> bool:
        """Whether there is more than one schedule."""
        return self.batches or self.heads

    def flags(self, mask: ir.Mask) -> dict[str, object]:
        """The names that templates and kernels test."""
        return {
            "MASKS": self.masks,
            "BATCHES": self.batches,
            "HEADS": self.heads,
            "PLANS": self.plans,
            "SPLIT": self.split,
            "STARTS": self.plans and self.split,
            "NEEDS_HEADS": self.needs_heads,
            "SPACES": bool(mask.keys.segments or mask.queries.segments),
            "TABLES": bool(mask.tables),
            "ZEROS": mask.zeros is not ir.ZERO,
            "KEEP": None if self.masks else "keep",
            "Q_ORDERED": False,
            "K_ORDERED": False,
            "ORDERED": False,
            **({} if self.plans and self.split else {"exists": True}),
        }


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
    """
    relation = written(mask, layer)
    traits = _traits(mask, relation)
    edit = _edit(mask, relation, traits)
    device = without_idle_parameters(
        cut(_device(traits, zeros=relation.zeros is not None), edit), _ENTRIES
    )
    host = cut((_HERE / "host.txt").read_text(encoding="utf-8"), replace(edit, docs={}))
    host = host.partition("\n")[2]  # a line to whoever reads the template
    helpers = definitions((_HERE / "device.txt").read_text(encoding="utf-8"), relation.helpers)
    predicate = [helpers, *(f.text for f in relation.functions)]
    asked, sample = attention_function(mask, relation)
    parts = [
        _section("the pattern"),
        *_chunks("\n".join(predicate)),
        _section("kernels"),
        *_chunks(device),
        _section("tiles, warps, stages"),
        *_chunks(_configs()),
        _section("schedule, autograd"),
        *_chunks(host),
        *_chunks(asked),
    ]
    body = _joined(parts)
    constants = _constants(body)
    return f"{_opening(mask, sample, definition)}\n{_imports(body)}\n\n{constants}\n\n{body}"


def _traits(mask: ir.Mask, relation: Relation) -> Traits:
    rank = mask.root.deps
    far = analysis.reach(mask, normalise(mask))
    near = not {far.back, far.ahead} & {analysis.Far.UNBOUNDED, analysis.Far.UNDECIDED}
    heads = bool(rank & ir.Deps.HEAD)
    functions = (*relation.terms.values(), relation.keep)
    asked = {name for function in functions for name in function.parameters}
    return Traits(
        relation.reads_masks, bool(rank & ir.Deps.BATCH), heads, not near, heads or "heads" in asked
    )


# ---------------------------------------------------------------------------- kernels


def _device(traits: Traits, *, zeros: bool) -> str:
    """All kernels and what they call, uncut."""
    mine = (_HERE / "device.txt").read_text(encoding="utf-8")
    kernels = {
        path.stem: path.read_text(encoding="utf-8") for path in (_BACKENDS / "kernels").glob("*.py")
    }
    merging = ["_split_tile"] if traits.split else []
    packing = [*(["pack"] if traits.masks else []), *(["count_zeros"] if zeros else [])]
    parts = [
        definitions(mine, ["ITEM", "deal"]),
        _but(kernels["tiles"], _OWN if traits.masks else {*_OWN, "unpack"}),
        definitions(mine, ["pairs", "classify", *packing]),
        _commented_out(kernels["forward"]),
        _but(kernels["forward"], _OWN),
        *([definitions(mine, merging), _but(kernels["merging"], _OWN)] if merging else []),
        _commented_out(kernels["backward"]),
        _but(kernels["backward"], _OWN),
    ]
    return "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


def _but(text: str, names: set[str]) -> str:
    """The definitions of a text that have none of these names."""
    return definitions(text, [name for name in defined(text) if name not in names])


def _commented_out(text: str) -> str:
    """What the docstring of a file says."""
    return commented(ast.get_docstring(ast.parse(text)) or "")


def _edit(mask: ir.Mask, relation: Relation, traits: Traits) -> Edit:
    given = (*relation.tables, *relation.sizes)
    removed = [
        "n_constants", "tables", "q_order", "k_order", "order", "plan_of", "CONSTANTS", "QUERY_TERMS",
        "KEY_TERMS", "KEEP", "Q_ORDERED", "K_ORDERED", "ORDERED", "SPLIT",
    ]  # fmt: skip
    absent = [
        (traits.masks, ["mask_ids", "masks", "walk.ids"]),
        (traits.plans, ["plan_batch", "plan_head", "classify.rows", "pack.rows"]),
        (traits.split, ["PartOut", "PartLse", "PartQ", "PartK", "PartV", "slots", "walk.owners"]),
        (traits.plans and traits.split, ["first_items", "first_splits"]),
        (traits.needs_heads, ["classify.heads", "pack.heads"]),
    ]
    removed += [name for is_there, names in absent if not is_there for name in names]
    asked = [f"{name}.constants" for name in ("pairs", "classify", "pack", "count_zeros")]
    place = dict.fromkeys(asked, given) if traits.masks else {"constants": given}
    words = _Words(mask, relation, traits)
    return Edit(
        traits.flags(mask),
        {
            "positions": words.positions,
            "pairs": words.pairs,
            "ZEROS_OF": words.zeros,
            "QUERY_TERMS": words.terms,
            "KEY_TERMS": words.terms,
            "KEEP": words.keep,
        },
        {
            "deal": words.deal,
            "_split_tile": words.split_tile,
            "CONSTANTS": lambda _: None,
            "QUERY_TERMS": words.side,
            "KEY_TERMS": words.side,
        },
        _ENTRIES | {"pairs", "walk"},
        {**dict.fromkeys(removed, ()), "constants": (), **place},
        unspecialised=tuple(relation.sizes),
        elements={"numbers": words.numbers, "q_terms": words.query_terms},
        docs=_docs(traits),
    )


def _docs(traits: Traits) -> dict[str, str]:
    """Of kernels that can do less than those of the package."""
    shares = ", or their shares where the work of a tile is split" if traits.split else ""
    entry = (
        "An entry of ``full`` and ``partial`` is query tile * GROUP + query head within the group."
    )
    return {
        "addresses": """Addresses of a tile: rows ``first + row``, ``step`` apart, and columns, ``across`` apart.

    ``row`` and ``column`` lie along the two axes of the result. What moves from tile to tile is one
    scalar of 64 bits; offsets within a tile have 32.
    """,
        "forward": f"Out [B, H, Q, DV] and Lse [B, H, Q]{shares}.",
        "backward_queries": f"GradQ [B, H, Q, D], contiguous{shares}.",
        "backward_keys": f"""GradK [B, Hkv, K, D] and GradV [B, Hkv, K, DV], contiguous{shares}.

    {entry}
    """,
    }


_SIDES: Final = {"QUERY_TERMS": ir.Side.QUERY, "KEY_TERMS": ir.Side.KEY}


@dataclass(frozen=True, slots=True)
class _Words:
    """What stands in the kernels where they ask for the pattern, their position and their work."""

    mask: ir.Mask
    relation: Relation
    traits: Traits

    def positions(self, node: ast.Call, _: str) -> ast.expr:
        """The row itself; the ends of queries and keys coincide, where the pattern says so."""
        first, row, order = map(ast.unparse, node.args[:3])
        shifted = order == "q_order" and self.mask.align is ir.Align.END
        return _expression(f"{first} + (k_len - q_len) + {row}" if shifted else f"{first} + {row}")

    def terms(self, node: ast.Call, where: str) -> ast.expr:
        """The function of one side."""
        function, position = self.relation.terms.get(_SIDES[called(node)]), node.args[-1]
        return self._asking(function, [ast.unparse(position)], where) if function else position

    def keep(self, node: ast.Call, where: str) -> ast.expr:
        """The predicate, of terms or of positions."""
        if isinstance(node.args[0], ast.Subscript):  # handed on in a tuple
            count = len(self.relation.keep.parameters)
            places = [count, count + 1, *range(count)]
            return _expression(f"in_pattern({', '.join(f'terms[{place}]' for place in places)})")
        plain = {ir.Side.QUERY: "seen_from", ir.Side.KEY: "looked_at"}
        sides = zip(ir.Side, node.args[1:], strict=True)
        first = [
            ast.unparse(each) if side in self.relation.terms else plain[side]
            for side, each in sides
        ]
        return self._asking(self.relation.keep, first, where)

    def zeros(self, node: ast.Call, where: str) -> ast.expr:
        """How many zero keys queries see."""
        assert self.relation.zeros is not None, "the kernel is there for patterns that have some"
        return self._asking(self.relation.zeros, [ast.unparse(node.args[0])], where)

    def _asking(self, function: Function, first: list[str], where: str) -> ast.expr:
        given = _local(function.parameters, where)
        return _expression(f"{function.name}({', '.join([*first, *given])})")

    def numbers(self, where: str) -> list[ast.expr]:
        """What the predicate takes besides terms, where it is handed on."""
        return list(map(_expression, _local(self.relation.keep.parameters, where)))

    def query_terms(self, _: str) -> list[ast.expr]:
        """The terms of the query, or its position."""
        return [_expression("q_terms" if ir.Side.QUERY in self.relation.terms else "seen_from")]

    def pairs(self, node: ast.Call, _: str) -> ast.expr:
        """With what the pattern reads, in place of its constants."""
        given = [*self.relation.tables, *self.relation.sizes, *map(ast.unparse, node.args[1:])]
        return _expression(f"pairs({', '.join(given)})")

    def side(self, node: ast.Assign) -> ast.Assign | None:
        """Nothing, where positions say it all."""
        return node if _SIDES[called(node.value)] in self.relation.terms else None

    def deal(self, node: ast.Assign) -> ast.Assign:
        """Which item of which head; the plan is none of the kernel's business."""
        targets, arguments = _both(node)
        kept = [*targets[:2], targets[3], *([targets[4]] if self._may_lack else [])]
        return _assignment(kept, f"deal({', '.join([arguments[0], *arguments[2:]])})")

    def split_tile(self, node: ast.Assign) -> ast.Assign:
        """Likewise."""
        targets, arguments = _both(node)
        kept = [*targets[:2], *targets[3:6], *([targets[6]] if self._may_lack else [])]
        given = [*arguments[:2], *arguments[3:]]
        return _assignment(kept, f"_split_tile({', '.join(given)})")

    @property
    def _may_lack(self) -> bool:
        """Whether plans have unequal numbers of items."""
        return self.traits.plans and self.traits.split


def _local(parameters: Iterable[str], where: str) -> list[str]:
    """How a kernel calls what functions of the pattern take."""
    known = {"batch": "b"}
    if where == "backward_keys":
        known |= {"head": "kv_head * GROUP + member", "heads": "kv_heads * GROUP"}
    return [known.get(name, name) for name in parameters]


def _both(node: ast.Assign) -> tuple[list[str], list[str]]:
    target, value = node.targets[0], node.value
    assert isinstance(target, ast.Tuple)
    assert isinstance(value, ast.Call)
    return [ast.unparse(x) for x in target.elts], [ast.unparse(x) for x in value.args]


def _assignment(targets: list[str], value: str) -> ast.Assign:
    (made,) = ast.parse(f"{', '.join(targets)} = {value}").body
    assert isinstance(made, ast.Assign)
    return made


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


# ---------------------------------------------------------------------------- the file


def _configs() -> str:
    """How passes are run on each device, with a line for each table entry."""
    text = (_BACKENDS / "configs.py").read_text(encoding="utf-8")
    found = definitions(text, _CONFIGS)
    (table,) = (
        node for node in ast.parse(found).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_DEFAULTS"
    )  # fmt: skip
    assert isinstance(table.value, ast.Dict)
    rows = [
        double_quoted(f"    {ast.unparse(key).strip('()')}: {ast.unparse(value)},")
        for key, value in zip(table.value.keys, table.value.values, strict=True)
        if key is not None
    ]
    rows = [re.sub(r"^    ([^:]*):", r"    (\1):", row) for row in rows]
    lines = found.splitlines()
    head = lines[table.lineno - 1]
    lines[table.lineno - 1 : table.end_lineno] = [head, *rows, "}  # fmt: skip"]
    return "\n".join(lines)


def _chunks(text: str) -> list[str]:
    """The top-level statements of a text; comments that stand alone are chunks, too."""
    lines, chunks, before = text.splitlines(), list[str](), 0
    for node in ast.parse(text).body:
        whole = "\n".join(lines[before : node.end_lineno]).strip("\n")
        comments = re.match(r"(?:#.*\n|\n)*\n(?=[^#\n])", whole)
        before = node.end_lineno or 0
        if comments:
            chunks.append(comments[0].strip("\n"))
            whole = whole[comments.end() :]
        chunks.append(whole)
    return chunks


def _section(title: str) -> str:
    return f"# {'-' * 76} {title}"


def _joined(chunks: Iterable[str]) -> str:
    """Two blank lines around functions, classes and comments; none between constants."""
    text, is_constant = "", False
    for chunk in chunks:
        before = is_constant
        first = next((line for line in chunk.splitlines() if not line.startswith("#")), "")
        is_constant = bool(re.match(r"\w+(: .*)? = ", first))
        text += ("" if not text else "\n" if is_constant and before else "\n\n\n") + chunk
    return text + "\n"


def _opening(mask: ir.Mask, sample: str, definition: str) -> str:
    """Where it comes from, what it computes, how it is called."""
    quoted = [f"Pattern {mask.name}." if mask.name else "A pattern without a name."]
    quoted += [f"\n{mask.doc}"] if mask.doc else []
    quoted += ["\nDefinition:\n", textwrap.indent(definition, "    ")] if definition else []
    quoted += ["\nA query q sees the keys k for which\n", f"    {ir.show(mask.root)}"]
    if mask.zeros is not ir.ZERO:
        quoted += [
            "\nand so many keys more, of score 0 and value 0:\n",
            f"    {ir.show(mask.zeros)}",
        ]
    return f'''# SPDX-License-Identifier: Apache-2.0
# Copyright The attndsl authors: kernels and host code. Written by attndsl.

{commented(chr(10).join(quoted))}

"""Attention over the pairs of one pattern: forward, log-sum-exp and backward.

It needs torch, triton and a GPU; the CPU does under TRITON_INTERPRET=1, slowly.

    out = attention({sample})
    out, lse = attention({sample}, return_lse=True)
"""
'''


def _imports(body: str) -> str:
    read = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    modules = [
        f"import {name}"
        for name in ("collections", "contextlib", "functools", "math")
        if name in read
    ]
    typing = [name for name in ("Final", "Literal", "NamedTuple", "TypeAlias") if name in read]
    dataclasses = [name for name in ("dataclass", "replace") if name in read]
    lines = modules
    lines += [f"from dataclasses import {', '.join(dataclasses)}"] if dataclasses else []
    lines += [f"from typing import {', '.join(typing)}"] if typing else []
    lines += [
        "",
        "import torch",
        "import triton",
        "import triton.language as tl",
        "from torch import Tensor",
    ]
    lines += ["from torch.nn.functional import pad"]
    return "\n".join(lines)


_CONSTANTS: Final = {
    "DTYPES": "(torch.bfloat16, torch.float16, torch.float32)",
    "WIDEST": "256  # head dim",
    "LONGEST": f"{LONGEST}  # tokens, and what an input of 32 bits holds",
    "ROWS": "64  # of a program that prepares the backward pass",
    "SHORTEST": "8  # tiles; cutting work finer costs more in merging than balance gains",
    "CACHE": "16 << 20  # bytes of keys and values that the heads at work together may take",
}


def _constants(body: str) -> str:
    read = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    return "".join(f"{name} = {value}\n" for name, value in _CONSTANTS.items() if name in read)
