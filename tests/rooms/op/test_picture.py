"""``Pattern.picture``: pairs, tiles before and after, and one query, as SVG, PNG and text."""

from xml.etree import ElementTree as ET

import torch

import attndsl
from attndsl import views


def titles(sheet: views.Sheet) -> list[str]:
    ET.fromstring(sheet.svg())
    assert sheet.png().startswith(b"\x89PNG")
    return [picture.title for picture in sheet.pictures]


def test_pairs():
    p = attndsl.compile("causal_window", w=3)
    (picture,) = p.picture(6).pictures
    assert torch.equal(torch.from_numpy(picture.cells).bool(), p.mask(6)[0, 0])


def test_tiles_before_and_after():
    p = attndsl.compile("strided", s=32)
    assert titles(p.picture(512, tile=64)) == ["strided, natural order"]
    assert titles(p.picture(512, layout="residues(32)")) == [
        "strided, natural order",
        "residues(32)",
    ]
    parts = p.picture(1024, tile=32, layout="auto")
    assert titles(parts)[1:] == ["part 1: natural", "part 2: by q % 32"]
    natural, *rest = (int((picture.cells > 0).sum()) for picture in parts.pictures)
    assert natural == p.schedule(1024, tile=(32, 32)).plan().live
    assert rest == [each.plan().live for each in p.parts(1024, tile=(32, 32))]


def test_one_query_on_its_grid():
    p = attndsl.compile("neighborhood2d", sy=3)
    (picture,) = p.picture(25, query=-1, extents={"y": 5}).pictures
    assert picture.title == "neighborhood2d, query 24"
    expected = p.mask(25, extents={"y": 5})[0, 0, 24].reshape(5, 5)
    assert torch.equal(torch.from_numpy(picture.cells > 0), expected)


def test_heads_and_inputs():
    text = "input doc: int[batch, pos]\npattern p = doc[q] == doc[k] and (head == 0 or causal)"
    doc = torch.arange(8)[None] // 4
    one, two = (attndsl.compile(text).picture(8, heads=2, head=h, doc=doc) for h in (0, 1))
    assert (one.pictures[0].cells.sum(), two.pictures[0].cells.sum()) == (32, 20)
