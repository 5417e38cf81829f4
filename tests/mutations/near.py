"""The tests that a planted fault meets, nearest first."""

# Where tests of a file's faults are, nearest first, by the longest name that fits; then all others in turn.
NEAR = {
    "analysis": ("rooms/analysis", "rooms/claims", "laws", "rooms/schedule/test_exact.py"),
    "schedule": ("rooms/schedule/test_exact.py", "rooms/schedule", "laws"),
    "schedule/layouts.py": ("rooms/schedule/test_layouts.py",),
    "passes": ("rooms/passes", "laws", "rooms/schedule/test_exact.py"),
    "ir/storage.py": ("rooms/ir/test_storage.py",),
    "emission/signature.py": ("rooms/ir/test_storage.py",),
    "ir": ("rooms/ir/test_building.py", "rooms/ir", "rooms/passes", "laws"),
    "ir/sizing.py": ("rooms/ir/test_sizing.py",),
    "ir/semantics.py": ("rooms/ir/test_large_numbers.py", "rooms/ir", "rooms/frontend"),
    "codegen": ("rooms/codegen", "rooms/backends/test_triton.py"),
    "emission": ("rooms/emission/test_emission.py",),
    "backends/integers.py": ("rooms/emission/test_integers.py",),
    "backends/live_tiles.py": ("rooms/backends/test_live_tiles.py",),
    "backends/standalone.py": ("rooms/emission/test_emission.py",),
    "verification": ("rooms/verification/test_verify.py", "rooms/verification"),
    "backends": ("rooms/backends/test_blocked.py", "rooms/backends/test_merging.py", "laws"),
    "backends/composed.py": ("rooms/op/test_transforms.py",),
    "backends/dense.py": ("rooms/op/test_attention.py", "rooms/backends/test_dense.py"),
    "backends/block_batches.py": (
        "rooms/backends/test_block_batches.py",
        "rooms/backends/test_blocked.py",
        "laws",
    ),
    "backends/places.py": (
        "rooms/backends/test_block_batches.py",
        "rooms/backends/test_blocked.py",
    ),
    "backends/kernels": ("rooms/backends/test_sixteen_bits.py", "rooms/backends/test_triton.py"),
    "backends/work_partition.py": (
        "rooms/backends/test_work_partition.py",
        "rooms/backends/test_triton.py",
    ),
    "backends/triton.py": ("rooms/backends/test_triton.py",),
    "backends/arguments.py": ("rooms/backends/test_launching.py",),
    "backends/launching.py": ("rooms/backends/test_launching.py",),
    "claims": ("rooms/claims",),
    "patterns/library": ("library/test_entries.py",),
    "cli": ("rooms/cli/test_streams_and_files.py", "rooms/cli"),
    "cache": ("rooms/cache",),
    "files.py": ("rooms/cli/test_streams_and_files.py",),
    "op": ("rooms/op", "laws"),
    "op/merging.py": ("rooms/op/test_merging.py",),
    "op/scaling.py": ("rooms/op/test_scale.py",),
    "op/registration.py": ("rooms/op/test_operators.py", "rooms/op/test_compile.py"),
    "op/counting.py": ("rooms/op/test_operators.py",),
    "op/rows.py": ("rooms/op/test_positions.py",),
    "picturing.py": ("rooms/op/test_inputs.py",),
    "passes/shift_heads.py": ("rooms/op/test_heads_of_a_rank.py",),
    "inputs.py": ("rooms/op/test_inputs.py",),
    "frontend/placing.py": ("rooms/op/test_compile.py",),
    "frontend/precedence.py": ("rooms/frontend/test_precedence.py",),
    "explaining.py": ("rooms/frontend/test_precedence.py", "rooms/views"),
    "frontend": ("rooms/frontend", "rooms/syntax"),
    "importing.py": ("rooms/op/test_operators.py",),
    "lowering.py": ("rooms/op/test_default_layout.py", "rooms/op"),
    "passes/set_positions.py": ("rooms/op/test_positions.py",),
    "positions.py": ("rooms/op/test_positions.py",),
    "ir/reads.py": ("rooms/ir/test_reads.py",),
    "compiled.py": ("rooms/op", "rooms/views"),
    "compiler.py": ("rooms/schedule/test_exact.py", "rooms/op", "laws"),
}

REST = (
    "fuzz", "rooms/ir", "rooms/passes", "rooms/analysis", "rooms/op", "rooms/verification", "rooms/patterns",
    "rooms/schedule", "rooms/codegen", "rooms/claims", "rooms/backends", "rooms/frontend", "library", "rooms/cache",
    "rooms/syntax", "rooms/views", "rooms/emission", "rooms/testing", "rooms/cli", "house/test_bad_input.py",
    "house/test_hostile_programs.py",
)  # fmt: skip


def paths(file: str, near: bool) -> list[list[str]]:
    """Where tests are: those near the file, then all others."""
    room = max((name for name in NEAR if file.startswith(name)), key=len)
    groups = [[name] for name in NEAR[room]] + ([] if near else [[name] for name in REST])
    return [[f"tests/{name}" for name in names] for names in groups]
