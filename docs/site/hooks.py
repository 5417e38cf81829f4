"""Hooks of the site: a page for each published system, and pages for the files of the repository that pages link to.

Links lead into the repository, ``../examples/01_causal_window.py``: on the site each such file is a page of its own, so
that the site is whole without a network.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import attndsl
from attndsl import library, patterns
from attndsl.verification import AttentionSubject, Random, draw_case

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_SECTION = re.compile(r"^### (\w+)\n(.*?)(?=^###? |\Z)", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^( *```attn) file=(\S+)$", re.MULTILINE)
_NEEDS = re.compile(r"^( *```python) needs=\w+$", re.MULTILINE)
_SESSION = re.compile(r"^( *```)python(\n *>>> )", re.MULTILINE)  # copied without prompts
_ATTENTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# Rows of the tables of relative places, as the papers have them.
_ROWS = {
    "t5_encoder": 32, "t5_decoder": 32, "shaw": 33, "music_transformer": 64, "urpe": 512, "swin_v1": 169,
    "swin_v2": 169,
}  # fmt: skip
_LANGUAGES = {".py": "python", ".attn": "attn", ".toml": "toml", ".json": "json", ".yml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    for name, body in _systems().items():
        files.append(File.generated(config, f"gallery/{name}.md", content=_system_page(name, body)))
    for name, body in _attentions().items():
        page = _attention_page(name, body)
        files.append(File.generated(config, f"gallery/{name}.md", content=page))
    pages = [DOCS / file.src_uri for file in files.documentation_pages() if file.src_dir]
    wanted = [target for page in pages for target in _linked(page)]
    seen = set[Path]()
    while wanted:
        target = wanted.pop()
        if target in seen:
            continue
        seen.add(target)
        files.append(File.generated(config, _page_of(target), content=_source_page(target)))
        if target.is_dir():
            wanted += _shown(target)
        elif target.suffix == ".md":
            wanted += _linked(target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leads links into the repository to their pages, and entries of the gallery to theirs."""
    del config, files
    uri = page.file.src_uri
    markdown = _FILE.sub(r'\1 title="\2"', markdown)  # a block that is saved under a name bears it
    markdown = _NEEDS.sub(r"\1", markdown)
    markdown = _SESSION.sub(r"\1pycon\2", markdown)
    if uri == "gallery.md":
        markdown = markdown[: markdown.index("\n## 001")]
        markdown = re.sub(r"\]\(#(\w+)\)", r"](gallery/\1.md)", markdown)
    if uri == "attentions.md":
        for name in _attentions():
            link = f"[its picture and a call](gallery/{name}.md)"
            markdown = markdown.replace(f"## {name}\n", f"## {name}\n\n{link}\n", 1)
    source = _origin(uri)

    def lead(match: re.Match[str]) -> str:
        target, anchor = (source.parent / match[1]).resolve(), _anchor(match[2] or "")
        if target == DOCS / "gallery.md" and anchor[1:] in _systems():
            return f"]({_relative(f'gallery/{anchor[1:]}.md', uri)})"
        if _is_page(target) or (target.is_relative_to(DOCS) and not target.exists()):
            return f"]({_relative(target.relative_to(DOCS).as_posix(), uri)}{anchor})"
        if target.exists() and target.is_relative_to(ROOT):
            return f"]({_relative(_page_of(target), uri)}{anchor})"
        return match[0]

    if uri.startswith("gallery/"):
        return markdown
    return re.sub(r"\]\((#[\w-]+)\)", lambda m: f"]({_anchor(m[1])})", _LINK.sub(lead, markdown))


def _anchor(anchor: str) -> str:
    """The anchor of a heading that stands on its page before: `-1` where our readers are used to it, `_1` here."""
    return re.sub(r"-(\d+)$", r"_\1", anchor)


@functools.cache
def _systems() -> dict[str, str]:
    """Entry of the library -> its section of the gallery."""
    return dict(_SECTION.findall((DOCS / "gallery.md").read_text(encoding="utf-8")))


def _system_page(name: str, body: str) -> str:
    """Picture, words, formula and call of one entry."""
    entry, shown = library.describe(name), library.example(name)
    extents = f", extents={dict(shown.extents)!r}" if shown.extents else ""
    inputs = ", inputs=shown.inputs" if shown.inputs else ""
    values = "".join(f", {key}={value!r}" for key, value in shown.values.items())
    call = (
        "import attndsl\n\n"
        f'shown = attndsl.library.example("{name}")  # small tensors, extents and inputs\n'
        f'pattern = attndsl.library.load("{name}"{values})\n'
        f"out = pattern(shown.q, shown.k, shown.v{extents}{inputs})\n"
    )
    body = re.sub(r"\]\((?!https?:|#)([^)]+)\)", lambda m: f"]({_from_gallery(m[1])})", body)
    body = body.replace("```text\n##", "```attn\n##").replace(
        "```text\npattern", "```attn\npattern"
    )
    body = re.sub(r"```text\n.*?```\n\n?", "", body, flags=re.DOTALL)  # the picture in characters
    head = f"# {name}\n\n*{entry.title}* (row {entry.row})"
    return f"{head}\n\n{_picture(shown)}\n\n{body}\n## Call it\n\n```python\n{call}```\n"


