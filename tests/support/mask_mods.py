"""Random mask_mods of flex_attention, in torch alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Value = Callable[[Any, Any, Any, Any], Any]


class MaskMods:
    """Draws functions of (b, h, q_idx, kv_idx); ``tables`` are what they capture."""

    def __init__(self, seed: int, q_len: int, k_len: int) -> None:
        self.random = np.random.default_rng(seed)
        longest = max(q_len, k_len)
        draw = torch.Generator().manual_seed(seed)

        def ints(low: int, high: int, *shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.randint(low, high, shape, generator=draw).to(dtype)

        self.by_position = [
            ints(-4, 5, longest, dtype=torch.int64),
            ints(-100, 100, longest, dtype=torch.int8),
            ints(0, 250, longest, dtype=torch.uint8),
        ]
        self.by_batch = ints(-3, 4, 2, longest, dtype=torch.int32)
        self.by_head = ints(0, 6, 2, dtype=torch.int64)
        self.by_both = ints(0, 2, 2, 2, longest, dtype=torch.int64).bool()
        self.number = ints(1, 9, dtype=torch.int64).reshape(())

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.random.integers(len(choices)))]

    def constant(self) -> int:
        return int(self.random.integers(-9, 10))

    def whole(self, depth: int) -> Value:
        """An integer of each pair."""
        if depth == 0:
            table, side = self.pick(*self.by_position), self.pick(2, 3)
            c = self.constant()
            return self.pick(
                lambda *at: at[2], lambda *at: at[3], lambda *at: at[2], lambda *at: at[3],
                lambda *at: at[2] - at[3], lambda *at: at[side] + c,
                lambda *at: table[at[side]], lambda *at: self.by_batch[at[0], at[side]],
                lambda *at: self.by_head[at[1]], lambda *at: self.number + at[side], lambda *at: at[1],
            )  # fmt: skip
        x, y, c = self.whole(depth - 1), self.whole(depth - 1), self.constant()
        d, p = self.pick(c or 3, self.constant() or -2), int(self.random.integers(0, 5))
        table, mask = self.pick(*self.by_position, self.by_batch[1]), abs(c) * 5
        n, test = len(table), self.truth(depth - 1)
        return self.pick(
            lambda *at: x(*at) + y(*at), lambda *at: x(*at) - y(*at), lambda *at: c - x(*at),
            lambda *at: x(*at) * d, lambda *at: -x(*at), lambda *at: abs(x(*at)),
            lambda *at: x(*at) // d, lambda *at: x(*at) % d, lambda *at: x(*at) // d, lambda *at: x(*at) % d,
            lambda *at: x(*at) // (y(*at).long().abs() + 1), lambda *at: x(*at) % (-1 - y(*at).long().abs()),
            lambda *at: torch.div(x(*at).long(), d, rounding_mode="trunc"), lambda *at: torch.fmod(x(*at).long(), d),
            lambda *at: torch.minimum(x(*at).long(), y(*at).long()),
            lambda *at: torch.maximum(x(*at).long(), y(*at).long()),
            lambda *at: x(*at).clamp(c, c + 6), lambda *at: torch.clamp(x(*at).long(), max=self.number),
            lambda *at: torch.where(test(*at), x(*at).long(), y(*at).long()), lambda *at: torch.where(test(*at), c, 2),
            lambda *at: x(*at).long() & mask, lambda *at: x(*at).long() | mask, lambda *at: x(*at).long() ^ mask,
            lambda *at: ~x(*at), lambda *at: x(*at).long() << p, lambda *at: x(*at).long() >> p,
            lambda *at: (at[2] % 32) ^ at[3], lambda *at: table[x(*at).long() % n],
            lambda *at: table[x(*at).long() % n - n],
            lambda *at: test(*at) + x(*at).long(), lambda *at: x(*at).long() ** 2, lambda *at: test(*at).int(),
        )  # fmt: skip

    def truth(self, depth: int) -> Value:
        """A truth value of each pair."""
        x, y, c = self.whole(depth), self.whole(depth), self.constant()
        compared = self.pick(
            lambda *at: x(*at) <= y(*at), lambda *at: x(*at) < y(*at), lambda *at: x(*at) >= c,
            lambda *at: c > x(*at), lambda *at: x(*at) == y(*at), lambda *at: x(*at) != y(*at),
            lambda *at: at[2] >= at[3], lambda *at: (at[2] - at[3]).abs() < c, lambda *at: x(*at).bool(),
            lambda *at: self.by_both[at[0], at[1], at[3]],
        )  # fmt: skip
        if depth == 0:
            return compared
        a, b, t = (self.truth(depth - 1) for _ in range(3))
        return self.pick(
            compared, compared, lambda *at: a(*at) & b(*at), lambda *at: a(*at) | b(*at), lambda *at: a(*at) ^ b(*at),
            lambda *at: ~a(*at), lambda *at: torch.logical_and(a(*at), b(*at)), lambda *at: a(*at) == b(*at),
            lambda *at: torch.where(t(*at), a(*at), b(*at)), lambda *at: a(*at) * b(*at), lambda *at: a(*at) <= b(*at),
            lambda *at: torch.logical_not(x(*at)),
        )  # fmt: skip
