"""Operators of torch as nodes of the IR, with torch's rules: how it rounds, promotes and wraps.

Each rule takes the operands of an operator, nodes and numbers, and gives the node of its value. torch floors ``//``,
and its ``%`` has the sign of the divisor, whatever the signs; the IR has them for positive divisors, and 0 elsewhere:

    x // d = floordiv(x, d) + floordiv(-x, -d)        x % d = mod(x, d) - mod(-x, -d)

since one of the two is always 0. A divisor that is 0 is an error in torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import torch

from attndsl import ir

from .bits import Bits
from .symbols import Symbol, refuse

Rule: TypeAlias = Callable[..., ir.Node]

# Bits and sign of integers that wrap within the sizes of this world; 32 bits and more are taken to hold every number.
_WRAPS: Final = {torch.uint8: (8, False), torch.int8: (8, True), torch.int16: (16, True)}
_HIGHEST_POWER: Final = 16  # that is multiplied out


def as_int(node: ir.Node) -> ir.Node:
    """A truth value as 0 or 1."""
    return ir.select(node, ir.ONE, ir.ZERO) if node.sort is ir.Sort.BOOL else node


def as_bool(node: ir.Node) -> ir.Node:
    """Whether an integer is not 0."""
    return node if node.sort is ir.Sort.BOOL else ir.ne(node, ir.ZERO)


def wrapped(node: ir.Node, dtype: torch.dtype) -> ir.Node:
    """An integer as a dtype holds it."""
    if dtype not in _WRAPS:
        return node
    bits, is_signed = _WRAPS[dtype]
    half = ir.Const(1 << bits - 1 if is_signed else 0)
    return ir.sub(ir.mod(ir.add(as_int(node), half), ir.Const(1 << bits)), half)


def quotient(left: ir.Node, right: ir.Node) -> ir.Node:
    """Floor of the quotient, for divisors of either sign."""
    _check_divisor(right)
    left, right = as_int(left), as_int(right)
    if _is_positive(right):
        return ir.floordiv(left, right)
    turned = ir.scale(left, -1), ir.scale(right, -1)
    return ir.add(ir.floordiv(left, right), ir.floordiv(*turned))


def remainder(left: ir.Node, right: ir.Node) -> ir.Node:
    """Remainder with the sign of the divisor."""
    _check_divisor(right)
    left, right = as_int(left), as_int(right)
    if _is_positive(right):
        return ir.mod(left, right)
    turned = ir.scale(left, -1), ir.scale(right, -1)
    return ir.sub(ir.mod(left, right), ir.mod(*turned))


def truncated(left: ir.Node, right: ir.Node) -> ir.Node:
    """Quotient rounded towards zero."""
    _check_divisor(right)
    left, right = as_int(left), as_int(right)
    size = ir.floordiv(ir.absolute(left), ir.absolute(right))
    is_apart = ir.ne(ir.lt(left, ir.ZERO), ir.lt(right, ir.ZERO))
    return ir.select(is_apart, ir.scale(size, -1), size)


def truncated_remainder(left: ir.Node, right: ir.Node) -> ir.Node:
    """Remainder with the sign of the dividend."""
    _check_divisor(right)
    left, right = as_int(left), as_int(right)
    size = ir.mod(ir.absolute(left), ir.absolute(right))
    return ir.select(ir.lt(left, ir.ZERO), ir.scale(size, -1), size)


def _divided(left: ir.Node, right: ir.Node, rounding_mode: str | None = None) -> ir.Node:
    if rounding_mode is None:
        refuse("a quotient of floats", "`/` divides floats", "write // for whole numbers")
    return {"floor": quotient, "trunc": truncated}[rounding_mode](left, right)


def _check_divisor(right: ir.Node) -> None:
    if as_int(right) is ir.ZERO:
        refuse("division by zero", "the divisor is 0")


def _is_positive(node: ir.Node) -> bool:
    low, _ = ir.static_range(node)
    return low is not None and low > 0


def _is_bool(*items: ir.Node) -> bool:
    return all(item.sort is ir.Sort.BOOL for item in items)


def _sum(left: ir.Node, right: ir.Node, alpha: int = 1) -> ir.Node:
    if _is_bool(left, right):
        return ir.disj(left, right)
    return ir.add(as_int(left), ir.scale(as_int(right), alpha))


def _difference(left: ir.Node, right: ir.Node, alpha: int) -> ir.Node:
    if _is_bool(left, right):
        refuse(
            "a difference of two truth values",
            "torch has none",
            "write left & ~right, or left ^ right",
        )
    return _sum(as_int(left), right, -alpha)


def _product(left: ir.Node, right: ir.Node) -> ir.Node:
    if _is_bool(left, right):
        return ir.conj(left, right)
    return ir.mul(as_int(left), as_int(right))


def _power(base: ir.Node, exponent: ir.Node) -> ir.Node:
    base, exponent = as_int(base), as_int(exponent)
    if isinstance(exponent, ir.Const) and 0 <= exponent.value <= _HIGHEST_POWER:
        made: ir.Node = ir.ONE
        for _ in range(exponent.value):
            made = ir.mul(made, base)
        return made
    if base is ir.Const(2):
        return ir.pow2(exponent)
    return refuse("a power that is not of 2", "this power", "a power has a known exponent, or 2")


def _choice(condition: ir.Node, yes: ir.Node, no: ir.Node) -> ir.Node:
    if _is_bool(yes, no):
        return ir.select(condition, yes, no)
    return ir.select(as_bool(condition), as_int(yes), as_int(no))


def _clamped(
    item: ir.Node, low: ir.Node | None = None, high: ir.Node | None = None, **named: ir.Node | None
) -> ir.Node:
    low, high = named.get("min", low), named.get("max", high)
    made = as_int(item)
    if low is not None:
        made = ir.maximum(made, as_int(low))
    return made if high is None else ir.minimum(made, as_int(high))  # torch: the maximum wins


def _sign(item: ir.Node) -> ir.Node:
    size = ir.clamp(as_int(item), ir.Const(-1), ir.ONE)
    return item if _is_bool(item) else size


def _same(item: ir.Node, *_: object, **__: object) -> ir.Node:
    return item


def _of_ints(build: Rule) -> Rule:
    return lambda *items: build(*map(as_int, items))


def _alike(build: Rule) -> Rule:
    """A comparison of two integers, or of two truth values."""
    return lambda a, b: build(a, b) if _is_bool(a, b) else build(as_int(a), as_int(b))


def _of_bools(build: Rule) -> Rule:
    return lambda *items: build(*map(as_bool, items))


def _exclusive(left: ir.Node, right: ir.Node) -> ir.Node:
    return ir.ne(left, right)


def _filled(value: ir.Node) -> Rule:
    return lambda *_, **__: value


def _bitwise(bits: Bits) -> dict[str, Rule]:
    """Bit operations, which are logic on truth values."""

    def of(name: str, logic: Rule, arithmetic: Callable[..., ir.Node | None]) -> Rule:
        def rule(left: ir.Node, right: ir.Node) -> ir.Node:
            if _is_bool(left, right):
                return logic(left, right)
            made = arithmetic(as_int(left), as_int(right))
            if made is None:
                helps = "give one a known number of bits: x & 1023, or x % 1024"
                return refuse(f"`{name}` of two integers of any size", "both sides vary", helps)
            return made

        return rule

    def shifted(sign: int) -> Rule:
        def rule(left: ir.Node, right: ir.Node) -> ir.Node:
            item, places = as_int(left), as_int(right)
            if isinstance(places, ir.Const):
                if not 0 <= places.value < 64:
                    refuse("a shift by no number of bits from 0 to 63", "this shift")
                return bits.shifted(item, sign * places.value)
            factor = ir.pow2(places)
            return ir.mul(item, factor) if sign > 0 else _moved_down(item, places, factor)

        return rule

    def inverted(item: ir.Node) -> ir.Node:
        return ir.negate(item) if _is_bool(item) else ir.sub(ir.Const(-1), item)

    names = {
        "and": of("&", ir.conj, bits.conjunction),
        "or": of("|", ir.disj, bits.disjunction),
        "xor": of("^", _exclusive, bits.difference),
    }
    rules = {f"bitwise_{name}": rule for name, rule in names.items()}
    rules |= {f"__{name}__": rule for name, rule in names.items()}
    ups = dict.fromkeys(("__lshift__", "bitwise_left_shift"), shifted(1))
    downs = dict.fromkeys(("__rshift__", "bitwise_right_shift"), shifted(-1))
    return rules | ups | downs | {"bitwise_not": inverted}


def _moved_down(item: ir.Node, places: ir.Node, factor: ir.Node) -> ir.Node:
    """A shift by so many places; by a number that is none, all that is left is the sign."""
    sign = ir.select(ir.lt(item, ir.ZERO), ir.Const(-1), ir.ZERO)
    is_known = ir.conj(ir.le(ir.ZERO, places), ir.le(places, ir.Const(62)))
    return ir.select(is_known, ir.floordiv(item, factor), sign)


@dataclass(frozen=True, slots=True)
class Operator:
    """The rule of an operator's value, and how torch finds its dtype."""

    rule: Rule
    result: Literal[
        "truth", "joined", "int64", "own"
    ]  # "own": as it is asked for, else that of the first operand


