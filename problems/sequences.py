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


def gaussian_random_field(
    n: int, count: int, *, xp: Namespace, rng: Any = 0, alpha: float = 2.5, tau: float = 7.0, dtype: Any = None,
    device: Any = None,
) -> Array:  # fmt: skip
    """Periodic Gaussian random fields (count, n, n), mean zero, covariance ``tau^(2 alpha - 2) (tau^2 - Laplacian)^(-alpha)``.

    Parameters
    ----------
    n : int
        Points a side.
    count : int
        Number of fields.
    rng : int or Generator
        Draws the problem; a seed gives the same one on every backend.
    alpha, tau : float
        Smoothness and inverse length of correlation.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    array (count, n, n)
        The fields.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import gaussian_random_field
    >>> gaussian_random_field(52, 2, xp=xp).shape
    (2, 52, 52)
    """
    check_count(n, "n")
    check_count(count, "count")
    alpha, tau = check_scalar(alpha, "alpha", positive=True), check_scalar(tau, "tau", positive=True)
    dtype = check_floating(dtype, "dtype", xp)
    import numpy as np

    generator = Sampler(rng, xp=xp).generator
    k = np.fft.fftfreq(n, 1.0 / n)
    squares = k[:, None] ** 2 + k[None, :] ** 2
    spectrum = n**2 * math.sqrt(2.0) * tau ** (alpha - 1.0) * (4 * math.pi**2 * squares + tau**2) ** (-alpha / 2)
    spectrum[0, 0] = 0.0
    real, imaginary = generator.standard_normal((count, n, n)), generator.standard_normal((count, n, n))
    field = np.real(np.fft.ifft2(spectrum * (real + 1j * imaginary) / math.sqrt(2.0)))
    return xp.asarray(field, dtype=dtype, device=device)


def darcy_sequence(
    s: int = 50, count: int = 30, *, xp: Namespace, rng: Any = 0, dtype: Any = None, device: Any = None
) -> LinearSequence:
    """Flow through random rock: ``-div(exp(g) grad u) = 1``, ``g`` a Gaussian random field, on ``s x s`` inner nodes.

    Parameters
    ----------
    s : int
        Inner nodes a side: the systems have ``s^2`` unknowns.
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
    >>> from xpsolve.problems import darcy_sequence
    >>> sequence = darcy_sequence(10, 3, xp=xp)
    >>> len(sequence), next(iter(sequence))[0].shape
    (3, (100, 100))
    """
    check_count(s, "s")
    a = xp.exp(gaussian_random_field(s + 2, count, xp=xp, rng=rng, dtype=dtype, device=device))
    return _darcy(a, a, xp)


def two_parameter_darcy_sequence(
    s: int = 50, count: int = 40, *, xp: Namespace, rng: Any = 2, dtype: Any = None, device: Any = None
) -> LinearSequence:
    """The Darcy equation with ``a = exp(t0 cos(pi x) + t1 cos(2 pi y))``, ``t`` uniform in [-1.5, 1.5]^2: a smooth family.

    Parameters
    ----------
    s : int
        Inner nodes a side: the systems have ``s^2`` unknowns.
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
    >>> from xpsolve.problems import two_parameter_darcy_sequence
    >>> sequence = two_parameter_darcy_sequence(5, 3, xp=xp)
    >>> len(sequence), next(iter(sequence))[0].shape
    (3, (25, 25))
    """
    check_count(s, "s")
    dtype = check_floating(dtype, "dtype", xp)
    t = Sampler(rng, xp=xp, device=device).uniform((check_count(count, "count"), 2), -1.5, 1.5)
    nodes = xp.linspace(0.0, 1.0, s + 2, dtype=xp.float64, device=device)
    first, second = xp.cos(math.pi * nodes)[:, None], xp.cos(2 * math.pi * nodes)[None, :]
    a = xp.astype(xp.exp(t[:, 0][:, None, None] * first + t[:, 1][:, None, None] * second), dtype)
    return _darcy(a, xp.astype(t, dtype), xp)


def _darcy(a: Array, parameters: Array, xp: Namespace) -> LinearSequence:
    inner = a[:, 1:-1, 1:-1]
    rhs = xp.full_like(inner, 1.0 / (a.shape[-1] - 1) ** 2)
    return LinearSequence(FivePoint.diffusion(a), rhs, parameters, field=a)


def published_darcy_sequence(
    s: int = 50, count: int = 30, *, xp: Namespace, rng: Any = 0, dtype: Any = None, device: Any = None
) -> LinearSequence:
    """The matrices that the public scripts of sorted Krylov recycling build: not a flux form, and slightly not symmetric.

    The row of a node has ``4 a`` of its own and ``-a_j`` of each neighbour, and the neighbour above is looked up two columns
    to the left. Kept because the published gains were measured on it.

    Parameters
    ----------
    s : int
        Inner nodes a side: the systems have ``s^2`` unknowns.
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
    >>> from xpsolve.problems import published_darcy_sequence
    >>> sequence = published_darcy_sequence(5, 3, xp=xp)
    >>> len(sequence), next(iter(sequence))[0].shape
    (3, (25, 25))
    """
    check_count(s, "s")
    a = xp.exp(gaussian_random_field(s + 2, count, xp=xp, rng=rng, dtype=dtype, device=device))
    inner = a[:, 1:-1, 1:-1]
    above = xp.reshape(a[:, :-2, 1:-1], (a.shape[0], s * s))
    shifted = xp.concat([above[:, :2], above[:, :-2]], axis=1)
    matrices = FivePoint(4.0 * inner, xp.reshape(shifted, inner.shape), a[:, 2:, 1:-1], a[:, 1:-1, :-2], a[:, 1:-1, 2:])
    return LinearSequence(matrices, xp.full_like(inner, 1.0 / (s + 1) ** 2), a, field=a)


def helmholtz_sequence(
    k0: float = 8.0, s: int = 50, count: int = 30, *, xp: Namespace, rng: Any = 1, dtype: Any = None, device: Any = None
) -> LinearSequence:
    """``-Laplacian u - k^2 u = 1`` times ``h^2`` with wave numbers ``k = k0 (1 + 0.1 g / std(g))``: indefinite, symmetric.

    Parameters
    ----------
    k0 : float
        Mean wave number.
    s : int
        Inner nodes a side: the systems have ``s^2`` unknowns.
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
    >>> from xpsolve.problems import helmholtz_sequence
    >>> sequence = helmholtz_sequence(8.0, 5, 3, xp=xp)
    >>> len(sequence), next(iter(sequence))[0].shape
    (3, (25, 25))
    """
    k0 = check_scalar(k0, "k0", positive=True)
    g = gaussian_random_field(check_count(s, "s") + 2, count, xp=xp, rng=rng, dtype=dtype, device=device)
    g = g[:, 1:-1, 1:-1] / xp.std(g)
    k = k0 * (1.0 + 0.1 * g)
    one = xp.ones_like(k)
    h = 1.0 / (s + 1)
    matrices = FivePoint(4.0 - h**2 * k**2, one, one, one, one, symmetric=True)
    return LinearSequence(matrices, xp.full_like(k, h**2), k)


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
