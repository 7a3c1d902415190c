"""Transport problems with known answers."""

from __future__ import annotations

import math
from typing import Any

from ..backends.namespace import Array, Namespace
from ..backends.random import Sampler
from ..backends.validation import check_count, check_floating, check_scalar


def uniform_clouds(
    n: int, m: int, d: int, *, xp: Namespace, rng: Any = 0, dtype: Any = None, device: Any = None
) -> tuple[Array, Array]:
    """Two clouds of uniform points in the unit cube, (n, d) and (m, d), drawn from one generator.

    Parameters
    ----------
    n, m, d : int
        Points of either cloud, and dimensions.
    rng : int or Generator
        Draws the problem; a seed gives the same one on every backend.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    x, y : array (n, d), (m, d)
        The clouds.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import uniform_clouds
    >>> [cloud.shape for cloud in uniform_clouds(4, 5, 2, xp=xp)]
    [(4, 2), (5, 2)]
    """
    for value, name in ((n, "n"), (m, "m"), (d, "d")):
        check_count(value, name)
    sampler = Sampler(rng, xp=xp, dtype=check_floating(dtype, "dtype", xp), device=device)
    return sampler.uniform((n, d)), sampler.uniform((m, d))


def circulant(n: int, reg: float, *, xp: Namespace, dtype: Any = None, device: Any = None) -> tuple[Array, float]:
    """Squared distances on a circle of ``n`` points, and the entropic value for uniform weights.

    ``value = -reg log(mean_k exp(-c_k / reg))`` in the KL gauge.

    Parameters
    ----------
    n : int
        Points.
    reg : float
        Regularisation.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    C : array (n, n)
        The cost.
    value : float
        ``min <C, P> + reg KL(P | a b^T)``.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import circulant
    >>> C, value = circulant(4, 1.0, xp=xp)
    >>> C.shape, round(value, 6)
    ((4, 4), 0.08948)
    """
    check_count(n, "n")
    check_scalar(reg, "reg", positive=True)
    index = xp.arange(n, device=device)
    gap = xp.abs(index[:, None] - index[None, :])
    gap = xp.astype(xp.minimum(gap, n - gap), check_floating(dtype, "dtype", xp)) / n
    exact = [(min(k, n - k) / n) ** 2 for k in range(n)]
    return gap * gap, -reg * math.log(sum(math.exp(-c / reg) for c in exact) / n)
