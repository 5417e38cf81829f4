"""Writes the pages that say what the code says, and notebooks of the tutorials. `make docs` runs it.

A test compares the pages with what this would write, so that they cannot go stale.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

import attndsl
from attndsl import editing, frontend, ir, library, patterns, sources
from attndsl import syntax as syn
from attndsl.cli import main as command
from attndsl.schedule import Schedule

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]

import report  # noqa: E402
import score_papers  # noqa: E402
from notebooks import notebooks  # noqa: E402


def pages() -> dict[str, str]:
    """Every generated page, by file name."""
    return {
        "errors.md": errors_page(),
        "patterns.md": patterns_page(),
        "gallery.md": gallery_page(),
        "attentions.md": attentions_page(),
        "performance.md": performance_page(),
        "versions.md": versions_page(),
        "strided.svg": attndsl.compile("strided", s=32).picture(1024, tile=64, layout="auto").svg(),
        **notebooks(),
    }


def performance_page() -> str:
    """Results of the benchmarks, on every machine they were run on."""
    return str(report.page(found for _, found in report.results_in()))


_VERSIONS = """# Versions

This is the documentation of attndsl {version}. A version is a tag of the repository, `v{version}` for one: the tag
publishes the package, and `pip install attndsl=={version}` brings it back. Versions follow [Semantic
Versioning](https://semver.org); before 1.0 a minor version may change names, and [the changelog](../CHANGELOG.md)
says so.

attndsl runs on Python {python} or newer. Every change is tested with the lowest versions below, with those that are
pinned, and with the newest there are.

| package | declared | lowest | pinned |
|---|---|---|---|
"""


def versions_page() -> str:
    """Versions of this package, and those of others that it is tested with."""
    root = HERE.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest, pinned = (
        dict(
            re.findall(
                r"^([\w-]+)==(\S+)$", (root / name).read_text(encoding="utf-8"), re.MULTILINE
            )
        )
        for name in ("constraints-oldest.txt", "constraints.txt")
    )
    head = _VERSIONS.format(
        version=project["version"], python=project["requires-python"].removeprefix(">=")
    )
    wanted = [*project["dependencies"], *project["optional-dependencies"]["triton"]]
    found = (re.match(r"(\w+)(\S*?)(?:;|$)", each.split(";")[0].strip()) for each in wanted)
    rows = (
        f"| {each[1]} | `{each[2]}` | {oldest[each[1]]} | {pinned[each[1]]} |" for each in found
    )
    return head + "\n".join(rows) + "\n"


# ---------------------------------------------------------------------------- errors

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INTRODUCTION = """# Errors

One entry for each code: the rule, a program that breaks it with what attndsl answers, and one that does not.
`attndsl explain A203` prints an entry. Families: A1 syntax, A2 names and kinds, A3 meaning, A4 lengths and
schedules, A5 tensors and back ends, A6 the command line.

Every message names a place where there is one, all faults of a stage are reported together, at most ten.
"""


def errors_page() -> str:
    """The manual of the command line, with the answer behind each faulty example."""
    manual = (files("attndsl") / "cli" / "errors.md").read_text(encoding="utf-8")
    entries = re.split(r"(?=^## A\d{3}: )", manual, flags=re.MULTILINE)[1:]
    return "\n".join([_INTRODUCTION, *map(_answered, entries)]).rstrip("\n") + "\n"


def _answered(entry: str) -> str:
    wrong = _BLOCK.search(entry)
    assert wrong is not None, "an entry opens with a faulty example"
    language, body = wrong[1], wrong[2]
    # Not marked as a program: the pages are run, and this one fails.
    shown = f"```text\n{body}```\n\n```text\n{_answer(language, body)}\n```"
    return entry[: wrong.start()] + shown + entry[wrong.end() :]


def _answer(language: str, body: str) -> str:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if language == "console":
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                command(shlex.split(body)[1:])
            return said.getvalue().strip()
        try:
            if language == "attn":
                attndsl.compile(body)
            else:
                exec(compile(body, "example.py", "exec"), {})
        except attndsl.AttnDslError as error:
            return str(error)
    raise AssertionError(f"this example has no fault:\n{body}")


# ---------------------------------------------------------------------------- patterns


@dataclass(frozen=True)
class Sample:
    """Subject of a picture: values for the parameters, lengths, and perhaps one query alone."""

    values: dict[str, Any] = field(default_factory=dict)
    q_len: int = 16
    k_len: int | None = None
    extents: dict[str, int] | None = None
    query: int | None = None
    heads: int = 1
    head: int = 0
    inputs: dict[str, Any] = field(default_factory=dict)


def _image(query: int, **values: Any) -> Sample:
    return Sample(values, 144, extents={"y": 12}, query=query)


def _volume(**values: Any) -> Sample:
    return Sample(values, 180, extents={"t": 5, "y": 6}, query=94)


_DOC = torch.tensor([[0] * 5 + [1] * 3 + [2] * 8])
_KEEP = torch.tensor([[True] * 11 + [False] * 5])
_CLUSTERS = torch.tensor([[[0, 1, 2, 0, 1, 2, 2, 1, 0, 0, 1, 2, 0, 2, 1, 1]]])
_LIST = torch.tensor([[[(5 * q + 3) % 16, (7 * q) % 16, -1 if q % 3 else q] for q in range(16)]])
_CHOSEN = torch.tensor([[[[0, 0], [0, 1], [2, -1], [1, 3]]]])

_OFFSETS, _SHORT = torch.tensor([0, 5, 8, 16]), torch.tensor([0, 2, 3, 7])
_COLUMNS = torch.tensor([[5] * 5 + [8] * 3 + [16] * 8, [0] * 5 + [5] * 3 + [8] * 8]).T[None, None]
_ROWS = torch.tensor([[0, 4], [4, 8], [8, 12], [12, 16]])
_COUNTS = torch.tensor([[[1, 2, 1, 2]]])
_MARKS = torch.eye(4, dtype=torch.bool)[None, None].roll(1, -1)

SAMPLES = {
    "prefix": Sample({"n": 5}),
    "window": Sample({"left": 3, "right": 1}),
    "padded_window": Sample({"left": 3, "right": 1}),
    "causal_window": Sample({"w": 4}),
    "dilated": Sample({"left": 2, "d": 3}),
    "causal_dilated": Sample({"w": 3, "d": 4}),
    "wrapped_window": Sample({"left": 3, "right": 0}),
    "power_of_two_blocks": Sample({"b": 2}),
    "sink": Sample({"n": 2}),
    "global_queries": Sample({"n": 2}),
    "global_keys": Sample({"n": 2}),
    "global_tokens": Sample({"n": 2}),
    "global_queries_at": Sample({"tokens": [0, 7]}),
    "global_keys_at": Sample({"tokens": [0, 7]}),
    "global_tokens_at": Sample({"tokens": [0, 7]}),
    "streaming": Sample({"w": 4, "n": 2}),
    "longformer": Sample({"w": 2, "g": 1}),
    "block": Sample({"b": 5}),
    "block_causal": Sample({"b": 4}),
    "lookback": Sample({"b": 4, "n": 1}),
    "halo": Sample({"b": 4, "h": 1}),
    "shifted_block": Sample({"b": 5, "s": 2}),
    "wrapped_block": Sample({"b": 4, "s": 2}),
    "residues": Sample({"d": 3}),
    "segments": Sample({"ends": [2, 5, 12]}),
    "segments_causal": Sample({"ends": [2, 5, 12]}),
    "strided": Sample({"s": 4}),
    "strided_by_head": Sample({"s": 4}, heads=2, head=1),
    "fixed": Sample({"s": 4}),
    "fixed_by_head": Sample({"s": 4}, heads=2, head=1),
    "random_blocks": Sample({"b": 2, "count": 2}),
    "bigbird": Sample({"b": 2, "g": 1, "count": 1}),
    "box1d": Sample({"size": 4}),
    "neighborhood1d": Sample({"size": 5}),
    "box2d": _image(14, sy=5, sx=7),
    "padded_box2d": _image(14, sy=5, sx=7),
    "neighborhood2d": _image(14, sy=5, sx=7),
    "axial2d": _image(65, axis=0),
    "cross2d": _image(65),
    "swin": _image(65, m=4, s=2),
    "wrapped_swin": _image(11, m=4, s=2),
    "maxvit_grid": _image(65, g=4),
    "halo2d": _image(65, b=4, h=1),
    "padded_halo2d": _image(1, b=4, h=1),
    "box3d": _volume(st=3, sy=3, sx=5),
    "neighborhood3d": _volume(st=3, sy=5, sx=5, pt=True),
    "axial3d": _volume(axis=0),
    "cross3d": _volume(),
    "frame_causal": _volume(),
    "documents": Sample(inputs={"doc": _DOC}),
    "documents_causal": Sample(inputs={"doc": _DOC}),
    "padding": Sample(inputs={"keep": _KEEP}),
    "padding_pairs": Sample(inputs={"keep": _KEEP}),
    "same_cluster": Sample(inputs={"q_cluster": _CLUSTERS, "k_cluster": _CLUSTERS}),
    "listed": Sample(inputs={"neighbors": _LIST[0][None]}),
    "chosen_blocks": Sample({"b": 4}, inputs={"chosen": _CHOSEN}),
    "flash_window": Sample({"left": -1, "right": 2}),
    "varlen": Sample(inputs={"cu_seqlens_q": _OFFSETS, "cu_seqlens_k": _OFFSETS}),
    "varlen_causal": Sample(
        q_len=7, k_len=16, inputs={"cu_seqlens_q": _SHORT, "cu_seqlens_k": _OFFSETS}
    ),
    "used": Sample({"right": 0}, 4, 16, inputs={"seqused_k": torch.tensor([11])}),
    "used_pairs": Sample(
        {"right": 0}, inputs={"seqused_q": torch.tensor([5]), "seqused_k": torch.tensor([11])}
    ),
    "flashmask": Sample(inputs={"startend_row_indices": _COLUMNS}),
    "slices": Sample(
        inputs={"q_ranges": _ROWS, "k_ranges": _ROWS.flip(0), "attn_type_map": torch.arange(4)}
    ),
    "block_lists": Sample(
        {"bq": 4}, inputs={"kv_num_blocks": _COUNTS, "kv_indices": _CHOSEN.clamp(min=0)}
    ),
    "block_bitmap": Sample({"bq": 4}, inputs={"block_mask": _MARKS}),
    "block_rows": Sample(
        {"bq": 4},
        inputs={
            "indptr": torch.tensor([0, 1, 3, 4, 6]),
            "indices": torch.tensor([0, 0, 1, 2, 1, 3]),
        },
    ),
    "tree": Sample(inputs=attndsl.subtrees([-1, 0, 0, 0, 1, 1, 2, 4])),
    "latent_read": Sample({}, 4, 16, extents={"latent.g": 2, "data.g": 2}),
    "latent_write": Sample({}, 16, 4, extents={"latent.g": 2, "data.g": 2}),
    "captioned_box": Sample({"s": 3}, 6 + 60, extents={"n": 6, "y": 6}, query=40),
}

_PATTERNS = """# Patterns of the prelude

The patterns that every file can use by name. They are written in the language, in
[prelude.attn](../attndsl/patterns/prelude.attn): nothing below is known to the compiler, and a declaration of
yours of the same name takes its place. In Python they are functions of `attndsl.patterns`.

`attndsl list` prints their names, `attndsl show NAME` one of them, drawn with parameters of your choice. In the
pictures, queries go down and keys across; where positions are an image or a volume, one query is shown with the
keys it sees.
"""


def patterns_page() -> str:
    """Every pattern of the prelude: signature, words, definition, picture."""
    parts = [_PATTERNS]
    section = ""
    for signature in patterns.catalogue():
        found = _section(signature.span.start)
        if found != section:
            section = found
            parts.append(f"## {section[0].upper()}{section[1:]}\n")
        parts.append("\n".join(_entry(signature)))
    parts.append("## Helper definitions\n\nPatterns call them, and so may yours.\n")
    parts += ["\n".join(_helper(patterns.describe(name))) for name in patterns.helpers()]
    return "\n".join(parts)


def _helper(signature: frontend.Signature) -> Iterator[str]:
    yield f"### {signature.name}\n"
    yield f"{signature.doc}\n"
    yield from ("```text", signature.span.text, "```\n")


def _section(offset: int) -> str:
    """The ruled comment above a place in the prelude."""
    return re.findall(r"^# -{10,} (.+)$", patterns.source()[:offset], re.MULTILINE)[-1]


def _entry(signature: frontend.Signature) -> Iterator[str]:
    sample = SAMPLES.get(signature.name, Sample())
    yield f"### {signature.name}\n"
    yield f"{signature.doc}\n"
    yield from ("```text", signature.span.text, "```\n")
    yield f"{_caption(signature.name, sample)}\n"
    yield from ("```text", _picture(signature.name, sample), "```\n")


def _caption(name: str, sample: Sample) -> str:
    values = ", ".join(f"{key}={_literal(value)}" for key, value in sample.values.items())
    caption = f"`{name}({values})`" if values else f"`{name}`"
    if sample.heads > 1:
        caption += f", head {sample.head}"
    return f"{caption}, query {sample.query}:" if sample.query is not None else f"{caption}:"


def _literal(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _picture(name: str, sample: Sample) -> str:
    return attndsl.compile(name, **sample.values).draw(
        sample.q_len,
        sample.k_len,
        sample.heads,
        head=sample.head,
        query=sample.query,
        extents=sample.extents,
        **sample.inputs,
    )


# ---------------------------------------------------------------------------- gallery

_GALLERY = """# Gallery

Published systems, as entries of the library, each written in the language:

```python
>>> import attndsl
>>> tiled = attndsl.library.load("gna", sy=5, ty=2)
>>> attndsl.library.describe("gna").title
'Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of Light'
```

Any of them, by name or row, runs in one line on tensors, extents and inputs of its own:

```python
>>> shown = attndsl.library.example("021")
>>> shown.name, shown.values, shown.extents, tuple(shown.q.shape)
('maxvit', {'block': 3, 'grid_size': 3}, {'image.y': 9, 'image.x': 12}, (1, 1, 108, 16))
>>> shown.call().shape  # shown.pattern(q, k, v, extents=shown.extents, inputs=shown.inputs)
torch.Size([1, 1, 108, 16])
```

`attndsl show gna` draws one at sizes of your choice. The pictures below show the example sizes by which the tests
run each entry: the whole mask of a sequence, or, on a grid, the keys that the query in the middle sees.

Each entry says exactly which keys a query sees, what it was compared with, which reading it follows where sources
disagree, and which part of the system it is. *Catalogue* is the list of published systems that this library states,
with a formula for each; *released code* is given as owner/name@path. *Missing* is what was published with the entry
and is not in the pattern: a selection from activations, what else is done to scores, keys made of others, a branch of
its own. Where scores or branches are part of the system, its attention follows, for
`attndsl.library.load("hat_attention")`. Where the set is computed from q and k, a `select_` entry of the row does the
whole, from q, k and v to the output; the others take the set as an input. Keys that others are made of (pooled, folded,
learned) are k and v of the call.
Keys that are padding count in the softmax as [zero keys](semantics.md#zero-keys). An input called a *rank* needs a
stable sort: equal entries keep their order, else the pattern is not determined.

| row | system | entries |
|---|---|---|
"""
_TILE = 8  # of the counts beneath the pictures: the examples are small
_WIDEST = 32  # tokens of a mask that is drawn whole


def gallery_page() -> str:
    """Every entry of the library: words, source, definition, picture, counts."""
    rows = library.rows()
    contents = [
        f"| {row} | {library.describe(names[0]).title} | {_links((*names, *patterns.selections_of(row)))} |"
        for row, names in rows.items()
    ]
    head = _GALLERY + "\n".join(contents) + "\n"
    shown = (_exhibits(row, names) for row, names in rows.items())
    return "\n".join([head, *shown]).rstrip("\n") + "\n"


_ATTENTIONS = """# Published attentions

What papers do with the scores of a pattern: biases, caps, sinks, other weights, branches. Each is text of
[the language](language.md#attention), held by a test against the formula of its paper, outputs and every gradient.
`attndsl.compile(name)` or `attndsl.library.attention(name)` gives it; real inputs are passed by name, or owned and
trained by `attndsl.nn.Attention`.

```python
>>> import torch, attndsl
>>> q, k, v = (torch.randn(1, 8, 256, 64) for _ in range(3))
>>> slope = attndsl.nn.alibi_slopes(8).requires_grad_()
>>> attndsl.compile("alibi")(q, k, v, slope=slope).sum().backward()
>>> slope.grad.shape
torch.Size([8])

```

The library's systems have their attentions beside their patterns: see the [gallery](gallery.md). More papers, by form:
[below](#forms-of-further-papers). All of the file: [published.attn](../attndsl/patterns/scores/published.attn).
"""


def attentions_page() -> str:
    """Every published attention: words, source, definition, inputs."""
    module = patterns.module_of_named()
    declared = [each for each in module.declarations if isinstance(each, syn.Attention)]
    shown = ("\n".join(_attention(each)) for each in declared)
    return "\n".join([_ATTENTIONS, *shown, *score_papers.section()])


def _attention(declared: syn.Attention) -> Iterator[str]:
    words, _, fields = declared.doc.partition("\n\n")
    yield f"## {declared.name}\n"
    yield f"{_filled(' '.join(words.split()))}\n"
    for line in re.split(r"\n(?=\w+: )", fields):
        name, _, text = line.partition(": ")
        yield _filled(f"- *{name}*: {' '.join(text.split())}")
    inputs = library.attention(declared.name).inputs
    said = ", ".join(f"`{ir.declaration(table)}`" for table in inputs) or "none"
    yield f"- *Inputs*: {said}\n"
    yield from ("```text", declared.span.text, "```\n")


def _links(names: Iterable[str]) -> str:
    return ", ".join(f"[{name}](#{name})" for name in names)


def _exhibits(row: str, names: tuple[str, ...]) -> str:
    title = library.describe(names[0]).title
    shown = ("\n".join(_exhibit(name)) for name in names)
    chosen = ("\n".join(_choice(name)) for name in patterns.selections_of(row))
    return "\n".join([f"## {row} {title}\n", *shown, *chosen])


def _choice(name: str) -> Iterator[str]:
    """A selection of a row: words, fields, and its whole file without them."""
    entry = library.describe(name)
    yield f"### {name}\n"
    yield f"{_filled(entry.summary)}\n"
    told = {"source": entry.source, "reading": entry.reading}
    yield from (_filled(f"- *{field.capitalize()}*: {text}") for field, text in told.items())
    yield f"- *Written in*: [{name}.attn](../attndsl/patterns/selections/{name}.attn)\n"
    text = patterns.module_of_selection(name).span.source.text
    yield from ("```text", re.sub(r"^##.*\n", "", text, flags=re.MULTILINE).strip("\n"), "```\n")


def _exhibit(name: str) -> Iterator[str]:
    entry = library.describe(name)
    trial = patterns.trial(entry)
    pattern = library.load(name, layer=trial.layers[0], **trial.values)
    inputs = _of_one_batch(pattern, trial)
    yield f"### {name}\n"
    yield f"{_filled(entry.summary)}\n"
    fields = ("source", "compared", "reading", "edges", "part", "missing")
    told = [(field, getattr(entry, field)) for field in fields]
    if name != library.rows()[entry.row][0]:  # as the first entry of the row says
        told = [(field, text) for field, text in told if field != "compared"]
    yield from (_filled(f"- *{field.capitalize()}*: {text}") for field, text in told if text)
    yield f"- *Written in*: [{entry.family}.attn](../attndsl/patterns/library/{entry.family}.attn)\n"
    yield from ("```text", entry.text, "```\n")
    yield from ("```text", _view(pattern, trial, inputs), "```\n")
    yield f"{_counts(pattern, trial, inputs)}\n"
    if (attention := patterns.attention_of(name)) is not None:
        shown = sources.describe(attention)
        yield (
            _filled(
                f"Its attention, `{attention}`: {' '.join(shown.doc.partition(chr(10) * 2)[0].split())}"
            )
            + "\n"
        )
        yield from ("```text", shown.span.text, "```\n")
    yield from _tiles_at_large(entry)


def _filled(text: str) -> str:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 116, subsequent_indent=indent, break_on_hyphens=False)


def _of_one_batch(pattern: attndsl.Pattern, trial: patterns.Trial) -> dict[str, Any]:
    """The inputs of the first batch element."""
    batched = {table.name for table in pattern.ir.tables if "batch" in table.dims}
    return {
        name: array[:1] if name in batched else array
        for name, array in trial.inputs.items()
        if name in {table.name for table in pattern.ir.tables}
    }


def _view(pattern: attndsl.Pattern, trial: patterns.Trial, inputs: dict[str, Any]) -> str:
    is_grid = any(len(each.axes) > 1 for each in pattern.ir.keys.segments)
    is_large = max(trial.q_len, trial.k_len) > _WIDEST
    query = trial.q_len // 2 if is_grid or is_large else None
    return pattern.draw(
        trial.q_len, trial.k_len, trial.heads, query=query, extents=trial.extents, **inputs
    )


def _counts(pattern: attndsl.Pattern, trial: patterns.Trial, inputs: dict[str, Any]) -> str:
    """Keys a query, density, live tiles."""
    call = (trial.q_len, trial.k_len, trial.heads)
    seen = pattern.mask(*call, extents=trial.extents, **inputs)[0].sum(-1)
    options = {"tile": (_TILE, _TILE), "extents": trial.extents, **inputs}
    natural = pattern.schedule(*call, **options).density
    sought = sum(part.density for part in pattern.parts(*call, **options))
    zeros = pattern.zero_keys(*call, extents=trial.extents, **inputs)[0]
    density = float(seen.double().mean()) / max(1, trial.k_len)
    what = [f"{_range(seen)} keys a query"]
    what += [f"{_range(zeros)} zero keys"] * bool(zeros.any())
    what.append(f"{density:.0%} of the pairs")
    what.append(f"{natural:.0%} of the tiles of {_TILE} x {_TILE}")
    what += [f"{sought:.0%} in the best order found"] * (sought < natural)
    at = [f"{trial.q_len} x {trial.k_len} tokens"]
    at += [f"{trial.heads} heads, the first drawn"] * (trial.heads > 1)
    return f"At {', '.join(at)}: {', '.join(what)}."


def _range(counts: torch.Tensor) -> str:
    least, most = int(counts.min()), int(counts.max())
    return f"{least}" if least == most else f"{least} to {most}"


def _tiles_at_large(entry: patterns.Entry) -> Iterator[str]:
    """Live tiles at a size of papers, in natural order and in the one that is found."""
    trial = patterns.large_trial(entry)
    if trial is None:
        return
    q_sizes, k_sizes = (
        _spelled(entry.signature.queries, trial),
        _spelled(entry.signature.keys, trial),
    )
    where = q_sizes or f"{trial.q_len:,}"
    where += f" to {k_sizes}" if k_sizes != q_sizes else ""
    for layer in trial.layers:
        pattern = library.load(entry.name, layer=layer, **trial.values)
        call = (trial.q_len, trial.k_len, trial.heads)
        found = pattern.parts(*call, layout="natural", extents=trial.extents)
        sorted_ = pattern.parts(*call, layout="auto", extents=trial.extents)
        before, after = _live(found, trial.heads), _live(sorted_, trial.heads)
        every = -(-trial.q_len // 128) * -(-trial.k_len // 128) * trial.heads
        told = f"{before:,} of {every:,} tiles of 128 x 128 are live"
        if after < before:
            told += f"; {after:,} in the order {_orders(sorted_, trial.heads)}"
        at = f"At {where} tokens and default parameters"
        at += f", layer {layer}" * (len(trial.layers) > 1)
        yield f"{_filled(f'{at}: {told}.')}\n"


def _spelled(space: ir.Space, trial: patterns.Trial) -> str:
    parts = (
        " x ".join(str(trial.extents[f"{segment.name}.{axis.name}"]) for axis in segment.axes)
        for segment in space.segments
    )
    return " + ".join(parts)


def _live(parts: tuple[Schedule, ...], heads: int) -> int:
    plans = [part.plan(0, head) for part in parts for head in range(heads)]
    return sum(len(plan.full.indices) + len(plan.partial.indices) for plan in plans)


def _orders(parts: tuple[Schedule, ...], heads: int) -> str:
    """The orders of queries and keys that were found; tokens in natural order have none."""
    plans = [part.plan(0, head) for part in parts for head in range(heads)]
    orders = [order for plan in plans for order in (plan.q_order, plan.k_order) if order]
    names = list(dict.fromkeys(order.name for order in orders))
    if len(names) > 2 or max(map(len, names)) > 60:
        return "that is found"
    return " and ".join(f"`{name}`" for name in names)


def main() -> None:
    """Write the pages."""
    (HERE / "notebooks").mkdir(exist_ok=True)
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
    grammar = HERE.parent / "editors/vscode/syntaxes/attn.tmLanguage.json"
    grammar.write_text(json.dumps(editing.textmate(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
