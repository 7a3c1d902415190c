"""Linear systems with known answers."""

from __future__ import annotations

import math
from typing import Any

from ..backends.errors import InputError
from ..backends.namespace import Array, Namespace
from ..backends.operators import LinearOperator
from ..backends.random import Sampler
from ..backends.validation import check_count, check_floating, check_scalar


def spd_with_condition(
    n: int, condition: float, *, xp: Namespace, rng: Any = 0, dtype: Any = None, device: Any = None
) -> tuple[Array, Array, Array]:
    """``A`` (n, n) with eigenvalues from 1 to ``condition`` evenly in the logarithm, ``b = A x`` and ``x``.

    Parameters
    ----------
    n : int
        Order.
    condition : float
        Largest eigenvalue, at least 1.
    rng : int or Generator
        Draws the problem; a seed gives the same one on every backend.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    A : array (n, n)
        Symmetric positive definite.
    b, x : array (n,)
        Right-hand side and solution.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import spd_with_condition
    >>> A, b, x = spd_with_condition(5, 100.0, xp=xp)
    >>> bool(abs(A @ x - b).max() < 1e-10)
    True
    """
    check_count(n, "n")
    if check_scalar(condition, "condition") < 1:
        raise InputError(f"condition is {condition}, expected at least 1")
    dtype = check_floating(dtype, "dtype", xp)
    sampler = Sampler(rng, xp=xp, device=device)
    Q = xp.linalg.qr(sampler.normal((n, n)))[0]
    eigenvalues = xp.exp(xp.linspace(0.0, math.log(condition), n, dtype=xp.float64, device=device))
    A = (Q * eigenvalues[None, :]) @ Q.T
    A = (A + A.T) / 2.0
    x = sampler.normal((n,))
    return xp.astype(A, dtype), xp.astype(A @ x, dtype), xp.astype(x, dtype)


def poisson2d(
    s: int, *, xp: Namespace, mode: tuple[int, int] = (1, 1), dtype: Any = None, device: Any = None
) -> tuple[LinearOperator, Array, Array]:
    """Five-point Laplacian on ``s x s`` interior points as an operator, a sine mode ``b`` and the exact solution.

    The discrete sine ``b = sin(i pi x) sin(j pi y)`` is an eigenvector with the eigenvalue
    ``4 sin^2(i pi / 2(s+1)) + 4 sin^2(j pi / 2(s+1))``.

    Parameters
    ----------
    s : int
        Inner points a side.
    mode : (int, int)
        ``i`` and ``j``, from 1 to ``s``.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    A : LinearOperator (s^2, s^2)
        Tagged symmetric and positive.
    b, x : array (s^2,)
        Right-hand side and solution.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import poisson2d
    >>> A, b, x = poisson2d(7, xp=xp)
    >>> bool(abs(A @ x - b).max() < 1e-12)
    True
    """
    check_count(s, "s")
    dtype = check_floating(dtype, "dtype", xp)
    if not hasattr(mode, "__len__") or len(mode) != 2:
        raise InputError(f"mode is {mode!r}, expected two integers")
    i, j = (check_count(k, "mode") for k in mode)
    if max(i, j) > s:
        raise InputError(f"mode is {mode}, but {s} points a side carry modes up to {s}")

    def apply(v: Array) -> Array:
        u = xp.reshape(v, (s, s, *v.shape[1:]))
        edge = xp.zeros((1, *u.shape[1:]), dtype=u.dtype, device=device)
        side = xp.zeros((s, 1, *u.shape[2:]), dtype=u.dtype, device=device)
        north, south = xp.concat([edge, u[:-1, ...]], axis=0), xp.concat([u[1:, ...], edge], axis=0)
        west, east = xp.concat([side, u[:, :-1, ...]], axis=1), xp.concat([u[:, 1:, ...], side], axis=1)
        return xp.reshape(4.0 * u - north - south - west - east, v.shape)

    nodes = xp.arange(1, s + 1, dtype=dtype, device=device) * (math.pi / (s + 1))
    b = xp.reshape(xp.sin(i * nodes)[:, None] * xp.sin(j * nodes)[None, :], (s * s,))
    value = 4 * math.sin(i * math.pi / (2 * (s + 1))) ** 2 + 4 * math.sin(j * math.pi / (2 * (s + 1))) ** 2
    A = LinearOperator(
        (s * s, s * s), apply, matmat=apply, rmatvec=apply, rmatmat=apply, dtype=dtype, tags={"symmetric", "positive"}
    )
    return A, b, b / value
