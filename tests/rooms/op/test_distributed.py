"""Distributed tensors and modules, each rank in turn, in one process whose collectives do nothing."""

import itertools

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.testing._internal.distributed.fake_pg import FakeStore

import attndsl

BATCH, HEADS, LENGTH = 4, 4, 13
TEXT = """
input doc: int[batch, pos]
input reach: int[head]
pattern p = doc[q] == doc[k] and 0 <= q - k <= reach and (head >= heads // 2 or q - k < 3)
"""
DOC = torch.arange(LENGTH)[None] // torch.tensor([[3], [5], [7], [13]])
REACH = torch.tensor([9, 2, 7, 4])


@pytest.fixture
def ranks():
    """Makes the mesh of each rank in turn."""

    def each(*shape):
        size = torch.Size(shape).numel()
        for rank in range(size):
            dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
            # names of its own: torch remembers what it found out for a mesh, the rank as well
            names = tuple(f"dim{i} of rank {rank}" for i in range(len(shape)))
            yield init_device_mesh("cpu", shape, mesh_dim_names=names)
            dist.destroy_process_group()

    yield each
    if dist.is_initialized():
        dist.destroy_process_group()


def distributed(x, mesh, placements):
    """The share of this rank, without asking others."""
    local = x
    for dim, placement in enumerate(placements):
        if isinstance(placement, Shard):
            local = local.chunk(mesh.size(dim), placement.dim)[mesh.get_coordinate()[dim]]
    shape = {"shape": x.shape, "stride": x.contiguous().stride()}
    made = DTensor.from_local(local.clone(), mesh, placements, run_check=False, **shape)
    return made.requires_grad_()


def tensors(kv_heads, heads=HEADS):
    rng = torch.Generator().manual_seed(0)
    shapes = (heads, 8), (kv_heads, 8), (kv_heads, 6)
    return [torch.randn(BATCH, h, LENGTH, d, generator=rng, requires_grad=True) for h, d in shapes]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("placements", [(Shard(0), Shard(1)), (Shard(1), Shard(1))])
def test_every_rank_computes_its_elements_and_heads(ranks, kv_heads, placements):
    p, qkv = attndsl.compile(TEXT), tensors(kv_heads)
    given = {"doc": DOC, "reach": REACH, "scale": torch.tensor([0.5, 1.0, 2.0, 0.1])}
    out, lse = p(*qkv, **given, return_lse=True, backend="reference")
    cotangent = torch.linspace(-1, 1, out.numel()).view_as(out)
    total = [torch.zeros_like(x) for x in qkv]
    for mesh in ranks(2, 2):
        mine = [distributed(x, mesh, placements) for x in qkv[:1]]
        ways = mesh.size() if placements[0].dim else 2
        at = (
            placements
            if kv_heads % ways == 0
            else [Replicate() if s.dim else s for s in placements]
        )
        mine += [distributed(x, mesh, at) for x in qkv[1:]]
        found, level = p(*mine, **given, return_lse=True)
        assert (found.shape, level.shape) == (out.shape, lse.shape)
        for whole, part in ((out, found), (lse, level)):
            want = distributed(whole.detach(), mesh, placements).to_local()
            torch.testing.assert_close(part.to_local(), want)
        grads = torch.autograd.grad(found, mine, distributed(cotangent, mesh, placements).detach())
        for whole, x, grad in zip(total, mine, grads, strict=True):
            rows = distributed(
                torch.arange(whole.numel()).view_as(whole).float(), mesh, x.placements
            )
            whole.view(-1)[rows.to_local().long().flatten()] += grad.to_local().flatten()
    for mine, right in zip(total, torch.autograd.grad(out, qkv, cotangent), strict=True):
        torch.testing.assert_close(mine, right)


def test_heads_that_ranks_do_not_divide(ranks):
    p, qkv = attndsl.compile("causal and (head > 2 or q - k < 3)"), tensors(1, heads=5)
    out = p(*qkv)
    for mesh in ranks(2):
        q, k, v = (distributed(x, mesh, [Shard(1) if x is qkv[0] else Replicate()]) for x in qkv)
        found = p(q, k, v)
        want = out.chunk(2, 1)[mesh.get_local_rank()]
        torch.testing.assert_close(found.to_local(), want)


def test_what_cannot_be_shared_is_refused(ranks):
    of_batch, causal = attndsl.compile("q - k <= batch"), attndsl.compile("causal")
    for mesh in itertools.islice(ranks(2), 1):
        q = distributed(tensors(4)[0], mesh, [Shard(0)])
        with pytest.raises(attndsl.AttnDslError, match=r"A503.*which element of it"):
            of_batch(q, q, q)
        with pytest.raises(attndsl.AttnDslError, match=r"A503.*must all be distributed"):
            causal(q, q.full_tensor(), q)
        with pytest.raises(attndsl.AttnDslError, match=r"A503.*scale must be distributed"):
            causal(q, q, q, scale=torch.ones(4, requires_grad=True))
        scale = distributed(torch.ones(4), mesh, [Replicate()])
        causal(q, q, q, scale=scale).sum().backward()
        assert scale.grad.placements in ((Replicate(),), (Partial(),))


def parallel(net, mesh, **options):
    """The module with a share of the heads on each rank."""
    whole = {name: x.detach().clone() for name, x in net.named_parameters()}
    plan = {f"project_{x}": ColwiseParallel(**options) for x in "qkv"}
    net = parallelize_module(net, mesh, plan | {"project_out": RowwiseParallel()})
    with torch.no_grad():  # the shares of rank 0 were sent to nobody
        for name, x in net.named_parameters():
            dim = x.placements[0].dim
            x.to_local().copy_(whole[name].chunk(2, dim)[mesh.get_local_rank()])
    return net


@pytest.mark.parametrize("use_local_output", [True, False])
def test_a_tensor_parallel_module_keeps_the_numbers_of_its_heads(ranks, use_local_output):
    x, seen = torch.randn(2, LENGTH, 16), []
    for mesh in ranks(2):
        net = attndsl.nn.PatternSelfAttention(
            "causal and (head >= heads // 2 or q - k < 3)", 16, HEADS, kv_heads=2
        )
        net.attention.register_forward_hook(lambda _module, _args, out: seen.append(out))
        net(x)
        parallel(net, mesh, use_local_output=use_local_output)(x).sum()  # waits
        whole, part = seen[-2:]
        part = part if use_local_output else part.to_local()
        torch.testing.assert_close(part, whole.chunk(2, 1)[mesh.get_local_rank()])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_fully_sharded_modules_train(tmp_path):
    from torch.distributed.fsdp import fully_shard

    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", rank=0, world_size=1, store=store)
    try:
        net = attndsl.nn.PatternSelfAttention("causal", 16, HEADS)
        x = torch.randn(2, LENGTH, 16)
        net(x).square().sum().backward()
        want = {name: p.grad.clone() for name, p in net.named_parameters()}
        net.zero_grad()
        fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
        net(x).square().sum().backward()
        for name, p in net.named_parameters():
            torch.testing.assert_close(p.grad.full_tensor(), want[name])
        net.load_state_dict(net.state_dict())
    finally:
        dist.destroy_process_group()
