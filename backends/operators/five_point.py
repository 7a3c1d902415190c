"""Five-point systems on a grid, one or a batch of them in the same arrays: what finite volumes make of elliptic equations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..namespace import Array, array_namespace, is_numpy
from ..transfer import to_host
from .adapters import as_operator
from .linear_operator import Action, LinearOperator


@dataclass(frozen=True, eq=False)
class FivePoint:
    """Matrices ``(A u)_ij = centre_ij u_ij - north_ij u_{i-1,j} - south_ij u_{i+1,j} - west_ij u_{i,j-1} - east_ij u_{i,j+1}``.

    Attributes
    ----------
    centre, north, south, west, east : array (..., p, q)
        Coefficients; leading axes are a batch. What points outside the grid is not used.
    symmetric, positive : bool
        What is known of the matrices.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.operators import FivePoint
    >>> A = FivePoint.diffusion(xp.ones((5, 5)))  # constant coefficient: the Laplacian
    >>> A.to_scipy().toarray()[0, :4].tolist()
    [4.0, -1.0, 0.0, -1.0]
    """

    centre: Array
    north: Array
    south: Array
    west: Array
    east: Array
    symmetric: bool = False
    positive: bool = False

    @classmethod
    def diffusion(cls, a: Array) -> FivePoint:
        """``-div(a grad u)`` times ``h^2``, zero on the boundary, for positive ``a`` at the nodes (..., p + 2, q + 2).

        The nodes of ``a`` include the boundary. The coefficient of a face is the harmonic mean of those of its two nodes, as
        the flow through it demands.

        Examples
        --------
        >>> import array_api_compat.numpy as xp
        >>> from xpsolve.backends.operators import FivePoint
        >>> A = FivePoint.diffusion(xp.full((4, 4), 3.0)).operator()
        >>> (A @ xp.ones(4)).tolist()
        [6.0, 6.0, 6.0, 6.0]
        """
        if a.ndim < 2 or min(a.shape[-2:]) < 3:
            raise InputError(f"a has shape {tuple(a.shape)}, expected (..., p + 2, q + 2) with the boundary")

        def mean(p: Array, q: Array) -> Array:
            return 2.0 * p * q / (p + q)

        inner = a[..., 1:-1, 1:-1]
        north, south = mean(inner, a[..., :-2, 1:-1]), mean(inner, a[..., 2:, 1:-1])
        west, east = mean(inner, a[..., 1:-1, :-2]), mean(inner, a[..., 1:-1, 2:])
        return cls(north + south + west + east, north, south, west, east, symmetric=True, positive=True)

    @property
    def grid(self) -> tuple[int, int]:
        """Points along the two axes."""
        return int(self.centre.shape[-2]), int(self.centre.shape[-1])

    def __len__(self) -> int:
        if self.centre.ndim != 3:
            raise InputError("this is a single five-point matrix, not a batch")
        return int(self.centre.shape[0])

    def __getitem__(self, index: int) -> FivePoint:
        centre, north, south, west, east = (
            part[index, ...] for part in (self.centre, self.north, self.south, self.west, self.east)
        )
        return FivePoint(centre, north, south, west, east, symmetric=self.symmetric, positive=self.positive)

    @property
    def T(self) -> FivePoint:
        """The transposed matrices: what a point takes from its neighbour it then gives to it."""
        if self.symmetric:
            return self
        xp = array_namespace(centre=self.centre)
        row, column = xp.zeros_like(self.centre[..., :1, :]), xp.zeros_like(self.centre[..., :1])
        return FivePoint(
            self.centre,
            xp.concat([row, self.south[..., :-1, :]], axis=-2),
            xp.concat([self.north[..., 1:, :], row], axis=-2),
            xp.concat([column, self.east[..., :-1]], axis=-1),
            xp.concat([self.west[..., 1:], column], axis=-1),
        )

    def apply(self, u: Array) -> Array:
        """``A u`` for values (..., p, q) on the grid, the whole batch at once."""
        out = self.centre * u
        out[..., 1:, :] -= self.north[..., 1:, :] * u[..., :-1, :]
        out[..., :-1, :] -= self.south[..., :-1, :] * u[..., 1:, :]
        out[..., 1:] -= self.west[..., 1:] * u[..., :-1]
        out[..., :-1] -= self.east[..., :-1] * u[..., 1:]
        return out

    def operator(self) -> LinearOperator:
        """One matrix as an operator of order ``p q``: stored and sparse with NumPy, by the stencil elsewhere."""
        xp = array_namespace(centre=self.centre)
        n = math.prod(self.grid)
        tags = {tag for tag, known in (("symmetric", self.symmetric), ("positive", self.positive)) if known}
        if is_numpy(xp):
            stored = as_operator(self.to_scipy(), like=xp.reshape(self.centre, (n,)))
            stored.tags = frozenset(tags)
            return stored

        def actions(matrix: FivePoint) -> tuple[Action, Action]:
            def one(v: Array) -> Array:
                return xp.reshape(matrix.apply(xp.reshape(v, self.grid)), (n,))

            def many(V: Array) -> Array:
                return xp.reshape(matrix.apply(xp.reshape(V.T, (V.shape[1], *self.grid))), (V.shape[1], n)).T

            return one, many

        (matvec, matmat), (rmatvec, rmatmat) = actions(self), actions(self.T)
        return LinearOperator(
            (n, n), matvec, matmat=matmat, rmatvec=rmatvec, rmatmat=rmatmat, dtype=self.centre.dtype, tags=tags,
            diagonal=lambda: xp.reshape(self.centre, (n,)),
        )  # fmt: skip

    def to_scipy(self) -> Any:
        """One matrix in SciPy's CSR format."""
        import numpy as np
        import scipy.sparse as sp

        if self.centre.ndim != 2:
            raise InputError("take one matrix of the batch first: A[i].to_scipy()")
        p, q = self.grid
        parts = (to_host(part) for part in (self.centre, self.north, self.south, self.west, self.east))
        centre, north, south, west, east = (np.array(part) for part in parts)
        west[:, 0], east[:, -1] = 0.0, 0.0
        bands = [-north.ravel()[q:], -west.ravel()[1:], centre.ravel(), -east.ravel()[:-1], -south.ravel()[:-q]]
        matrix = sp.diags_array(bands, offsets=[-q, -1, 0, 1, q], shape=(p * q, p * q)).tocsr()
        matrix.eliminate_zeros()
        return matrix
