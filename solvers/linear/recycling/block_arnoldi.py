"""A block Arnoldi basis beside a deflated space, and the small least-squares problems of several residuals in it.

``A Z = C B + V H``: the rows of ``V`` are orthonormal blocks, the first one spanning the residuals. Blocks are orthogonalised
by block Gram-Schmidt with a factorisation after each of two passes (Barlow and Smoktunowicz 2013). A direction that a product
does not bring anew is kept as a row of zeros: shapes never depend on numbers, so nothing is read from the device in between.
"""

from __future__ import annotations

import math
from typing import Any

from ....backends.namespace import Array, device, finfo_eps
from ....backends.transfer import from_host
from ..system import System
from .space import Space, on_host

# A second pass shrinks what was rounding, and nothing else, by half.
_ROUNDING = 0.5
# Directions of the residuals below this part of every column's tolerance wait for the next cycle.
_NEGLIGIBLE = 0.1
# Growth of a residual that rounding alone does not explain.
_SPOILT = 1.01


class BlockCycle:
    """The block Krylov space of ``A M`` from the residuals ``r`` (n, p) of ``x``, orthogonal to the rows of ``C``.

    Its first block holds as many vectors as the residuals have directions that matter: columns that have converged, and
    combinations far below the tolerances, are left out. Everything is appended, never overwritten: the iterates of any step
    can be formed later.
    """

    def __init__(self, system: System, x: Array, r: Array, space: Space | None, vectors: int) -> None:
        xp = self.xp = system.xp
        self.system, self.x, self.r, self.space = system, x, r, space
        self.complex = system.complex
        first, coefficients, left_out, norms = self.begin(r)
        n, q = first.shape
        kept = 0 if space is None else int(space[0].shape[0])
        self.q, self.kept = q, kept
        # As many blocks as were asked for, and as the whole space can have.
        m = self.m = max(1, min((vectors - kept) // q, -(-(n - kept) // q)))
        where = {"dtype": r.dtype, "device": device(r)}
        self.W = xp.empty((kept + (m + 1) * q, n), **where)
        if space is not None:
            self.W[:kept, :] = space[1]
        self.W[kept : kept + q, :] = first.T
        self.Z = xp.empty((m * q, n), **where) if system.M is not None else None
        self.G = xp.zeros((kept + (m + 1) * q, m * q), **where)
        self.lost = 10.0 * finfo_eps(r.dtype, xp)
        self.small = LeastSquares(coefficients, left_out, norms, (m + 1) * q, self.lost)

    @property
    def V(self) -> Array:
        """The basis."""
        return self.W[self.kept :, :]

    def begin(self, r: Array) -> tuple[Array, Any, list[float], list[float]]:
        """An orthonormal basis (n, q) of the residuals that matter, what makes them of it, and the norms of the rest and of all."""
        import numpy as np

        xp, system = self.xp, self.system
        norms = system.norm(r)
        active = norms * system.weights > system.tolerance
        unit = system.weights / system.tolerance if system.tolerance > 0 else 1.0 / xp.where(active, norms, 1.0)
        unit = xp.astype(xp.where(active, unit, xp.zeros_like(norms)), r.dtype)
        Q, R = xp.linalg.qr(r * unit)
        R, lengths, unit = on_host(R, xp.astype(norms, r.dtype)[None, :], unit[None, :], xp=xp)
        lengths, unit = lengths[0].real, unit[0].real
        if not (np.isfinite(R).all() and np.isfinite(lengths).all()):
            columns = r.shape[1]
            return Q[:, :1], np.zeros((1, columns), dtype=R.dtype), [0.0] * columns, [math.nan] * columns
        left, s, right = np.linalg.svd(R, full_matrices=False)
        floor = max(100.0 * finfo_eps(r.dtype, xp) * s[0], _NEGLIGIBLE if system.tolerance > 0 else 0.0)
        q = max(1, int((s > floor).sum()))
        size = np.where(unit > 0, unit, 1.0)
        inside = s[:, None] * right / size
        rest = np.where(unit > 0, np.linalg.norm(inside[q:], axis=0), lengths)
        basis = Q @ xp.astype(from_host(left[:, :q], like=Q, xp=xp), Q.dtype)
        if self.space is not None:
            # Of a small combination of large residuals, what rounding left along C is no longer small. The factor is the
            # identity up to the square of that, and up to phases.
            basis, R = xp.linalg.qr(self.pass_over(self.space[1], basis)[0])
            phase = xp.linalg.diagonal(R)
            length = xp.abs(phase)
            basis = basis * (phase / xp.astype(xp.where(length > 0, length, xp.ones_like(length)), phase.dtype))
        return basis, inside[:q], rest.tolist(), lengths.tolist()

    def extend(self, j: int) -> None:
        """Multiply the block ``j`` with ``A`` and append what is new."""
        xp, system, q = self.xp, self.system, self.q
        low = self.kept + j * q
        top = low + q
        z = system.precondition(self.W[low:top, :].T)
        if self.Z is not None:
            self.Z[j * q : (j + 1) * q, :] = z.T
        w = system.A @ z
        size = xp.max(system.norm(w))
        basis = self.W[:top, :]
        w, h = self.pass_over(basis, w)
        Q, S = xp.linalg.qr(w)
        finite = xp.all(xp.isfinite(S))
        left, s, right = xp.linalg.svd(xp.where(finite, S, xp.zeros_like(S)))
        new = s > self.lost * size
        # Sorted, so that the columns to be forgotten come last and disturb no other.
        Q = (Q @ left) * xp.astype(new, Q.dtype)
        S = xp.astype(xp.where(new, s, xp.zeros_like(s)), S.dtype)[:, None] * right
        Q, again = self.pass_over(basis, Q)
        Q, R = xp.linalg.qr(Q)
        new = xp.astype(new & (xp.abs(xp.linalg.diagonal(R)) > _ROUNDING), Q.dtype)
        self.W[top : top + q, :] = (Q * new).T
        columns = slice(j * q, (j + 1) * q)
        self.G[:top, columns] = h + again @ S
        # What is not finite must be seen on the host.
        self.G[top : top + q, columns] = xp.where(finite, (R @ S) * new[:, None], math.nan * xp.ones_like(S))

    def pass_over(self, basis: Array, w: Array) -> tuple[Array, Array]:
        """The columns of ``w`` less their components along the rows of ``basis``, and the components."""
        h = (self.xp.conj(basis) if self.complex else basis) @ w
        return w - basis.T @ h, h

    def unspoilt(self, x: Array, r: Array) -> tuple[Array, Array, Array]:
        """Iterates of this cycle and their recomputed residuals; where a residual has grown, those that the cycle began with.

        The smallest residual cannot grow: where it does, the coefficients were rounding, as on a singular operator. The third
        array says for which columns all is well.
        """
        xp = self.xp
        well = self.system.norm(r) <= _SPOILT * self.system.norm(self.r)
        return xp.where(well[None, :], x, self.x), xp.where(well[None, :], r, self.r), well

    def norms(self, j: int) -> list[float]:
        """Residual norms of the columns after ``j`` steps, on the host."""
        small = self.small
        if j > small.done:
            first, rows = small.done, self.kept + (j + 1) * self.q
            (block,) = on_host(self.G[self.kept : rows, first * self.q : j * self.q], xp=self.xp)
            for i in range(first, j):
                columns = slice((i - first) * self.q, (i - first + 1) * self.q)
                small.absorb(block[: (i + 2) * self.q, columns])
        return small.norms[j]

    def form(self, j: int) -> Array:
        """The iterates after ``j`` steps."""
        if j == 0:
            return self.x
        self.norms(j)
        xp, size = self.xp, j * self.q
        y = xp.astype(from_host(self.small.solve(j, size), like=self.W, xp=xp), self.W.dtype)
        step = (self.V if self.Z is None else self.Z)[:size, :].T @ y
        if self.space is not None:
            step = step - self.space[0].T @ (self.G[: self.kept, :size] @ y)
        return self.x + step


class LeastSquares:
    """``min ||E g - H y_c||`` for every column ``c``, ``H`` block Hessenberg and given block by block; on the host.

    ``Q H[:, order] = [R; 0]`` with the columns in the order in which they were found to be independent.
    """

    def __init__(self, coefficients: Any, left_out: list[float], norms: list[float], rows: int, lost: float) -> None:
        import numpy as np

        q, p = coefficients.shape
        kind = coefficients.dtype
        self.q, self.done, self.lost = q, 0, lost
        self.Q = np.eye(rows, dtype=kind)
        self.R = np.zeros((rows, rows), dtype=kind)
        self.g = np.zeros((rows, p), dtype=kind)
        self.g[:q] = coefficients
        self.order: list[int] = []
        self.sizes = [0]
        self.left_out, self.norms = np.asarray(left_out), [norms]
        # The first step after which no direction is new.
        self.exhausted: int | None = None

    def absorb(self, block: Any) -> None:
        """The next ``q`` columns, (rows, q)."""
        import numpy as np
        import scipy.linalg as sl

        rows, done, j = block.shape[0], len(self.order), self.done
        self.done = j + 1
        if not np.isfinite(block).all():
            self.sizes.append(done)
            self.norms.append([math.nan] * self.g.shape[1])
            return
        columns = self.Q[:rows, :rows] @ block
        below, R, pivots = sl.qr(columns[done:], pivoting=True, check_finite=False)
        pivot = np.abs(np.diag(R))
        # A pivot that is only rounding: the operator is singular on this direction, or there was none.
        rank = int((pivot > self.lost * np.linalg.norm(block[:, pivots], axis=0)).sum())
        chosen, size = pivots[:rank], done + rank
        self.R[:done, done:size], self.R[done:size, done:size] = columns[:done, chosen], R[:rank, :rank]
        self.order += [j * self.q + int(i) for i in chosen]
        self.sizes.append(size)
        self.Q[done:rows, :rows] = below.conj().T @ self.Q[done:rows, :rows]
        self.g[done:rows] = below.conj().T @ self.g[done:rows]
        rest = np.linalg.norm(self.g[size:rows], axis=0)
        self.norms.append(np.hypot(rest, self.left_out).tolist())
        if self.exhausted is None and not block[rows - self.q :].any():
            self.exhausted = j + 1

    def solve(self, j: int, size: int) -> Any:
        """Minimising coefficients (size, p) after ``j`` steps."""
        import numpy as np
        import scipy.linalg as sl

        used = self.sizes[j]
        y = np.zeros((size, self.g.shape[1]), dtype=self.R.dtype)
        if used:
            y[self.order[:used]] = sl.solve_triangular(self.R[:used, :used], self.g[:used], check_finite=False)
        return y
