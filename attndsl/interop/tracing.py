"""A mask_mod of flex_attention as a mask of the IR: the function is run once, on symbols."""

from __future__ import annotations

import contextlib
import functools
import inspect
import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attndsl import frontend, ir
from attndsl.backends import MaskMod
from attndsl.source import AttnDslError, Source, Span

from . import operations, vectors
from .captured import Captured, declared
from .symbols import Part, Symbol, Vector, flat, mapped, refusal, refuse

_ARGUMENTS: Final = (ir.Var("batch"), ir.Var("head"), ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY))
_RANDOM: Final = frozenset(
    ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "multinomial",
     "normal", "poisson", "dropout", "bernoulli_", "random_", "uniform_", "normal_", "exponential_", "geometric_"),
)  # fmt: skip
# Functions whose plain numbers become symbols: torch reads numbers from tensors that stand beside numbers.
_MIXED: Final = frozenset(("where", "clamp", "clip", "clamp_min", "clamp_max"))
# Functions that read a tensor's numbers into Python.
_TO_PYTHON: Final = frozenset(
    ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__",
     "__contains__", "equal", "is_nonzero", "__len__", "__iter__"),
)  # fmt: skip
# Operators of two operands by the names of the functions of torch that are no more than they.
_PLAIN: Final[Mapping[str, str]] = {
    **{name: name for name in ("lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "mul")},
    "__eq__": "eq", "__ne__": "ne", "__and__": "bitwise_and", "__or__": "bitwise_or",
}  # fmt: skip
_SHOWN: Final = frozenset(("__repr__", "__str__", "__format__"))


@dataclass(frozen=True, slots=True)
class Traced:
    """A mask_mod as a mask, and the tensors that it reads, by the names of the mask's inputs.

    ``stale`` is where the function computed with a captured tensor, or read numbers from it: what it found then stays,
    and does not follow the tensor.
    """

    mask: ir.Mask
    inputs: Mapping[str, Tensor]
    stale: AttnDslError | None = None


def is_mask_mod(source: object) -> TypeGuard[MaskMod]:
    """Whether it is a function of four arguments, as a mask_mod is."""
    if not callable(source) or isinstance(source, type | frontend.PatternFunction):
        return False
    try:
        inspect.signature(source).bind(None, None, None, None)
    except (TypeError, ValueError):
        return False
    return True


def trace(mask_mod: MaskMod, align: ir.Align = ir.Align.START, *, twice: bool = True) -> Traced:
    """The pairs for which a mask_mod of flex_attention is true.

    Args:
        mask_mod: ``mask_mod(b, h, q_idx, kv_idx)`` in operations of torch, on tensors without dims. Tensors that it
            captures become inputs, and are not copied.
        align: Where query 0 stands; at position 0, as for flex_attention, by default.
        twice: Run it twice, and refuse it where the masks differ.

    Raises:
        AttnDslError: A218, an operation is not translated, or the function does more than to compute; at its line.
    """
    before = _around(mask_mod) if twice else {}
    root, captured = _run(mask_mod)
    if twice and (name := _changed(before, _around(mask_mod))):
        title = f"the function changes `{name}`"
        helps = ("a mask_mod does nothing but compute: what it counts or collects belongs outside",)
        raise refusal(title, "this function", *helps, at=_place(mask_mod))
    if twice and root is not _run(mask_mod)[0]:
        title = "the function gives another mask each time it is run"
        helps = ("draw random numbers before, into a tensor that the function captures",)
        raise refusal(title, "this function", *helps, at=_place(mask_mod))
    found, tables = declared(root, captured.named)
    inputs = {table.name: captured.named[table.name] for table in tables}
    inputs = {name: x if x.ndim else x.reshape(1) for name, x in inputs.items()}
    ordered = tuple(sorted(tables, key=lambda table: table.name))
    mask = ir.Mask(found, tables=ordered, align=align, name=_name(mask_mod), doc=_doc(mask_mod))
    return Traced(mask, inputs, captured.stale)


def _function(mask_mod: Any) -> Any:
    while isinstance(mask_mod, functools.partial):
        mask_mod = mask_mod.func
    return mask_mod


def _around(mask_mod: Any) -> dict[str, dict[Any, int]]:
    """Finds the objects in collections, and those that are attributes of objects, that a function knows by name."""
    function = _function(mask_mod)
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    around = function.__globals__
    known = {name: around[name] for name in code.co_names if name in around}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not set yet
            known[name] = cell.cell_contents
    return {name: _items(value) for name, value in known.items()}


def _items(value: Any) -> dict[Any, int]:
    if isinstance(value, list | set):
        return {"": len(value), **{place: id(item) for place, item in enumerate(value)}}
    if isinstance(value, Tensor | type | ModuleType):
        return {}
    held = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return {name: id(item) for name, item in held.items()}


def _changed(
    before: Mapping[str, dict[Any, int]], after: Mapping[str, dict[Any, int]]
) -> str | None:
    """The name of what has other items than before; what is new in an object or a dict may be remembered there."""
    for name, items in before.items():
        now = after.get(name, {})
        if any(now.get(key) != item for key, item in items.items()):
            return name
    return None


def _place(mask_mod: Any) -> Span:
    """The line where the function begins; the caller's where that is not known."""
    code = getattr(_function(mask_mod), "__code__", None)
    text = "" if code is None else "".join(linecache.getlines(code.co_filename))
    if code is None or not text:
        return frontend.here()
    source = Source(code.co_filename, text)
    return Span(source, *source.bounds(code.co_firstlineno))


def _name(mask_mod: Any) -> str:
    name = getattr(_function(mask_mod), "__name__", "")
    return name if ir.is_name(name) else ""


def _doc(mask_mod: Any) -> str:
    return inspect.getdoc(mask_mod) or "" if inspect.isroutine(mask_mod) else ""


def _run(mask_mod: Callable[..., Any]) -> tuple[ir.Node, Captured]:
    """The truth value that the function gives, and what it read."""
    tracer = Tracer()
    with tracer:
        result = mask_mod(*(tracer.symbol(node, torch.int64) for node in _ARGUMENTS))
    if isinstance(result, bool):
        return ir.BoolConst(result), tracer.captured
    with tracer:
        found = tracer.lifted(result)
    if not isinstance(found, Symbol) or found.dtype is not torch.bool:
        what = f"a tensor of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        title = (
            f"a mask_mod gives a truth value for each pair, this one {what.replace('torch.', '')}"
        )
        helps = ("compare it with something: `x != 0`",)
        raise refusal(title, "this function", *helps, at=_place(mask_mod))
    return found.node, tracer.captured


class Tracer(TorchFunctionMode):
    """Follows a function: operators on symbols become nodes, reads of other tensors become loads."""

    def __init__(self) -> None:
        super().__init__()
        self.captured = Captured()
        self._operators = operations.operators()

    def symbol(self, node: ir.Node, dtype: torch.dtype) -> Symbol:
        """A symbol of this function."""
        return Symbol.of(node, dtype, self)

    # ------------------------------------------------------------------ functions of torch

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = getattr(function, "__name__", str(function)), kwargs or {}
        if name in _RANDOM:
            refuse(f"`{name}` draws random numbers", "a mask is the same each time",
                   "draw them before, into a tensor that the function captures")  # fmt: skip
        values = flat((args, kwargs))
        if not any(isinstance(x, Symbol | Part | Vector) for x in values):
            return self._plainly(function, name, args, kwargs, values)
        if name in _SHOWN:
            refuse("a symbol is printed", "a mask_mod does nothing but compute")
        if name == "__getitem__":
            return self._entry(*args)
        if name == "__iter__" and isinstance(args[0], Part):
            return iter([self._entry(args[0], i) for i in range(args[0].shape[0])])
        if (operator := _PLAIN.get(name)) and not kwargs and _are_numbers(args):
            return self.applied(operator, args, kwargs)  # without a round through the dispatcher
        if name != "__get__":  # attributes
            args, kwargs = (self._lifted_all(name, x) for x in (args, kwargs))
        try:
            return function(*args, **kwargs)
        except (RuntimeError, TypeError, NotImplementedError, ValueError) as error:
            raise refusal(f"`{name}` cannot be done here", str(error).partition("\n")[0]) from error

    def _plainly(self, function: Any, name: str, args: Any, kwargs: Any, values: list[Any]) -> Any:
        """A function on tensors alone: computed as it is, and followed for what it does to them."""
        tensors = [x for x in values if isinstance(x, Tensor)]
        before = [x._version for x in tensors if not x.is_inference()]
        result = function(*args, **kwargs)
        changed = before != [x._version for x in tensors if not x.is_inference()]
        if changed and any(map(self.captured.is_outside, tensors)):
            refuse(f"`{name}` changes a captured tensor", "a mask_mod does nothing but compute")
        for each in flat(result):
            self.captured.add_made(each, tensors)
        if name in _TO_PYTHON - {"__len__", "__iter__"}:
            for tensor in tensors:
                self.captured.note_read(tensor)
        return result

    def lifted(self, value: Any) -> Any:
        """A tensor without dims as a symbol; anything else as it is."""
        if not isinstance(value, Tensor) or isinstance(value, Symbol | Part | Vector) or value.ndim:
            return value
        if (number := self.captured.number_in(value)) is not None:
            return self.symbol(operations.number(number), value.dtype)
        return self.symbol(self.captured.read(value, ()), value.dtype)

    def _lifted_all(self, name: str, values: Any) -> Any:
        found = mapped(values, self.lifted)
        if name not in _MIXED:
            return found
        common = operations.common_dtype((*flat(found), 0))

        def change(value: Any) -> Any:
            if not isinstance(value, bool | int):
                return value
            dtype = torch.bool if isinstance(value, bool) else common
            return self.symbol(operations.number(value, dtype), dtype)

        return mapped(found, change)

    def _entry(self, held: Tensor, index: Any) -> Tensor:
        """An entry of a captured tensor, or a part of it where indices are missing at its end."""
        tensor, known = (held.held, held.places) if isinstance(held, Part) else (held, ())
        if isinstance(tensor, Symbol):
            refuse("a symbol is indexed", "this is one number for each pair")
        items = index if isinstance(index, tuple) else (index,)
        while items and (items[-1] is Ellipsis or _is_whole(items[-1])):
            items = items[:-1]
        nodes = (*known, *map(self._index, items))
        if len(nodes) > tensor.ndim:
            refuse(f"{len(nodes)} indices of a tensor of {tensor.ndim} dims", "one too many")
        if len(nodes) < tensor.ndim:
            return Part.of(tensor, nodes, self)
        return self.symbol(self.captured.read(tensor, nodes), tensor.dtype)

    def _index(self, item: Any) -> ir.Node:
        item = self.lifted(item)
        if isinstance(item, Symbol) and item.node.sort is ir.Sort.INT:
            return item.node
        if isinstance(item, int) and not isinstance(item, bool):
            return ir.Const(item)
        return refuse("an index that is no integer", f"a {type(item).__name__} among the indices",
                      "give one integer for each of the first dims: table[b, q_idx]")  # fmt: skip

    # ------------------------------------------------------------------ operators on symbols

    def operation(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The symbol of an operator's value.

        Raises:
            AttnDslError: A218, it is not translated.
        """
        return self.applied(function.overloadpacket.__name__, args, kwargs)

    def applied(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The symbol of the value of the operator that aten calls so.

        Raises:
            AttnDslError: A218, it is not translated.
        """
        if name in ("select", "unbind") and isinstance(args[0], Part):
            return self._part_of(name, *args)
        if name == "unsqueeze" and isinstance(args[0], Symbol):
            return vectors.of_one(args[0], self)
        operator = self._operators.get(name)
        if operator is None:
            self._refuse(name)
            raise AssertionError
        lifted = [self.lifted(x) for x in args]
        if any(map(_is_row, lifted)):
            return vectors.applied(self, name, operator, [self._row(x) for x in lifted], kwargs)
        self._check_shapes(name, (*lifted, *kwargs.values()))
        dtype = operations.dtype_of(operator, name, lifted, kwargs.get("dtype"))
        if dtype.is_floating_point or dtype.is_complex:
            operations.number(0.5)
        named = {key: x for key, x in kwargs.items() if key in ("alpha", "rounding_mode")}
        bounds = {key: self.lifted(kwargs[key]) for key in kwargs.keys() & {"min", "max"}}
        common = operations.common_dtype((*lifted, *bounds.values()))
        named |= {key: _operand(x, common) for key, x in bounds.items()}
        made = operator.rule(*(_operand(x, common) for x in lifted), **named)
        made = operations.settled(made, dtype)
        if ir.largest(made) >= ir.LARGEST:
            refuse("a number of 2**62 and more", "this is too large")
        return self.symbol(made, dtype)

    def _row(self, value: Any) -> Any:
        """A part of one dim as a vector; anything else as it is."""
        if not isinstance(value, Part) or value.ndim != 1:
            return value
        held, places = value.held, value.places

        def entry(place: ir.Node) -> ir.Node:
            return self.captured.read(held, (*places, place))

        length = self.captured.size(held, len(places))
        return Vector.of(entry, length, value.shape[0], value.dtype, self)

    def _check_shapes(self, name: str, values: tuple[Any, ...]) -> None:
        """Whether a result has no dims."""
        is_long = any(isinstance(x, Tensor) and x.ndim for x in values)
        if is_long or (
            name not in ("any", "all", "sum", "prod")
            and [1 for x in values if isinstance(x, list) and x]
        ):
            refuse(f"`{name}` gives many numbers for each pair", "this is a vector",
                   "index tensors at b, h, q_idx and kv_idx, so that one number is left")  # fmt: skip

    def _part_of(self, name: str, part: Part, dim: int = 0, index: int = 0) -> Any:
        if dim not in (0, -part.ndim):
            refuse("a part of a tensor along a later dim", "index its dims in order")
        if name == "unbind":
            return [self._entry(part, place) for place in range(part.shape[0])]
        return self._entry(part, index)

    def _refuse(self, name: str) -> None:
        if name.endswith("_") and not name.startswith("_"):
            refuse(f"`{name}` changes a value in place", "a mask_mod does nothing but compute",
                   f"write x = x.{name[:-1]}(...)")  # fmt: skip
        if name in ("_local_scalar_dense", "is_nonzero"):
            refuse(
                "a value that differs from pair to pair is used as one number or truth value of Python",
                "`if`, `and`, `or`, `not`, `in`, min(), int() and range() ask for one",
                "write & for `and`, | for `or`, ~ for `not`, torch.where for `if`, torch.minimum for min()",
            )
        helps = operations.INSTEAD.get(name)
        refuse(
            f"`{name}` is not translated",
            "this operation",
            *([f"capture {helps}"] if helps else []),
        )


def _are_numbers(args: tuple[Any, ...]) -> bool:
    return len(args) == 2 and all(isinstance(x, Symbol) or type(x) is int for x in args)


def _is_row(value: Any) -> bool:
    return isinstance(value, Vector) or (isinstance(value, Part) and value.ndim == 1)


def _is_whole(index: Any) -> bool:
    return isinstance(index, slice) and index == slice(None)


def _operand(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Symbol):
        return value.node
    return operations.number(value, dtype) if isinstance(value, bool | int | float) else value
