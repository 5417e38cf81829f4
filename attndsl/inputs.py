"""Arguments given by name: run-time inputs, checked against their declarations, and words of other libraries."""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.source import AttnDslError, Diagnostic, brief, suggest

BROADCAST: Final = ("batch", "head", "q", "k")  # dims of which one entry serves all


def gathered(
    mask: ir.Mask,
    inputs: Mapping[str, Any] | None,
    named: Mapping[str, Any] | None = None,
    captured: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The inputs that the pattern reads, of those given in a mapping and those given by name, else of those captured.

    Left out is what changes nothing: an input that is declared but not read, and an argument of another
    library's attention that asks for what happens anyway (``dropout_p=0.0``).

    Raises:
        AttnDslError: A501, an input is missing, unknown, or given twice; A506, another library's argument
            asks for what is not done here.
    """
    if inputs is not None and not isinstance(inputs, Mapping):
        raise _fault(f"inputs are given by their names, not as a {type(inputs).__name__}")
    found = dict(inputs or {})
    for name, value in (named or {}).items():
        if name in found:
            raise _fault(f"input {name!r} is given twice: by name and in `inputs`")
        found[name] = value
    declared = {table.name for table in mask.tables}
    for name in found.keys() - declared - set(mask.unread):
        _answer(mask, name, found[name])
    found = {**captured, **found} if captured else found
    missing = [table for table in mask.tables if table.name not in found]
    if missing:
        raise _lacking(mask, missing)
    return {name: value for name, value in found.items() if name in declared}


def read(name: str, value: Any) -> Any:
    """A tensor, an array or nested lists as a NumPy array.

    Raises:
        AttnDslError: A501, it cannot be read.
    """
    try:
        if getattr(value, "is_meta", False):
            raise TypeError("a meta tensor holds no data")
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.kind == "u" and array.size and int(array.max()) >= 1 << 63:
            raise ValueError("it has numbers past 2**63")
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise _fault(f"input {name!r} cannot be read", reason) from error
    return array


def once(array: Any) -> Any:
    """The entries of an array, those that are broadcast once."""
    return array[tuple([slice(None if step else 1) for step in array.strides])]


def digest_of(array: Any) -> bytes:
    """A digest of its contents, and of which entries are broadcast: those that serve all rows, or all columns."""
    entries = once(array)
    person = hashlib.blake2b(repr(entries.shape).encode(), digest_size=16).digest()
    return hashlib.blake2b(
        np.ascontiguousarray(entries).data, digest_size=16, person=person
    ).digest()


def counted(dim: str, tables: Sequence[ir.Table], arrays: Mapping[str, Any]) -> int:
    """How many batch elements or heads the inputs are for, where a call does not say: 1 unless one has more."""
    sizes = [
        arrays[table.name].shape[table.dims.index(dim)]
        for table in tables
        if dim in table.dims and arrays[table.name].ndim == len(table.dims)
    ]
    return max(sizes, default=1)


def cut(table: ir.Table, array: Any, total: int, held: slice) -> Any:
    """The entries of the heads that a call holds, of an array that has one for each of all heads."""
    shown = array if hasattr(array, "ndim") else np.asarray(array)
    if "head" not in table.dims or shown.ndim != len(table.dims):
        return array
    axis = table.dims.index("head")
    index = (slice(None),) * axis + (held,)
    return shown[index] if shown.shape[axis] == total else array


def fitted(table: ir.Table, array: Any, sizes: Mapping[str, int]) -> Any:
    """The array as the pattern reads it, bool or int64, of the declared dims; a copy, or a view of one.

    Args:
        table: The declaration.
        array: What was given: bool, or whole numbers; whole numbers for a bool input are 0 and 1.
        sizes: How many entries there are along "batch", "head", "q" and "k". One entry serves all.

    Raises:
        AttnDslError: A501, its type or its shape is another.
    """
    array = array if hasattr(array, "strides") else np.asarray(array)
    once = np.asarray(np.asarray(array)[tuple(slice(None if s else 1) for s in array.strides)])
    _check_type(table, once)
    if array.ndim != len(table.dims):
        raise _fault(
            f"input {table.name!r} needs {len(table.dims)} dims, got shape {list(array.shape)}",
            f"declared: {declaration(table)}",
        )
    # a copy, as the caller may write; of what is broadcast, one entry
    made = once.astype(bool if table.kind is ir.Sort.BOOL else np.int64)
    shape = list(array.shape)
    for axis, dim in enumerate(table.dims):
        if dim in BROADCAST and shape[axis] == 1 and isinstance(sizes[str(dim)], int):
            shape[axis] = max(0, sizes[str(dim)])
        elif dim in ("batch", "head") and shape[axis] != sizes[str(dim)]:
            title = f"input {table.name!r} has {shape[axis]} entries along {dim}, expected {sizes[str(dim)]}"
            raise _fault(title, f"declared: {declaration(table)}")
    return made if shape == list(made.shape) else np.broadcast_to(made, shape)


def declaration(table: ir.Table) -> str:
    """`doc: int[batch, pos]`."""
    kind = "list" if table.is_list else table.kind.value
    return f"{table.name}: {kind}[{', '.join(map(str, table.dims))}]"


def subtrees(parents: Any) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Numbers the nodes of trees so that a subtree is one run: the inputs of the pattern ``tree``.

    Args:
        parents: int [nodes] or [batch, nodes], the parent of each node, negative for none. In any order; several
            nodes may have none.

    Returns:
        ``order`` and ``end``, int64 [batch, nodes]: the place of each node in preorder, siblings by number, and the
        place behind the last node of its subtree. Node ``k`` is an ancestor of ``q``, or ``q`` itself, where
        ``order[k] <= order[q] < end[k]``.

    Raises:
        AttnDslError: A501, parents that are no such numbers, or that go in a circle.
    """
    array = np.atleast_2d(read("parents", parents))
    if array.ndim != 2 or (array.size and array.dtype.kind not in "ui"):
        raise _fault(f"parents are integers, [nodes] or [batch, nodes], got {list(array.shape)}")
    both = [_numbered(row.tolist(), batch) for batch, row in enumerate(array)]
    found = np.array(both, dtype=np.int64).reshape(len(array), 2, array.shape[1])
    return {"order": found[:, 0], "end": found[:, 1]}


def _numbered(parents: list[int], batch: int) -> tuple[list[int], list[int]]:
    children: list[list[int]] = [[] for _ in parents]
    roots: list[int] = []
    for node, parent in enumerate(parents):
        if parent >= len(parents):
            where = f"batch element {batch}: node {node} has parent {parent}"
            raise _fault(f"a parent is one of {len(parents)} nodes, or negative for none", where)
        (roots if parent < 0 else children[parent]).append(node)
    preorder, waiting = list[int](), roots[::-1]
    while waiting:
        preorder.append(waiting.pop())
        waiting += children[preorder[-1]][::-1]
    order, size = [-1] * len(parents), [1] * len(parents)
    for place, node in enumerate(preorder):
        order[node] = place
    if len(preorder) < len(parents):
        raise _fault("parents go in a circle", f"batch element {batch}: {_circle(parents, order)}")
    for node in reversed(preorder):
        if parents[node] >= 0:
            size[parents[node]] += size[node]
    return order, [place + count for place, count in zip(order, size, strict=True)]


def _circle(parents: list[int], order: list[int]) -> str:
    """Follows the parents of a node that no root leads to, until one comes again."""
    node, seen = order.index(-1), dict[int, None]()
    while node not in seen:
        seen[node] = None
        node = parents[node]
    path = [*list(seen)[list(seen).index(node) :], node]
    shown = [str(each) for each in path]
    return " -> ".join(shown if len(shown) <= 8 else [*shown[:6], "...", shown[-1]])


# ---------------------------------------------------------------------------- made up

_ATTEMPTS: Final = 500  # of which one in ten or so fits a usual condition


def sizes_asked(
    mask: ir.Mask,
    sizes: Mapping[str, int],
    pick: Callable[[Sequence[ir.Node]], ir.Node] = operator.itemgetter(0),
) -> dict[str, tuple[int, int]]:
    """The least and the greatest size of dims, by name, where the pattern's conditions tell at these lengths.

    ``pick`` chooses among alternatives.
    """
    known: dict[ir.Node, ir.Node] = {ir.Size(name): ir.Const(size) for name, size in sizes.items()}
    found: dict[str, tuple[int, int]] = {}
    asked = (ir.substitute(condition.node, known) for condition in mask.conditions)
    parts = (pick(node.items) if isinstance(node, ir.Or) else node for node in asked)
    for node in itertools.chain(*(p.items if isinstance(p, ir.And) else (p,) for p in parts)):
        if not isinstance(node, ir.Eq | ir.Le):
            continue
        terms, constant = ir.linear(node.item)
        match list(terms.items()):
            case [(ir.Size(name=name), 1 | -1 as factor)]:
                limit, dim = factor * (node.bound - constant), name.partition(":")[2]
                low, high = found.get(dim, (0, ir.LARGEST))
                low = max(low, limit) if factor < 0 or isinstance(node, ir.Eq) else low
                high = min(high, limit) if factor > 0 or isinstance(node, ir.Eq) else high
                found[dim] = low, max(low, high)
            case _:
                pass
    return found


def obedient(
    mask: ir.Mask,
    inputs: Mapping[str, Any],
    sizes: Mapping[str, int],
    batch: int,
    heads: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    """The inputs; those that break a condition of the pattern are drawn anew until none does.

    Where none is found, the last ones are given: a call refuses them.
    """
    found, known = dict(inputs), dict(sizes)
    tables = {table.name: table for table in mask.tables}
    for table in mask.tables:
        shape = np.shape(found[table.name])
        known |= {f"{table.name}:{dim}": n for dim, n in zip(table.dims, shape, strict=True)}
    for _ in range(_ATTEMPTS):
        broken = next(
            (c for c in mask.conditions if not _holds(c, mask, found, known, batch, heads)), None
        )
        if broken is None:
            break
        for name in {n.table for n in ir.postorder(broken.node) if isinstance(n, ir.Load)}:
            if tables[name].kind is ir.Sort.INT:
                found[name] = _drawn(random, np.shape(found[name]), known)
    return found


def _holds(
    condition: ir.Condition, mask: ir.Mask, found: Any, known: Any, batch: int, heads: int
) -> bool:
    asked = ir.Mask(condition.node, tables=mask.tables, align=ir.Align.START)
    return bool(ir.meaning(asked, 1, 1, known, found, batch, heads).all())


def _drawn(random: np.random.Generator, shape: tuple[int, ...], known: Mapping[str, int]) -> Any:
    """Numbers up to one of the sizes of the call; in order; from 0 to the size; or few kinds."""
    most = int(random.choice(list(known.values())))
    numbers = random.integers(0, most + 1, shape)
    match random.integers(4):
        case 0:
            return np.minimum(numbers, 3)
        case 1:
            return numbers
        case 2:
            return np.sort(numbers, axis=-1)
        case _:
            numbers = np.sort(numbers, axis=-1)
            numbers[..., :1], numbers[..., -1:] = 0, most
            return numbers


# ---------------------------------------------------------------------------- what is wrong


def _check_type(table: ir.Table, array: Any) -> None:
    kind, title = array.dtype.kind, f"input {table.name!r} must be"
    if table.kind is ir.Sort.INT:
        if kind not in "ui":
            raise _fault(f"{title} an integer type, got {array.dtype}")
    elif kind in "ui":
        if array.size and not 0 <= array.min() <= array.max() <= 1:
            help_ = f"say which numbers mean true: `{table.name}=x != 0`"
            raise _fault(f"{title} bool, or 0 and 1; it has other numbers", helps=(help_,))
    elif kind != "b":
        help_ = f"where 0 keeps a pair and -inf drops it: `{table.name}=x == 0`"
        helps = (help_,) if kind == "f" else ()
        raise _fault(f"{title} bool, got {array.dtype}", helps=helps)


def _lacking(mask: ir.Mask, missing: Sequence[ir.Table]) -> AttnDslError:
    name = missing[0].name
    helps = (f"`{name}=` is an argument of calls too: inputs={{{name!r}: ...}}",)
    needs = "; ".join(map(declaration, missing))
    return _fault(
        f"{_title(mask)} needs the input {name!r}",
        f"declared: {needs}",
        helps=helps if name in ARGUMENTS else (),
    )


def _answer(mask: ir.Mask, name: str, value: Any) -> None:
    """Passes what other libraries call so and what changes nothing; refuses the rest."""
    if name not in FOREIGN:
        raise _no_such_input(mask, name)
    known = FOREIGN[name]
    plain = isinstance(value, bool | int | float | tuple) and value in known.harmless
    if not (value is None or plain):
        title = f"{_title(mask)} cannot be called with {name}={_shown(value)}"
        near = suggest(name, [table.name for table in mask.tables])
        helps = (f"did you mean {near!r}?",) if near else ()
        raise AttnDslError(Diagnostic("A506", title, helps=(*helps, known.instead)))


def _shown(value: Any) -> str:
    return brief(value) if isinstance(value, bool | int | float | str | tuple) else "..."


def _no_such_input(mask: ir.Mask, name: str) -> AttnDslError:
    near = suggest(name, [table.name for table in mask.tables])
    parameters = "values of parameters are given to `attndsl.compile`"
    return _fault(
        f"{_title(mask)} has no input {name!r}",
        f"inputs: {', '.join(map(declaration, mask.tables)) or 'none'}",
        helps=(f"did you mean {near!r}?",) if near else (parameters,),
    )


def _title(mask: ir.Mask) -> str:
    return f"pattern {mask.name!r}" if mask.name else "the pattern"


def _fault(title: str, *notes: str, helps: tuple[str, ...] = ()) -> AttnDslError:
    return AttnDslError(Diagnostic("A501", title, notes=notes, helps=helps))


# ---------------------------------------------------------------------------- words of others

# Arguments of the methods of a pattern and of the modules: inputs of these names go into `inputs`.
ARGUMENTS: Final = frozenset(
    "backend batch block_table device element extents head head_count head_dim head_start heads inputs k k_len k_pos "  # noqa: SIM905
    "k_start kv_len layers layout length machine q q_len q_pos q_start q_used query return_lse scale self "
    "tile token v x".split()
)


@dataclass(frozen=True, slots=True)
class Foreign:
    """An argument of other libraries' attention: values that ask for nothing, and what to do about others."""

    instead: str
    harmless: tuple[object, ...] = ()


_MASK = Foreign(
    "the pattern says which pairs are seen; a mask can be an input of it:"
    " `input keep: bool[batch, head, q, k]`, `pattern p = causal and keep[q, k]`"
)
_CAUSAL = Foreign(
    'the pattern says which keys are seen: compile `causal and ...`, with align="start" where the first query'
    " is at the first key",
    (False,),
)
_DROPOUT = Foreign(
    "an attention drops weights, `attention a over causal = score s`, called with dropout_p= and dropout_seed=; or by a"
    " factor of 0 or 1 / (1 - p), drawn anew in each step: `input keep: real[batch, head, q, k]`,"
    " `score s factor keep[q, k]`",
    (0, False),
)
_SCORES = Foreign(
    "a pattern leaves scores as they are; an attention over it changes them: `attention a over causal = score ...`,"
    " see docs/scores.md",
    (0,),
)
_WINDOW = Foreign(
    'the window is the pattern\'s: attndsl.compile("window", left=..., right=...)', (-1, (-1, -1))
)
_SCALE = Foreign("the factor on the scores is called `scale`")
_PACKED = Foreign(
    "packed sequences: attndsl.varlen(p)(q, k, v, cu_seqlens_q, cu_seqlens_k), each in positions of its own; or by"
    ' ids, "documents_causal", called with doc='
)
_WEIGHTS = Foreign(
    "weights are never held; values that are unit vectors give them: v = torch.eye(k_len)", (False,)
)
_LARGEST = Foreign(
    "the largest score is not kept; `return_lse=True` gives what is at least that, and at most log(keys) more",
    (False,),
)
_ANYWAY = Foreign("it always is so", (True, False))

FOREIGN: Final[Mapping[str, Foreign]] = {
    **dict.fromkeys(("attn_mask", "attention_mask", "key_padding_mask", "mask"), _MASK),
    **dict.fromkeys(("block_mask", "mask_mod"), _MASK),
    **dict.fromkeys(("is_causal", "causal"), _CAUSAL),
    **dict.fromkeys(("dropout_p", "dropout", "attention_dropout"), _DROPOUT),
    **dict.fromkeys(("softcap", "logits_soft_cap", "score_mod", "bias", "attn_bias"), _SCORES),
    **dict.fromkeys(("alibi_slopes", "position_bias", "sinks", "s_aux"), _SCORES),
    **dict.fromkeys(("window_size", "sliding_window"), _WINDOW),
    **dict.fromkeys(("softmax_scale", "sm_scale", "scaling"), _SCALE),
    **dict.fromkeys(("cu_seqlens", "cu_seqlens_q", "cu_seqlens_k", "cu_seqlens_kv"), _PACKED),
    **dict.fromkeys(("return_weights", "need_weights", "output_attentions"), _WEIGHTS),
    "return_attn_probs": _WEIGHTS,
    "return_max": _LARGEST,
    **dict.fromkeys(("enable_gqa", "deterministic"), _ANYWAY),
}
