"""Emitted files compute what their patterns mean, where there is no attndsl; and they are fit to be read."""

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attndsl
from attndsl import emission, ir, library, patterns
from attndsl.cli.subjects import with_values
from attndsl.sources import describe
from attndsl.testing import assert_matches_dense
from tests.rooms.backends.agreement import SCALE, assert_agrees
from tests.rooms.backends.cases import Case
from tests.rooms.emission.dense import keywords, pairs
from tests.rooms.emission.outside import loaded
from tests.rooms.schedule.test_conditions import SHORT, WRONG

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@dataclasses.dataclass(frozen=True)
class Call:
    """A pattern and a call of its emitted file."""

    source: str
    q_len: int
    k_len: int
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    extents: dict[str, int] = dataclasses.field(default_factory=dict)
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    heads: tuple[int, int] = (1, 1)
    batch: int = 1
    widths: tuple[int, int] = (16, 16)
    dtype: torch.dtype = torch.float32
    through_lse: bool = True
    longest: int = 0


DILATED = "pattern p = (q - k) % pow2(head) == 0 and 0 <= q - k < 20 * pow2(head)"
BLIND = "pattern p = k < q - 3 and q > 9 and (k + q) % 3 != 0"
NEIGHBOURS = "grid image(y, x)\npattern p over image = neighborhood2d(3, 5)"
FIRST = "grid g(y=2, x)\npattern p over g align start = q.y == k.y and k.x > 2"
COUNTED = (
    "pattern p = k < (count j in 2..q: j * j % 3 == 1) or (sum j in k..k + 3: j * q % 5) == 6"
    f" or k == {[n * n % 11 for n in range(40)]}[q * q - 1]"
)
DOCUMENTS = np.array([[0] * 30 + [1] * 40 + [5] * 20, [3] * 7 + [2] * 83])
LISTED = np.array([[[3, -1], [0, 60]] * 35])

CALLS = {
    "window": Call("window", 70, 90, {"left": 9, "right": 3}, widths=(24, 17), heads=(2, 1)),
    "more_queries": Call("window", 90, 70, {"left": 9, "right": 3}, through_lse=False),
    "half": Call("causal_window", 70, 70, {"w": 30}, dtype=torch.float16),
    "longformer": Call("longformer", 90, 90, {"w": 5, "g": 2}, longest=1),
    "documents": Call("documents_causal", 90, 90, inputs={"doc": DOCUMENTS}, batch=2, longest=1),
    "neighbours": Call(NEIGHBOURS, 77, 77, extents={"x": 11}),
    "dilated": Call(DILATED, 70, 70, heads=(4, 2), longest=1, through_lse=False),
    "blind": Call(BLIND, 66, 66),
    "wrapped": Call("wrapped_window", 70, 70, {"left": 4}),
    "listed": Call("listed", 70, 70, inputs={"neighbors": LISTED}),
    "empty_text": Call("captioned_box", 35, 35, {"s": 3}, extents={"n": 0, "y": 5}),
    "counted": Call(COUNTED, 12, 12),
    "first_tokens": Call(FIRST, 8, 24, extents={}),
    "spaces": Call("captioned_box", 77, 77, {"s": 3}, extents={"n": 7, "y": 7}),
}  # fmt: skip


def pattern_of(call: Call) -> attndsl.Pattern:
    return attndsl.compile(call.source, **call.values)


