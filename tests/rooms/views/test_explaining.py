"""Explanations: what they say is what was counted, and tools can read it."""

import json

import pytest

import attndsl
from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.views import DEVICES, Arrangement, Device, Explanation, arrangement


def explained(text: str, length: int, heads: int = 1) -> Explanation:
    p = Program(frontend.elaborate(syn.parse(text)))
    call = p.call(length, length, 1, heads, None, {})

    def counted(layout: str, size: int) -> Arrangement:
        tile = size, size
        parts = [part.schedules[tile] for part in p.tiled(call, layout, tile)]
        return arrangement(layout, parts, 64, heads)

    return Explanation(
        "p", p.mask.root, (("normalise", p.normal.root),), {"causal": "proved"}, length, length,
        heads, 64, counted("natural", 128), counted("auto", 128), (counted("auto", 64),),
    )  # fmt: skip


def test_a_split_pattern_is_told_part_by_part():
    found = explained("pattern p = strided(128)", 8192, heads=8)
    assert found.natural.cost.live == 8 * 2080
    assert found.auto.cost.live == 8 * (127 + 64)
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
    (tile_costs,) = found.natural.costs
    assert forward == pytest.approx(
        max(tile_costs.forward_flops / 100, tile_costs.forward.compulsory / 10)
    )
    assert backward == pytest.approx(
        max(tile_costs.backward_flops / 100, tile_costs.backward.compulsory / 10)
    )


def test_parts_are_counted_together():
    found = explained("pattern p = strided(128)", 4096, heads=2)
    parts, whole = found.auto.costs, found.auto.cost
    assert len(parts) == 2
    for name in ("full", "partial", "pairs", "forward_flops", "backward_flops", "index_bytes"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    assert whole.forward.streamed == sum(part.forward.streamed for part in parts)
    assert (
        whole.pairs
        == found.natural.cost.pairs
        == 2 * sum(min(q + 1, 128) + max(0, q // 128) for q in range(4096))
    )
    assert whole.pairs_of_square == 2 * 4096**2
    text = str(found)
    assert f"{whole.live:,} of {whole.tiles:,} live" in text
    assert f"{found.natural.cost.live:,} of {whole.tiles:,} live" in text


def test_every_part_says_how_its_masks_are_decided():
    found = attndsl.compile("strided", s=16).explanation(2048, heads=2)
    assert len(found.auto.partial) == len(found.auto.parts) == 2
    assert all("operation" in words for words in found.auto.partial)
    parts = found.record()["layouts"]["auto"]["parts"]
    assert [part["partial"] for part in parts] == list(found.auto.partial)


def test_times_on_a_processor_and_over_dense():
    pattern = attndsl.compile("dilated", left=64, d=8)
    found = pattern.explanation(8192, heads=4)
    assert found.clock is not None
    times = found.clock.seconds
    told = pattern.predict(8192, heads=4)
    assert times["auto"] == (told.forward, told.backward)
    assert sum(times["auto"]) < sum(times["natural"]) < sum(times["dense"])
    gain = sum(times["dense"]) / sum(times["auto"])
    assert f"{gain:.3g} times as fast as dense" in str(found)
    for device in DEVICES:
        ours, dense = found.auto.seconds(device), found.auto.dense_seconds(device)
        assert ours[0] < dense[0]
        assert ours[1] < dense[1]


def test_the_tile_that_computes_least_is_advised_with_its_price():
    found = attndsl.compile("window", left=16).explanation(4096)
    (said,) = (text for text in found.advice if text.startswith("tiles of"))
    best = min(found.tiles, key=lambda each: each.cost.forward_flops).cost
    assert said.startswith(f"tiles of {best.tile[0]} x {best.tile[1]} compute")
    assert not any(
        text.startswith("tiles of") for text in attndsl.compile("full").explanation(4096).advice
    )


def test_a_generated_text_of_many_conditions_is_scheduled_in_no_more_tiles_than_are_told():
    terms = (f"(k <= q - {i} and q % {i + 2} == 1)" for i in range(1, 400))
    found = attndsl.compile(" or ".join(terms)).explanation(64)
    assert found.auto.is_natural
    assert not found.tiles
    assert attndsl.compile("causal").explanation(64).tiles
