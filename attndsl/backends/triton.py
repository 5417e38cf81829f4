"""The GPU backend: schedules to the kernels' lists, tensors to their launches.

Under Triton's interpreter (``TRITON_INTERPRET=1``, set before Python starts) the same kernels run on CPU
tensors, slowly and exactly: for tests, and for looking at a kernel where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

import torch
import triton
from torch import Tensor

from attndsl.backends import kernels
from attndsl.backends.configs import (
    Config,
    Pass,
    architecture,
    fitting,
    options,
    with_scores,
)
from attndsl.backends.dtypes import EIGHT_BITS
from attndsl.backends.open_schedule import OpenPlan
from attndsl.backends.pass_launches import also_in, few
from attndsl.backends.protocol import Request, Tile, is_scheduled_on
from attndsl.backends.scores import BoundScore
from attndsl.backends.standalone import WIDEST
from attndsl.backends.triton_kernels import TritonKernels
from attndsl.backends.triton_lists import ListPlan
from attndsl.backends.triton_scores import ScoreKernel, TritonScores
from attndsl.backends.triton_stick import TritonStick
from attndsl.backends.tuning import (
    Clock,
    configured,
    stopwatch,
)
from attndsl.backends.work_partition import ShortArray
from attndsl.schedule import OpenLists, OpenMask, TiledMask
from attndsl.source import AttnDslError, Diagnostic

DTYPES = (torch.bfloat16, torch.float16, torch.float32, *EIGHT_BITS)
INTERPRETED = not isinstance(kernels.forward, triton.JITFunction)
TALLEST: Final = 128  # rows of such a tile
UNSPLIT: Final = 1 << 30  # tiles of an item: more than there are


class Triton:
    """Attention over live tiles by Triton kernels; forward and backward, without atomics.

    Equal inputs give equal bits. A value that is not finite may reach queries that do not see it, if
    they share a tile with one that does, as in other GPU kernels.
    """

    name = "triton"

    def __init__(
        self,
        config: Callable[[Pass, Request], Config] = configured,
        longest: int | None = None,
        clock: Clock = stopwatch,
    ) -> None:
        """``config``: of a pass over such a call; by default what was measured, else the default of the device.

        ``longest``: most tiles of one program; None balances the device. ``clock`` measures, to tune.
        """
        self._config = config
        self._longest = longest
        self._clock = clock

    def supports(self, request: Request) -> str | None:
        """GPU tensors of bfloat16, float16 or float32, head dims from 1 to 256; the forward of 8 bits.

        Scores of 8-bit tensors are 8-bit products, values are widened to float16 and weighed so.
        """
        if request.dtype not in DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            return f"it has kernels for {known}, not for {request.dtype}"
        kind = request.device.type
        if kind != "cuda" and not (INTERPRETED and kind == "cpu"):
            hint = ", or on the CPU under TRITON_INTERPRET=1" if kind == "cpu" else ""
            return f"it runs on GPUs{hint}, and the tensors are on {kind}"
        if INTERPRETED and request.dtype == torch.bfloat16:
            return "Triton's interpreter multiplies bfloat16 as if it were integers"
        for label, width in (("head_dim", request.head_dim), ("value dim", request.value_dim)):
            if not 1 <= width <= WIDEST:
                return f"its kernels take a {label} from 1 to {WIDEST}, not {width}"
        is_small = request.dtype in EIGHT_BITS
        if is_small and not _multiplies_eight_bits(request.device):
            return f"{request.dtype} takes an NVIDIA GPU of compute capability 8.9 or newer"
        size, widths = request.dtype.itemsize, (request.head_dim, request.value_dim)
        arch, passes = architecture(request.device), ("forward",) if is_small else get_args(Pass)
        if not all(fitting(which, arch, size, *widths) for which in passes):
            return (
                f"{request.dtype} of width {max(widths)} does not fit the shared memory of {arch}"
            )
        return None

    def reads_only_seen(self, request: Request) -> bool:
        """Where queries are few."""
        return few(request) is not None

    def tiles(self, request: Request) -> tuple[Tile, ...]:
        """The tiles of the configs of its passes."""
        return tuple(config.tile for config in self._configs(request).values())

    def lower(self, part: TiledMask, request: Request) -> TritonKernels:
        """Launches over its schedules, made for the strides of each call."""
        part, configs, folded = self._folding(part, request)
        return TritonKernels(part, request, configs, self._longest, self._clock, folded)

    def _folding(
        self, part: TiledMask, request: Request
    ) -> tuple[TiledMask, Mapping[Pass, Config], int]:
        """The schedules, the configs of the passes, and how many heads fill a tile together."""
        configs = self._configs(request)
        if not few(request):
            return part, configs, 0
        schedule = part.schedules[configs["forward"].tile]
        if all(plan.q_order is None for plan in schedule.plans):
            return part, configs, _folded(schedule.plan_of, request)
        # a tile has the queries of its schedule, in their order
        configs = {"forward": self._config("forward", request)}
        return also_in(part, configs["forward"].tile), configs, 0

    def lower_scored(self, part: TiledMask, score: BoundScore, request: Request) -> TritonScores:
        """Its passes with generated functions of the scores.

        Raises:
            AttnDslError: A520, some part of the score has no kernel.
        """
        kernel, arch = ScoreKernel.of(score, request), architecture(request.device)
        part, plain, folded = self._folding(part, request)
        configs = {
            which: _with_scores(which, config, request, kernel) for which, config in plain.items()
        }
        for config in configs.values():
            part = also_in(part, config.tile)
        longest = UNSPLIT if kernel.weighs else self._longest  # shares of a softmax are averaged
        given = {which: kernel.of_pass(which) for which in configs}
        passes = TritonKernels(part, request, configs, longest, self._clock, min(1, folded), given)
        if not request.gradient:
            return TritonScores(passes, kernel)
        side = max(32, min(min(config.tile) for config in configs.values()))
        square = also_in(part, (side, side)).schedules[side, side]
        compiled = options(arch, Config(side, side, 4, 1), is_bound=True)
        return TritonScores.of(passes, kernel, square, compiled)

    def lower_stick(self, part: TiledMask, score: BoundScore, request: Request) -> TritonStick:
        """Stick-breaking, by kernels of their own.

        Raises:
            AttnDslError: A520, some part of the score has no kernel.
        """
        return TritonStick.of(part, score, request)

    def takes_open_masks(self, request: Request) -> bool:
        """GPU tensors: what their inputs hold is not read to the host."""
        return is_scheduled_on(request.device)

    def prepare_lists(self, lists: OpenLists, request: Request) -> ListPlan:
        """Lists of such calls, but for what inputs hold."""
        return ListPlan.of(lists, request)

    def prepare(self, mask: OpenMask, request: Request) -> OpenTriton:
        """Schedules of such calls, but for what inputs hold."""
        configs = self._configs(request)
        tiles = dict.fromkeys(config.tile for config in configs.values())
        plan = OpenPlan.of(mask, tuple(tiles), request.device)
        return OpenTriton(plan, request, configs, self._longest, self._clock)

    def _configs(self, request: Request) -> dict[Pass, Config]:
        if found := few(request):
            return {"forward": found}
        passes: tuple[Pass, ...] = get_args(Pass) if request.gradient else ("forward",)
        return {which: self._config(which, request) for which in passes}


def _with_scores(which: Pass, config: Config, request: Request, kernel: ScoreKernel) -> Config:
    widths = request.head_dim, request.value_dim
    arch, size = architecture(request.device), request.dtype.itemsize
    found = with_scores(which, arch, config, size, *widths, kernel.loads)
    if found is None:
        title = (
            f"this score does not fit the shared memory of {arch} with heads of width {max(widths)}"
        )
        raise AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has it',)))
    return found


def _folded(plan_of: ShortArray, request: Request) -> int:
    """How many heads fill a tile together: those that share keys, where they see the same ones."""
    group = request.group
    if group * request.q_len > TALLEST:
        return 1
    members = plan_of.reshape(len(plan_of), -1, 1 if plan_of.shape[1] == 1 else group)
    return group if (members == members[:, :, :1]).all() else 1


@dataclass(frozen=True, slots=True, eq=False)
class OpenTriton:
    """The passes over an open mask, but for what its inputs hold."""

    plan: OpenPlan
    request: Request
    configs: Mapping[Pass, Config]
    longest: int | None
    clock: Clock

    @property
    def nbytes(self) -> int:
        """Bytes of what is prepared."""
        return self.plan.nbytes

    def kernels(self, tables: Mapping[str, Tensor]) -> TritonKernels:
        """The passes for these inputs; nothing of them is read later."""
        made, folded = self.plan.schedule(tables), 0
        if few(self.request):
            folded = _folded(self.plan.mask.plan_of, self.request)
        given = self.request, self.configs, self.longest, self.clock, folded
        return TritonKernels(made, *given)


def _multiplies_eight_bits(device: torch.device) -> bool:
    """AMD's 8-bit numbers before gfx950 are others."""
    if device.type != "cuda":
        return True  # interpreted
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 9)
