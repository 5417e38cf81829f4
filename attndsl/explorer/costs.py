"""Costs, facts, advice and generated code of a pattern in a call."""

from __future__ import annotations

from typing import Any

from attndsl import emission, problems
from attndsl.settings import spelled

from .questions import Question
from .scenes import Scene


def explain(data: Any) -> dict[str, Any]:
    """Everything that ``attndsl explain`` says, as data and as text."""
    from attndsl import backends, explaining  # torch: pictures do without

    scene = Scene(Question.read(data))
    of = scene.of
    text, values = problems.as_text(of.text), scene.about.values
    is_alone = scene.about.attention is None  # advice tries other values of a pattern's parameters
    origin = explaining.Origin(text, of.entry, values, of.align) if is_alone else None
    found = explaining.explanation(
        scene.program, scene.call, of.head_dim, backends.REFERENCE, origin
    )
    return {"record": found.record(), "text": str(found)}


def kernel(data: Any) -> dict[str, Any]:
    """The stand-alone file of kernels, and the function in it that decides a pair."""
    scene = Scene(Question.read(data))
    definition = scene.about.signature.span.text + spelled_below(scene)
    text = emission.emit(scene.about.mask, scene.of.layer, definition=definition)
    start = text.index("def in_pattern(")
    return {"text": text, "function": text[start : text.index("\n\n\n", start)]}


def spelled_below(scene: Scene) -> str:
    """The name with its values, a paragraph below a definition; nothing where none is given."""
    values = spelled(scene.about.values)
    return f"\n\n{scene.about.mask.name}{values}" if values else ""
