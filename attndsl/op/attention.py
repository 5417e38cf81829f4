"""Attention over a compiled pattern: what is checked, and which way a call goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

from attndsl.backends import (
    EIGHT_BITS,
    WHOLE,
    Pages,
    ReadsOnlySeen,
    Request,
    Tunable,
    Tuned,
    attend,
    choose,
)
from attndsl.compiler import Program
from attndsl.ir import named_extents
from attndsl.lowering import zero_key_counts
from attndsl.op import registration
from attndsl.op.autograd import directly
from attndsl.op.checks import check_plain, check_tensors, is_forward, wants_gradient
from attndsl.op.contents import stamp_of
from attndsl.op.dispatching import eager_only, needs_dispatcher, outside_transforms, unwrapped
from attndsl.op.elements import cut, runs_of
from attndsl.op.flex import attend_with_flex
from attndsl.op.foreign import attend_with_others, check_layout, is_causal
from attndsl.op.operator_call import Call
from attndsl.op.pages import paged
from attndsl.op.planning import Options, Planner, ProgramName, planner_from
from attndsl.op.repeated import Kind, at_once
from attndsl.op.rows import read_arguments, rows_with_tokens, up_to_length
from attndsl.op.scaling import scaled
from attndsl.op.sequences import Nested, is_nested, read_bounds
from attndsl.op.sharding import is_distributed, shards
from attndsl.packed import PackedCall, dense, read_call
from attndsl.positions import BLOCK_TABLE, BOUNDS, hidden, split, split_heads, with_heads
from attndsl.source import AttnDslError, Diagnostic


def attention(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | Tensor | None = None,
    backend: str = "auto",
    layout: str | None = None,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
    positions: Mapping[str, Any] | None = None,
    stamp: bytes | None = None,
    pages: Pages | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scale q kᵀ restricted to the pattern) v, and its log-sum-exp.

    Args:
        planner: That of the compiled pattern.
        q: Queries [B, H, Q, D].
        k: Keys [B, Hkv, K, D]; Hkv divides H (grouped-query attention).
        v: Values [B, Hkv, K, Dv].
        scale: Of the scores; 1/sqrt(D) by default. A tensor, differentiable: one number, [H], or what broadcasts to
            [B, H, Q, 1]. It multiplies the queries, in float32 or better, which are then rounded to their dtype.
        backend: "auto", or the name of one.
        layout: In which order tokens are taken into tiles; "natural", "auto" for the
            cheapest that the pattern suggests, or a layout of ``schedule``. By default that of
            ``default_layout``.
        extents: Sizes of grid axes that lengths do not determine.
        inputs: Run-time tables by name.
        positions: Where the rows stand, ints and tensors by the names of ``positions.NAMES``.
        stamp: That of the inputs, where these are known not to change and to be tensors.
        pages: Where the rows of k and v lie, if k and v only stand for them.

    Returns:
        out [B, H, Q, Dv] in the dtype of v, and lse [B, H, Q], natural logarithm, float32 (float64 for
        float64 inputs). A query that sees no key has out 0, lse -inf and no gradient; one that sees n zero
        keys only has out 0 and lse log(n). Both are differentiable. Inputs of 8 bits
        (float8_e4m3fn, float8_e5m2) give out in bfloat16, and no gradient.

    Raises:
        AttnDslError: A4xx for lengths and positions, A5xx for tensors, inputs and backends.
    """
    kind: Kind | None = None
    if pages is None:
        asked = scale, backend, layout, extents, inputs, positions, stamp
        kind, made = at_once(planner, q, k, v, *asked)
        if made is not None:
            return made
    if positions:
        k, v, inputs, positions = up_to_length(planner.program.mask, k, v, inputs, positions)
    if any(isinstance(x, Proxy) for x in (q, k, v)):
        return _symbolic(
            *(planner.text, (q, k, v)),
            *(scale, backend, layout, extents, dict(inputs or {}), positions),
        )
    if any(map(is_nested, (q, k, v))):
        told = {"scale": scale, "backend": backend, "layout": layout, "extents": extents}
        return _nested(planner, Nested(planner.program, q, k, v), inputs, positions, told)
    check_plain(planner.program, q, k, v)
    q, k, v = autocast(q, k, v)
    given = dict(inputs or {})
    if positions and BLOCK_TABLE in positions and BOUNDS[0] not in positions:
        beside = (scale, *given.values(), *positions.values())
        in_place = q.dtype not in EIGHT_BITS and is_forward(backend, q, k, v, *beside)
        relation = planner.program.mask
        k, v, positions, pages = paged(relation, (q, k, v), positions, by_address=in_place)
    check_tensors(planner.program, q, k, v)
    if any(map(is_distributed, (q, k, v))):
        own = shards(planner.program, (q, k, v), scale, extents, given, positions)
        made = attention(
            *(planner, own.q, own.k, own.v),
            scale=own.scale,
            backend=backend,
            layout=layout,
            extents=own.extents,
            inputs=own.inputs,
            positions=own.positions,
        )
        return own.whole(*made)
    if positions and BOUNDS[0] in positions:
        given |= read_bounds(positions, q)
    elif positions:
        rest = {"extents": extents, "backend": backend, "layout": layout, "pages": pages}
        return _at_positions(planner, (q, k, v), scale, given, positions, rest)
    (q, k, v), factor = scaled(planner.program, q, k, v, scale)
    if backend in WHOLE and not q.is_meta:
        check_layout(backend, layout)
        return _whole(planner, (q, k, v), factor, backend, extents, given)
    tables, options = packed(q, given, extents, layout, backend, factor)
    if needs_dispatcher(q, k, v, *tables):
        return registration.attention((q, k, v), tables, Call(planner.name, options))[:2]
    return directly(planner, q, k, v, tables, options, stamp, pages, kind)


