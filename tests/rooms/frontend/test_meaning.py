"""Random programs: what the compiler builds means what an interpreter of the text says."""

import numpy as np
from hypothesis import HealthCheck, assume, given, settings

from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError
from attndsl.testing import Program, programs

from .interpreter import Space, World, run

CAUSAL = syn.parse("pattern causal = k <= q").declarations[0]


def interpreted(program: Program, module: syn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, bool [batch, heads, q_len, k_len], and zero keys, int [batch, heads, q_len]."""
    declared = {each.name: each for each in module.declarations}
    main = declared["main"]
    both = ("", "") if main.over is None else (main.over.queries, main.over.keys)
    spaces = {
        "q": space_of(both[0], declared, program.sizes),
        "k": space_of(both[1] or both[0], declared, program.sizes),
    }
    is_end = main.align != "start" and both[1] in (None, "")
    shift = program.k_len - program.q_len if is_end else 0
    found = np.empty((program.batch, program.heads, program.q_len, program.k_len), bool)
    zeros = np.zeros(found.shape[:3], int)
    for b, h, i, j in np.ndindex(found.shape):
        values = {"q": i + shift, "k": j, "head": h, "batch": b, "heads": program.heads}
        values |= {"layer": program.layer, "len(q)": program.q_len, "len(k)": program.k_len}
        inputs = {n: each for n, each in declared.items() if isinstance(each, syn.Input)}
        definitions = {"causal": CAUSAL, **declared}
        world = World(definitions, inputs, spaces, values, program.tables, shift, {})
        found[b, h, i, j] = run(main.body, world)
        zeros[b, h, i] = 0 if main.zeros is None else run(main.zeros, world)
    return found, zeros


def space_of(name: str, declared: dict, sizes: dict[str, int]) -> Space:
    if not name:
        return []
    space = declared[name]
    if isinstance(space, syn.Grid):
        return [(name, {axis.name: sizes[f"{name}.{axis.name}"] for axis in space.axes})]
    return [
        (
            s.name,
            {s.name: s.length}
            if s.length
            else {a.name: sizes[f"{s.name}.{a.name}"] for a in s.axes},
        )
        for s in space.segments
    ]


def elaborated(module: syn.Module) -> ir.Mask:
    try:
        return frontend.elaborate(module)
    except AttnDslError as error:
        # A divisor that turns out to be a constant: the one fault the generator cannot rule out.
        assume(error.code != "A302")
        raise


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(programs())
def test_a_program_means_what_its_text_says(program: Program):
    module = syn.parse(program.text)
    mask = elaborated(module)
    call = (
        mask, program.q_len, program.k_len, program.sizes, program.tables,
        program.batch, program.heads, program.layer,
    )  # fmt: skip
    pairs, zeros = interpreted(program, module)
    if mask.is_placed and mask.align is ir.Align.END:  # no query stands before the first token
        absent = max(0, program.q_len - program.k_len)
        pairs[:, :, :absent], zeros[:, :, :absent] = False, 0
    assert (ir.meaning(*call) == pairs).all(), ir.show(mask.root)
    assert (ir.zero_keys(*call) == zeros).all(), ir.show(mask.zeros)
