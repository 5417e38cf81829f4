"""Write coordinates and segment membership as arithmetic on flat positions.

    q.y             -->  q // len(x)                     (the leading axis of the only segment)
    q.y             -->  if q in image then (q - start) // stride % extent else -1
    q in image      -->  start <= q and q < start + size (true when it is the only segment)

Law: both sides evaluate alike for every position inside the space. Layouts replace the positions
afterwards, so this is the last place that knows about axes.
"""

from __future__ import annotations

from attndsl import ir


def lower_coordinates(mask: ir.Mask) -> ir.Mask:
    """The same mask without Coord and Inside nodes."""
    return mask.with_root(lower_root(mask.root, mask))


def lower_root(root: ir.Node, mask: ir.Mask) -> ir.Node:
    """``lower_coordinates`` on a bare expression that speaks of the mask's spaces."""
    spaces = {ir.Side.QUERY: mask.queries, ir.Side.KEY: mask.keys}

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Coord(side=side, axis=axis):
                return _coordinate(spaces[side], side, axis)
            case ir.Inside(side=side, segment=segment):
                return _inside(spaces[side], side, segment)
            case _:
                return node

    return ir.transform(root, rule, ir.Coord, ir.Inside)


def _axis_size(segment: ir.Segment, axis: ir.Axis) -> ir.Node:
    if axis.extent is not None:
        return ir.Const(axis.extent)
    return ir.Size(f"{segment.name}.{axis.name}")


def _product(factors: list[ir.Node]) -> ir.Node:
    result: ir.Node = ir.ONE
    for factor in factors:
        result = ir.mul(result, factor)
    return result


def segment_size(segment: ir.Segment) -> ir.Node:
    """How many tokens the segment has."""
    return _product([_axis_size(segment, axis) for axis in segment.axes])


def _start(space: ir.Space, name: str) -> ir.Node:
    sizes = []
    for segment in space.segments:
        if segment.name == name:
            break
        sizes.append(segment_size(segment))
    return ir.add(ir.ZERO, *sizes)


def _find(space: ir.Space, name: str) -> ir.Segment:
    segment = space.segment(name)
    assert segment is not None, f"the front end let segment {name!r} through"
    return segment


def _inside(space: ir.Space, side: ir.Side, name: str) -> ir.Node:
    segment = _find(space, name)
    if len(space.segments) == 1:
        return ir.TRUE
    position, start = ir.Pos(side), _start(space, name)
    return ir.conj(ir.le(start, position), ir.lt(position, ir.add(start, segment_size(segment))))


def _coordinate(space: ir.Space, side: ir.Side, axis: str) -> ir.Node:
    name, _, axis_name = axis.partition(".")
    segment = _find(space, name)
    place = next(i for i, item in enumerate(segment.axes) if item.name == axis_name)
    stride = _product([_axis_size(segment, item) for item in segment.axes[place + 1 :]])
    local = ir.floordiv(ir.sub(ir.Pos(side), _start(space, name)), stride)
    if place > 0:
        local = ir.mod(local, _axis_size(segment, segment.axes[place]))
    return ir.select(_inside(space, side, name), local, ir.Const(-1))