def _at_positions(
    planner: Planner,
    qkv: tuple[Tensor, Tensor, Tensor],
    scale: float | Tensor | None,
    inputs: Mapping[str, Any],
    positions: Mapping[str, Any],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """The call on the rows that hold tokens, and its results for all rows."""
    program, batch = planner.program, qkv[0].shape[0]
    at = read_arguments(positions, qkv[0])
    pages: Pages | None = options["pages"]
    if runs := runs_of(program.mask, qkv[0], qkv[1].shape[2], at):
        made: list[tuple[Tensor, Tensor]] = []
        is_each = isinstance(scale, Tensor) and scale.dim() == 4 and scale.shape[0] == batch
        factors = cut(scale, runs) if is_each else [scale] * len(runs)
        lie = [None] * len(runs) if pages is None else cut(pages, runs)
        parts = zip(runs, *(cut(x, runs) for x in qkv), factors, lie, strict=True)
        for run, q, k, v, factor, own_pages in parts:
            own = run.of_inputs(program.mask, inputs, batch)
            rest = options | {"pages": own_pages}
            try:
                made.append(_at_positions(planner, (q, k, v), factor, own, run.told, rest))
            except AttnDslError as error:
                raise run.counted(error) from error
        outs, lses = zip(*made, strict=True)
        return torch.cat(outs), torch.cat(lses)
    as_they_are = pages is not None or _read_only_where_seen(*qkv, scale, at, inputs, options)
    rows = rows_with_tokens(
        program, qkv, scale, options["extents"], inputs, at, as_they_are=as_they_are
    )
    of_rows = {"inputs": rows.inputs, "scale": rows.scale}
    options = options | {"extents": rows.extents} | of_rows
    return rows.restored(*attention(planner, rows.q, rows.k, rows.v, **options))


def _nested(
    planner: Planner,
    nested: Nested,
    inputs: Mapping[str, Any] | None,
    positions: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """The call on nested tensors, as packed ones."""
    positions = {**(positions or {}), **nested.positions}
    given = nested.inputs(inputs or {})
    out, lse = attention(planner, *nested.packed, inputs=given, positions=positions, **options)
    return nested.restored(out), nested.restored(lse)


def _read_only_where_seen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: object,
    at: Mapping[str, Any],
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> bool:
    """Whether the kernels of the call take keys and values that hold anything where no token is."""
    tensors = [x for x in (scale, *at.values(), *inputs.values()) if isinstance(x, Tensor)]
    if not tensors or options["layout"] or not is_forward(options["backend"], q, k, v, *tensors):
        return False
    request = Request.of(q, k, v, gradient=False)
    runner = choose(request, options["backend"])
    return isinstance(runner, ReadsOnlySeen) and runner.reads_only_seen(request)


def _symbolic(text: str, qkv: tuple[Any, Any, Any], *options: Any) -> tuple[Any, Any]:
    """The call as a node of a graph of ``torch.fx``."""
    tracer = next(x.tracer for x in qkv if isinstance(x, Proxy))
    made: Any = tracer.create_proxy("call_function", saved_attention, (text, *qkv, *options), {})
    return made[0], made[1]


def saved_attention(
    text: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | Tensor | None,
    backend: str,
    layout: str | None,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
    positions: Mapping[str, Any] | None,
) -> tuple[Tensor, Tensor]:
    """Same as ``attention``, of a pattern as ``Pattern.save`` writes it: graphs of ``torch.fx`` call this."""
    return attention(
        *(planner_from(ProgramName(text)), q, k, v),
        scale=scale,
        backend=backend,
        layout=layout,
        extents=extents,
        inputs=inputs,
        positions=positions,
    )


def tune(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    backend: str = "auto",
    layout: str | None = None,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
    positions: Mapping[str, Any] | None = None,
) -> tuple[Tuned, ...]:
    """Measure how such calls run fastest, and remember it for them; of ``attention``, with its arguments.

    Empty where the back end has nothing to choose. The backward is measured if a tensor requires a gradient.

    Raises:
        AttnDslError: as ``attention``.
    """
    check_plain(planner.program, q, k, v)
    q, k, v = autocast(q, k, v)
    if positions and BLOCK_TABLE in positions:
        mask = planner.program.mask
        k, v, positions, _ = paged(mask, (q, k, v), positions, by_address=False)
    check_tensors(planner.program, q, k, v)
    if backend in WHOLE:
        return ()
    given = dict(inputs or {})
    if positions:
        at = read_arguments(positions, q)
        rows = rows_with_tokens(planner.program, (q, k, v), None, extents, given, at)
        q, k, v, extents, given = rows.q, rows.k, rows.v, rows.extents, dict(rows.inputs)
    scale = 1.0 / math.sqrt(max(1, q.shape[-1]))
    tables, options = packed(q, given, extents, layout, backend, scale)
    gradient = wants_gradient(q, k, v)
    # with a stamp, inputs on a GPU are scheduled on the host: tiles of any size can then be measured
    stamp = stamp_of(options.names, tables)[0] if tables else None
    parts = planner.executable(Request.of(q, k, v, gradient=gradient), tables, options, stamp).parts
    tunable = [part for part in parts if isinstance(part, Tunable)]
    return tuple(found for part in tunable for found in part.tune(q, k, v, scale=scale))


def _whole(
    planner: Planner,
    qkv: tuple[Tensor, Tensor, Tensor],
    scale: float,
    backend: str,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """The call on a back end that differentiates by itself: the oracle, which shares nothing else, or torch's."""
    if backend == "flex":
        return attend_with_flex(planner, *qkv, scale, extents, inputs)
    if backend == "sdpa" and qkv[0].device.type == "cpu":
        is_causal(planner, *qkv[:2], extents, inputs)  # or refused
        told: dict[str, Any] = {"scale": scale, "extents": extents, "inputs": inputs}
        return attention(planner, *qkv, backend="blocked", layout="natural", **told)
    if backend != "reference":
        return attend_with_others(backend, planner, qkv, scale, extents, inputs)
    mask, zeros = _dense(planner.program, *qkv[:2], extents, inputs)
    return attend(mask, *qkv, scale, zeros)


@eager_only
def _dense(
    program: Program,
    q: Tensor,
    k: Tensor,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """The mask and the zero keys of a call."""
    given = {name: unwrapped(value) for name, value in inputs.items()}
    with outside_transforms():
        lengths = q.shape[2], k.shape[2], q.shape[0], q.shape[1]
        call = read_call(program, lengths, extents, given)
        if isinstance(call, PackedCall):
            seen = dense(call)
        else:
            seen = program.dense(call)
        mask = torch.from_numpy(seen).to(q.device)
        return mask, zero_key_counts(program, call, q.device)


def packed(
    q: Tensor,
    inputs: Mapping[str, Any],
    extents: Mapping[str, int] | None,
    layout: str | None,
    backend: str,
    scale: float,
) -> tuple[list[Tensor], Options]:
    """Packs the arguments beside q, k and v: the tables, and the options."""
    names, sizes = tuple(sorted(inputs)), _sizes(extents)
    tables = [_as_table(name, inputs[name], q) for name in names]
    axes = tuple(sizes), tuple(sizes.values())
    return tables, Options(names, *axes, layout or "", backend, scale)


def _sizes(extents: Any) -> dict[str, Any]:
    """The extents by name, checked; those that a tracer holds open stay so."""
    if extents is None or not isinstance(extents, Mapping):
        return named_extents(extents)
    symbolic = {name: size for name, size in extents.items() if isinstance(size, torch.SymInt)}
    among, fixed = split_heads({n: size for n, size in extents.items() if n not in symbolic})
    numbers, fixed = split(fixed)
    numbers = {hidden(name): x for name, x in numbers.items()}
    return named_extents(fixed) | numbers | (with_heads(None, *among) if among else {}) | symbolic


def _as_table(name: str, value: object, q: Tensor) -> Tensor:
    reason = "a meta tensor holds no data"
    try:
        made = torch.as_tensor(value)
        if q.is_meta or not made.is_meta:
            return made
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
    raise AttnDslError(Diagnostic("A501", f"input {name!r} cannot be read", notes=(reason,)))


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype that autocast asks for, if it is on."""
    kind = tensors[0].device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)
