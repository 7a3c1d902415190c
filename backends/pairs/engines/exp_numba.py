"""exp by a polynomial that the compiler turns into SIMD, fused with the weighted sum of the row.

``exp(x) = 2^n exp(r)`` with ``n = round(x / log 2)`` by the rounding trick and a Taylor polynomial on ``|r| <= log(2)/2``:
degree 7 in float32 (relative error 1e-7), 13 in float64 (2e-16). The helper must not be reassociated, or the rounding trick
is simplified away; only the accumulation may be.
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import MissingDependencyError

try:
    from numba import njit, types
    from numba.extending import intrinsic
except ImportError as err:
    raise MissingDependencyError.for_extra("numba", "numba", "engine='numba'") from err

_EXACT = {"contract", "nnan", "ninf", "nsz"}
_SUM = {*_EXACT, "reassoc"}
_INV_LOG2 = 1 / math.log(2)

# Split log 2 so that n * high is exact in the working precision.
_HIGH32, _LOW32 = np.float32(0.693359375), np.float32(math.log(2) - 0.693359375)
_HIGH64 = float.fromhex("0x1.62e42fee00000p-1")
_LOW64 = float.fromhex("0x1.a39ef35793c76p-33")
_MAGIC32, _MAGIC64 = np.float32(1.5 * 2**23), 1.5 * 2.0**52
_C32 = tuple(np.float32(1 / math.factorial(k)) for k in range(8))
_C64 = tuple(1 / math.factorial(k) for k in range(14))


@intrinsic
def _bits_to_float(typingctx, value):  # type: ignore[no-untyped-def]
    """Reinterpret an integer as the float of its size."""
    target = types.float32 if value.bitwidth == 32 else types.float64

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(target))

    return target(value), codegen


@njit(fastmath=_EXACT, cache=True, nogil=True)
def _exp32(x):  # type: ignore[no-untyped-def]
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = (x * np.float32(_INV_LOG2) + _MAGIC32) - _MAGIC32
    r = (x - n * _HIGH32) - n * _LOW32
    p = _C32[7]
    p = p * r + _C32[6]
    p = p * r + _C32[5]
    p = p * r + _C32[4]
    p = p * r + _C32[3]
    p = p * r + _C32[2]
    p = p * r + _C32[1]
    p = p * r + _C32[0]
    return p * _bits_to_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@njit(fastmath=_EXACT, cache=True, nogil=True)
def _exp64(x):  # type: ignore[no-untyped-def]
    x = min(max(x, -708.0), 709.0)
    n = (x * _INV_LOG2 + _MAGIC64) - _MAGIC64
    r = (x - n * _HIGH64) - n * _LOW64
    p = _C64[13]
    p = p * r + _C64[12]
    p = p * r + _C64[11]
    p = p * r + _C64[10]
    p = p * r + _C64[9]
    p = p * r + _C64[8]
    p = p * r + _C64[7]
    p = p * r + _C64[6]
    p = p * r + _C64[5]
    p = p * r + _C64[4]
    p = p * r + _C64[3]
    p = p * r + _C64[2]
    p = p * r + _C64[1]
    p = p * r + _C64[0]
    return p * _bits_to_float(np.int64((np.int64(n) + np.int64(1023)) << np.int64(52)))


# Clamped exponents stand for zero: what is below the smallest normal number is dropped, so that masked pairs are exact.


@njit(fastmath=_SUM, cache=True, nogil=True)
def exp_dot32(T, v, acc):  # type: ignore[no-untyped-def]
    """``acc[i, 0] += sum_j exp(T_ij) v_j`` for float32 tiles."""
    for i in range(T.shape[0]):
        total = np.float32(0.0)
        for j in range(T.shape[1]):
            t = T[i, j]
            total += v[j] * (_exp32(t) if t >= np.float32(-87.0) else np.float32(0.0))
        acc[i, 0] += total


@njit(fastmath=_SUM, cache=True, nogil=True)
def exp_dot64(T, v, acc):  # type: ignore[no-untyped-def]
    """``acc[i, 0] += sum_j exp(T_ij) v_j`` for float64 tiles."""
    for i in range(T.shape[0]):
        total = 0.0
        for j in range(T.shape[1]):
            t = T[i, j]
            total += v[j] * (_exp64(t) if t >= -708.0 else 0.0)
        acc[i, 0] += total
