# ruff: noqa: E501 - a paper is one line
"""Papers that change scores, normalisers, branches or keys: how each is written, or why it is not an attention here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import attndsl

INTRODUCTION: Final = """\
## Forms of further papers

What 86 further papers do to scores, normalisers and keys, by form. A name is one of the attentions on this page or in
the [gallery](gallery.md); a line of the language is whole, for `attndsl.compile`. Projections, norms and gates that come
before or after are the model's own. Where a line says `by text`, the call is given keys and values as `text=(k, v)`.
"""


class Form(NamedTuple):
    """A form, what it does, and the papers that have it: each with a name, a line, or why there is none."""

    name: str
    what: str
    papers: tuple[tuple[str, str], ...]


GATED: Final = (
    "input gate: real[batch, head, q] attention a over causal = gate[q] * (over causal: score s)"
)
PARALLEL: Final = "input w: real[head] attention a over 0 <= k = (by text: score s) + w[head] * (by image: score s)"
UNION: Final = "attention a over 0 <= k = (over 0 <= k: score s) ++ (by reference: score s)"

FORMS: Final = (
    Form("branches", "sums of attentions, each with a softmax of its own", (
        ("ConViT (d'Ascoli et al., 2021)", "convit"),
        ("Differential Transformer (Ye et al., 2025); DiffCLIP (Hammoud and Ghanem, 2025)", "differential"),
        ("LLaMA-Adapter (Zhang et al., 2024)", "llama_adapter"),
        ("Aligner (Ziheng et al., 2023)", "input gate: real[head] attention a over causal = (over causal: score s) + gate[head] * (by tokens: score s)"),
        ("EchoMimic (Chen et al., 2024); Imagine yourself (He et al., 2024): parallel cross-attentions", PARALLEL),
        ("TacoLM (Song et al., 2024): gated attention", GATED),
        ("Interpolation with the mean token, or the identity", "input w: real[head] attention a over causal = (1.0 - w[head]) * (over causal: score s) + w[head] * (over causal: score 0.0)"),
        ("BAM (Zhang et al., 2024): experts of attention", "-Each expert has queries of its own: a call for each, and a sum with the router's gates."),
        ("WuNeng (2025)", "-Its second branch is a recurrent state, which has no pairs."),
        ("Redistribution of what sinks get (Kang et al., 2025)", "-Weights depend on sums of other weights of the row: two calls with `return_lse=True`, whose outputs are weighed by hand."),
    )),
    Form("biases", "a number is added to the score", (
        ("Music Transformer (Huang et al., 2019)", "music_transformer"),
        ("Bayesian attention mechanism (2025): a generalised Gaussian of the distance", "input mu: real[head] input width: real[head] input power: real[head] attention a over causal = score s - exp(power[head] * log(abs((q - k) - mu[head]) / width[head]))"),
        ("Crystalformer (Taniai et al., 2024): potentials between atoms", "input bias: real[batch, head, q, k] attention a over 0 <= k = score s + bias[q, k]"),
        ("CustomVideoX (She et al., 2025): reference tokens by time step", "attention a(n: int = 256, w: real = 0.0) over 0 <= k = score s + (if k < n then w else 0.0)"),
        ("Calibration by priors, weights of keys", "input prior: real[batch, k] attention a over 0 <= k = score s + log(prior[k])"),
        ("ALiBi, KERPLE, T5, Swin, Shaw et al.", "alibi"),
    )),
    Form("scales", "the score is multiplied", (
        ("Selective attention by temperature (Zhang et al., 2024)", "input tau: real[batch, head, q] attention a over causal = score tau[q] * s"),
        ("AtMan (Deiseroth et al., 2023): columns that are turned down", "input f: real[batch, k] attention a over causal = score f[k] * s"),
        ("Scalable softmax (Nakanishi, 2025)", "input w: real[head] attention a over causal = score w[head] * log(q + 1.0) * s"),
        ("Normalised queries and keys (Henry et al., 2020)", "input g: real[head] attention a over causal = score g[head] * dot(q, k) / sqrt(dot(q, q) * dot(k, k))"),
    )),
    Form("normalisers", "weights that are no softmax", (
        ("Softplus attention (Gao et al., 2025)", "attention a over causal = score s weights l1 softplus(s)"),
        ("Sigmoid attention (Ramapuram et al., 2025)", "sigmoid_attention"),
        ("ReLU in place of softmax (Wortsman et al., 2023)", "relu_attention"),
        ("TokenFormer (Wang et al., 2024)", "-GeLU of scores over the Euclidean norm of their row: the norm needs a pass of its own, which no form has."),
        ("Optimal transport, Sinkhorn (Sander et al., 2022)", "-Rows and columns are normalised in turns, some ten times over: `weights columns` is one of them."),
    )),
    Form("mass and factors", "more in the denominator, or behind the softmax", (
        ("Sinks (gpt-oss), softmax plus one (Miller, 2023)", "gpt_oss"),
        ("Infinite prefix (2025): keys and values in the limit of many", "attention a over causal = (over causal: score s) ++ (by prefix: score s)"),
        ("URPE (Luo et al., 2022)", "urpe"),
    )),
    Form("one softmax over several key sets", "`++`", (
        ("DiT4SR (Duan et al., 2025): the image and its low-resolution twin", UNION),
        ("FcaFormer (Zhang et al., 2023): tokens of earlier blocks", UNION),
        ("Mixture of Gaussian keys (Nguyen et al., 2022): some keys a token", "input mix: real[head, 2] attention a over causal = (over causal: score s + log(mix[0])) ++ (by second: score s + log(mix[1]))"),
    )),
    Form("keys from elsewhere", "pooled, learned or latent ones", (
        ("Agent attention (Han et al., 2024)", "attention a over 0 <= k = (by agents: score s)"),
        ("Attentive probing (2024, 2025): latent queries", "attention a over latent_read = score s"),
        ("iFormer (Zheng, 2025); DualToken-ViT (Chu et al., 2023): pooled keys", "attention a over 0 <= k = (by pooled: score s)"),
    )),
    Form("weights without scores", "given, trained or even", (
        ("UniFormer (Li et al., 2022), image and video: trained weights of a neighbourhood", "input table: real[head, 25] attention a over box2d(5) = score table[(k.y - q.y + 2) * 5 + k.x - q.x + 2] weights pointwise s"),
        ("PoolFormer (Yu et al., 2022): means, less the token itself", "attention a over image = (over box2d(3): score 0.0) - (over box2d(1): score 0.0)"),
    )),
    Form("heads", "gates of heads, and which share keys", (
        ("Mixture of heads (Jin et al., 2024)", GATED),
        ("Vision-aware heads (2024): some are turned up", "input gate: real[head] attention a over causal = gate[head] * (over causal: score s)"),
        ("Mixture of attention heads (Zhang et al., 2022)", "-Experts differ in projections: the gates of chosen ones are coefficients, as for a mixture of heads."),
        ("Key-driven grouped queries (Khan et al., 2024)", "-Which heads share keys is a gather of key heads before the call."),
    )),
    Form("maps that serve twice", "weights of one head or layer for another", (
        ("CHAI (Agarwal et al., 2024); Recycle-and-Distill (Jang et al., 2023)", "-Values that share weights are one wide value: v may be wider than q, or `weights` gives short ones."),
    )),
    Form("selections", "keys that scores choose", (
        ("SyCoCa (Ma et al., 2024)", "-The best patches of a text are a [selection](selections.md), `take top n`."),
    )),
    Form("out of scope", "no pairs, or nothing but projections", (
        ("Linear attention and state space models, 19 papers", "-A state of fixed size is no set of pairs. Hybrids add its output to that of an attention, or merge by log-sum-exp."),
        ("GTA, compressed convolutional attention, knocking heads, six more", "-They change projections before or after: call any attention between."),
    )),
)  # fmt: skip


def section() -> Iterator[str]:
    """Lines of the section; every line of the language in it is compiled."""
    yield INTRODUCTION
    for form in FORMS:
        yield f"### {form.name[0].upper() + form.name[1:]}: {form.what}\n"
        yield from ("| paper | written |", "|---|---|")
        for paper, text in form.papers:
            if not text.startswith("-"):
                attndsl.compile(text)
            yield f"| {paper} | {text[1:] if text.startswith('-') else f'`{text}`'} |"
        yield ""
