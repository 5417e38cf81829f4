"""The language by walking the tree with plain ints: slow, short, and none of the compiler's code.

One pair at a time. Shares with the compiler the parser and nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attndsl import syntax as syn
from attndsl.testing import Program

CAUSAL = syn.parse("pattern causal = k <= q").declarations[0]
Space = list[tuple[str, dict[str, int]]]  # segments in order, each with its axes and extents


@dataclass(frozen=True)
class World:
    definitions: Mapping[str, Any]
    inputs: Mapping[str, syn.Input]
    spaces: Mapping[str, Space]  # "q" and "k"
    values: Mapping[str, int]  # q, k (positions), head, heads, batch, layer, and lengths by name
    tables: Mapping[str, Any]
    shift: int
    local: Mapping[str, Any]


def interpreted(program: Program, module: syn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, bool [batch, heads, q_len, k_len], and zero keys, int [batch, heads, q_len]."""
    declared = {each.name: each for each in module.declarations}
    main = declared["main"]
    both = ("", "") if main.over is None else (main.over.queries, main.over.keys)
    spaces = {
        "q": space_of(both[0], declared, program.sizes),
        "k": space_of(both[1] or both[0], declared, program.sizes),
    }
    is_end = main.align != "start" and both[1] in (None, "")
    shift = program.k_len - program.q_len if is_end else 0
    inputs = {n: each for n, each in declared.items() if isinstance(each, syn.Input)}
    lengths = {"heads": program.heads, "layer": program.layer}
    lengths |= {"len(q)": program.q_len, "len(k)": program.k_len}
    world = World(
        {"causal": CAUSAL, **declared}, inputs, spaces, lengths, program.tables, shift, {}
    )
    local = {p.name: run(p.default, world) for p in main.parameters}
    found = np.empty((program.batch, program.heads, program.q_len, program.k_len), bool)
    zeros = np.zeros(found.shape[:3], int)
    for b, h, i in np.ndindex(zeros.shape):
        for j in range(program.k_len):
            values = lengths | {"q": i + shift, "k": j, "head": h, "batch": b}
            found[b, h, i, j] = run(main.body, replace(world, values=values, local=local))
        values = lengths | {"q": i + shift, "head": h, "batch": b}
        count = (
            0 if main.zeros is None else run(main.zeros, replace(world, values=values, local=local))
        )
        zeros[b, h, i] = count
    return found, zeros


def space_of(name: str, declared: Mapping[str, Any], sizes: Mapping[str, int]) -> Space:
    if not name:
        return []
    space = declared[name]
    segments = [space] if isinstance(space, syn.Grid) else space.segments
    return [(each.name, _axes(each, declared, sizes)) for each in segments]


