"""`attndsl export`: the pairs of a call in the format of another library's kernels."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np

from . import arguments as args
from .commands import Command
from .subjects import LARGE, setting, subject
from .terminal import Terminal

FORMATS = (
    "bsr", "csr", "cu_seqlens", "varlen", "flashmask", "magi", "block_sparse", "natten", "bias",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    args.add_pattern(parser)
    args.add_call(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="which; `Pattern.export` says what each holds",
    )
    parser.add_argument(
        "--block", type=args.whole(1, 4096), metavar="N", default=128, help="default 128"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.npz", required=True)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    from attndsl.compiled import Pattern  # torch: half the commands do without

    about = subject(options)
    call = setting(about.mask, options, LARGE)
    for name, words in call.made_up.items():
        terminal.warn(f"{name} was made up here: {words}; give yours with --input {name}=FILE.npy")
    pattern = Pattern(about.mask, options.layer, options.without)
    found = pattern.export(
        options.format, call.q_len, call.k_len, call.heads,
        block_size=options.block, batch=call.batch, extents=call.extents, inputs=call.inputs,
    )  # fmt: skip
    held = {name: np.asarray(value) for name, value in found.items() if value is not None}
    file = io.BytesIO()
    np.savez_compressed(file, **held)  # type: ignore[arg-type]
    args.write(options.output, file.getvalue(), options)
    shapes = ", ".join(f"{name} {x.dtype}{list(x.shape)}" for name, x in held.items())
    terminal.say(f"wrote {options.output}: {shapes}")
    return 0


COMMAND = Command(
    (
        "attndsl export longformer --q-len 4096 --format bsr -o longformer.npz",
        "attndsl export documents_causal --input doc=ids.npy --q-len 4096 --format cu_seqlens -o packed.npz",
    ),
    configure,
    run,
)
