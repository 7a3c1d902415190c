"""2^t by a polynomial that the compiler turns into SIMD.

``2^t = 2^n 2^r`` with ``n = round(t)`` by the rounding trick, ``|r| <= 1/2``, and the minimax polynomial of ``2^r``: degree 6
in float32 (2e-9) and 11 in float64 (3e-18), so what is left is rounding. ``n`` is added to the exponent bits. These
helpers must not be reassociated, or the rounding trick is simplified away; only their callers may be.
"""

from __future__ import annotations

import numpy as np

from ...errors import MissingDependencyError

try:
    from numba import types
    from numba.extending import intrinsic, overload
except ImportError as err:
    raise MissingDependencyError.for_extra("numba", "numba", "engine='numba'") from err

# No assumption that NaN or infinity is absent: minus infinity is how a zero weight looks.
EXACT = {"contract", "nsz"}

_F = np.float32
_MAGIC32, _MAGIC64 = _F(1.5 * 2**23), 1.5 * 2.0**52
# mpmath.chebyfit(lambda r: mpf(2)**r, [-0.5, 0.5], degree + 1), highest power first.
_C32 = tuple(
    _F(float.fromhex(c))
    for c in (
        "0x1.444000p-13", "0x1.5f48c0p-10", "0x1.3b2a1cp-7", "0x1.c6aeccp-5", "0x1.ebfbe0p-3", "0x1.62e430p-1", "0x1p+0",
    )
)  # fmt: skip
_C64 = tuple(
    float.fromhex(c)
    for c in (
        "0x1.e9ec1fcb69a7fp-32", "0x1.e6228acd1c6e5p-28", "0x1.b524ebd13a55fp-24", "0x1.62bfc2c86d700p-20",
        "0x1.ffcbfc6da6ed1p-17", "0x1.430913112c61bp-13", "0x1.5d87fe78a3f9cp-10", "0x1.3b2ab6fb9f1a5p-7",
        "0x1.c6b08d704a0c6p-5", "0x1.ebfbdff82c5aep-3", "0x1.62e42fefa39efp-1", "0x1p+0",
    )
)  # fmt: skip


def _reinterpreted(value, target):
    """The bits of a number read as another type of its size."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(target))

    return target(value), codegen


@intrinsic
def _as_float(typingctx, value):
    return _reinterpreted(value, types.float32 if value.bitwidth == 32 else types.float64)


@intrinsic
def _as_bits(typingctx, value):
    return _reinterpreted(value, types.int32 if value.bitwidth == 32 else types.int64)


def exp2(t):
    """``2^t`` in compiled code: infinity from the largest exponent on, zero below the smallest normal number."""
    raise NotImplementedError


def _exp2_32(t):
    t = min(t, _F(128.0))
    shifted = t + _MAGIC32
    r = t - (shifted - _MAGIC32)
    p = _C32[0]
    p = p * r + _C32[1]
    p = p * r + _C32[2]
    p = p * r + _C32[3]
    p = p * r + _C32[4]
    p = p * r + _C32[5]
    p = p * r + _C32[6]
    power = _as_float(np.int32(_as_bits(p) + (_as_bits(shifted) << 23)))
    return power if t >= _F(-126.0) else _F(0.0)


def _exp2_64(t):
    t = min(t, 1024.0)
    shifted = t + _MAGIC64
    r = t - (shifted - _MAGIC64)
    p = _C64[0]
    p = p * r + _C64[1]
    p = p * r + _C64[2]
    p = p * r + _C64[3]
    p = p * r + _C64[4]
    p = p * r + _C64[5]
    p = p * r + _C64[6]
    p = p * r + _C64[7]
    p = p * r + _C64[8]
    p = p * r + _C64[9]
    p = p * r + _C64[10]
    p = p * r + _C64[11]
    power = _as_float(_as_bits(p) + (_as_bits(shifted) << 52))
    return power if t >= -1022.0 else 0.0


@overload(exp2, jit_options={"fastmath": EXACT})
def _exp2(t):
    return _exp2_32 if t == types.float32 else _exp2_64