def operators() -> Mapping[str, Operator]:
    """The operators that are translated, by their names in aten; new for each function, as bits are remembered."""
    bits = {name: Operator(rule, "joined") for name, rule in _bitwise(Bits()).items()}
    return {**_operators(), **bits}


@functools.cache
def _operators() -> Mapping[str, Operator]:
    """The operators that remember nothing of the function."""
    compared = {"lt": ir.lt, "le": ir.le, "gt": ir.gt, "ge": ir.ge}
    truths: dict[str, Rule] = {name: _of_ints(build) for name, build in compared.items()}
    truths |= {
        "eq": _alike(ir.eq),
        "ne": _alike(ir.ne),
        "logical_and": _of_bools(ir.conj),
        "logical_or": _of_bools(ir.disj),
        "logical_xor": _of_bools(ir.ne),
        "logical_not": _of_bools(ir.negate),
        **dict.fromkeys(("any", "all"), lambda a, *_: as_bool(a)),
    }
    joined: dict[str, Rule] = {
        "add": _sum,
        "sub": lambda a, b, alpha=1: _difference(a, b, alpha),
        "rsub": lambda a, b, alpha=1: _difference(b, a, alpha),
        "mul": _product,
        "neg": lambda a: ir.scale(as_int(a), -1),
        "abs": _of_ints(ir.absolute),
        "square": lambda a: ir.mul(as_int(a), as_int(a)),
        "pow": _power,
        **dict.fromkeys(("sign", "sgn"), _sign),
        "div": _divided,
        "floor_divide": quotient,
        "remainder": remainder,
        "fmod": truncated_remainder,
        "maximum": _extreme(ir.maximum, ir.disj),
        "minimum": _extreme(ir.minimum, ir.conj),
        "clamp": _clamped,
        "clamp_min": _clamped,
        "clamp_max": lambda a, high: _clamped(a, None, high),
        "where": _choice,
    }
    kept = ("max", "min", "amax", "amin", "clone", "detach", "alias", "view", "reshape", "squeeze")
    own: dict[str, Rule] = {
        **dict.fromkeys((*kept, "expand", "contiguous", "_to_copy"), _same),
        **dict.fromkeys(("new_zeros", "zeros_like"), _filled(ir.ZERO)),
        **dict.fromkeys(("new_ones", "ones_like"), _filled(ir.ONE)),
        "full_like": lambda _, value, **__: value,
        "new_full": lambda _, __, value, **___: value,
    }
    sums = dict.fromkeys(("sum", "prod"), lambda a, *_, **__: as_int(a))
    found = {name: Operator(rule, "truth") for name, rule in truths.items()}
    found |= {name: Operator(rule, "joined") for name, rule in joined.items()}
    found |= {name: Operator(rule, "own") for name, rule in own.items()}
    return found | {name: Operator(rule, "int64") for name, rule in sums.items()}


