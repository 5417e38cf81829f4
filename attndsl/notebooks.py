"""Patterns and attentions as notebooks show them: words, and a small picture with axes, title and legend.

Every text is escaped: a comment of a pattern is words on the page, whatever it holds.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from attndsl import ir, views
from attndsl.compiler import Program
from attndsl.settings import Asked, setting
from attndsl.source import AttnDslError

_MOST_PICTURES: Final = 4  # of the parts of an attention


def pattern_html(program: Program) -> str:
    """A pattern: its name and documentation, the relation, its mask in a call small enough to look at."""
    mask = program.mask
    relation = f"a query sees the keys for which {ir.show(mask.root)}"
    return _page(f"{mask.name or 'unnamed'}", mask.doc, relation, _drawn(mask, program.layer))


def attention_html(attention: ir.Attention, layer: int) -> str:
    """An attention: its documentation and text, the masks of its parts."""
    masks = list(dict.fromkeys(attention.masks))[:_MOST_PICTURES]
    drawn = "".join(_drawn(mask, layer) for mask in masks)
    return _page(attention.name or "unnamed", attention.doc, ir.show_attention(attention), drawn)


def _page(name: str, doc: str, text: str, pictures: str) -> str:
    words: Sequence[str] = (
        f"<strong>{html.escape(name)}</strong>",
        f"<div>{html.escape(doc)}</div>" if doc else "",
        f"<pre style='white-space:pre-wrap'>{html.escape(text)}</pre>",
    )
    return f"<div class='attndsl'>{''.join(words)}{pictures}</div>"


def _drawn(mask: ir.Mask, layer: int) -> str:
    """The mask in a small call as SVG; in words why there is none, where no such call can be made up."""
    program = Program(mask, layer)
    try:
        made = setting(mask, Asked(layer=layer))
        pairs = program.dense(made.call(program))[0, 0]
    except AttnDslError as error:
        return f"<div><em>no picture: {html.escape(error.diagnostics[0].title)}</em></div>"
    sizes = ", ".join(f"{name} = {size}" for name, size in made.extents.items())
    more = "; ".join(f"{name}: {words}" for name, words in made.made_up.items())
    title = " — ".join(filter(None, (mask.name, sizes, more)))
    return views.encode_svg(views.picture_mask(pairs, title=title))