def tensors_of(call: Call) -> Case:
    """q lies transposed in memory."""
    make = torch.Generator().manual_seed(3)
    (heads, kv_heads), (d, dv) = call.heads, call.widths

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=make).to(call.dtype)

    q = normal(call.batch, call.q_len, heads, d).transpose(1, 2)
    k = normal(call.batch, kv_heads, call.k_len, d)
    v = normal(call.batch, kv_heads, call.k_len, dv)
    dout = normal(call.batch, heads, call.q_len, dv)
    dlse = torch.randn(dout.shape[:3], generator=make) if call.through_lse else None
    options = {"batch": call.batch, "extents": call.extents or None, **call.inputs}
    masks = pattern_of(call).mask(call.q_len, call.k_len, heads, **options).numpy()
    if dlse is not None:  # a log-sum-exp of -inf has no gradient to speak of
        dlse = torch.where(torch.from_numpy(masks.any(3)), dlse, 0.0)
    return Case(masks, (64, 64), q, k, v, dout, dlse)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[torch.Tensor]]:
    """Results of the emitted files, in one process that has no attndsl."""
    folder = tmp_path_factory.mktemp("outside")
    calls = []
    for name, call in CALLS.items():
        (folder / f"{name}.py").write_text(pattern_of(call).emit(), encoding="utf-8")
        case = tensors_of(call)
        inputs = {key: torch.from_numpy(value) for key, value in call.inputs.items()}
        calls.append({
            "file": f"{name}.py", "tensors": (case.q, case.k, case.v), "dout": case.dout,
            "dlse": case.dlse, "options": {**inputs, **call.extents, "scale": SCALE},
            "longest": call.longest,
        })  # fmt: skip
    torch.save(calls, folder / "calls.pt")
    asked = [sys.executable, "-I", str(HERE / "outside.py"), str(folder)]
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(asked, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(CALLS, torch.load(folder / "results.pt"), strict=True))


@pytest.mark.parametrize("name", CALLS)
def test_it_computes_what_the_pattern_means(name: str, results: dict[str, list[torch.Tensor]]):
    assert_agrees(results[name], tensors_of(CALLS[name]))


def test_what_it_launches_compiles_for_a_gpu(tmp_path: Path):
    path = tmp_path / "documents.py"
    path.write_text(attndsl.compile("documents_causal").emit(), encoding="utf-8")
    asked = [sys.executable, "-m", "tests.rooms.emission.compiling", str(path)]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["forward", "merge_outputs"]


