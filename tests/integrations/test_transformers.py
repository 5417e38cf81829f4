"""Models of transformers give with `attn_implementation="attndsl"` what they give eagerly."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import transformers

import attndsl
from attndsl.integrations import transformers as integration
from tests.support.model_families import DECODERS, OTHERS, TOKENS, decoder, prompt

ROUNDING = 2e-5  # of logits near 1, in float32, through two layers

transformers.logging.set_verbosity_error()


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    integration.register()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The masks of the attentions that were run here."""
    seen: list[Any] = []
    run = integration.attention_forward

    def heard(module: Any, q: Any, k: Any, v: Any, mask: Any, *args: Any, **given: Any) -> Any:
        seen.append(mask)
        return run(module, q, k, v, mask, *args, **given)

    transformers.AttentionInterface.register(integration.NAME, heard)
    yield seen
    transformers.AttentionInterface.register(integration.NAME, run)


def logits(model: Any, given: dict[str, Any], implementation: str) -> torch.Tensor:
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        return model(**given).logits


def check_equal(found: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None) -> None:
    if mask is not None and found.shape[:2] == mask.shape:
        found, wanted = found[mask.bool()], wanted[mask.bool()]
    torch.testing.assert_close(found, wanted, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("padding", [{"left": 5}, {"right": 4}, {}], ids=["left", "right", "none"])
@pytest.mark.parametrize("family", DECODERS)
def test_a_prompt_gives_the_logits_of_eager(family: str, padding: dict[str, int], calls: list[Any]):
    model, given = decoder(family), prompt(**padding)
    found = logits(model, given, integration.NAME)
    check_equal(found, logits(model, given, "eager"), given["attention_mask"])
    assert len(calls) == model.config.get_text_config().num_hidden_layers
    assert all(isinstance(mask, integration.PatternMask) for mask in calls)


@pytest.mark.parametrize("family", OTHERS)
def test_encoders_images_and_sound_give_the_logits_of_eager(family: str, calls: list[Any]):
    model, given = OTHERS[family]()
    found = logits(model, given, integration.NAME)
    check_equal(found, logits(model, given, "eager"), given.get("attention_mask"))
    assert len(calls) >= 2


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("family", DECODERS)
def test_a_model_writes_what_it_writes_eagerly(family: str, cache: str):
    model, given = decoder(family), prompt(left=5)
    options = {"max_new_tokens": 12, "do_sample": False, "use_cache": cache != "none"}
    if cache == "static":
        options["cache_implementation"] = cache
    wanted = model.generate(**given, **options)
    model.set_attn_implementation(integration.NAME)
    assert torch.equal(model.generate(**given, **options), wanted)


FULL = [
    name
    for name, (_, said) in DECODERS.items()
    if not {"sliding_window", "attention_chunk_size"} & {*said}
]


@pytest.mark.parametrize("family", FULL)
def test_a_quantised_cache_is_read_as_it_is_read_eagerly(family: str):
    """From equal contents: rounding may fall on the other side of a step where each writes its own."""
    model, given = decoder(family), prompt(left=5)
    cache = transformers.QuantizedCache("fp8", model.config)
    mask = torch.cat([given["attention_mask"], torch.ones(2, 3, dtype=torch.long)], 1)
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    with torch.no_grad():
        model(**given, **{name: cache})
    more = {"input_ids": given["input_ids"][:, :3], "attention_mask": mask}
    copies = [{**more, name: copy.deepcopy(cache)} for _ in range(2)]
    found = logits(model, copies[0], integration.NAME)
    check_equal(found, logits(model, copies[1], "eager"), None)
    assert copies[0][name].get_seq_length() == TOKENS + 3


@pytest.mark.parametrize("family", ["Llama", "Qwen 3"])
def test_a_model_writes_with_a_quantised_cache_what_it_writes_eagerly(family: str):
    pytest.importorskip("hqq")
    model, given = decoder(family), prompt(left=5)
    config = {
        "backend": "hqq",
        "nbits": 4,
        "axis_key": 1,
        "axis_value": 1,
        "q_group_size": 16,
        "residual_length": 4,
    }
    options = {"max_new_tokens": 12, "do_sample": False, "cache_implementation": "quantized"}
    wanted = model.generate(**given, **options, cache_config=config)
    model.set_attn_implementation(integration.NAME)
    assert torch.equal(model.generate(**given, **options, cache_config=config), wanted)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Llama 4", "gpt-oss"])
def test_packed_rows_do_not_see_each_other(family: str):
    model, given = decoder(family), prompt()
    lengths = [9, TOKENS - 9]
    places = torch.cat([torch.arange(n) for n in lengths]).expand(2, TOKENS)
    packed = {"input_ids": given["input_ids"], "position_ids": places, "use_cache": False}
    found = logits(model, packed, integration.NAME)
    torch.testing.assert_close(found, logits(model, packed, "eager"), atol=ROUNDING, rtol=0)
    alone = logits(model, {"input_ids": given["input_ids"][:, :9]}, integration.NAME)
    torch.testing.assert_close(found[:, :9], alone, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", ["Llama", "Gemma 2", "gpt-oss"])
def test_a_training_step_has_the_gradients_of_eager(family: str, checkpointed: bool):
    eager = decoder(family).train()
    ours = copy.deepcopy(eager)
    ours.set_attn_implementation(integration.NAME)
    if checkpointed:
        ours.activation_checkpointing_enable()
    given = prompt()
    for model in (eager, ours):
        model(**given, labels=given["input_ids"]).loss.backward()
    named = dict(eager.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted = named[name].grad
        if wanted is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=1e-4, msg=name)


def test_a_compiled_model_gives_the_logits_of_eager():
    model, given = decoder("Mistral"), prompt(left=5)
    wanted = logits(model, given, "eager")
    model.set_attn_implementation(integration.NAME)
    with torch.no_grad():
        found = torch.compile(model, backend="eager")(**given).logits
    check_equal(found, wanted, given["attention_mask"])


def test_a_pattern_of_ones_own_is_joined_with_the_mask_of_the_model():
    model, given = decoder("Llama"), prompt(left=5)
    plain = logits(model, given, "eager")
    integration.use(model, "causal_window", w=8)
    windowed = logits(model, given, integration.NAME)
    assert not torch.allclose(windowed[:, 12:], plain[:, 12:], atol=1e-3)
    integration.use(model, "true")
    check_equal(logits(model, given, integration.NAME), plain, given["attention_mask"])
    integration.use(model, None)
    check_equal(logits(model, given, integration.NAME), plain, given["attention_mask"])


def test_a_window_put_into_a_model_is_the_window_of_a_family_that_has_one():
    given = prompt(left=5)
    mistral = decoder("Mistral")
    config = copy.deepcopy(mistral.config)
    config.sliding_window = None
    llama = type(mistral)(config).eval()
    llama.load_state_dict(mistral.state_dict())
    integration.use(llama, "q - k < 8")
    found = logits(llama, given, integration.NAME)
    check_equal(found, logits(mistral, given, "eager"), given["attention_mask"])


def test_a_pattern_may_be_put_into_some_layers_and_in_place_of_the_mask():
    model, given = decoder("Llama"), prompt(left=5)
    integration.use(model, "true", layers=[0], keep_mask=False)
    first = logits(model, given, integration.NAME)
    changed = {**given, "input_ids": given["input_ids"].clone()}
    changed["input_ids"][:, -1] = 7
    moved = (logits(model, changed, integration.NAME) - first)[1, 5].abs().max()
    assert moved > 1e-5, "an earlier token sees the last one"
    padded = {**given, "input_ids": given["input_ids"].clone()}
    padded["input_ids"][0, 0] = 7
    check_equal(logits(model, padded, integration.NAME), first, given["attention_mask"])


def test_a_pattern_of_ones_own_may_read_inputs():
    model, given = decoder("Llama"), prompt(left=5)
    doc = torch.tensor([[0] * 12 + [1] * 20, [0] * 9 + [1] * 23])
    integration.use(model, "documents", inputs={"doc": doc})
    found = logits(model, given, integration.NAME)
    same = doc[:, None, :TOKENS, None] == doc[:, None, None, :TOKENS]
    seen = (
        same
        & torch.ones(TOKENS, TOKENS).tril().bool()
        & given["attention_mask"].bool()[:, None, None]
    )
    bias = torch.where(seen, 0.0, torch.finfo().min)
    places = {"position_ids": (given["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    integration.use(model, None)
    wanted = logits(
        model, {"input_ids": given["input_ids"], "attention_mask": bias, **places}, "eager"
    )
    placed = {**given, **places}
    integration.use(model, "documents", inputs={"doc": doc})
    check_equal(logits(model, placed, integration.NAME), wanted, given["attention_mask"])
    options = {"max_new_tokens": 6, "do_sample": False}
    written = [model.generate(**given, **options, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*written)
    doc[:] = 0
    assert not torch.allclose(logits(model, given, integration.NAME), found)
    for pattern, inputs, said in [
        ("documents", {}, "no input doc"),
        ("causal", {"doc": doc}, "has no input doc"),
    ]:
        with pytest.raises(attndsl.AttnDslError, match=said):
            integration.use(model, pattern, inputs=inputs)


def test_a_mask_written_out_and_one_that_is_added_are_obeyed():
    model, given = decoder("Gemma 2"), prompt()
    seen = torch.ones(2, 1, TOKENS, TOKENS).tril().bool()
    seen[:, :, 9:, 3] = False
    added = torch.where(seen, 0.5 * torch.rand(2, 1, TOKENS, TOKENS), torch.finfo().min)
    for mask in (seen, added):
        asked = {"input_ids": given["input_ids"], "attention_mask": mask}
        as_added = mask if mask.is_floating_point() else torch.where(mask, 0.0, torch.finfo().min)
        eager = {**asked, "attention_mask": as_added}
        check_equal(logits(model, asked, integration.NAME), logits(model, eager, "eager"), None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dropout": 0.1}, "attention dropout"),
        ({"output_attentions": True}, "never written out"),
        ({"attention_mask": None, "sliding_window": 4}, "gives no mask"),
        ({"attention_mask": object()}, "a mask is no object"),
    ],
)
def test_what_would_be_ignored_is_refused(change: dict[str, Any], said: str):
    q = k = v = torch.randn(1, 2, 5, 8)
    given = {"attention_mask": None, **change}
    with pytest.raises(attndsl.AttnDslError, match=said):
        integration.attention_forward(torch.nn.Module(), q, k, v, **given)


def test_a_mask_of_another_call_is_refused():
    q = k = v = torch.randn(1, 2, 5, 8)
    mask = integration.pattern_mask(1, 4, 4)
    with pytest.raises(attndsl.AttnDslError, match="another call"):
        integration.attention_forward(torch.nn.Module(), q, k, v, mask)


def test_a_mask_is_written_out_where_a_model_asks_for_its_entries():
    mask = integration.pattern_mask(2, 3, 5, q_offset=2)
    assert mask.shape == (2, 1, 3, 5)
    wanted = torch.ones(5, 5).tril().bool()[2:].expand(2, 1, 3, 5)
    assert torch.equal(mask.to_dense(), wanted)
    assert torch.equal(mask[:, :, -1:, :4], wanted[:, :, -1:, :4])


def test_patterns_that_do_not_fit_a_model_are_refused():
    model = decoder("Llama")
    for pattern, said in [("alibi", "this is an attention"), ("documents", "no input doc")]:
        with pytest.raises(attndsl.AttnDslError, match=said):
            integration.use(model, pattern)
    with pytest.raises(attndsl.AttnDslError, match="several attentions of one layer number"):
        integration.use(OTHERS["Whisper"]()[0], "causal")
    with pytest.raises(attndsl.AttnDslError, match="no attention layer 7"):
        integration.use(model, "causal", layers=[7])