@functools.cache
def _attentions() -> dict[str, str]:
    """Published attention -> its section of their page."""
    found = _ATTENTION.findall((DOCS / "attentions.md").read_text(encoding="utf-8"))
    named = patterns.named_attentions()
    return {name: body for name, body in found if name in named}


def _attention_page(name: str, body: str) -> str:
    """Pictures, words, formula and call of one attention."""
    attention = library.attention(name)
    body = body.replace("```text\nattention", "```attn\nattention")
    body = re.sub(r"\]\((?!https?:|#)([^)]+)\)", lambda m: f"]({_from_gallery(m[1])})", body)
    shown = re.sub(
        r"\n\s*", "", "".join(re.findall(r"<svg.*?</svg>", attention._repr_html_(), re.DOTALL))
    )
    call = f"```python\n{_attention_call(attention)}```\n"
    return f"# {name}\n\n<div>{shown}</div>\n\n{body}\n## Call it\n\n{call}"


def _attention_call(attention: attndsl.Attention) -> str:
    """A program that calls it on random tensors, as small as its expressions allow."""
    subject = AttentionSubject(attention, ())
    few = {"batch": 1, "heads": 4, "kv_heads": 4, "head_dim": 16, "value_dim": 16}
    cases = (draw_case(subject.frame, Random(seed), 64, **few) for seed in itertools.count())
    case = subject.fitted(next(each for each in cases if each.q_len == each.k_len >= 16))
    members = max(
        part.member[1] if part.member else 1 for term in attention.ir.terms for part in term.parts
    )
    rows = _ROWS.get(attention.name)  # as default parameters ask
    given = {
        each.name: _random(
            rows if dim in ("n", "buckets") and rows else size
            for dim, size in zip(each.dims, case.inputs[each.name].shape, strict=True)
        )
        for each in attention.inputs
    }
    for each in attention.ir.key_inputs:
        given[each] = f"({_random((1, 4, 3, 16))}, {_random((1, 4, 3, 16))})"
    if case.extents:
        given["extents"] = repr(dict(case.extents))
    told = "".join(f", {key}={value}" for key, value in given.items())
    return (
        "import attndsl\nimport torch\n\n"
        f"q, k = (torch.randn(1, {4 * members}, {case.q_len}, 16) for _ in range(2))\n"
        f"v = torch.randn(1, 4, {case.k_len}, 16)\n"
        f'out = attndsl.compile("{attention.name}")(q, k, v{told})\n'
    )


def _random(shape: Iterable[int]) -> str:
    return f"torch.rand({', '.join(map(str, shape))})"


def _from_gallery(link: str) -> str:
    path, _, anchor = link.partition("#")
    target = (DOCS / path).resolve()
    there = target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else _page_of(target)
    return f"../{there}" + (f"#{anchor}" if anchor else "")


def _picture(shown: Any) -> str:
    """The whole mask as SVG, and beside a grid the keys that the query in its middle sees."""
    length, keys, heads = shown.q.shape[2], shown.k.shape[2], shown.q.shape[1]
    told = {"extents": shown.extents, "inputs": shown.inputs, "batch": shown.q.shape[0]}
    sheets = [shown.pattern.picture(length, keys, heads, **told)]
    if shown.pattern.ir.keys.segments:
        sheets.append(shown.pattern.picture(length, keys, heads, query=length // 2, **told))
    drawn = "".join(re.sub(r"\n\s*", "", sheet.svg()) for sheet in sheets)
    return f"<div>{drawn}</div>"


def _linked(page: Path) -> list[Path]:
    """Files and folders of the repository beside the pages that a page links to."""
    links = (match[1] for match in _LINK.finditer(page.read_text(encoding="utf-8")))
    targets = ((page.parent / link).resolve() for link in links)
    return [x for x in targets if x.exists() and x.is_relative_to(ROOT) and not _is_page(x)]


def _is_page(target: Path) -> bool:
    return target.is_relative_to(DOCS) and target.suffix in (".md", ".png", ".svg", ".ipynb")


def _shown(folder: Path) -> list[Path]:
    return sorted(x for x in folder.iterdir() if x.suffix in (*_LANGUAGES, ".md"))


def _page_of(target: Path) -> str:
    path = target.relative_to(ROOT).as_posix()
    return f"source/{path}/index.md" if target.is_dir() else f"source/{path}.md"


def _origin(uri: str) -> Path:
    """The file that a page of the site is made of."""
    if not uri.startswith("source/"):
        return DOCS / uri
    path = uri.removeprefix("source/").removesuffix(".md")
    return ROOT / (path if (ROOT / path).is_file() else f"{path}.md")


def _source_page(target: Path) -> str:
    name = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        listed = "\n".join(f"- [{x.name}]({x.name}.md)" for x in _shown(target))
        return f"# {name}/\n\n{listed}\n"
    text = target.read_text(encoding="utf-8")
    if target.suffix == ".md":
        return text
    return f"# {name}\n\n````{_LANGUAGES.get(target.suffix, 'text')}\n{text}````\n"


def _relative(target: str, uri: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(uri) or ".")
