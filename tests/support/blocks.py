"""Random blocks of queries that see the same keys, and their dense masks."""

import numpy as np

from attndsl.schedule import Blocks


def partition(rng: np.random.Generator, length: int) -> list[np.ndarray]:
    """Rows in groups: neighbours, residues or any, of few lengths; some rows in none."""
    rows = np.arange(length)
    kind, count = rng.choice(3), int(rng.integers(1, 6))
    if kind == 1:
        rows = np.concatenate([rows[i::count] for i in range(count)])
    elif kind == 2:
        rng.shuffle(rows)
    size = max(1, length // count)
    cuts = np.arange(size, length, size) if rng.random() < 0.6 else rng.integers(0, length, count)
    groups = [np.sort(part) for part in np.split(rows, np.sort(cuts)) if len(part)]
    return groups if rng.random() < 0.5 else groups[: max(1, len(groups) - 1)]


def drawn_blocks(rng: np.random.Generator, q_len: int, k_len: int) -> tuple[Blocks, ...]:
    queries, keys = partition(rng, q_len), partition(rng, k_len)
    if q_len == k_len and rng.random() < 0.5:
        keys = queries
    if rng.random() < 0.2:  # neighbours: keys are in several blocks
        keys = [np.unique(np.concatenate([keys[i], keys[max(0, i - 1)]])) for i in range(len(keys))]
    shapes: dict[object, list[tuple[np.ndarray, np.ndarray]]] = {}
    for mine, theirs in zip(queries, keys, strict=False):
        is_causal = np.array_equal(mine, theirs) and bool(rng.integers(2))
        shapes.setdefault((len(mine), len(theirs), is_causal), []).append((mine, theirs))
    return tuple(
        Blocks(np.stack([q for q, _ in each]), np.stack([k for _, k in each]), key[2])
        for key, each in shapes.items()
    )


def drawn_staircase(rng: np.random.Generator, q_len: int, k_len: int) -> tuple[Blocks, ...]:
    """Keys that queries from some row on see one after the other, and others that all of them see, or later ones."""
    some = np.sort(rng.permutation(k_len)[: int(rng.integers(2, k_len))])
    first, low = int(rng.integers(0, len(some))), int(rng.integers(0, q_len // 2))
    queries, keys = np.arange(low, q_len), some[first:]
    seen = np.sort(rng.integers(1, len(keys) + 1, len(queries)))
    found = [Blocks(queries[None], keys[None], False, seen)]
    if q_len - low == len(keys) and rng.integers(2):
        found = [Blocks(queries[None], keys[None], True)]
    if first:
        queries = np.arange(rng.integers(0, q_len), q_len)
        found.append(Blocks(queries[None], some[None, :first], False))
    return tuple(found)


def mask_of(blocks: tuple[Blocks, ...], q_len: int, k_len: int) -> np.ndarray:
    mask = np.zeros((q_len, k_len), bool)
    for part in blocks:
        for mine, theirs in zip(part.queries, part.keys, strict=True):
            shape = len(mine), len(theirs)
            inside = np.tri(*shape, dtype=bool) if part.is_causal else np.ones(shape, bool)
            if part.seen is not None:
                inside = np.arange(shape[1]) < part.seen[:, None]
            mask[np.ix_(mine, theirs)] = inside
    return mask
