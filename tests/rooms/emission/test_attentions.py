"""Emitted files of attentions compute what the attentions mean, where there is no attndsl."""

import ast
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl import emission
from attndsl.source import AttnDslError
from tests.rooms.emission.outside import loaded
from tests.rooms.emission.test_emission import HERE, HOSTILE, ROOT, without_kernels


@dataclasses.dataclass(frozen=True)
class Form:
    """An attention; its real inputs by shape, and its other inputs."""

    text: str
    reals: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    more: dict[str, object] = dataclasses.field(default_factory=dict)
    q_len: int = 34
    heads: tuple[int, int] = (2, 1)
    batch: int = 1
    through_lse: bool = False

    @property
    def is_dropped(self) -> bool:
        return "dropout_seed" in self.more


K_LEN = 40
DROPPED = 0.4
DOCUMENTS = torch.arange(K_LEN).expand(2, -1) // 12
FORMS = {
    "alibi and sink": Form(
        "input slope: real[head] input sink: real[head]"
        "attention a over causal = score s - slope[head] * (q - k) mass exp(sink[head])",
        {"slope": (2,), "sink": (2,)},
        through_lse=True,
    ),
    "relative table": Form(
        "input table: real[head, n] input more: real[16]"
        "attention a over causal_window(20) = score s + table[q - k] + more[q % 4 * 4 + k % 4]",
        {"table": (2, 15), "more": (16,)},
    ),
    "soft cap": Form(
        "input c: real[batch, head] "
        "attention a over causal = score c * tanh(s / c)",
        {"c": (2, 1)},
        batch=2,
    ),
    "sigmoid": Form(
        "input b: real[batch, k] attention a over causal = score s + b[k] weights sigmoid",
        {"b": (1, K_LEN)},
    ),
    "branches": Form(
        "input table: real[head, n] input lam: real[head]"
        "attention near = (over k < 3: score 2.0 * tanh(s / 2.0)) ++ (over k >= 3 and k <= q: score s + table[q - k])"
        "attention a = near - lam[head] * (over k % 2 == 0: score abs(s) mass 0.5 + q)",
        {"table": (2, 9), "lam": (2,)},
    ),
    "vectors of distances": Form(
        "input rel: real[head, n, D]"
        "attention a over causal = score s + 0.3 * dot(q, rel[min(q - k, 5)])",
        {"rel": (2, 6, 16)},
    ),
    "documents": Form(
        "input doc: int[batch, pos] input w: real[8]"
        "attention a over causal and doc[q] == doc[k] = score s * w[doc[k]] - min(s, w[doc[q]])",
        {"w": (8,)},
        {"doc": DOCUMENTS},
        batch=2,
    ),
    "factors": Form(
        "input b: real[head, n] attention a over causal ="
        "(over k < 3: score s factor 0.5 + b[q - k] mass 1.0) ++ (over k >= 3: score s * b[k // 8])",
        {"b": (2, 9)},
        through_lse=True,
    ),
    "l1": Form(
        "input b: real[head] attention one over causal = score s weights l1 softplus(s) factor b[head]"
        " attention two over causal = score b[head] * s weights l1 softplus(s) mass 0.5"
        " attention a = one - two",
        {"b": (2,)},
    ),
    "entmax": Form(
        "input b: real[head] attention a over causal = score 3.0 * b[head] * s weights entmax",
        {"b": (2,)},
    ),
    "columns": Form(
        "input b: real[head] attention a over causal_window(9) = score b[head] * s weights columns",
        {"b": (2,)},
    ),
    "dropped": Form(
        "input b: real[head] attention a over causal = score s - b[head] * (q - k)",
        {"b": (2,)},
        {"dropout_seed": 7},
    ),
    "pairs of heads on a grid": Form(
        "grid image(y, x) input table: real[n] input lam: real[q]"
        "attention a over neighborhood2d(3, 5) ="
        " (by pair 0: score s + table[q.x - k.x + 2]) - lam[q] * (by pair 1: score s)",
        {"table": (5,), "lam": (1,)},
        {"x": 8},
        q_len=K_LEN,
        heads=(4, 2),
    ),
}  # fmt: skip


