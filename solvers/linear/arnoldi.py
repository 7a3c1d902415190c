"""Arnoldi's basis and the small least-squares problem that GMRES, FGMRES and GCRO-DR solve in it.

The basis is orthogonalised by two passes of classical Gram-Schmidt: matrix-vector products instead of a loop of inner
products, and as stable as the modified form repeated. The Hessenberg matrix is built on the device and read in blocks, once
a look; its rotations live on the host, for each right-hand side its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.namespace import Array, device, finfo_eps, is_numpy
from ...backends.transfer import from_host, host_float, to_host
from ..result import Status
from .system import System

# "Twice is enough", and once where little was taken away: the loss of orthogonality is rounding over this factor. Only where
# a look costs no synchronisation.
_ENOUGH = 0.5
_LOST_PIVOT = 1e-14
# A cycle that gains less than this has not moved.
_STILL = 1.0 - 1e-8


class Cycle:
    """The Krylov space of ``A M`` and the residual ``r`` of ``x``; with ``flexible`` the vectors ``M_j v_j`` are kept.

    Everything is appended, never overwritten: the iterate of any step can be formed later.
    """

    def __init__(self, system: System, x: Array, r: Array, m: int, *, flexible: bool = False) -> None:
        xp = self.xp = system.xp
        self.system, self.x, self.m = system, x, m
        n = r.shape[0]
        self.batch: tuple[int, ...] = () if r.ndim == 1 else (int(r.shape[1]),)
        self.complex = xp.isdtype(r.dtype, "complex floating")
        where = {"dtype": r.dtype, "device": device(r)}
        self.V = xp.empty((*self.batch, m + 1, n), **where)
        self.Z = xp.empty((*self.batch, m, n), **where) if flexible else None
        self.beta = system.norm(r)
        # The last row is not of the matrix: it brings the first norm along in the same transfer.
        self.H = xp.zeros((*self.batch, m + 2, m), **where)
        self.H[..., m + 1, 0] = xp.astype(self.beta, r.dtype)
        self.V[..., 0, :] = self.rows(r / xp.where(self.beta > 0, self.beta, 1.0))
        self.lost = 10.0 * finfo_eps(r.dtype, xp)
        self.host: list[Rotations] = []
        self.may_look = is_numpy(xp)

    def rows(self, v: Array) -> Array:
        """Columns (n, k) as rows (k, n), or a vector as it is."""
        return v.T if self.batch else v

    def extend(self, j: int) -> None:
        """One more product with ``A``, orthogonalised against the basis of ``j + 1`` vectors."""
        xp, system = self.xp, self.system
        z = system.precondition(self.rows(self.V[..., j, :]))
        if self.Z is not None:
            self.Z[..., j, :] = self.rows(z)
        w = self.rows(system.A @ z)
        basis = self.V[..., : j + 1, :]
        size = self.norm(w)
        w, h = self.orthogonalise(basis, w, size)
        length = self.norm(w)
        # What rounding left of a vector inside the space is not a direction.
        length = xp.where(length > self.lost * size, length, xp.zeros_like(length))
        inside = (length > 0)[..., None]
        self.V[..., j + 1, :] = xp.where(inside, w / xp.where(inside, length[..., None], 1.0), 0.0)
        self.H[..., : j + 1, j] = h
        self.H[..., j + 1, j] = xp.astype(length, h.dtype)

    def orthogonalise(self, basis: Array, w: Array, size: Array) -> tuple[Array, Array]:
        """``w`` of norm ``size`` less its components along the rows of ``basis``, in two passes, and the components."""
        h = self.components(basis, w)
        w = w - self.combine(h, basis)
        if self.may_look and (self.norm(w) > _ENOUGH * size).all():
            return w, h
        again = self.components(basis, w)
        return w - self.combine(again, basis), h + again

    def norm(self, w: Array) -> Array:
        """Norms of the rows."""
        if w.ndim == 1 and not self.complex:
            return (w @ w) ** 0.5
        xp = self.xp
        return xp.sqrt(xp.sum(xp.real(w) ** 2 + xp.imag(w) ** 2 if self.complex else w * w, axis=-1))

    def components(self, basis: Array, w: Array) -> Array:
        xp = self.xp
        if self.complex:
            basis = xp.conj(basis)
        return xp.matmul(basis, w[..., None])[..., 0] if self.batch else basis @ w

    def combine(self, h: Array, basis: Array) -> Array:
        """``sum_i h_i basis_i``."""
        return self.xp.matmul(h[..., None, :], basis)[..., 0, :] if self.batch else h @ basis

    def norms(self, j: int) -> list[float]:
        """Residual norms of the columns after ``j`` steps, on the host; a column that had passed keeps its norm."""
        done = self.host[0].done if self.host else 0
        block = self.read(done, j) if j > done else None
        if not self.host:
            beta = to_host(self.beta) if block is None else block[..., self.m + 1, 0].real
            bounds = [self.system.tolerance / weight for weight in self.system.host_weights]
            norms = [float(beta)] if beta.ndim == 0 else [float(value) for value in beta]
            self.host = [Rotations(*pair, self.m, self.complex) for pair in zip(norms, bounds, strict=True)]
        if block is not None:
            for i, rotations in enumerate(self.host):
                rotations.absorb(block[i] if self.batch else block)
        return [rotations.norms[j] for rotations in self.host]

    def read(self, done: int, j: int) -> Any:
        """Columns of the Hessenberg matrix on the host."""
        return to_host(self.H[..., done:j])

    def solution(self, j: int) -> Array:
        """Coefficients of the iterate after ``j`` steps, (j,) or (k, j)."""
        import numpy as np

        self.norms(j)
        y = np.stack([rotations.solve(j) for rotations in self.host])
        return from_host(y if self.batch else y[0], like=self.V, xp=self.xp)

    def form(self, j: int) -> Array:
        """The iterate after ``j`` steps."""
        if j == 0:
            return self.x
        y = self.xp.astype(self.solution(j), self.V.dtype)
        if self.Z is not None:
            return self.x + self.rows(self.combine(y, self.Z[..., :j, :]))
        return self.x + self.system.precondition(self.rows(self.combine(y, self.V[..., :j, :])))


class Rotations:
    """The QR factorisation of one column's Hessenberg matrix, a step at a time, on the host."""

    def __init__(self, beta: float, bound: float, m: int, complex_: bool) -> None:
        import numpy as np

        kind = complex if complex_ else float
        self.bound, self.done = bound, 0
        self.Q = np.eye(m + 1, dtype=kind)
        self.R = np.zeros((m, m), dtype=kind)
        self.g: list[Any] = [beta]
        self.norms = [beta]
        # The steps that the column uses: it stops when it passes or when its space is exhausted.
        self.steps = m if beta > bound else 0
        self.exhausted = beta == 0

    def absorb(self, block: Any) -> None:
        """Rotate the next columns of the Hessenberg matrix, (rows, columns)."""
        Q, kind = self.Q, complex if self.Q.dtype.kind == "c" else float
        for column in block.T:
            j = self.done
            self.done = j + 1
            if not math.isfinite(abs(column[: j + 2].sum())):
                self.norms.append(math.nan)
                self.g.append(math.nan)
                continue
            top = Q[: j + 1, : j + 1] @ column[: j + 1]
            a, below = kind(top[j]), float(column[j + 1].real)
            diagonal = math.hypot(abs(a), below)
            # A pivot that is only rounding: the operator is singular on this space.
            singular = diagonal <= _LOST_PIVOT * float(abs(column[: j + 1]).max())
            phase = a / abs(a) if a else 1.0
            c, s = (1.0, 0.0) if singular else (abs(a) / diagonal, phase * below / diagonal)
            self.R[:j, j] = top[:j]
            self.R[j, j] = 0.0 if singular else phase * diagonal
            Q[j + 1, : j + 1] = -s.conjugate() * Q[j, : j + 1]
            Q[j + 1, j + 1] = c
            Q[j, : j + 1] *= c
            Q[j, j + 1] = s
            self.g.append(-s.conjugate() * self.g[j])
            self.g[j] *= c
            used = self.steps > j
            norm = self.norms[j] if singular or not used else abs(self.g[j + 1])
            self.norms.append(norm)
            if used and (singular or below == 0 or norm <= self.bound):
                self.steps = j if singular else j + 1
                self.exhausted = singular or below == 0

    def solve(self, j: int) -> Any:
        """The minimising coefficients after ``j`` steps, zero beyond the steps that the column uses."""
        import numpy as np
        from scipy.linalg import solve_triangular

        y, s = np.zeros(j, dtype=self.R.dtype), min(j, self.steps)
        if s:
            y[:s] = solve_triangular(self.R[:s, :s], np.asarray(self.g[:s]), check_finite=False)
        return y


