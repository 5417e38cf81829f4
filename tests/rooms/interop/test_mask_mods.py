"""A mask_mod is a pattern: the pairs are those of torch's own `create_mask`."""

import ast
import functools
import importlib
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.flex_attention import and_masks, create_block_mask, create_mask, or_masks

import attndsl
from tests.support.block_masks import same
from tests.support.mask_mods import MaskMods

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A2"
B, H, Q, K = 2, 2, 13, 17


def causal(b, h, q_idx, kv_idx):
    """Keys up to the query's own."""
    return q_idx >= kv_idx


def agree(mask_mod, sizes=(B, H, Q, K)):
    batch, heads, q_len, k_len = sizes
    p = attndsl.from_mask_mod(mask_mod)
    wanted = create_mask(mask_mod, *sizes, "cpu")
    assert torch.equal(p.mask(q_len, k_len, heads, batch=batch), wanted)
    blocks = p.schedule(q_len, k_len, heads, batch=batch, tile=(4, 4))
    covers = [[torch.from_numpy(blocks.cover(b, h)) for h in range(heads)] for b in range(batch)]
    assert torch.equal(torch.stack([torch.stack(row) for row in covers]), wanted)
    return p


@pytest.mark.parametrize(
    "seeds", [range(25), pytest.param(range(25, 325), marks=pytest.mark.slow)], ids=["25", "300"]
)
def test_random_functions_are_what_torch_makes_of_them(seeds):
    for seed in seeds:
        made = MaskMods(seed, Q, K).truth(2)
        try:
            agree(lambda b, h, q, k, made=made: made(b, h, q, k))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize("divisor", [-7, -1, 1, 3])