def given(form: Form) -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(2)
    heads, kv_heads = form.heads
    pairs = 2 if "by pair" in form.text else 1
    shapes = {
        "q": (form.batch, heads, form.q_len, 16),
        "k": (form.batch, kv_heads, K_LEN, 16),
        "v": (form.batch, kv_heads // pairs, K_LEN, 12),
    }  # fmt: skip
    found = {name: torch.randn(shape, generator=make) for name, shape in shapes.items()}
    reals = {name: torch.rand(shape, generator=make) + 0.3 for name, shape in form.reals.items()}
    dout = torch.randn((form.batch, heads // pairs, form.q_len, 12), generator=make)
    return {**found, **reals, "dout": dout}


QUICK = "alibi and sink", "branches"
OTHERS = [name for name in FORMS if name not in QUICK]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor]]:
    """Results of the emitted files of some forms."""
    return results_of(QUICK, tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor]]:
    """Results of those of the others."""
    return results_of(OTHERS, tmp_path_factory.mktemp("others"))


def results_of(names: Sequence[str], folder: Path) -> dict[str, list[Tensor]]:
    """Results of emitted files, in one process that has no attndsl."""
    calls = []
    for place, form in enumerate(FORMS[name] for name in names):
        text = attndsl.compile(form.text).emit(dropout_p=DROPPED if form.is_dropped else 0.0)
        (folder / f"form{place}.py").write_text(text, encoding="utf-8")
        tensors = given(form)
        dout = tensors.pop("dout")
        calls.append({
            "file": f"form{place}.py", "leaves": tensors, "dout": dout, "options": form.more,
            "through_lse": form.through_lse,
        })  # fmt: skip
    torch.save(calls, folder / "calls.pt")
    asked = [sys.executable, "-I", str(HERE / "outside.py"), str(folder)]
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(asked, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(names, torch.load(folder / "results.pt"), strict=True))


@pytest.mark.parametrize("name", QUICK)
def test_results_and_all_gradients_are_those_of_the_reference(
    name: str, quick: dict[str, list[Tensor]]
):
    agrees(FORMS[name], quick[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_results_of_other_forms_are_those_of_the_reference(
    name: str, others: dict[str, list[Tensor]]
):
    agrees(FORMS[name], others[name])


def agrees(form: Form, results: list[Tensor]) -> None:
    """Output and gradients are those of the reference in float64."""
    tensors = {key: x.double() for key, x in given(form).items()}
    dout = tensors.pop("dout")
    leaves = {key: x.requires_grad_() for key, x in tensors.items()}
    options = {**leaves, **form.more, "backend": "reference"}
    if form.is_dropped:
        options["dropout_p"] = DROPPED
    if "x" in options:
        options["extents"] = {"x": options.pop("x")}
    out = attndsl.compile(form.text)(**options, return_lse=form.through_lse)
    out, *lse = out if form.through_lse else (out,)
    sent = (out * dout).sum() + sum(x.sum() for x in lse)
    wanted = [out, *torch.autograd.grad(sent, list(leaves.values()))]
    for mine, theirs in zip(results, wanted, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-5)


def test_golden_text(golden: Callable[[Path, str], None]):
    text = "input slope: real[head] input sink: real[head] attention a over causal ="
    made = attndsl.compile(
        f"{text} score 5.0 * tanh((s - slope[head] * (q - k)) / 5.0) mass sink[head]"
    )
    golden(HERE / "golden" / "attention.txt", without_kernels(made.emit()))


def test_a_file_is_formatted_and_gives_no_name_twice(tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text(attndsl.compile(FORMS["branches"].text).emit(), encoding="utf-8")
    options = ["--config", str(ROOT / "pyproject.toml"), str(path)]
    for command in (["format", "--check"], ["check", "--select", "F", "--ignore", "F841"]):
        asked = [sys.executable, "-m", "ruff", *command, *options]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    names = [
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("words", HOSTILE[:3])
def test_words_of_the_user_never_become_code(words: str):
    plain = attndsl.compile(FORMS["soft cap"].text).ir
    said = dataclasses.replace(plain, name=words, doc=words)
    text = emission.emit_attention(said, definition=words)
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(emission.emit_attention(plain)))


def test_what_a_call_gives_wrongly_is_refused(tmp_path: Path):
    path = tmp_path / "refusing.py"
    path.write_text(attndsl.compile(FORMS["soft cap"].text).emit(), encoding="utf-8")
    module, x = loaded(path), torch.zeros(2, 2, 4, 16)
    for c, message in [
        (torch.ones(2), "has the dims"),
        (torch.ones(3, 2), "3 entries along batch"),
        (torch.ones(2, 2, dtype=torch.bool), "real numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            module.attention(x, x, x, c=c)


def test_forms_that_are_not_written_yet_are_named():
    with pytest.raises(AttnDslError, match="`stick`"):
        attndsl.compile("attention a over causal = score s weights stick").emit()
