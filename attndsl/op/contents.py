"""Contents of the tables of calls, by which schedules are told apart: read once, and compared from then on.

On a CPU anybody may write to a table, through a NumPy view, too, of which torch knows nothing: it is compared with a
copy, at the speed of memory. On other devices it is read again when torch counts a write, or it is another tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from attndsl.cache import Memo
from attndsl.inputs import digest_of, once, read
from attndsl.op.dispatching import PLAIN
from attndsl.op.legacy_vmap import is_mapped

STAMP: Final = 16  # bytes
_FACTORS: Final = ((0x2545F4914F6CDD1D, 0x1B873593), (0x369DEA0F31A53F85, 0x5851F42D))  # odd; any
_SEEN: Final = 32  # tables that are known at a time
LARGEST_COPIES: Final = 32 << 20  # bytes of their copies; of larger ones a digest is made each time

Digest = tuple[str, tuple[int, ...], bytes]  # dtype, shape, contents


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A table as it was when it was read."""

    digest: Digest
    copy: Any  # the entries, each once where they are broadcast; None on other devices than the CPU
    version: int
    storage: StorageWeakRef

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return 0 if self.copy is None else int(self.copy.nbytes)

    def is_still(self, x: Tensor) -> bool:
        """Whether a tensor in the same place has the same contents."""
        if self.copy is not None:
            return np.array_equal(once(x.numpy()), self.copy)
        return x._version == self.version and not self.storage.expired()  # type: ignore[no-untyped-call]


class Contents:
    """Digests of the tables that were given last."""

    def __init__(self) -> None:
        self._seen = Memo(_SEEN, LARGEST_COPIES)

    def stamp(self, names: Sequence[str], tables: Sequence[Tensor]) -> tuple[bytes, dict[str, Any]]:
        """(a digest of the contents, the tables as arrays where all had to be read, else none)."""
        arrays: dict[str, Any] = {}
        digests = [
            (name, *self._digest(name, x, arrays)) for name, x in zip(names, tables, strict=True)
        ]
        return _joined(digests), arrays if len(arrays) == len(names) else {}

    def _digest(self, name: str, x: Tensor, arrays: dict[str, Any]) -> Digest:
        place = _place(x)
        seen = None if place is None else self._seen.get(place)
        if seen is not None and seen.is_still(x):
            return seen.digest  # type: ignore[no-any-return]
        version = 0 if place is None else x._version  # before it is read: a write meanwhile is seen
        array = arrays[name] = read(name, x)
        found = array.dtype.str, array.shape, digest_of(array)
        if place is not None and array.nbytes <= LARGEST_COPIES:
            copy = once(array).copy() if _is_near(x) else None
            ref = StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
            self._seen.replace(place, _Seen(found, copy, version, ref))
        return found


def stamp_of(names: Sequence[str], tables: Sequence[Tensor]) -> tuple[bytes, dict[str, Any]]:
    """(a digest of the contents of tables, the tables as arrays); all of them are read.

    Raises:
        AttnDslError: A501, one cannot be read.
    """
    arrays = {name: read(name, x) for name, x in zip(names, tables, strict=True)}
    digests = [(name, x.dtype.str, x.shape, digest_of(x)) for name, x in arrays.items()]
    return _joined(digests), arrays


def stamp_on_device(tables: Sequence[Tensor]) -> Tensor:
    """A digest of the contents of tables, uint8 [STAMP], which no one reads: made and compared where they lie."""
    sums = [torch.zeros(STAMP // 8, dtype=torch.int64, device=tables[0].device)]
    for seed, table in enumerate(tables):
        values = table.detach().reshape(-1).to(torch.int64)
        number = torch.arange(len(values), device=values.device)
        mixed = torch.stack([_mixed(values + number * a + seed * b) for a, b in _FACTORS])
        sums.append(mixed.sum(1))
    return torch.stack(sums).sum(0).view(torch.uint8)


def _mixed(x: Tensor) -> Tensor:
    """Spreads each bit over the number (the finaliser of splitmix64, Steele et al. 2014)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ (x >> shift)) * factor
    return x ^ (x >> 31)


def _joined(digests: Sequence[tuple[str, str, tuple[int, ...], bytes]]) -> bytes:
    return hashlib.blake2b(repr(tuple(digests)).encode(), digest_size=STAMP).digest()


def _is_near(x: Tensor) -> bool:
    """Whether its contents are looked at without a copy."""
    return x.is_cpu


def _place(x: Tensor) -> tuple[object, ...] | None:
    """Where a tensor lies in memory, and how; None where that says nothing of its contents."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x) or is_mapped(x)
    if type(x) not in PLAIN or wrapped or x.layout is not torch.strided or x.is_nested:
        return None
    if (
        x.is_meta or x.is_inference() or x.requires_grad
    ):  # a version is not counted, or no array had
        return None
    return x.data_ptr(), x.shape, x.stride(), x.dtype, x.device
