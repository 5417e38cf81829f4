"""A graph transformer: each node sees its neighbours, itself, and one node that sees all.

The graph is an input: a list of neighbours for each node, as long as the most it has, with -1 where
there are fewer.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

import attndsl

PATTERN = """
input edges: list[batch, q, slots]

## The node's own neighbours and itself; node 0 sees and is seen by all.
pattern graph = k in edges[q] or k == q or q == 0 or k == 0
"""


def neighbour_lists(adjacency: Tensor) -> Tensor:
    """bool [B, N, N] -> the neighbours of each node, int [B, N, most], -1 in empty slots."""
    most = int(adjacency.sum(-1).max())
    weight, nodes = adjacency.int().topk(most, dim=-1)
    return torch.where(weight > 0, nodes, -1)


def main() -> None:
    """A random geometric graph; its nodes lie along a line, so that near ones have near numbers."""
    graph = attndsl.compile(PATTERN)
    nodes = 1024
    torch.manual_seed(0)
    places = torch.rand(1, nodes, 2)
    places = places.gather(1, places[..., :1].argsort(dim=1).expand_as(places))
    adjacency = torch.cdist(places, places) < 0.05
    edges = neighbour_lists(adjacency)

    q, k, v = torch.randn(3, 1, 4, nodes, 32)
    out = graph(q, k, v, edges=edges)

    mask = adjacency | torch.eye(nodes, dtype=torch.bool)
    mask[:, 0, :] = mask[:, :, 0] = True
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    error = (out - dense).abs().max().item()

    schedule = graph.schedule(nodes, tile=(32, 32), edges=edges)
    pairs = int(mask.sum())
    print(f"{nodes} nodes, {pairs:,} pairs, {schedule.density:.0%} of the tiles of 32 x 32")
    print(f"largest difference from dense attention: {error:.1e}")


if __name__ == "__main__":
    main()
