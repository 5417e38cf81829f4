"""Scores to be computed, each as an expression and as plain torch on dense positions; and the dense oracle."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.scores import BoundScore

r = ir.reals
Q, K, HEAD, BATCH = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY), ir.Var("head"), ir.Var("batch")
GAP = ir.sub(Q, K)
S = r.SCORE
OWN_Q, OWN_K = r.Own(ir.Side.QUERY), r.Own(ir.Side.KEY)
LENGTHS = {"q": 400, "k": 400, "n": 33, "width": 5}  # of the dims of tables


@dataclass(frozen=True)
class At:
    """One head, as an oracle is given it: s [Q, K], positions, and its tables without ambient dims."""

    s: Tensor
    q: Tensor  # [Q, 1], int64
    k: Tensor  # [1, K]
    head: int
    batch: int
    rows: Tensor  # [Q, D], of q
    columns: Tensor
    tables: dict[str, Tensor]
    ints: dict[str, Tensor]

    def read(self, name: str, *index: Tensor) -> Tensor:
        """An entry of a real table, 0 outside."""
        table = self.tables[name]
        inside = torch.ones((), dtype=torch.bool)
        for item, size in zip(index, table.shape, strict=False):
            inside = inside & (item >= 0) & (item < size)
        found = table[tuple(i.clamp(0, n - 1) for i, n in zip(index, table.shape, strict=False))]
        inside = inside.reshape(*inside.shape, *[1] * (found.dim() - inside.dim()))
        return torch.where(inside, found, 0.0)


@dataclass(frozen=True)
class Form:
    """``plain`` gives the score; ``weigh`` the weight of a score, for those without a normaliser."""

    score: ir.Node
    plain: Callable[[At], Tensor]
    tables: tuple[ir.Table, ...] = ()
    weight: ir.Node | None = None
    weigh: Callable[[Tensor, At], Tensor] | None = None
    declared: tuple[ir.Table, ...] = ()

    def bound(self, first: int, ints: dict[str, Any]) -> BoundScore:
        return BoundScore(self.score, self.weight, first, self.tables, self.declared, ints)


def table(name: str, *dims: str) -> ir.Table:
    return ir.Table(name, ir.Sort.REAL, dims)


def load(declared: ir.Table, *index: ir.Node) -> ir.Node:
    return ir.Load(declared.name, ir.Sort.REAL, index, declared.ambient)


def row(declared: ir.Table, *index: ir.Node) -> ir.Node:
    return r.Row(declared.name, index, declared.ambient)


def _num(x: float) -> ir.Node:
    return r.Number(x)


slope, relative, full = (
    table("slope", "head"),
    table("relative", "head", "n"),
    table("full", "head", "q", "k"),
)
plain_rel, keyed = table("plain_rel", "n"), table("keyed", "batch", "head", "k")
queried, tau = table("queried", "q"), table("tau", "head")
vectors, side_q, side_k = (
    table("vectors", "n", "width"),
    table("side_q", "q", "width"),
    table("side_k", "head", "k", "width"),
)
wide_rel, content = table("wide_rel", "head", "n", "D"), table("content", "head", "D")
group = ir.Table("group", ir.Sort.INT, ("batch", "k"))
GROUP_K = ir.Load("group", ir.Sort.INT, (K,), group.ambient)
BUCKET = ir.minimum(ir.absolute(GAP), ir.Const(7))
MOD = ir.add(ir.scale(ir.mod(Q, ir.Const(4)), 4), ir.mod(K, ir.Const(4)))
PHASE = ir.add(ir.sub(ir.mod(Q, ir.Const(7)), ir.mod(K, ir.Const(7))), ir.Const(6))

FORMS: dict[str, Form] = {
    "plain": Form(S, lambda a: a.s),
    "alibi": Form(
        r.minus(
            S,
            r.times(
                r.apply(
                    "exp2",
                    r.times(r.over(_num(-8.0), _num(3.0)), r.as_real(ir.add(HEAD, ir.Const(1)))),
                ),
                GAP,
            ),
        ),
        lambda a: a.s - 2.0 ** (-8 / 3 * (a.head + 1)) * (a.q - a.k).double(),
    ),
    "slope": Form(
        r.minus(S, r.times(load(slope), GAP)),
        lambda a: a.s - a.tables["slope"] * (a.q - a.k),
        (slope,),
    ),
    "relative": Form(
        r.plus(S, load(relative, ir.add(GAP, ir.Const(16)))),
        lambda a: a.s + a.read("relative", a.q - a.k + 16),
        (relative,),
    ),
    "bucket": Form(
        r.plus(S, load(plain_rel, BUCKET)),
        lambda a: a.s + a.read("plain_rel", (a.q - a.k).abs().clamp(max=7)),
        (plain_rel,),
    ),
    "periodic": Form(
        r.plus(S, load(plain_rel, MOD), load(relative, PHASE)),
        lambda a: (
            a.s
            + a.read("plain_rel", a.q % 4 * 4 + a.k % 4)
            + a.read("relative", a.q % 7 - a.k % 7 + 6)
        ),
        (plain_rel, relative),
    ),
    "full": Form(r.plus(S, load(full, Q, K)), lambda a: a.s + a.read("full", a.q, a.k), (full,)),
    "keys and queries": Form(
        r.plus(S, load(keyed, K), load(queried, Q)),
        lambda a: a.s + a.read("keyed", a.k) + a.read("queried", a.q),
        (keyed, queried),
    ),
    "int table": Form(
        r.plus(S, load(plain_rel, GROUP_K), r.times(_num(0.1), r.as_real(BATCH))),
        lambda a: a.s + a.read("plain_rel", a.ints["group"][a.k]) + 0.1 * a.batch,
        (plain_rel,),
        declared=(group,),
    ),
    "soft cap": Form(
        r.times(_num(3.0), r.apply("tanh", r.over(S, _num(3.0)))), lambda a: 3 * torch.tanh(a.s / 3)
    ),
    "half": Form(r.times(_num(0.5), S), lambda a: a.s / 2),
    "part of a table": Form(
        r.times(_num(-0.5), r.over(S, _num(3.0)), load(tau)),
        lambda a: -a.s / 6 * a.tables["tau"],
        (tau,),
    ),
    "cap and bias": Form(
        r.plus(
            r.times(_num(3.0), r.apply("tanh", r.over(S, _num(3.0)))),
            load(relative, ir.add(GAP, ir.Const(16))),
        ),
        lambda a: 3 * torch.tanh(a.s / 3) + a.read("relative", a.q - a.k + 16),
        (relative,),
    ),
    "temperature": Form(
        r.plus(r.times(load(tau), S, load(queried, Q)), r.times(load(tau), load(tau))),
        lambda a: a.tables["tau"] * a.s * a.read("queried", a.q) + a.tables["tau"] ** 2,
        (tau, queried),
    ),
    "chosen": Form(
        r.choose(
            ir.lt(K, ir.Const(9)), r.greatest(S, load(tau)), r.least(r.times(S, S), load(keyed, K))
        ),
        lambda a: torch.where(
            a.k < 9,
            torch.maximum(a.s, a.tables["tau"]),
            torch.minimum(a.s * a.s, a.read("keyed", a.k)),
        ),
        (tau, keyed),
    ),
    "log of a square": Form(
        r.apply("log", r.plus(r.times(S, S), _num(0.5))), lambda a: torch.log(a.s * a.s + 0.5)
    ),
    "query and relative": Form(
        r.plus(S, r.dot(OWN_Q, row(wide_rel, ir.add(GAP, ir.Const(16))))),
        lambda a: a.s + (a.rows[:, None] * a.read("wide_rel", a.q - a.k + 16)).sum(-1),
        (wide_rel,),
    ),
    "key and relative, content": Form(
        r.plus(
            S, r.dot(OWN_K, row(wide_rel, ir.add(GAP, ir.Const(16)))), r.dot(row(content), OWN_K)
        ),
        lambda a: (
            a.s
            + (a.columns[None] * a.read("wide_rel", a.q - a.k + 16)).sum(-1)
            + (a.tables["content"] * a.columns).sum(-1)
        ),
        (wide_rel, content),
    ),
    "two vectors": Form(
        r.plus(
            S,
            r.dot(row(side_q, Q), row(side_k, K)),
            r.dot(row(vectors, BUCKET), row(vectors, MOD)),
            r.dot(row(side_q, Q), row(vectors, BUCKET)),
            r.dot(row(vectors, ir.Const(3)), row(vectors, MOD)),
        ),
        lambda a: (
            a.s
            + (a.read("side_q", a.q) * a.read("side_k", a.k)).sum(-1)
            + (
                a.read("vectors", (a.q - a.k).abs().clamp(max=7))
                * a.read("vectors", a.q % 4 * 4 + a.k % 4)
            ).sum(-1)
            + (a.read("side_q", a.q) * a.read("vectors", (a.q - a.k).abs().clamp(max=7))).sum(-1)
            + (a.read("vectors", torch.tensor(3)) * a.read("vectors", a.q % 4 * 4 + a.k % 4)).sum(
                -1
            )
        ),
        (side_q, side_k, vectors),
    ),
    "norms": Form(
        r.over(
            S,
            r.apply(
                "sqrt",
                r.plus(
                    r.times(r.dot(OWN_Q, OWN_Q), r.dot(OWN_K, OWN_K)),
                    r.dot(OWN_Q, OWN_K),
                    _num(9.0),
                ),
            ),
        ),
        lambda a: (
            a.s
            / torch.sqrt(
                (a.rows**2).sum(-1)[:, None] * (a.columns**2).sum(-1)[None]
                + a.rows @ a.columns.T
                + 9.0
            )
        ),
    ),
    "sigmoid weights": Form(
        r.plus(S, load(relative, ir.add(GAP, ir.Const(16)))),
        lambda a: a.s + a.read("relative", a.q - a.k + 16),
        (relative,),
        r.apply("sigmoid", S),
        lambda t, a: torch.sigmoid(t),
    ),
    "linear weights": Form(
        r.plus(S, load(queried, Q)),
        lambda a: a.s + a.read("queried", a.q),
        (queried,),
        S,
        lambda t, a: t,
    ),
    "relu power": Form(
        r.times(load(tau), S),
        lambda a: a.tables["tau"] * a.s,
        (tau, keyed),
        r.times(r.apply("relu", S), r.apply("relu", S), load(keyed, K)),
        lambda t, a: torch.relu(t) ** 2 * a.read("keyed", a.k),
    ),
    "exp and softplus": Form(
        S,
        lambda a: a.s,
        (),
        r.plus(r.apply("softplus", S), r.apply("exp", S), r.apply("abs", S)),
        lambda t, a: torch.nn.functional.softplus(t, threshold=100) + t.exp() + t.abs(),
    ),
}


def made_tables(
    form: Form,
    rng: np.random.Generator,
    batch: int,
    heads: int,
    width: int,
    lengths: tuple[int, int],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Random tables of the declared shapes; some are shorter than what is read."""
    sizes = {
        "batch": batch,
        "head": heads,
        "D": width,
        "n": 33,
        "width": 5,
        "q": lengths[0],
        "k": lengths[1],
    }
    return [
        torch.from_numpy(
            rng.standard_normal([sizes[str(d)] for d in t.dims]) + (t.name == "queried")
        ).to(dtype)
        for t in form.tables
    ]