def dtype_of(
    operator: Operator, name: str, operands: Sequence[Any], asked: torch.dtype | None
) -> torch.dtype:
    """The dtype of the result, by the rules of torch for operands without dims; numbers of Python yield to tensors."""
    if operator.result == "truth":
        return torch.bool
    symbols = [x.dtype for x in operands if isinstance(x, Symbol)]
    if operator.result == "int64":
        return asked or torch.int64
    if operator.result == "own":
        return asked or symbols[0]
    return common_dtype(operands[1:] if name == "where" else operands)


def common_dtype(operands: Iterable[Any]) -> torch.dtype:
    """The dtype in which torch joins operands: numbers of Python take that of the tensors beside them."""
    items = list(operands)
    symbols = [x.dtype for x in items if isinstance(x, Symbol)]
    has_ints = any(isinstance(x, int) and not isinstance(x, bool) for x in items)
    found = functools.reduce(torch.promote_types, symbols, torch.bool)
    return torch.int64 if found is torch.bool and has_ints else found


def _extreme(of_ints: Rule, of_bools: Rule) -> Rule:
    return lambda a, b: of_bools(a, b) if _is_bool(a, b) else of_ints(as_int(a), as_int(b))


def settled(node: ir.Node, dtype: torch.dtype) -> ir.Node:
    """The value of an operator in the dtype of its result."""
    return as_bool(node) if dtype is torch.bool else wrapped(as_int(node), dtype)


# Replacements to suggest for operators that are not translated, by their names in aten.
INSTEAD: Final[Mapping[str, str]] = {
    **dict.fromkeys(("_local_scalar_dense", "item", "is_nonzero"), "torch.where, & and |"),
    "searchsorted": "the number of the token's document as a tensor that is captured: document[q_idx]",
    "bucketize": "the number of the token's bucket as a tensor that is captured: bucket[q_idx]",
    **dict.fromkeys(("copy_", "index_put_", "fill_"), "a function that changes nothing"),
}


def number(value: Any, dtype: torch.dtype = torch.int64) -> ir.Node:
    """The node of a number of Python, as a dtype holds it: -4 is 252 beside integers of 8 bits without a sign."""
    if isinstance(value, bool):
        return ir.BoolConst(value)
    if isinstance(value, int):
        return wrapped(ir.Const(value), dtype)
    return refuse(
        f"a {type(value).__name__} in a mask_mod",
        "which keys a query sees depends on ints and truth values",
        "scale both sides: 2 * x <= y rather than x <= 0.5 * y",
    )
