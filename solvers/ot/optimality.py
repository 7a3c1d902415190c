"""The differentiated optimality conditions of balanced entropic transport as a linear system, and its solution.

``[[diag r, P], [P^T, diag c]] (s, t) = rhs``, with ``r`` and ``c`` the sums of the rows and columns of the plan ``P``; what is
solved is the Schur complement ``diag c - P^T diag(1/r) P``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace, finfo_eps
from ...backends.operators import LinearOperator
from ...backends.special import softmax
from ...backends.transfer import host_float
from ...backends.validation import check_array
from ..linear.cg import cg
from .autograd import bare
from .geometry import Dense
from .plan_tiles import Tile, pair_gradients, tiles, widened
from .problem import finite
from .result import TransportResult

#: ``dL/dP``: an array (n, m); a pair (u, v) of arrays (n,), (m,) or (n, k), (m, k) that means ``u v^T``; or a function of a
#: `Tile` that returns its rows.
Sensitivity = Any


class Optimality:
    """The conditional plans ``R = P / r`` and ``Q = P^T / c``, and the linear system in ``t`` that they make.

    Conditional plans exist where a weight is zero, too: their rows sum to one wherever a row reaches anybody.
    """

    def __init__(self, result: TransportResult) -> None:
        self.asked, self.result = result, widened(result)
        self.geometry, self.xp = self.result.geometry, self.result.geometry.xp
        self.F, self.G = self.result.scaled()
        self.kernel: Any = self.geometry.kernel(self.result.reg)
        self.log_rows, self.log_columns = self.kernel.rows(self.G, None), self.kernel.columns(self.F, None)
        xp = self.xp
        self.r = xp.exp(self.F + self.log_rows)
        self.R: Array | None = None
        if isinstance(self.geometry, Dense):
            self.R = softmax(self.G[None, :] - self.geometry.C / self.result.reg, axis=1, xp=xp)
            # Of the stored matrix, so that the constants are its null vector to rounding.
            self.c = self.R.T @ self.r
        else:
            self.c = xp.exp(self.G + self.log_columns)

    # -- products ------------------------------------------------------------------------------------------------

    def forward(self, t: Array) -> Array:
        """``R t``."""
        averages: Array = self.R @ t if self.R is not None else self.kernel.row_average(self.G, t)
        return averages

    def backward(self, s: Array) -> Array:
        """``Q s``."""
        averages: Array = self.kernel.column_average(self.F, s)
        return averages

    def transposed(self, s: Array) -> Array:
        """``P^T s``, exactly the transpose of the product that `forward` makes."""
        return self.R.T @ (self.r * s) if self.R is not None else self.c * self.backward(s)

    def per_row(self, u: Array) -> Array:
        """``u / r``, zero where there is no mass."""
        return self.xp.where(self.r > 0, u / self.xp.where(self.r > 0, self.r, 1.0), 0.0)

    def per_column(self, v: Array) -> Array:
        """``v / c``, zero where there is no mass."""
        return self.xp.where(self.c > 0, v / self.xp.where(self.c > 0, self.c, 1.0), 0.0)

    # -- the sensitivity -----------------------------------------------------------------------------------------

    def averages(self, W: Sensitivity) -> tuple[Array, Array, Callable[[Tile], Array]]:
        """The means of ``W`` over the conditional plans, (n,) and (m,), and its rows as a function of a tile."""
        xp, (n, m), asked = self.xp, self.geometry.shape, self.asked.f.dtype
        W = _given(W)
        if isinstance(W, tuple | list):
            u, v = self._factors(W)
            rows = xp.sum(u * self.kernel.row_average(self.G, v), axis=1)
            columns = xp.sum(v * self.kernel.column_average(self.F, u), axis=1)
            return rows, columns, lambda tile: u[tile.start : tile.stop, :] @ v.T
        if callable(W):

            def weight(tile: Tile) -> Array:
                block = _given(W(tile))
                array_namespace(result=self.F, W=block)
                check_array(block, "W", xp, shape=(tile.stop - tile.start, m))
                return xp.astype(block, self.F.dtype, copy=False)
        else:
            array_namespace(result=self.F, W=W)
            check_array(W, "W", xp, shape=(n, m), dtype=asked)

            def weight(tile: Tile) -> Array:
                return xp.astype(W[tile.start : tile.stop, :], self.F.dtype, copy=False)

        logs, columns = finite(self.log_columns, xp), xp.zeros_like(self.G)
        rows = []
        for tile in tiles(self.geometry, self.result.reg):
            block = weight(tile)
            R = softmax(tile.logs + self.G[None, :], axis=1, xp=xp)
            Q = xp.exp(tile.logs + self.F[tile.start : tile.stop][:, None] - logs[None, :])
            rows.append(xp.sum(R * block, axis=1))
            columns = columns + xp.sum(Q * block, axis=0)
        return xp.concat(rows), columns, weight

    def _factors(self, W: Sequence[Array]) -> tuple[Array, Array]:
        """The checked pair, two-dimensional and in the working dtype."""
        if len(W) != 2:
            raise InputError(f"W holds {len(W)} arrays, expected a pair (u, v)")
        xp = self.xp
        factors: list[Array] = []
        for name, factor, size in zip(("W[0]", "W[1]"), W, self.geometry.shape, strict=True):
            factor = bare(factor)
            array_namespace(result=self.F, **{name: factor})
            check_array(factor, name, xp, ndim=(1, 2), dtype=self.asked.f.dtype)
            columns = factor[:, None] if factor.ndim == 1 else factor
            if columns.shape[0] != size or (factors and columns.shape[1] != factors[0].shape[1]):
                raise InputError(
                    f"{name} has shape {tuple(factor.shape)}, expected {size} rows and as many columns as W[0]"
                )
            factors.append(xp.astype(columns, self.F.dtype, copy=False))
        return factors[0], factors[1]

    # -- the linear system ---------------------------------------------------------------------------------------

    def solve(self, rows: Array, columns: Array, rtol: float | None, maxiter: int | None) -> Array:
        """``t`` of ``s + R t = rows``, ``Q s + t = columns``."""
        xp, dtype, c = self.xp, self.c.dtype, self.c
        eps = finfo_eps(dtype, xp)
        single = dtype == xp.float32
        first, second = c * columns, self.transposed(rows)
        rhs = first - second
        # The constants are the null vector; rounding and an unfinished plan leave a share of them in the right-hand side.
        rhs = rhs - c * (xp.sum(rhs) / xp.sum(c))
        # A system of float32 is solved with a little of the diagonal added, or rounding makes it indefinite.
        diagonal = c * (1.0 + 1e-5) if single else c

        def product(t: Array) -> Array:
            return diagonal * t - self.transposed(self.forward(t))

        inverse = xp.where(c > 0, 1.0 / xp.where(c > 0, self.diagonal(diagonal), 1.0), 1.0)
        operator = LinearOperator((c.shape[0],) * 2, product, dtype=dtype, tags={"symmetric", "positive"}, name="Schur")
        jacobi = LinearOperator(
            operator.shape, lambda z: inverse * z, dtype=dtype, tags={"symmetric", "positive"}, name="M"
        )
        # Where both sides cancel (W = u 1^T + 1 v^T changes nothing), what is left is rounding, not to be solved for.
        size = host_float(xp.sqrt(xp.sum(first * first)) + xp.sqrt(xp.sum(second * second)))
        rtol = (1e-5 if single else 1e-10) if rtol is None else rtol
        return cg(operator, rhs, rtol=rtol, atol=10 * eps * size, maxiter=maxiter, M=jacobi).x

    def diagonal(self, diagonal: Array) -> Array:
        """The diagonal of the Schur complement where it is stored, and above rounding; else that of its first part."""
        if self.R is None:
            return diagonal
        exact = diagonal - (self.R * self.R).T @ self.r
        return self.xp.maximum(exact, 1e-6 * diagonal)

    def back(self, rows: Array, columns: Array, t: Array) -> tuple[Array, Array]:
        """``s`` from ``t``, then ``t`` from ``s``: that also gives the entries of points without weight."""
        s = rows - self.forward(t)
        return s, columns - self.backward(s)

    def answer(
        self,
        names: tuple[str, ...],
        s: Array,
        t: Array,
        change: Callable[[Tile, Array], Array],
        explicit: Array | float = 0.0,
        direct: float = 0.0,
    ) -> dict[str, Array]:
        """The derivatives by name: ``plan * change`` is that by the cost through the plan, ``direct * plan`` is added.

        ``explicit`` is a part of the derivative by the regularisation.
        """
        xp, result = self.xp, self.result
        shift = 0.5 * (xp.sum(result.b * t) - xp.sum(result.a * s)) / xp.sum(result.a)
        found: dict[str, Array] = {"a": s + shift, "b": t - shift}

        def total(tile: Tile, plan: Array) -> Array:
            return change(tile, plan) + direct

        found |= pair_gradients(result, total, set(names) & {"cost", "x", "y"})
        if "reg" in names:
            # The plan depends on C / reg alone: more regularisation is less of the cost.
            found["reg"] = explicit - pair_gradients(result, change, {"scale"})["scale"] / result.reg
        return {name: xp.asarray(found[name], dtype=self.asked.f.dtype) for name in names}


def _given(W: Any) -> Any:
    if W is None:
        raise InputError(
            "W is None, expected an array, a pair of arrays, or a function of a tile that returns its rows"
        )
    return bare(W)
