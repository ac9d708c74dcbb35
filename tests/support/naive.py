"""Every format once more, as plainly as it can be said: one element at a time, Python integers.

Written from the layout of the formats and not from kquant's kernels, so that the two can only
agree by both being right.  Slow on purpose.  A decoder takes the bytes of one block and returns
its values as float32 scalars, computed in the order of operations that ggml's `to_float` has.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

import numpy as np

f32 = np.float32
Block = bytes
Values = list[np.float32]


def half(block: Block, at: int) -> np.float32:
    """The fp16 number at a byte offset; every fp16 number is a float32 number."""
    return f32(struct.unpack_from("<e", block, at)[0])


def signed(byte: int) -> int:
    """A byte as a two's complement number."""
    return byte - 256 if byte > 127 else byte


# ---------------------------------------------------------------- blocks of 32


def nibble(qs: Sequence[int], i: int) -> int:
    """Level i of 32: the low nibbles hold the first 16, the high nibbles the others."""
    return qs[i] & 15 if i < 16 else qs[i - 16] >> 4


def decode_q4_0(block: Block) -> Values:
    d, qs = half(block, 0), block[2:18]
    return [f32(nibble(qs, i) - 8) * d for i in range(32)]


def decode_q4_1(block: Block) -> Values:
    d, m, qs = half(block, 0), half(block, 2), block[4:20]
    return [f32(nibble(qs, i)) * d + m for i in range(32)]


def decode_q5_0(block: Block) -> Values:
    d, qh, qs = half(block, 0), int.from_bytes(block[2:6], "little"), block[6:22]
    return [f32((nibble(qs, i) | (qh >> i & 1) << 4) - 16) * d for i in range(32)]


def decode_q5_1(block: Block) -> Values:
    d, m, qh, qs = half(block, 0), half(block, 2), int.from_bytes(block[4:8], "little"), block[8:24]
    return [f32(nibble(qs, i) | (qh >> i & 1) << 4) * d + m for i in range(32)]


def decode_q8_0(block: Block) -> Values:
    d, qs = half(block, 0), block[2:34]
    return [f32(signed(q)) * d for q in qs]


def decode_q8_1(block: Block) -> Values:
    d, qs = half(block, 0), block[4:36]
    return [f32(signed(q)) * d for q in qs]


IQ4_NL_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def decode_iq4_nl(block: Block) -> Values:
    d, qs = half(block, 0), block[2:18]
    return [d * f32(IQ4_NL_LEVELS[nibble(qs, i)]) for i in range(32)]


def e2m1(bits: int) -> np.float32:
    """A float of four bits: sign, two of exponent, one of mantissa; minus zero is zero."""
    exponent, mantissa = bits >> 1 & 3, bits & 1
    magnitude = f32((2 + mantissa) * 2.0 ** (exponent - 2) if exponent else mantissa / 2)
    return -magnitude if bits & 8 and magnitude else magnitude


def decode_mxfp4(block: Block) -> Values:
    """The smallest scales are subnormal; twice the scale times half the float rounds nowhere."""
    half_scale, qs = f32(2.0 ** (block[0] - 128)), block[1:17]
    return [f32(2) * e2m1(nibble(qs, i)) * half_scale for i in range(32)]


# ---------------------------------------------------------------- super-blocks of 256


