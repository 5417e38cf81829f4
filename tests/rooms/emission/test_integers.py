"""The arithmetic of emitted files, compiled: floors and remainders are the language's, not the device's."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attndsl.emission import assembling
from attndsl.emission.cutting import definitions
from tests.support import ptx

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no compiler without triton"
)

KERNEL = """import triton
import triton.language as tl


{}

@triton.jit(do_not_specialize=["a", "b"])
def integers(Out, a, b, BITS: tl.constexpr):
    tl.store(Out, floordiv(a, b))
    tl.store(Out + 1, mod(a, b))
    tl.store(Out + 2, ilog2(a, BITS))
    tl.store(Out + 3, pow2(a))
"""
FLOORED = " - ((a % b) < 0)"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """By kind of number: as it is, and without what makes a quotient floor."""
    device = (Path(assembling.__file__).parent / "device.txt").read_text(encoding="utf-8")
    sound = KERNEL.format(definitions(device, ["floordiv", "mod", "ilog2", "pow2"]))
    assert FLOORED in sound
    folder = tmp_path_factory.mktemp("integers")
    files = [folder / name for name in ("sound.py", "truncating.py")]
    for file, text in zip(files, (sound, sound.replace(FLOORED, "")), strict=True):
        file.write_text(text, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    asked = [sys.executable, "-m", "tests.rooms.emission.integers", *map(str, files)]
    root = Path(__file__).parents[3]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=root, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wrong(text: str, bits: int) -> list[tuple[int, int]]:
    """The operands for which the kernel says anything but Python."""
    most = (1 << bits - 1) - 1
    found = []
    for a, b in itertools.product((-most, -8, -7, -1, 0, 1, 6, 7, 30, most), (1, 2, 7, 64, most)):
        truth = a // b, a % b, a.bit_length() - 1 if a > 0 else -1, 1 << a if 0 <= a <= 62 else 0
        stored = ptx.run(text, 0, a, b)
        if tuple(stored[bits // 8 * i] for i in range(4)) != truth:
            found.append((a, b))
    return found


@pytest.mark.parametrize(("kind", "bits"), [("i32", 32), ("i64", 64)])
def test_compiled_integers_are_pythons(compiled: list[dict[str, str]], kind: str, bits: int):
    assert wrong(compiled[0][kind], bits) == []


@pytest.mark.parametrize(("kind", "bits"), [("i32", 32), ("i64", 64)])
def test_a_quotient_that_truncates_is_seen(compiled: list[dict[str, str]], kind: str, bits: int):
    found = wrong(compiled[1][kind], bits)
    assert (-7, 2) in found
    assert all(a < 0 and a % b for a, b in found)
