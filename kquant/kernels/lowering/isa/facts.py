"""What lowerings ask before they decide: each name says what it is for, none names a processor."""

from __future__ import annotations

from numba.core.registry import cpu_target

from kquant.kernels.lowering.isa.choice import CHOICE

__all__ = [
    "BLOCKS_PER_REGISTER",
    "COLUMNS_IN_REGISTERS",
    "COLUMNS_LEFT",
    "CONVERTS_HALVES",
    "HAS_BIT_MATRICES",
    "HAS_BYTE_DOTS",
    "HAS_BYTE_PAIRS",
    "REGISTER_BYTES",
    "SEARCH_LANES",
    "SUMS_BY_TURNS",
    "TUNING",
]

_TRIPLE = cpu_target.target_context.codegen().magic_tuple()[0]
TUNING = CHOICE.tuning
HAS_BYTE_DOTS = CHOICE.name == "vnni"
"""Products of bytes are added to int32 in fours, registers have 64 bytes: see `dots.add_dots_of_bytes`."""
HAS_BYTE_PAIRS = CHOICE.name in ("vnni", "avx2")
"""Products of bytes are added in pairs at least: see `dots.pairs_of_bytes`."""
HAS_BIT_MATRICES = HAS_BYTE_DOTS and (CHOICE.is_model or CHOICE.has("gfni"))
"""The bits of each byte are moved and masked at once: see `moves.matrix_of_bits`."""
REGISTER_BYTES = 64 if HAS_BYTE_DOTS else 32 if HAS_BYTE_PAIRS else 0
"""Bytes that an instruction picks from a register at a time; 0 where none does."""
CONVERTS_HALVES = CHOICE.has("f16c") or _TRIPLE.startswith(("aarch64", "arm64"))
"""LLVM has instructions for fp16; see `kquant.kernels.lowering.halves` for processors without."""

SEARCH_LANES = 64 if HAS_BYTE_DOTS or CHOICE.has("avx512f") else 32
"""Blocks that a search works on at a time; results do not depend on it."""
COLUMNS_IN_REGISTERS, COLUMNS_LEFT = (12, 4) if HAS_BYTE_DOTS else (2, 1)
"""Columns of products whose sums stay in registers, of which there are 32 or 16; how many of those left."""
BLOCKS_PER_REGISTER = 2 if HAS_BYTE_DOTS else 1
"""Super-blocks of which a register holds 32 bytes each."""
SUMS_BY_TURNS = 2 if HAS_BYTE_DOTS else 1
"""Sums that products are added to by turns: a product that is added in one instruction waits for the sum."""