def decode_q2_k(block: Block) -> Values:
    scales, qs, d, dmin = block[0:16], block[16:80], half(block, 80), half(block, 82)
    values = []
    for i in range(256):
        sc, m = scales[i // 16] & 15, scales[i // 16] >> 4
        q = qs[i // 128 * 32 + i % 32] >> (i % 128 // 32 * 2) & 3
        values.append(d * f32(sc) * f32(q) - dmin * f32(m))
    return values


def decode_q3_k(block: Block) -> Values:
    hmask, qs, scales, d = block[0:32], block[32:96], block[96:108], half(block, 108)
    values = []
    for i in range(256):
        j = i // 16
        low = scales[j] & 15 if j < 8 else scales[j - 8] >> 4
        sc = (low | (scales[8 + j % 4] >> (j // 4 * 2) & 3) << 4) - 32
        q = qs[i // 128 * 32 + i % 32] >> (i % 128 // 32 * 2) & 3
        high = hmask[i % 32] >> (i // 32) & 1
        values.append(d * f32(sc) * f32(q + 4 * high - 4))
    return values


def scale_min(scales: Sequence[int], j: int) -> tuple[int, int]:
    """The 6-bit scale and min of sub-block j, out of the 12 bytes that Q4_K and Q5_K share."""
    if j < 4:
        return scales[j] & 63, scales[j + 4] & 63
    return scales[j + 4] & 15 | scales[j - 4] >> 6 << 4, scales[j + 4] >> 4 | scales[j] >> 6 << 4


def nibble_of_64(qs: Sequence[int], i: int) -> int:
    """Level i of 256: 32 bytes hold 64 levels, low nibbles first."""
    return qs[i // 64 * 32 + i % 32] >> (i % 64 // 32 * 4) & 15


def decode_q4_k(block: Block) -> Values:
    d, dmin, scales, qs = half(block, 0), half(block, 2), block[4:16], block[16:144]
    values = []
    for i in range(256):
        sc, m = scale_min(scales, i // 32)
        values.append(d * f32(sc) * f32(nibble_of_64(qs, i)) - dmin * f32(m))
    return values


def decode_q5_k(block: Block) -> Values:
    d, dmin, scales, qh, qs = half(block, 0), half(block, 2), block[4:16], block[16:48], block[48:176]
    values = []
    for i in range(256):
        sc, m = scale_min(scales, i // 32)
        q = nibble_of_64(qs, i) | (qh[i % 32] >> (i // 32) & 1) << 4
        values.append(d * f32(sc) * f32(q) - dmin * f32(m))
    return values


def decode_q6_k(block: Block) -> Values:
    ql, qh, scales, d = block[0:128], block[128:192], block[192:208], half(block, 208)
    values = []
    for i in range(256):
        low = ql[i // 128 * 64 + i % 64] >> (i % 128 // 64 * 4) & 15
        high = qh[i // 128 * 32 + i % 32] >> (i % 128 // 32 * 2) & 3
        values.append(d * f32(signed(scales[i // 16])) * f32((low | high << 4) - 32))
    return values


def decode_q8_k(block: Block) -> Values:
    (d,) = struct.unpack_from("<f", block)
    return [f32(d) * f32(signed(q)) for q in block[4:260]]


# ---------------------------------------------------------------- plain floats


def decode_f32(block: Block) -> Values:
    return [f32(struct.unpack("<f", block)[0])]


def decode_f16(block: Block) -> Values:
    return [half(block, 0)]


def decode_bf16(block: Block) -> Values:
    """The upper half of a float32."""
    return [f32(struct.unpack("<f", b"\0\0" + block)[0])]


DECODERS: dict[str, Callable[[Block], Values]] = {
    "F32": decode_f32,
    "F16": decode_f16,
    "BF16": decode_bf16,
    "Q4_0": decode_q4_0,
    "Q4_1": decode_q4_1,
    "Q5_0": decode_q5_0,
    "Q5_1": decode_q5_1,
    "Q8_0": decode_q8_0,
    "Q8_1": decode_q8_1,
    "Q2_K": decode_q2_k,
    "Q3_K": decode_q3_k,
    "Q4_K": decode_q4_k,
    "Q5_K": decode_q5_k,
    "Q6_K": decode_q6_k,
    "Q8_K": decode_q8_k,
    "IQ4_NL": decode_iq4_nl,
    "MXFP4": decode_mxfp4,
}


HALVES: dict[str, tuple[int, ...]] = {
    "F16": (0,),
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q8_1": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
}
"""Where each block keeps its fp16 numbers: byte offsets."""


def is_valid(block: Block, type_name: str) -> bool:
    """Whether every floating-point number stored in a block is finite."""
    if type_name == "MXFP4":
        return block[0] != 255
    if type_name in HALVES:
        return all(math.isfinite(half(block, at)) for at in HALVES[type_name])
    return bool(np.isfinite(decode_bf16(block) if type_name == "BF16" else decode_f32(block[:4]))[0])


# ---------------------------------------------------------------- quantizers without a search


def half_bytes(value: np.float32) -> bytes:
    """Round to fp16, half to even; beyond the range, infinity."""
    try:
        return struct.pack("<e", float(value))
    except OverflowError:
        return struct.pack("<e", math.copysign(math.inf, value))


def inverse(d: np.float32) -> np.float32:
    return f32(1) / d if d else f32(0)


def largest(x: Sequence[np.float32]) -> np.float32:
    """The element of largest magnitude, the first of several; +0 if all are zero."""
    best = f32(0)
    for value in x:
        if abs(value) > abs(best):
            best = value
    return best


def round_away(value: np.float32) -> int:
    """The nearest integer, half away from zero: C's `roundf`."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def encode_f16(x: Sequence[np.float32]) -> Block:
    return b"".join(half_bytes(value) for value in x)


def encode_bf16(x: Sequence[np.float32]) -> Block:
    """The upper 16 bits, rounded half to even; for finite values."""
    out = b""
    for value in x:
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        out += struct.pack("<H", bits + 0x7FFF + (bits >> 16 & 1) >> 16)
    return out


def encode_q4_0(x: Sequence[np.float32]) -> Block:
    d = largest(x) / f32(-8)
    levels = [min(15, int(value * inverse(d) + f32(8.5))) for value in x]
    return half_bytes(d) + bytes(levels[i] | levels[i + 16] << 4 for i in range(16))


def encode_q8_0(x: Sequence[np.float32]) -> Block:
    d = abs(largest(x)) / f32(127)
    return half_bytes(d) + bytes(round_away(value * inverse(d)) & 255 for value in x)


def encode_mxfp4(x: Sequence[np.float32]) -> Block:
    """The exponent of the largest magnitude, two less for a float of four bits that reaches 6.

    Only for magnitudes whose logarithm does not round up to the next integer.
    """
    largest_exponent = math.frexp(float(abs(largest(x))))[1] - 1
    e = max(largest_exponent + 125, 0) if any(x) else 0
    scale = 2.0 ** (e - 127)
    magnitudes = [float(e2m1(q)) * scale for q in range(8)]
    levels = []
    for value in x:
        q = min(range(8), key=lambda q: abs(magnitudes[q] - abs(float(value))))  # of two the first
        levels.append(q + 8 if q and value < 0 else q)
    return bytes([e]) + bytes(levels[i] | levels[i + 16] << 4 for i in range(16))


ENCODERS: dict[str, Callable[[Sequence[np.float32]], Block]] = {
    "F16": encode_f16,
    "BF16": encode_bf16,
    "Q4_0": encode_q4_0,
    "Q8_0": encode_q8_0,
    "MXFP4": encode_mxfp4,
}
