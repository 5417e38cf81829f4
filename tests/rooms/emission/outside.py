"""Runs emitted files where there is no attndsl.

python outside.py FOLDER: FOLDER/calls.pt lists calls, FOLDER/results.pt gets what came out.
"""

import importlib.util
import sys
from pathlib import Path

import torch


class Nowhere:
    """There is no attndsl, wherever one might be installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "attndsl":
            raise ModuleNotFoundError(name)


def loaded(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(call, folder: Path):
    """out, lse, dq, dk, dv."""
    module = loaded(folder / call["file"])
    if call["longest"]:
        module.SHORTEST = call["longest"]
    q, k, v = (x.requires_grad_() for x in call["tensors"])
    out, lse = module.attention(q, k, v, **call["options"], return_lse=True)
    sent, given = [out], [call["dout"]]
    if call["dlse"] is not None:
        sent, given = [out, lse], [call["dout"], call["dlse"]]
    grads = torch.autograd.grad(sent, (q, k, v), given)
    if call["dlse"] is None:
        again = torch.autograd.grad(module.attention(q, k, v, **call["options"]), k, call["dout"])
        assert torch.equal(again[0], grads[1]), "a second run has other bits"
    return [x.detach() for x in (out, lse, *grads)]


def run_attention(call, folder: Path):
    """out, and the gradients of all leaves."""
    module = loaded(folder / call["file"])
    leaves = {name: x.requires_grad_() for name, x in call["leaves"].items()}
    more = {"return_lse": True} if call["through_lse"] else {}
    out = module.attention(**leaves, **call["options"], **more)
    out, *lse = out if call["through_lse"] else (out,)
    sent = (out * call["dout"]).sum() + sum(x.sum() for x in lse)
    return [out.detach(), *torch.autograd.grad(sent, list(leaves.values()))]


if __name__ == "__main__":
    sys.meta_path.insert(0, Nowhere())
    folder = Path(sys.argv[1])
    calls = torch.load(folder / "calls.pt", weights_only=False)
    found = [(run_attention if "leaves" in call else run)(call, folder) for call in calls]
    torch.save(found, folder / "results.pt")
    assert not [name for name in sys.modules if name.partition(".")[0] == "attndsl"]
