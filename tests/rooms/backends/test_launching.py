"""A launch that is repeated tells the driver what the first one did, and only where it may."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("triton")

from attndsl.backends import arguments, kernels, list_arguments, stick_arguments
from attndsl.backends.launching import Launch


class Call(NamedTuple):
    X: torch.Tensor
    Y: torch.Tensor | None
    scale: float


@dataclass(frozen=True)
class Given:
    BIG: bool
    table: torch.Tensor
    steps: int
    nothing: None = None


class Kernel:
    """Stands for one of Triton's, and for what it is compiled to."""

    __name__ = "kernel"
    arg_names = ("X", "Y", "scale", "table", "steps", "nothing", "BIG")

    def __init__(self, compiled: object = None) -> None:
        self.compiled, self.calls = compiled, []

    def __getitem__(self, grid):
        def launch(*args, **options):
            self.calls.append((grid, args, options))
            return self.compiled

        return launch


def test_only_aligned_tensors_take_the_short_way():
    short = Kernel()
    kernel, table, x = Kernel(short), torch.zeros(4), torch.zeros(8)
    launch = Launch(kernel, (5,), Call, Given(True, table, 3), num_warps=4)
    for _ in range(2):
        launch(Call(x, None, 1.0))
        launch(Call(x[1:], None, 1.0))
    grid, whole = (5, 1, 1), ((None, 1.0, table, 3, None, True), {"num_warps": 4})
    assert [(len(short.calls)), len(kernel.calls)] == [1, 3]
    assert all(call[0] == grid and call[1][1:] == whole[0] for call in kernel.calls)
    assert all(call[2] == whole[1] for call in kernel.calls)
    given = (x.data_ptr(), None, 1.0, table.data_ptr(), 3, None, True)
    assert short.calls == [(grid, given, {})]


def test_an_interpreted_kernel_is_launched_as_ever():
    kernel = Kernel()
    launch = Launch(kernel, (2, 3), Call, Given(True, torch.zeros(1), 3))
    for _ in range(2):
        launch(Call(torch.zeros(4), None, 1.0))
    assert len(kernel.calls) == 2


@pytest.mark.parametrize(
    "names",
    [
        "Y X scale table steps nothing BIG",  # tensors in another order
        "X Y table scale steps nothing BIG",
        "X Y scale table steps nothing",  # one too few
        "X Y scale table steps nothing BIG more",
        "X Y scale table step nothing BIG",  # another name
    ],
)
def test_arguments_that_are_not_the_kernels_parameters_are_refused(names: str):
    kernel = Kernel()
    kernel.arg_names = tuple(names.split())
    with pytest.raises(TypeError, match="kernel takes other arguments"):
        Launch(kernel, (1,), Call, Given(True, torch.zeros(1), 3))


@pytest.mark.parametrize("name", kernels.__all__)
def test_every_kernel_has_its_parameters_in_two_values(name: str):
    words = "".join(word.capitalize() for word in name.split("_"))
    homes = arguments, list_arguments, stick_arguments
    home = next(each for each in homes if hasattr(each, f"{words}Call"))
    call, given = getattr(home, f"{words}Call"), getattr(home, f"{words}Args")
    names = tuple(inspect.signature(getattr(kernels, name).fn).parameters)
    assert names[: len(call._fields)] == call._fields
    assert set(names[len(call._fields) :]) == {field.name for field in fields(given)}


@pytest.mark.parametrize("call", [arguments.BackwardQueriesCall, arguments.BackwardKeysCall])
def test_what_both_passes_of_the_backward_read_comes_first(call: type):
    prepared = arguments.Prepared._fields
    assert call._fields[: len(prepared)] == prepared


@pytest.mark.parametrize(("length", "longest"), [(128, None), (130, 1)])
def test_the_driver_is_told_the_same_both_ways(length: int, longest: int | None):
    """By the Triton that is installed, in a process of its own: here, kernels are interpreted."""
    asked = [sys.executable, "-m", "tests.support.no_gpu", json.dumps([length, longest])]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[3]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=root, env=env, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(item["same"] for item in found)
    kernels = ["forward", "prepare_backward", "backward_queries", "backward_keys"]
    split = ["forward", "merge_outputs", "prepare_backward", "backward_queries", "sum_chunks"]
    split += ["backward_keys", "sum_chunks", "sum_chunks"]
    wanted = split if longest else kernels
    assert [item["kernel"] for item in found] == 2 * wanted
    short = [item["kernel"] for item in found if item["short"]]
    assert short[: len(wanted)] == wanted
    assert not {"forward", "backward_queries", "backward_keys"} & set(short[len(wanted) :])
