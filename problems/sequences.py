"""Sequences of linear systems from one family, as data sets for neural operators and time steps make them.

Each has random parameters drawn on the host, so every library sees the same systems; sizes and constants are those under
which recycling and sorting were studied (Wang et al., ICLR 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..backends.namespace import Array, Namespace, array_namespace
from ..backends.operators import FivePoint, LinearOperator
from ..backends.random import Sampler
from ..backends.validation import check_count, check_floating, check_scalar


@dataclass(frozen=True, eq=False)
class LinearSequence:
    """Systems ``A_i x_i = b_i`` of one family; iterating gives the pairs ``(A_i, b_i)``.

    Attributes
    ----------
    matrices : FivePoint
        A batch of matrices, or a single one that all systems share.
    rhs : array (N, p, q)
        Right-hand sides on the grid.
    parameters : array (N, ...)
        What the family was drawn from; what sorting orders by.
    field : array (N, p + 2, q + 2), optional
        The coefficient at the nodes, where the equation has one.
    """

    matrices: FivePoint
    rhs: Array
    parameters: Array
    field: Array | None = None

    def __len__(self) -> int:
        return int(self.rhs.shape[0])

    @property
    def same_matrix(self) -> bool:
        """Whether all systems share their matrix."""
        return bool(self.matrices.centre.ndim == 2)

    def matrix(self, index: int) -> FivePoint:
        """The matrix of one system."""
        return self.matrices if self.same_matrix else self.matrices[index]

    def __iter__(self) -> Iterator[tuple[LinearOperator, Array]]:
        shared = self.matrices.operator() if self.same_matrix else None
        for i in range(len(self)):
            operator = shared if shared is not None else self.matrices[i].operator()
            yield operator, array_namespace(rhs=self.rhs).reshape(self.rhs[i, ...], (-1,))


def convection_diffusion_sequence(
    s: int = 50, count: int = 40, *, xp: Namespace, rng: Any = None, speed: float = 20.0, dtype: Any = None,
    device: Any = None,
) -> LinearSequence:  # fmt: skip
    """Convection and diffusion with winds from random directions: not symmetric.

    ``-Laplacian u + speed (cos t, sin t) grad u = 1`` times ``h^2`` with random angles ``t``.

    Without ``rng`` the angles are those drawn after the parameters of `two_parameter_darcy_sequence`.

    Parameters
    ----------
    s : int
        Inner nodes a side: the systems have ``s^2`` unknowns.
    count : int
        Number of systems.
    rng : int or Generator, optional
        Draws the angles.
    speed : float
        Of the wind, against a diffusion of one.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    LinearSequence
        The systems, as one batch of five-point matrices, and the parameters they came from.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import convection_diffusion_sequence
    >>> sequence = convection_diffusion_sequence(5, 3, xp=xp)
    >>> len(sequence), next(iter(sequence))[0].shape
    (3, (25, 25))
    """
    check_count(s, "s")
    dtype = check_floating(dtype, "dtype", xp)
    generator = Sampler(2 if rng is None else rng, xp=xp).generator
    if rng is None:
        generator.uniform(-1.5, 1.5, (count, 2))
    angles = generator.uniform(0.0, 2.0 * math.pi, check_count(count, "count"))
    t = xp.asarray(angles, dtype=dtype, device=device)
    h = 1.0 / (s + 1)
    half = 0.5 * h * check_scalar(speed, "speed")
    grid = xp.ones((count, s, s), dtype=dtype, device=device)
    along, across = half * xp.cos(t)[:, None, None] * grid, half * xp.sin(t)[:, None, None] * grid
    matrices = FivePoint(4.0 * grid, grid + along, grid - along, grid + across, grid - across)
    return LinearSequence(matrices, h**2 * grid, xp.stack([xp.cos(t), xp.sin(t)], axis=1))


def poisson_sequence(
    s: int = 50, count: int = 30, *, xp: Namespace, rng: Any = 0, degree: int = 4, dtype: Any = None, device: Any = None
) -> LinearSequence:
    """``-Laplacian u = f`` on the unit square, ``f`` and the four boundary values random Chebyshev series: one matrix.

    Parameters
    ----------
    s : int
        Inner nodes a side: the systems have ``s^2`` unknowns.
    count : int
        Number of systems.
    rng : int or Generator
        Draws the problem; a seed gives the same one on every backend.
    degree : int
        Of the Chebyshev series.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    LinearSequence
        The systems, as one batch of five-point matrices, and the parameters they came from.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import poisson_sequence
    >>> sequence = poisson_sequence(5, 3, xp=xp)
    >>> len(sequence), next(iter(sequence))[0].shape
    (3, (25, 25))
    """
    dtype = check_floating(dtype, "dtype", xp)
    terms = check_count(degree, "degree", minimum=0) + 1
    sampler = Sampler(rng, xp=xp, device=device)
    inside = sampler.uniform((check_count(count, "count"), terms, terms), -1.0, 1.0)
    sides = sampler.uniform((count, 4, terms), -1.0, 1.0)
    h = 1.0 / (check_count(s, "s") + 1)
    nodes = xp.linspace(h, 1.0 - h, s, dtype=xp.float64, device=device)
    angles = xp.acos(2.0 * nodes - 1.0)
    basis = xp.stack([xp.cos(k * angles) for k in range(terms)])  # (terms, s)
    rhs = h**2 * xp.matmul(xp.matmul(basis.T, inside), basis)
    edge = xp.matmul(sides, basis)  # (count, 4, s): values beyond the first and last rows and columns
    rhs[:, 0, :] += edge[:, 0, :]
    rhs[:, -1, :] += edge[:, 1, :]
    rhs[:, :, 0] += edge[:, 2, :]
    rhs[:, :, -1] += edge[:, 3, :]
    one = xp.ones((s, s), dtype=dtype, device=device)
    matrix = FivePoint(4.0 * one, one, one, one, one, symmetric=True, positive=True)
    parameters = xp.concat([xp.reshape(inside, (count, -1)), xp.reshape(sides, (count, -1))], axis=1)
    return LinearSequence(matrix, xp.astype(rhs, dtype), xp.astype(parameters, dtype))


def thermal_sequence(
    s: int = 50, count: int = 30, *, xp: Namespace, rng: Any = 0, dtype: Any = None, device: Any = None
) -> LinearSequence:
    """Heat through a block with a slot: random temperature on the left, random outflow on the right, the rest insulated.

    The block is [-0.5, 0.5] x [-0.8, 0.8] with the slot [-0.05, 0.05] x [-0.4, 0.4], in square cells, ``s`` across: one
    matrix. Cells of the slot are equations ``u = 0`` of their own.

    Parameters
    ----------
    s : int
        Cells across, at least 4; there are ``s * round(1.6 s)`` unknowns.
    count : int
        Number of systems.
    rng : int or Generator
        Draws the problem; a seed gives the same one on every backend.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    LinearSequence
        The systems, as one batch of five-point matrices, and the parameters they came from.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import thermal_sequence
    >>> sequence = thermal_sequence(5, 3, xp=xp)
    >>> len(sequence), next(iter(sequence))[0].shape
    (3, (40, 40))
    """
    dtype = check_floating(dtype, "dtype", xp)
    s, h = check_count(s, "s", minimum=4), 1.0 / s
    rows = round(1.6 * s)
    x = (xp.arange(s, dtype=xp.float64, device=device) + 0.5) * h - 0.5
    y = (xp.arange(rows, dtype=xp.float64, device=device) + 0.5) * (1.6 / rows) - 0.8
    solid = xp.astype(~((xp.abs(x)[None, :] < 0.05) & (xp.abs(y)[:, None] < 0.4)), dtype)
    nil_row, nil_column = xp.zeros_like(solid[:1, :]), xp.zeros_like(solid[:, :1])
    north = solid * xp.concat([nil_row, solid[:-1, :]], axis=0)
    south = solid * xp.concat([solid[1:, :], nil_row], axis=0)
    west = solid * xp.concat([nil_column, solid[:, :-1]], axis=1)
    east = solid * xp.concat([solid[:, 1:], nil_column], axis=1)
    held = xp.concat([xp.ones_like(nil_column), xp.zeros_like(solid[:, 1:])], axis=1)
    centre = north + south + west + east + 2.0 * held + (1.0 - solid)
    matrix = FivePoint(centre, north, south, west, east, symmetric=True, positive=True)
    drawn = Sampler(rng, xp=xp, device=device).uniform((check_count(count, "count"), 2), 0.0, 100.0)
    outlet = xp.concat([xp.zeros_like(solid[:, 1:]), xp.ones_like(nil_column)], axis=1)
    drawn = xp.astype(drawn, dtype)
    rhs = 2.0 * drawn[:, 0][:, None, None] * held - h * drawn[:, 1][:, None, None] * outlet
    return LinearSequence(matrix, rhs, drawn)
