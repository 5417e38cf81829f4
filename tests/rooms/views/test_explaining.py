"""Explanations: what they say is what was counted, and tools can read it."""

import json

import pytest

from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.views import DEVICES, Arrangement, Device, Explanation, arrangement


def explained(text: str, length: int, heads: int = 1) -> Explanation:
    p = Program(frontend.elaborate(syn.parse(text)))
    call = p.call(length, length, 1, heads, None, {})

    def counted(layout: str, size: int) -> Arrangement:
        tile = size, size
        parts = [part.schedule(tile) for part in p.parts(call, layout, tile)]
        return arrangement(layout, parts, 64, heads)

    return Explanation(
        "p", p.mask.root, (("normalise", p.normal.root),), {"causal": "proved"}, length, length,
        heads, 64, counted("natural", 128), counted("auto", 128), counted("auto", 64),
    )  # fmt: skip


def test_a_split_pattern_is_told_part_by_part():
    found = explained("pattern p = strided(128)", 8192, heads=8)
    assert found.natural.live == 8 * 2080
    assert found.auto.live == 8 * (127 + 64)
    text = str(found)
    assert "after normalise" in text
    assert ir.show(found.meaning) in text
    assert "part 2: 512 tiles live" in text
    assert "64 in the order by q % 128" in text
    assert 'layout="auto" computes 1,528 tiles instead of 16,640' in found.advice


def test_a_pattern_that_stays_in_order_gets_no_advice_to_move():
    found = explained("pattern p = causal", 4096)
    assert "the natural order is the cheapest" in str(found)
    assert not any("layout" in advice for advice in found.advice)


def test_the_record_is_plain_data():
    found = explained("pattern p = dilated(64, 8)", 8192)
    record = json.loads(json.dumps(found.record()))
    assert record["layouts"]["auto"]["live"] == 176
    (part,) = record["layouts"]["auto"]["parts"]
    assert part["classes"][0]["partial"] == 176
    assert part["cost"]["pairs"] == record["cost"]["pairs"]
    assert set(record["layouts"]["auto"]["roofline_seconds"]) == {each.name for each in DEVICES}


def test_the_roofline_is_the_slower_of_arithmetic_and_memory():
    device = Device("toy", flops=100.0, bandwidth=10.0)
    assert device.least_time(1000.0, 20.0) == 10.0
    assert device.least_time(100.0, 20.0) == 2.0
    found = explained("pattern p = causal", 1024)
    forward, backward = found.natural.seconds(device)
    (price,) = found.natural.costs
    assert forward == pytest.approx(max(price.forward_flops / 100, price.forward.compulsory / 10))
    assert backward == pytest.approx(
        max(price.backward_flops / 100, price.backward.compulsory / 10)
    )