@pytest.mark.parametrize(
    "operation",
    [
        lambda x, d: x // d, lambda x, d: x % d, torch.fmod, lambda x, d: torch.div(x, d, rounding_mode="trunc"),
        lambda x, d: d // (x.abs() + 1), lambda x, d: x % (d * (x.abs() + 1)), lambda x, d: (x >> 2) & d,
    ],
    ids=["floor", "modulo", "fmod", "trunc", "reverse", "varying", "bits"],
)  # fmt: skip
def test_quotients_round_as_torch_rounds_them(operation, divisor):
    agree(lambda b, h, q, k: operation(q - k, divisor) == 2 - (q % 4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_numbers_beside_small_integers_wrap_as_torch_wraps_them(dtype):
    table = (torch.arange(K) * 37).to(dtype)
    agree(lambda b, h, q, k: table[k] >= -4)
    agree(lambda b, h, q, k: table[k] // -4 == table[q] * 5 - 90)
    agree(lambda b, h, q, k: torch.where(q > k, table[k], -4) > 100)


def test_captured_tensors_are_inputs_by_their_names_and_by_reference():
    doc, keep, depth = torch.arange(K) // 5, torch.ones(B, K, dtype=torch.bool), torch.tensor(3)

    def packed(b, h, q_idx, kv_idx):
        return (doc[q_idx] == doc[kv_idx]) & keep[b, kv_idx] & (q_idx - kv_idx < depth)

    p = agree(packed)
    dims = {table.name: table.dims for table in p.ir.tables}
    assert dims == {"doc": ("n0",), "keep": ("batch", "n1"), "depth": ("n0",)}
    assert p.captured["doc"] is doc
    assert p.captured["keep"] is keep
    doc[:] = 0
    keep[1, 3] = False
    depth.fill_(6)
    assert torch.equal(p.mask(Q, K, batch=B), create_mask(packed, B, 1, Q, K, "cpu"))
    q = torch.randn(B, H, K, 8)
    other = torch.arange(K) // 2
    assert torch.equal(p(q, q, q, doc=other), p(q, q, q, inputs={"doc": other}))
    assert not torch.equal(p(q, q, q, doc=other), p(q, q, q))


def test_parts_of_captured_tensors_are_read_where_they_are_indexed():
    spans = torch.tensor([[0, 7], [3, 9], [9, 13], [5, 5], [0, 1]])

    def spanned(b, h, q_idx, kv_idx):
        first, last = spans[kv_idx // 4]
        return (first <= q_idx) & (q_idx < last) & (q_idx < spans[kv_idx // 4][1])

    assert agree(spanned).captured["spans"] is spans


def test_rows_of_captured_tensors_are_compared_entry_by_entry():
    picked = torch.tensor([[0, 2, -1], [1, 1, 3], [4, 0, 2], [3, 3, 3]])

    def chosen(b, h, q_idx, kv_idx):
        row = picked[q_idx // 4]
        near = (row - 1 == kv_idx.unsqueeze(-1) % 7).any(dim=-1)
        return (row == (kv_idx // 4).unsqueeze(-1)).any(-1) | near & ~(row > 3).all(-1)

    p = agree(chosen)
    wider = torch.cat([picked, torch.tensor([[4], [4], [0], [4]])], 1)
    found, picked = p.mask(Q, K, inputs={"picked": wider}), wider
    assert torch.equal(found, create_mask(chosen, 1, 1, Q, K, "cpu"))


def test_rows_that_are_not_joined_or_of_two_tensors_are_refused():
    one, other = torch.zeros(9, 3, dtype=torch.long), torch.zeros(9, 2, dtype=torch.long)
    for mod, said in [
        (lambda b, h, q, k: one[q] == k, "gives a truth value for each pair"),
        (lambda b, h, q, k: one[q].sum() == k, "`sum` gives many numbers"),
        (lambda b, h, q, k: (one[q] == other[k][0].unsqueeze(-1)).any() & (one[q] == other[k]).any(), "rows of two"),
    ]:  # fmt: skip
        with pytest.raises(attndsl.AttnDslError, match=said):
            attndsl.compile(mod)


def test_a_tensor_that_is_too_short_is_refused():
    doc = torch.arange(9)
    p = attndsl.from_mask_mod(lambda b, h, q, k: doc[q] == doc[k])
    with pytest.raises(attndsl.AttnDslError) as caught:
        p.mask(10)
    assert caught.value.code == "A501"


def test_functions_are_joined_and_their_arguments_set():
    def window(b, h, q_idx, kv_idx, *, width=2):
        return q_idx - kv_idx < width

    near = functools.partial(window, width=4)
    p = agree(or_masks(and_masks(causal, near), lambda b, h, q, k: k < 2))
    text = "k <= q and q - k < 4 or k < 2"
    assert attndsl.equivalent(p, attndsl.compile(text, align="start"))
    assert attndsl.compile(causal) == attndsl.compile("causal", align="start")
    assert attndsl.compile(causal, align="end") == attndsl.compile("causal")
    assert attndsl.compile(causal).name == "causal"
    assert attndsl.compile(causal).doc == "Keys up to the query's own."


GYM = {
    "causal.causal_mask": (),
    "sliding_window.generate_sliding_window": (3,),
    "dilated_sliding_window.generate_dilated_sliding_window": (8, 2),
    "prefix_lm.generate_prefix_lm_mask": (5,),
    "document_mask.generate_doc_mask_mod": (causal, torch.tensor([0, 5, 11, 24])),
    "document_mask.generate_packed_causal_doc_mask_mod": (torch.tensor([0, 5, 11, 24]),),
    "shared_prefix.generate_shared_prefix_mask_mod": (torch.tensor([0, 5, 11, 24]), torch.tensor([0, 0, 2])),
    "natten.generate_natten": (6, 4, 3, 3),
    "natten.generate_tiled_natten": (6, 4, 3, 3, 2, 2),
    "natten.generate_morton_natten": (4, 4, 3, 3),
    "batchify.batchify_mask_mod": (causal, 6),
    "block_diffusion.generate_block_diffusion_mask": (12, 4),
    "flamingo.generate_vision_cross_attention_mask_mod": (torch.tensor([[0, 7], [1, 7], [7, 12]]), 8),
    "global_sliding_window.generate_global_sliding_window": (3, torch.arange(24) % 11 == 0),
    "jetspec.generate_jetspec_tree_causal_mask_mod": (0, torch.ones(24, 24, dtype=torch.bool).tril()),
    "jetspec.generate_jetspec_training_mask_mod": (4, 5),
    "sta.generate_sta_mask_mod_2d": ((4, 4), (4, 2), (2, 2), 3),
    "sta.generate_sta_mask_mod_3d": ((2, 2, 4), (2, 2, 2), (1, 2, 2), 3),
    "svg.generate_spatial_head_mask_mod": (5, 3, 6, 2, True, 4),
    "svg.generate_temporal_head_mask_mod": (5, 3, 6, 2),
    "vsa.generate_vsa_mask_mod": (torch.tensor([[[[0, 2], [1, 4], [5, 0], [3, 2], [0, 0], [4, 5]]]]), 4),
    "vsa.generate_vsa_padding_mask_mod": (torch.tensor([4, 3, 1, 4, 2, 4]), 4),
}  # fmt: skip


@pytest.mark.parametrize("name", GYM)
def test_the_functions_of_attention_gym_are_patterns(name):
    pytest.importorskip("attn_gym")
    module, function = name.split(".")
    made = getattr(importlib.import_module(f"attn_gym.masks.{module}"), function)
    mod = made(*GYM[name]) if GYM[name] else made
    agree(mod, (1, 1, 24, 24))
    for block in (8, 10):  # one divides 24 tokens
        sizes = (1, 1, 24, 24, "cpu", block)
        same(attndsl.flex.create_block_mask(mod, *sizes), create_block_mask(mod, *sizes))


def test_all_functions_of_attention_gym_are_here():
    gym = pytest.importorskip("attn_gym")
    folder = Path(gym.__file__).parent / "masks"
    found = {
        f"{path.stem}.{node.name}"
        for path in folder.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and re.match("generate_(?!random)|causal_mask$|batchify", node.name)
    }
    assert found == GYM.keys()


# ---------------------------------------------------------------------------- what is refused


def branches(b, h, q_idx, kv_idx):
    if q_idx > 3:
        return q_idx >= kv_idx
    return kv_idx < 4


def reals(b, h, q_idx, kv_idx):
    return q_idx / 2 > kv_idx


def float_bound(b, h, q_idx, kv_idx):
    return q_idx - kv_idx < 4.5


def random_pairs(b, h, q_idx, kv_idx):
    return torch.rand(()) < q_idx


SEEN = torch.zeros(8, dtype=torch.int64)
WEIGHTS = torch.zeros(8)


def side_effect(b, h, q_idx, kv_idx):
    SEEN.add_(1)
    return SEEN[q_idx] == SEEN[kv_idx]


def unknown_operation(b, h, q_idx, kv_idx):
    return torch.gcd(q_idx, kv_idx) == 1


def vector(b, h, q_idx, kv_idx):
    return (q_idx >= SEEN).sum() == kv_idx


def real_table(b, h, q_idx, kv_idx):
    return WEIGHTS[q_idx] > 0


def no_truth_value(b, h, q_idx, kv_idx):
    return q_idx - kv_idx


def computed_first(b, h, q_idx, kv_idx):
    starts = SEEN.cumsum(0)
    return starts[q_idx] == starts[kv_idx]


def number_read(b, h, q_idx, kv_idx):
    return q_idx - kv_idx < int(SEEN.max())


def without_bounds(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx) & (kv_idx - q_idx) == 0


COUNT, NUMBERS = SimpleNamespace(calls=0), itertools.count()


def counts(b, h, q_idx, kv_idx):
    COUNT.calls += 1
    return q_idx >= kv_idx


def another_each_time(b, h, q_idx, kv_idx):
    return q_idx - kv_idx < next(NUMBERS)


NOTED: list[int] = []


def notes(b, h, q_idx, kv_idx):
    NOTED.append(1)
    return q_idx >= kv_idx


@pytest.mark.parametrize(
    "function",
    [
        notes, counts, branches, reals, float_bound, random_pairs, side_effect, unknown_operation, vector, real_table,
        no_truth_value, computed_first, number_read, without_bounds, another_each_time,
    ],
)  # fmt: skip
def test_what_is_not_translated_is_named_at_its_line(function, golden):
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile(function)
    assert caught.value.code == "A218"
    text = str(caught.value).replace(str(Path(__file__).parent), "")
    text = re.sub(r"(?m)^ *\d* \|", "    |", re.sub(r"(?m)^ +--> /(\w+\.py)\S*$", r" --> \1", text))
    golden(GOLDEN / "mask_mods" / f"{function.__name__}.err", text + "\n")


def test_other_functions_are_no_patterns():
    for source in (lambda q, k: q >= k, 3.0):
        with pytest.raises(attndsl.AttnDslError) as caught:
            attndsl.compile(source)
        assert caught.value.code == "A211"
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile(causal, w=3)
    assert caught.value.code == "A211"