def oracle(
    form: Form,
    mask: Tensor,
    first: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    scale: float,
    ints: dict[str, np.ndarray],
) -> tuple[Tensor, Tensor]:
    """(out, lse), head after head, differentiable; mask bool [1 or B, 1 or H, Q, K]."""
    B, H, Q_, _ = q.shape
    group, K_ = H // k.shape[1], k.shape[2]
    outs, lses = [], []
    for b, h in np.ndindex(B, H):
        live = mask[b % len(mask), h % mask.shape[1]]
        rows, columns, values = q[b, h], k[b, h // group], v[b, h // group]
        at = At(
            rows @ columns.T * scale,
            torch.arange(Q_)[:, None] + first,
            torch.arange(K_)[None],
            int(h),
            int(b),
            rows,
            columns,
            {t.name: _of(x, t, int(b), int(h)) for t, x in zip(form.tables, tables, strict=True)},
            {t.name: torch.from_numpy(ints[t.name][b]) for t in form.declared},
        )
        t = form.plain(at)
        if form.weigh is not None:
            w = torch.where(live, form.weigh(t, at), 0.0)
            outs.append(w @ values)
            lses.append(torch.where(live.any(-1), 0.0, -math.inf))
            continue
        t = torch.where(live, t, -math.inf)
        empty = ~live.any(-1)
        lse = torch.logsumexp(t.masked_fill(empty[:, None], 0.0), -1).masked_fill(empty, -math.inf)
        w = torch.where(live, (t - lse.masked_fill(empty, 0.0)[:, None]).exp(), 0.0)
        outs.append(w @ values)
        lses.append(lse)
    return torch.stack(outs).view(B, H, Q_, -1), torch.stack(lses).view(B, H, Q_)


def _of(x: Tensor, declared: ir.Table, b: int, h: int) -> Tensor:
    if "batch" in declared.dims:
        x = x[b]
    return x[h] if "head" in declared.dims else x