def _axes(
    segment: syn.Segment | syn.Grid, declared: Mapping[str, Any], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Its own, or those of the grid of its name."""
    if isinstance(segment, syn.Segment) and segment.length is not None:
        return {segment.name: segment.length}
    axes = segment.axes or declared[segment.name].axes
    return {axis.name: sizes[f"{segment.name}.{axis.name}"] for axis in axes}


def run(node: syn.Expression, world: World) -> Any:  # noqa: C901  (an arm for each node)
    """The int, bool or list that the expression is for this pair."""
    match node:
        case syn.Int(value) | syn.Bool(value):
            return value
        case syn.Name(name):
            return _name(name, world)
        case syn.ListOf(items):
            return [run(item, world) for item in items]
        case syn.Access():
            return _coordinate(node, world)
        case syn.Index(base, indices):
            return _index(base, [run(i, world) for i in indices], world)
        case syn.Call(name, arguments):
            return _call(name, arguments, world)
        case syn.Neg(operand):
            return -run(operand, world)
        case syn.Not(operand):
            return not run(operand, world)
        case syn.Product(operands, operators) | syn.Sum(operands, operators):
            total = run(operands[0], world)
            for operator, operand in zip(operators, operands[1:], strict=True):
                total = _arithmetic(operator, total, run(operand, world))
            return total
        case syn.Compare(operands, operators):
            values = [run(each, world) for each in operands]
            steps = zip(values, operators, values[1:], strict=False)
            return all(_compare(operator, left, right) for left, operator, right in steps)
        case syn.And(operands):
            return all(run(each, world) for each in operands)
        case syn.Or(operands):
            return any(run(each, world) for each in operands)
        case syn.If(condition, yes, no):
            return run(yes if run(condition, world) else no, world)
        case syn.Let(bindings, body):
            for binding in bindings:
                value = run(binding.value, world)
                world = replace(world, local={**world.local, binding.name: value})
            return run(body, world)
        case syn.Any() | syn.All() | syn.Count() | syn.Total():
            name, domain, body = node.name, node.range, node.body
            low, high = run(domain.low, world), run(domain.high, world)
            worlds = (replace(world, local={**world.local, name: j}) for j in range(low, high))
            joined = {syn.Any: any, syn.All: all, syn.Count: sum, syn.Total: sum}[type(node)]
            return joined(run(body, each) for each in worlds)
        case syn.Member(item, container, negated):
            return _member(item, container, world) != negated
    raise AssertionError(node)


def _arithmetic(operator: str, left: int, right: int) -> int:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return math.floor(left / right) if right > 0 else 0  # small: floats are exact
    return left - right * math.floor(left / right) if right > 0 else 0


def _compare(operator: str, left: Any, right: Any) -> bool:
    return {
        "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right,
        "==": left == right, "!=": left != right,
    }[operator]  # fmt: skip


def _name(name: str, world: World) -> Any:
    if name in world.local:
        return world.local[name]
    if name in world.values:
        return world.values[name]
    if name in world.inputs:
        found = _row(name, [], world)
        return found.tolist() if world.inputs[name].kind == "int" else found
    return _call(name, (), world)


def _segment_of(side: str, world: World) -> tuple[str, dict[str, int], int]:
    """The segment of the token, its axes, and the token's place in it."""
    position = world.values[side]
    for name, axes in world.spaces[side]:
        if position < math.prod(axes.values()):
            return name, axes, position
        position -= math.prod(axes.values())
    raise AssertionError("a token outside its space")


def _coordinate(node: syn.Access, world: World) -> int:
    base, wanted = node.base, None
    if isinstance(base, syn.Access):
        base, wanted = base.base, base.name
    segment, axes, rest = _segment_of(base.name, world)
    if node.name not in axes or wanted not in (None, segment):
        return -1
    place = {}
    for axis, extent in reversed(axes.items()):
        rest, place[axis] = divmod(rest, extent)
    return place[node.name]


def _length(node: syn.Expression, world: World) -> int:
    if isinstance(node, syn.Access):
        wanted = node.base.name, node.name
    else:
        if node.name in ("q", "k"):
            return world.values[f"len({node.name})"]
        if isinstance(items := world.local.get(node.name), list):
            return len(items)
        wanted = None, node.name
    if wanted[0] in world.inputs:
        dims = [dim.value for dim in world.inputs[wanted[0]].dims]
        return int(world.tables[wanted[0]].shape[dims.index(wanted[1])])
    for side in ("q", "k"):
        for segment, axes in world.spaces[side]:
            if wanted == (None, segment):
                return math.prod(axes.values())
            if wanted[0] in (None, segment) and wanted[1] in axes:
                return axes[wanted[1]]
    raise AssertionError(wanted)


def _row(name: str, index: list[int], world: World) -> Any:
    """The table's entry at the index, or a row of a list. None outside."""
    table = world.tables[name]
    dims = [dim.value for dim in world.inputs[name].dims]
    for ambient in ("batch", "head"):
        if ambient in dims:
            table = table[world.values[ambient]]
            dims.remove(ambient)
    for dim, at in zip(dims, index, strict=False):
        at -= world.shift if dim == "q" else 0
        if table is None or not 0 <= at < len(table):
            table = None
        else:
            table = table[at]
    return table


def _index(base: syn.Expression, index: list[int], world: World) -> Any:
    if isinstance(base, syn.Name) and base.name in world.inputs and base.name not in world.local:
        found = _row(base.name, index, world)
        return world.inputs[base.name].kind == "int" and 0 if found is None else found.item()
    items = run(base, world)
    return items[index[0]] if 0 <= index[0] < len(items) else 0


def _member(item: syn.Expression, container: syn.Expression, world: World) -> bool:
    match container:
        case syn.Range(low, high):
            return run(low, world) <= run(item, world) < run(high, world)
        case syn.Name(name) if any(name == s for side in "qk" for s, _ in world.spaces[side]):
            return _segment_of(item.name, world)[0] == name
        case syn.Name(name) | syn.Index(syn.Name(name)) if (
            name in world.inputs and world.inputs[name].kind == "list"
        ):
            indices = container.indices if isinstance(container, syn.Index) else ()
            row = _row(name, [run(each, world) for each in indices], world)
            wanted = run(item, world)
            return row is not None and any(wanted == slot for slot in row if slot >= 0)
    return run(item, world) in run(container, world)


def _call(name: str, arguments: tuple[syn.Argument, ...], world: World) -> Any:
    if name == "len":
        return _length(arguments[0].value, world)
    given = [(each.name, run(each.value, world)) for each in arguments]
    values = [value for _, value in given]
    match name:
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "abs":
            return abs(values[0])
        case "clamp":
            return max(values[1], min(values[0], values[2]))
        case "ilog2":
            return max((j for j in range(64) if values[0] >= 2**j), default=-1)
        case "pow2":
            return 2 ** values[0] if 0 <= values[0] <= 62 else 0
    definition = world.definitions[name]
    local: dict[str, Any] = {}
    for place, parameter in enumerate(definition.parameters):
        named = dict(given)
        if place < len(given) and given[place][0] is None:
            local[parameter.name] = given[place][1]
        elif parameter.name in named:
            local[parameter.name] = named[parameter.name]
        else:
            local[parameter.name] = run(parameter.default, replace(world, local=local))
    return run(definition.body, replace(world, local=local))
