"""Answers to the questions of the page, as JSON has them. No file is read, and imports of a text are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from attndsl import frontend, ir, problems, views
from attndsl.source import AttnDslError, Diagnostic

from .comparing import compare
from .costs import explain, kernel
from .drawn import grids, packed, runs
from .exporting import export
from .questions import BadQuestion, Question
from .scenes import Scene


def answer(kind: str, data: Any) -> dict[str, Any]:
    """The answer to one question, "look" for instance; ``data`` are the fields of a `Question`.

    A fault of a pattern, of its values or of its call is an answer as well: ``{"problems": [...]}``.

    Raises:
        BadQuestion: There is no such question.
    """
    if kind not in _ANSWERS:
        raise BadQuestion(f"there is no question {kind[:40]!r}")
    try:
        return _ANSWERS[kind](data)
    except AttnDslError as error:
        text = data.get("text") if isinstance(data, dict) else None
        before = problems.shift(text) if isinstance(text, str) else 0
        return {"problems": [_problem(each, before) for each in error.diagnostics]}


def _check(data: Any) -> dict[str, Any]:
    """Every fault of a text, and the patterns it declares."""
    text = Question.read(data).text
    found, before = problems.find_problems(text), problems.shift(text)
    return {
        "problems": [_problem(each, before) for each in found.faults],
        "patterns": [_declared(each, before) for each in found.signatures],
    }


def _problem(fault: Diagnostic, before: int) -> dict[str, Any]:
    """A fault and its places in the text, in characters; places in the prelude are left out."""
    labels = [
        {
            "start": max(0, label.span.start - before),
            "stop": max(0, label.span.stop - before),
            "line": label.span.line,
            "text": label.text,
            "primary": label.primary,
        }
        for label in fault.labels
        if label.span.source.name == "<text>"
    ]
    return {
        "code": fault.code,
        "title": fault.title,
        "notes": list(fault.notes),
        "helps": list(fault.helps),
        "labels": labels,
    }


def _declared(signature: frontend.Signature, before: int) -> dict[str, Any]:
    parameters = [
        {"name": each.name, "kind": each.kind, "default": each.default}
        for each in signature.parameters
    ]
    return {
        "name": signature.name,
        "doc": signature.doc,
        "signature": str(signature),
        "parameters": parameters,
        "where": list(signature.constraints),
        "start": max(0, signature.span.start - before),
    }


def _look(data: Any) -> dict[str, Any]:
    """The call, the mask in the window, and what it costs."""
    scene = Scene(Question.read(data))
    whole = scene.schedule()
    shown = views.picture_pairs(whole, scene.rows, scene.columns, *scene.place, most=scene.of.cells)
    found = views.cost(whole, scene.of.head_dim, heads=scene.call.heads, batch=scene.call.batch)
    counts = {
        "pairs": found.pairs,
        "density": found.density,
        "tiles": found.tiles,
        "full": found.full,
        "partial": found.partial,
        "tile": list(found.tile),
        "forward_flops": found.forward_flops,
        "dense_forward_flops": found.dense_forward_flops,
        "forward_bytes": found.forward.compulsory,
        "streamed_bytes": found.forward.streamed,
        "schedule_bytes": whole.nbytes,
    }
    return {"call": scene.told(), "picture": packed(*shown), "counts": counts}


def _tiles(data: Any) -> dict[str, Any]:
    """The kinds of tiles in natural order, and in each part of the chosen order."""
    scene = Scene(Question.read(data))
    side = views.fitting_tile(max(scene.call.q_len, scene.call.k_len))
    parts = scene.program.tiled(scene.call, scene.of.layout, (side, side))
    made = [("natural order", scene.program.schedule(scene.call, (side, side)))]
    after = [part.schedules[side, side] for part in parts]
    names = [views.order_of(each.plan(*scene.place)) for each in after]
    if names != ["natural"]:
        several = len(after) > 1
        made += [
            (f"part {number}: {name}" if several else name, each)
            for number, (name, each) in enumerate(zip(names, after, strict=True), 1)
        ]
    return {"tile": side, "pictures": [_kinds(title, each, scene) for title, each in made]}


def _kinds(title: str, schedule: Any, scene: Scene) -> dict[str, Any]:
    whole = range(scene.call.q_len), range(scene.call.k_len)
    drawn = views.picture_kinds(schedule, *whole, *scene.place, most=256)
    plan = schedule.plan(*scene.place)
    numbers = {"title": title, "full": plan.full.nnz, "partial": plan.partial.nnz}
    return numbers | {"picture": packed(*drawn)}


def _sight(data: Any) -> dict[str, Any]:
    """The keys that a query sees, or the queries that see a key, on the grids where they live."""
    scene = Scene(Question.read(data))
    of, mask, call = scene.of, scene.about.mask, scene.call
    whole, made = scene.schedule(), dict[str, Any]()
    offset = mask.shift(call.q_len, call.k_len)
    if of.query is not None:
        query = min(of.query, call.q_len - 1)
        seen = views.keys_seen(whole, query, *scene.place)
        own = query + offset if not mask.is_rectangular else None
        made["keys"] = _line("query", query, seen, list(grids(seen, mask.keys, call.sizes, own)))
        counts = scene.program.zero_keys(call)
        if counts is not None:
            element, head = (
                min(at, n - 1) for at, n in zip(scene.place, counts.shape[:2], strict=True)
            )
            made["keys"]["zeros"] = int(np.broadcast_to(counts[element, head], call.q_len)[query])
    if of.key is not None:
        key = min(of.key, call.k_len - 1)
        seen = views.queries_seeing(whole, key, *scene.place)
        drawn = _of_queries(scene, seen, key)
        made["queries"] = _line("key", key, seen, drawn)
    return made


def _of_queries(scene: Scene, seen: views.BoolArray, key: int) -> list[dict[str, Any]]:
    """Queries on the grid where they live: among the tokens of the keys, unless the spaces differ."""
    mask, call = scene.about.mask, scene.call
    if mask.is_rectangular:
        return list(grids(seen, mask.queries, call.sizes, None))
    offset = mask.shift(call.q_len, call.k_len)
    if offset < 0 or offset + call.q_len > call.k_len:  # some queries stand at no key
        return list(grids(seen, ir.FLAT, call.sizes, None))
    whole = np.zeros(call.k_len, dtype=bool)
    whole[offset : offset + call.q_len] = seen
    return list(grids(whole, mask.keys, call.sizes, key))


def _line(what: str, at: int, seen: views.BoolArray, drawn: list[dict[str, Any]]) -> dict[str, Any]:
    return {what: at, "count": int(seen.sum()), "runs": runs(seen), "grids": drawn}


_ANSWERS: Final[dict[str, Callable[[Any], dict[str, Any]]]] = {
    "check": _check,
    "look": _look,
    "tiles": _tiles,
    "sight": _sight,
    "compare": compare,
    "explain": explain,
    "kernel": kernel,
    "export": export,
}
