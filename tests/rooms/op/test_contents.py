"""Contents of tables are read once; every write is seen, also one that torch does not count."""

import gc

import numpy as np
import pytest
import torch

import attndsl
from attndsl.op import contents
from attndsl.op.contents import Contents, stamp_of

NAMES = ("doc",)


def table() -> torch.Tensor:
    return torch.arange(12).reshape(2, 6) // 3


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reads: list[str] = []
    read = contents.read
    monkeypatch.setattr(contents, "read", lambda name, x: reads.append(name) or read(name, x))
    return reads


def test_a_table_that_stays_as_it_is_is_read_once(monkeypatch: pytest.MonkeyPatch):
    reads, seen, doc = counted(monkeypatch), Contents(), table()
    stamps = [seen.stamp(NAMES, [doc])[0] for _ in range(3)]
    assert len(reads) == 1
    assert set(stamps) == {stamp_of(NAMES, [doc.clone()])[0]}


@pytest.mark.parametrize(
    "view",
    [lambda x: x, lambda x: x[:, 1:5], lambda x: x[:1].expand(3, -1)],
    ids=["whole", "some", "broadcast"],
)
@pytest.mark.parametrize(
    "write",
    [lambda x: x.mul_(5), lambda x: x.numpy().__setitem__((0, 2), 9), lambda x: x.data.add_(1)],
    ids=["torch", "numpy", "data"],
)
def test_a_write_is_seen_however_it_is_made(write, view):
    seen, doc = Contents(), table()
    before = seen.stamp(NAMES, [view(doc)])[0]
    write(doc)
    after, _ = seen.stamp(NAMES, [view(doc)])
    assert after != before
    assert after == stamp_of(NAMES, [view(doc)])[0] == seen.stamp(NAMES, [view(doc)])[0]


@pytest.mark.parametrize("other", [torch.int32, torch.bool, "name", "shape"])
def test_other_dtypes_names_and_shapes_are_told_apart(other):
    seen, doc = Contents(), table() % 2
    stamp = seen.stamp(NAMES, [doc])[0]
    names = ("dco",) if other == "name" else NAMES
    changed = doc if other == "name" else doc.reshape(6, 2) if other == "shape" else doc.to(other)
    assert seen.stamp(names, [changed])[0] != stamp


def test_copies_take_bounded_memory():
    seen = Contents()
    for seed in range(100):
        seen.stamp(NAMES, [torch.full((1 << 18,), seed)])
    assert seen._seen._held <= contents.LARGEST_COPIES


def on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every tensor for one that must be copied to be looked at."""
    monkeypatch.setattr(contents, "_is_near", lambda x: False)


def test_on_other_devices_a_table_is_read_again_when_torch_counts_a_write(
    monkeypatch: pytest.MonkeyPatch,
):
    on_a_device(monkeypatch)
    reads, seen, doc = counted(monkeypatch), Contents(), table()
    first = [seen.stamp(NAMES, [doc[:, :4]])[0] for _ in range(3)]
    assert len(reads) == 1
    doc[1, 2] = 7
    second = [seen.stamp(NAMES, [doc[:, :4]])[0] for _ in range(3)]
    assert len(reads) == 2
    assert len({*first, *second}) == 2
    doc.numpy()[:] = 3  # torch is told of a write that it does not count
    torch.autograd.graph.increment_version(doc)
    assert seen.stamp(NAMES, [doc])[0] == stamp_of(NAMES, [torch.full((2, 6), 3)])[0]


def test_on_other_devices_memory_that_is_used_again_is_another_table(
    monkeypatch: pytest.MonkeyPatch,
):
    on_a_device(monkeypatch)
    seen, room = Contents(), np.zeros(6, np.int64)
    old = torch.from_numpy(room)
    stamp = seen.stamp(NAMES, [old])[0]
    del old
    gc.collect()
    room[:] = 1
    assert seen.stamp(NAMES, [torch.from_numpy(room)])[0] != stamp


def test_tensors_of_inference_have_no_version_and_are_read(monkeypatch: pytest.MonkeyPatch):
    on_a_device(monkeypatch)
    seen = Contents()
    with torch.inference_mode():
        doc = table()
        stamp = seen.stamp(NAMES, [doc])[0]
        doc.add_(1)
        assert seen.stamp(NAMES, [doc])[0] != stamp


def test_a_warm_call_makes_no_digest(monkeypatch: pytest.MonkeyPatch):
    p, doc = attndsl.compile("documents"), table().repeat(1, 8)
    q, k, v = torch.randn(3, 2, 2, 48, 8)
    whole = p(q, k, v, doc=doc)
    monkeypatch.setattr(contents, "digest_of", None)
    assert torch.equal(p(q, k, v, doc=doc), whole)


def test_entries_that_serve_all_heads_are_not_those_that_serve_all_batch_elements():
    p = attndsl.compile("input w: int[batch, head]\npattern p = k <= q and q - k < w")
    q, k, v = torch.randn(3, 2, 2, 40, 8)
    each = torch.tensor([3, 9])
    for w in (each[:, None], each[None], each[:, None].expand(2, 2), each[None].expand(2, 2)):
        torch.testing.assert_close(p(q, k, v, w=w), p(q, k, v, w=w, backend="reference"))
