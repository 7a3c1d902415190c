"""Sequences of linear systems whose coefficients are Gaussian random fields: Darcy flow, in two variants, and Helmholtz.

The sizes and constants are those under which recycling and sorting were studied (Wang et al., ICLR 2024).
"""

from __future__ import annotations

import math
from typing import Any

from ..backends.namespace import Array, Namespace
from ..backends.operators import FivePoint
from ..backends.random import Sampler
from ..backends.validation import check_count, check_floating, check_scalar
from .sequences import LinearSequence


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