def test_it_says_of_each_pair_what_the_pattern_does(tmp_path: Path):
    for name in NAMES[::23]:
        agrees(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", library.names())
def test_every_entry_says_of_each_pair_what_the_pattern_does(name: str, tmp_path: Path):
    agrees(name, tmp_path)


def agrees(name: str, folder: Path) -> None:
    """The tiles that the file of an entry finds are those of the pattern."""
    if name not in library.names():
        return
    trial = patterns.trial(library.describe(name))
    p = library.load(name, layer=trial.layers[-1], **trial.values)
    path = folder / f"{name}.py"
    path.write_text(p.emit(), encoding="utf-8")
    module = loaded(path)
    inputs = {key: torch.from_numpy(np.asarray(value)) for key, value in trial.inputs.items()}
    sizes = trial.q_len, trial.k_len, trial.batch, trial.heads
    found = pairs(module, *sizes, tile=(16, 32), **keywords(module, trial.extents), **inputs)
    wanted = p.mask(
        *sizes[:2], trial.heads, batch=trial.batch, extents=trial.extents or None, **trial.inputs
    )
    assert np.array_equal(np.broadcast_to(wanted.numpy(), found.shape), found), name


# ---------------------------------------------------------------------------- the text


def without_kernels(text: str) -> str:
    """The parts that depend on the pattern alone: the rest is the package's, and has its own tests."""
    return text.partition("\n# ------")[0].rstrip() + "\n"


GOLDEN = {
    "window": (attndsl.compile, ("window",), {"left": 4}),
    "documents_causal": (attndsl.compile, ("documents_causal",), {}),
    "neighborhood2d": (attndsl.compile, ("neighborhood2d",), {"sy": 7}),
    "listed": (attndsl.compile, ("listed",), {}),
    "used": (attndsl.compile, ("used",), {}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_text(name: str, golden: Callable[[Path, str], None]):
    make, given, values = GOLDEN[name]
    golden(HERE / "golden" / f"{name}.txt", without_kernels(make(*given, **values).emit()))


NAMES = [*patterns.names(), *library.names()]


def emitted(name: str) -> str:
    about = with_values(name, describe(name), {})
    return emission.emit(about.mask, definition=about.signature.span.text)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of all patterns, spread over prelude and library."""
    folder = tmp_path_factory.mktemp("everything")
    for name in NAMES[::23]:
        (folder / f"{name}.py").write_text(emitted(name), encoding="utf-8")
    return folder


def test_emitted_text_is_as_the_formatter_would_write_it(everything: Path):
    options = ["--config", str(ROOT / "pyproject.toml"), str(everything)]
    for command in (["format", "--check"], ["check", "--select", "F", "--ignore", "F841"]):
        asked = [sys.executable, "-m", "ruff", *command, *options]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_name_is_given_twice(everything: Path):
    for path in everything.iterdir():
        names = [
            name for node in ast.parse(path.read_text(encoding="utf-8")).body
            for name in ([node.name] if hasattr(node, "name") else
                         [x.id for x in ast.walk(node) if isinstance(getattr(x, "ctx", 0), ast.Store)])
        ]  # fmt: skip
        assert len(set(names)) == len(names)


def test_files_import_torch_and_triton_alone(everything: Path):
    for path in everything.iterdir():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        found = {(node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
                 for node in nodes}  # fmt: skip
        outside = {name.partition(".")[0] for name in found} - sys.stdlib_module_names
        assert outside == {"torch", "triton"}


def test_the_same_pattern_gives_the_same_bytes_in_any_process():
    script = "import attndsl; print(attndsl.compile('wrapped_swin').emit(), end='')"
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    asked = [sys.executable, "-c", script]
    done = subprocess.run(asked, capture_output=True, check=True, cwd=ROOT, env=env)
    assert done.stdout == attndsl.compile("wrapped_swin").emit().encode()


HOSTILE = [
    '"""\nimport os\nos.system("true")\n"""',
    "a\nimport os",
    "a\rimport os",
    "a\x0cimport os\x0b\x1c\x85\u2028import os",
    "\\\nimport os",
    "\u202eimport os\x00",
    "{os} %s \\N{BULLET}",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_words_of_the_user_never_become_code(words: str):
    plain = attndsl.compile("window", left=4).ir
    said = dataclasses.replace(plain, name=words, doc=words)
    text = emission.emit(said, definition=words)
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(emission.emit(plain)))
    assert all(c == "\n" or c.isprintable() for c in text)


@pytest.mark.parametrize(
    "name", ["lambda", "tl", "q_len", "scale", "doc_table", "x = 1; import os"]
)
def test_names_of_inputs_stay_names(name: str):
    table = ir.Table(name, ir.Sort.INT, ("batch", "pos"))
    sides = [
        ir.Load(name, ir.Sort.INT, (ir.Pos(side),), table.ambient)
        for side in (ir.Side.QUERY, ir.Side.KEY)
    ]
    text = emission.emit(ir.Mask(ir.eq(*sides), tables=(table,)))
    (function,) = (
        node for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name == "attention"
    )  # fmt: skip
    (keyword, *_) = (each.arg for each in function.args.kwonlyargs)
    assert re.fullmatch(r"\w+", keyword)


def test_what_a_call_gives_wrongly_is_refused(tmp_path: Path):
    path = tmp_path / "refusing.py"
    path.write_text(attndsl.compile("documents").emit(), encoding="utf-8")
    module, x = loaded(path), torch.zeros(1, 1, 4, 16)
    doc = torch.zeros(1, 4, dtype=torch.int64)
    for given, message in [
        (((x, x, x), doc[:, :3]), "has the shape"),
        (((x, x, x), doc.float()), "not integers"),
        (((x, x[:, :, :2], x), doc), "are"),
        (((x.double(),) * 3, doc), "bfloat16"),
        (((torch.zeros(1, 1, 4, 300),) * 3, doc), "between 1 and 256"),
    ]:
        with pytest.raises(ValueError, match=message):
            module.attention(*given[0], doc=given[1])


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in WRONG))
def test_inputs_that_the_pattern_does_not_allow_are_refused(name: str, tmp_path: Path):
    path, values = tmp_path / "asking.py", {"bq": 5} if name.startswith("block") else {}
    path.write_text(attndsl.compile(name, values=values).emit(), encoding="utf-8")
    module = loaded(path)
    for _, right, wrong, value, said in (each for each in WRONG if each[0] == name):
        sizes = 9, 9, max(len(x) for x in right.values()) if name == "used" else 1, 1
        assert pairs(module, *sizes, tile=(16, 32), **right).any()
        with pytest.raises(ValueError, match=re.escape(said)):
            pairs(module, *sizes, tile=(16, 32), **right | {wrong: value})


def test_where_inputs_are_not_allowed_is_said(tmp_path: Path):
    path = tmp_path / "asking.py"
    path.write_text(attndsl.compile(SHORT, most=3).emit(), encoding="utf-8")
    module, x = loaded(path), torch.zeros(2, 2, 5, 16)
    assert module.attention(x, x, x, limit=torch.tensor([[1, 2], [3, 3]])).isfinite().all()
    with pytest.raises(ValueError, match="limit <= most, first for batch element 1, head 0"):
        module.attention(x, x, x, limit=torch.tensor([[1, 2], [4, 3]]))


def test_extents_that_contradict_a_length_are_refused(tmp_path: Path):
    text = "grid tokens(n)\nspace s = meta(m) ++ tokens\npattern p over tokens -> s = k.n == -1"
    path = tmp_path / "contradicting.py"
    path.write_text(attndsl.compile(text).emit(), encoding="utf-8")
    module, q, k = loaded(path), torch.zeros(1, 1, 3, 16), torch.zeros(1, 1, 10, 16)
    for given in ({"m": 4}, {"n": 3, "m": 6}):
        with pytest.raises(ValueError, match="do not fill"):
            module.attention(q, k, k, **given)
    assert module.attention(q, k, k).isfinite().all()  # n is 3, m is 7


def test_sequences_are_only_as_long_as_numbers_fit(tmp_path: Path):
    path = tmp_path / "cubed.py"
    path.write_text(attndsl.compile("pattern p = q * q * q <= k").emit(), encoding="utf-8")
    module = loaded(path)
    assert 2 * module.LONGEST**3 < 1 << 63 <= 2 * (2 * module.LONGEST) ** 3
    x = torch.zeros(1, 1, module.LONGEST, 1)
    with pytest.raises(ValueError, match="fewer than 1048576 tokens"):
        module.attention(x, x, x)
    with pytest.raises(attndsl.AttnDslError, match="A403"):
        attndsl.compile("pattern p = k <= " + " * ".join(["(q + 3)"] * 40)).emit()


def test_heads_and_numbers_of_inputs_are_as_many_as_fit(tmp_path: Path):
    path = tmp_path / "limited.py"
    text = "input t: int[pos]\npattern p = k <= q + pow2(head) * 8 and t[q] * t[k] <= 5"
    path.write_text(attndsl.compile(text).emit(), encoding="utf-8")
    module, x = loaded(path), torch.zeros(1, 64, 3, 16)
    t = torch.zeros(3, dtype=torch.int64)
    assert module.attention(x[:, :32], x[:, :32], x[:, :32], t=t).isfinite().all()
    with pytest.raises(ValueError, match="at most 32 query heads"):
        module.attention(x, x, x, t=t)
    with pytest.raises(ValueError, match="holds numbers beyond"):
        module.attention(x[:, :1], x[:, :1], x[:, :1], t=t + (1 << 40))


def test_without_keys_there_is_nothing(tmp_path: Path):
    path = tmp_path / "nothing.py"
    path.write_text(attndsl.compile("causal").emit(), encoding="utf-8")
    q, k = torch.ones(1, 1, 5, 16, requires_grad=True), torch.ones(1, 1, 0, 16, requires_grad=True)
    out, lse = loaded(path).attention(q, k, k, return_lse=True)
    assert not out.any()
    assert (lse == -torch.inf).all()
    assert not any(grad.any() for grad in torch.autograd.grad(out.sum(), (q, k)))


def test_zero_keys_are_weighed(tmp_path: Path):
    p = attndsl.compile("padded_window", left=9)
    path = tmp_path / "zeros.py"
    path.write_text(p.emit(), encoding="utf-8")
    module = loaded(path)
    assert_matches_dense(
        lambda q, k, v: module.attention(q, k, v, return_lse=True), p, q_len=40, batch=1, heads=1
    )


def test_schedules_are_kept_for_tensors_that_do_not_change(tmp_path: Path):
    path = tmp_path / "keeping.py"
    path.write_text(attndsl.compile("documents").emit(), encoding="utf-8")
    module, made = loaded(path), []
    x, doc = torch.randn(1, 1, 40, 16), torch.zeros(1, 40, dtype=torch.int64)
    inner = module.schedule_of
    module.schedule_of = lambda *given: made.append(1) or inner(*given)
    first = module.attention(x, x, x, doc=doc)
    assert torch.equal(module.attention(x, x, x, doc=doc), first)
    assert len(made) == 1
    doc[:, 20:] = 1
    assert not torch.equal(module.attention(x, x, x, doc=doc), first)
    assert len(made) == 2
