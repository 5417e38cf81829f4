"""Arguments given by name: run-time inputs, checked against their declarations, and words of other libraries."""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.foreign_arguments import ARGUMENTS, FOREIGN
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
        raise input_error(f"inputs are given by their names, not as a {type(inputs).__name__}")
    found = dict(inputs or {})
    for name, value in (named or {}).items():
        if name in found:
            raise input_error(f"input {name!r} is given twice: by name and in `inputs`")
        found[name] = value
    declared = {table.name for table in mask.tables}
    for name in found.keys() - declared - set(mask.unread):
        _answer(mask, name, found[name])
    found = {**captured, **found} if captured else found
    missing = [table for table in mask.tables if table.name not in found]
    if missing:
        raise _lacking(mask, missing)
    refuse_gradients(mask.tables, found)
    return {name: value for name, value in found.items() if name in declared}


def refuse_gradients(tables: Sequence[ir.Table], given: Mapping[str, Any]) -> None:
    """Refuses tensors that require grad where ints or bools are meant.

    Raises:
        AttnDslError: A501.
    """
    for table in tables:
        # a symbolic trace has no truths
        is_trained = getattr(given[table.name], "requires_grad", False) is True
        if table.kind is not ir.Sort.REAL and is_trained:
            kind = f"{table.kind.value}s"
            title = (
                f"input {table.name!r} holds {kind}, which have no gradient, but it requires grad"
            )
            convert = "bool" if table.kind is ir.Sort.BOOL else "long"
            helps = (
                f"give {kind}, `x.detach().{convert}()`; what is trained is an input `real[...]` of an attention",
            )
            raise ir.misfit(table, title, helps)


def read(name: str, value: Any) -> Any:
    """A tensor, an array or nested lists as a NumPy array.

    Raises:
        AttnDslError: A501, it cannot be read.
    """
    try:
        if getattr(value, "is_meta", False):
            raise TypeError("a meta tensor holds no data")
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # NumPy has no such numbers
            value = value.float()
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.kind == "u" and array.size and int(array.max()) >= 1 << 63:
            raise ValueError("it has numbers past 2**63")
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise input_error(f"input {name!r} cannot be read", reason) from error
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
        raise dims_fault(table, array.shape)
    # a copy, as the caller may write; of what is broadcast, one entry
    if table.kind is ir.Sort.REAL:  # a pattern asks for its lengths alone
        once = np.zeros(once.shape)
    made = once.astype(bool if table.kind is ir.Sort.BOOL else np.int64)
    shape = list(array.shape)
    for axis, dim in enumerate(table.dims):
        if dim in BROADCAST and shape[axis] == 1 and isinstance(sizes[str(dim)], int):
            shape[axis] = max(0, sizes[str(dim)])
        elif dim in ("batch", "head") and shape[axis] != sizes[str(dim)]:
            raise entries_fault(table, dim, shape[axis], sizes[str(dim)])
    return made if shape == list(made.shape) else np.broadcast_to(made, shape)


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
        read = {n.table for n in ir.postorder(broken.node) if isinstance(n, ir.Load)}
        if not read:
            break
        for name in read:
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
    if table.kind is ir.Sort.REAL:
        if kind != "f":
            raise ir.misfit(table, f"{title} a floating type, got {array.dtype}")
    elif table.kind is ir.Sort.INT:
        if kind not in "ui":
            helps = (
                f"give ints, `{table.name}=x.long()`; reals are inputs `real[...]` of attentions",
            )
            raise ir.misfit(table, f"{title} an integer type, got {array.dtype}", helps)
    elif kind in "ui":
        if array.size and not 0 <= array.min() <= array.max() <= 1:
            help_ = f"say which numbers mean true: `{table.name}=x != 0`"
            raise ir.misfit(table, f"{title} bool, or 0 and 1; it has other numbers", (help_,))
    elif kind != "b":
        help_ = f"where 0 keeps a pair and -inf drops it: `{table.name}=x == 0`"
        raise ir.misfit(table, f"{title} bool, got {array.dtype}", (help_,) if kind == "f" else ())


def _lacking(mask: ir.Mask, missing: Sequence[ir.Table]) -> AttnDslError:
    name = missing[0].name
    helps = (f"`{name}=` is an argument of calls too: inputs={{{name!r}: ...}}",)
    others = "; ".join(map(ir.declaration, missing[1:]))
    notes = (f"and those that are missing besides: {others}",) if others else ()
    title = f"{_title(mask)} needs the input {name!r}"
    return ir.misfit(missing[0], title, helps if name in ARGUMENTS else (), notes)


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
    return input_error(
        f"{_title(mask)} has no input {name!r}",
        f"inputs: {', '.join(map(ir.declaration, mask.tables)) or 'none'}",
        helps=(f"did you mean {near!r}?",) if near else (parameters,),
    )


def _title(mask: ir.Mask) -> str:
    return f"pattern {mask.name!r}" if mask.name else "the pattern"


def dims_fault(table: ir.Table, shape: Sequence[int]) -> AttnDslError:
    """The error of an input with another number of dims."""
    title = f"input {table.name!r} needs {len(table.dims)} dims, got shape {list(shape)}"
    short = len(table.dims) - len(shape)
    serves_all = short > 0 and all(dim in BROADCAST for dim in table.dims[:short])
    dims = " and ".join(map(str, table.dims[:short]))
    place = f"[{', '.join(['None'] * short)}]"
    helps = (f"one entry serves all along {dims}: `{table.name}=x{place}`",) if serves_all else ()
    return ir.misfit(table, title, helps)


def entries_fault(table: ir.Table, dim: str | int, found: int, wanted: int) -> AttnDslError:
    """The error of an input with another number of entries along a dim of the call."""
    title = f"input {table.name!r} has {found} entries along {dim}, expected {wanted}"
    helps = (
        (f"one entry serves all along {dim}, or there are {wanted}",) if dim in BROADCAST else ()
    )
    return ir.misfit(table, title, helps)


def input_error(title: str, *notes: str, helps: tuple[str, ...] = ()) -> AttnDslError:
    return AttnDslError(Diagnostic("A501", title, notes=notes, helps=helps))


# ---------------------------------------------------------------------------- words of others