class State(NamedTuple):
    """``j`` steps into a cycle; the iterate is formed when it is asked for."""

    cycle: Cycle
    j: int

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.cycle.form(self.j)


class Restarted:
    """Cycles of ``m`` steps, each from the recomputed residual of the last."""

    def __init__(self, system: System, m: int, *, flexible: bool) -> None:
        self.system, self.m, self.flexible = system, m, flexible
        self.matvecs = 0
        self.broken = Status.STAGNATED

    def start(self, x: Array, r: Array) -> State:
        return State(Cycle(self.system, x, r, self.m, flexible=self.flexible), 0)

    def step(self, state: State) -> State:
        cycle, j = state
        if j == self.m:
            x = state.x
            self.matvecs += self.system.columns
            cycle, j = self.start(x, self.system.b - self.system.A @ x)
        cycle.extend(j)
        self.matvecs += self.system.columns
        return State(cycle, j + 1)

    def ahead(self, state: State) -> int:
        """Steps to the end of the cycle, where the next one begins from an iterate."""
        return self.m - state.j or self.m

    def error(self, state: State) -> Any:
        cycle, j = state
        norms = cycle.norms(j)
        worst = max(norm * weight for norm, weight in zip(norms, self.system.host_weights, strict=True))
        if worst > self.system.tolerance:
            running = [rotations for rotations in cycle.host if rotations.norms[j] > rotations.bound]
            if all(rotations.exhausted for rotations in running):
                self.broken = Status.SINGULAR
                return -1.0
            if j == self.m and all(rotations.norms[j] >= _STILL * rotations.norms[0] for rotations in running):
                self.broken = Status.STAGNATED
                return -1.0
        return worst if all(map(math.isfinite, norms)) else math.nan

    def verify(self, state: State) -> tuple[State, float]:
        """Recompute ``b - A x`` and begin a cycle from it."""
        x = state.x
        self.matvecs += self.system.columns
        r = self.system.true_residual(x)
        return self.start(x, r), host_float(self.system.worst(self.system.norm(r)))
