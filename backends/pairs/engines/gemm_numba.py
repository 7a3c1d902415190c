"""Four rows times a block of columns with the accumulators in registers: the product that numba's own loops cannot express.

A loop over columns that LLVM vectorises must keep its sums in memory between coordinates; here the sums of four rows and
several SIMD vectors of columns stay in registers while the loop runs over the coordinates. So the code is emitted as LLVM
vectors, as wide as the processor has them.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_ROWS = 4


def _host_has(feature: str) -> bool:
    try:
        return bool(llvm.get_host_cpu_features().get(feature, False))
    except RuntimeError:  # not told on every platform
        return False


# Bytes of a vector, and how many vectors of each row: eight to sixteen sums hide the latency of a multiply-add.
_BYTES, _VECTORS = (64, 4) if _host_has("avx512f") else (32, 2)


@intrinsic
def four_rows_times(typingctx, T, X, Y, coordinates, columns, stride):
    """``T[r, j] = sum_k X[k, r] Y[k, j]`` for contiguous arrays.

    ``Y`` has ``stride`` entries a row, of which ``columns``, a multiple of 16, are used.
    """

    def codegen(context, builder, signature, args):
        dtype = context.get_value_type(T.dtype)
        t, x, y = (context.make_array(kind)(context, builder, a).data for kind, a in zip((T, X, Y), args, strict=False))
        lanes = _BYTES // (T.dtype.bitwidth // 8)
        emit = _Block(builder, dtype, lanes, (t, x, y), *args[3:])
        wide = ir.Constant(args[4].type, lanes * _VECTORS)
        rounded = builder.mul(builder.udiv(args[4], wide), wide)
        emit.columns(ir.Constant(args[4].type, 0), rounded, _VECTORS)
        emit.columns(rounded, args[4], 1)
        return context.get_dummy_value()

    return types.void(T, X, Y, types.intp, types.intp, types.intp), codegen


class _Block:
    """Emits the loops over columns and coordinates."""

    def __init__(self, builder: Any, dtype: Any, lanes: int, data: Any, K: Any, J: Any, stride: Any) -> None:
        self.builder, self.vector, self.lanes = builder, ir.VectorType(dtype, lanes), lanes
        (self.t, self.x, self.y), self.K, self.J, self.stride = data, K, J, stride
        self.align = 4 if dtype == ir.FloatType() else 8

    def columns(self, start: Any, stop: Any, vectors: int) -> None:
        """Columns ``start`` to ``stop``, so many vectors at a time."""
        b = self.builder
        step = ir.Constant(start.type, vectors * self.lanes)
        with cgutils.for_range_slice(b, start, stop, step, intp=start.type) as (j, _):
            sums = self._coordinates(j, vectors)
            for row in range(_ROWS):
                base = b.add(b.mul(ir.Constant(j.type, row), self.J), j)
                for i in range(vectors):
                    b.store(sums[row * vectors + i], self._at(self.t, base, i), align=self.align)

    def _coordinates(self, j: Any, vectors: int) -> list[Any]:
        """The sums over all coordinates, in registers."""
        b = self.builder
        before, body, after = b.block, b.append_basic_block("coordinate"), b.append_basic_block("done")
        b.branch(body)
        b.position_at_end(body)
        k = b.phi(j.type)
        sums = [b.phi(self.vector) for _ in range(_ROWS * vectors)]
        base = b.add(b.mul(k, self.stride), j)
        ys = [b.load(self._at(self.y, base, i), align=self.align) for i in range(vectors)]
        added = []
        for row in range(_ROWS):
            place = b.add(b.mul(k, ir.Constant(k.type, _ROWS)), ir.Constant(k.type, row))
            x = self._broadcast(b.load(b.gep(self.x, [place])))
            for i in range(vectors):
                product = b.fmul(x, ys[i], flags=("contract",))
                added.append(b.fadd(sums[row * vectors + i], product, flags=("contract",)))
        following = b.add(k, ir.Constant(k.type, 1))
        k.add_incoming(ir.Constant(k.type, 0), before)
        k.add_incoming(following, body)
        for total, new in zip(sums, added, strict=True):
            total.add_incoming(ir.Constant(self.vector, None), before)
            total.add_incoming(new, body)
        b.cbranch(b.icmp_signed("<", following, self.K), body, after)
        b.position_at_end(after)
        return added

    def _at(self, pointer: Any, base: Any, i: int) -> Any:
        """Where vector ``i`` after entry ``base`` lies."""
        b = self.builder
        place = b.add(base, ir.Constant(base.type, i * self.lanes))
        return b.bitcast(b.gep(pointer, [place]), self.vector.as_pointer())

    def _broadcast(self, scalar: Any) -> Any:
        b = self.builder
        one = b.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None)
        return b.shuffle_vector(one, ir.Constant(self.vector, ir.Undefined), zeros)
