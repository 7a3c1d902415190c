"""Transport problems whose entropic value is known in closed form: two points on each side, and Gaussians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..backends.errors import InputError
from ..backends.namespace import Namespace
from ..backends.validation import check_count, check_scalar
from .transport import Maker, TransportProblem


def two_by_two(
    reg: float,
    cost: Sequence[Sequence[float]] = ((0.1, 0.9), (0.4, 0.3)),
    a: Sequence[float] = (0.3, 0.7),
    b: Sequence[float] = (0.6, 0.4),
    *,
    xp: Namespace,
    dtype: Any = None,
    device: Any = None,
) -> TransportProblem:
    """Two points on each side: the plan is the root of a quadratic equation.

    With ``k = exp(-(C11 + C22 - C12 - C21) / reg)``, the ratio ``P11 P22 / (P12 P21)``, ``P11`` solves
    ``(1-k) p^2 + (1 - a1 - b1 + k (a1 + b1)) p - k a1 b1 = 0``.

    Parameters
    ----------
    reg : float
        Regularisation.
    cost : 2 x 2 nested sequence
        Cost.
    a, b : sequence of two floats
        Positive weights of sum one.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    TransportProblem
        With ``value`` and ``plan``.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import two_by_two
    >>> round(two_by_two(0.2, xp=xp).plan[0][0], 13)
    0.295727329605
    """
    import numpy as np

    make = Maker(xp, dtype, device)
    check_scalar(reg, "reg", positive=True)
    C, wa, wb = np.asarray(cost, dtype=float), np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if C.shape != (2, 2) or wa.shape != (2,) or wb.shape != (2,):
        raise InputError("two_by_two needs a 2 by 2 cost and two weights on each side")
    if min(wa.min(), wb.min()) <= 0 or abs(wa.sum() - 1) > 1e-12 or abs(wb.sum() - 1) > 1e-12:
        raise InputError("a and b must be positive and sum to 1")
    log_k = -(C[0, 0] + C[1, 1] - C[0, 1] - C[1, 0]) / reg
    a1, b1 = float(wa[0]), float(wb[0])
    # Divided by the larger of 1 and k, so that neither overflows; the root without cancellation is the one we want.
    one, k = (1.0, math.exp(log_k)) if log_k <= 0 else (math.exp(-log_k), 1.0)
    A, B, D = one - k, one * (1.0 - a1 - b1) + k * (a1 + b1), -k * a1 * b1
    root = math.sqrt(max(B * B - 4.0 * A * D, 0.0))
    p = -2.0 * D / (B + root) if B >= 0 else (root - B) / (2.0 * A)
    P = np.asarray([[p, a1 - p], [b1 - p, 1.0 - a1 - b1 + p]])
    P = np.maximum(P, 0.0)
    product = wa[:, None] * wb
    kl = float((P * np.log(np.where(P > 0, P / product, 1.0))).sum())
    return make.problem(
        "two_by_two", C, wa, wb, reg=reg, value=float((C * P).sum()) + reg * kl, plan=tuple(map(tuple, P.tolist()))
    )


def gaussian_transport_value(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any, reg: float) -> float:
    """Entropic value between two Gaussians with the cost ``|x - y|^2``, in the KL gauge.

    ``|m|^2 + tr A + tr B - tr D + d s (1 - log 2 s) + s log det(D + s I)`` with ``s = reg / 2``, ``m`` the difference of the
    means and ``D = (4 A^(1/2) B A^(1/2) + s^2 I)^(1/2)``.

    Parameters
    ----------
    mean_a, mean_b : float or sequence (d,)
        Means.
    cov_a, cov_b : float or nested sequence (d, d)
        Covariances, positive semidefinite.
    reg : float
        Regularisation.

    Returns
    -------
    float
        The value, without a grid.

    Raises
    ------
    InputError
        ``reg`` is not positive, or means and covariances do not fit.

    References
    ----------
    H. Janati, B. Muzellec, G. Peyre, M. Cuturi, Entropic optimal transport between unbalanced Gaussian measures has a
    closed form, NeurIPS 2020.

    Examples
    --------
    >>> from xpsolve.problems import gaussian_transport_value
    >>> round(gaussian_transport_value(-0.5, 1.0, 0.7, 0.36, reg=1.0), 9)
    2.293893332
    """
    import numpy as np

    s = check_scalar(reg, "reg", positive=True) / 2.0
    A, B = (np.atleast_2d(np.asarray(c, dtype=float)) for c in (cov_a, cov_b))
    m = np.atleast_1d(np.asarray(mean_a, dtype=float)) - np.atleast_1d(np.asarray(mean_b, dtype=float))
    d = m.size
    if A.shape != (d, d) or B.shape != (d, d):
        raise InputError(f"means of length {d} need covariances of shape ({d}, {d}), got {A.shape} and {B.shape}")

    def root(M: Any) -> Any:
        w, V = np.linalg.eigh((M + M.T) / 2.0)
        return (V * np.sqrt(np.maximum(w, 0.0))) @ V.T

    half = root(A)
    D = root(4.0 * half @ B @ half + s * s * np.eye(d))
    value = m @ m + np.trace(A) + np.trace(B) - np.trace(D) + d * s * (1.0 - math.log(2.0 * s))
    return float(value + s * np.linalg.slogdet(D + s * np.eye(d))[1])


def gaussian_histograms(
    reg: float, n: int = 1201, *, xp: Namespace, dtype: Any = None, device: Any = None
) -> TransportProblem:
    """N(-0.5, 1) and N(0.7, 0.36) on ``n`` points of [-9, 9], with the closed-form value of the continuous problem.

    On the default grid both agree to ten digits and more for ``reg`` at least 0.1.

    Parameters
    ----------
    reg : float
        Regularisation.
    n : int
        Points of the grid, at least 2.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    TransportProblem
        With ``value``.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import gaussian_histograms
    >>> round(gaussian_histograms(0.1, xp=xp).value, 9)
    1.775286849
    """
    import numpy as np

    make = Maker(xp, dtype, device)
    check_count(n, "n", minimum=2)
    value = gaussian_transport_value(-0.5, 1.0, 0.7, 0.36, reg)
    line = np.linspace(-9.0, 9.0, n)
    a, b = np.exp(-((line + 0.5) ** 2) / 2.0), np.exp(-((line - 0.7) ** 2) / 0.72)
    C, x = (line[:, None] - line) ** 2, line[:, None]
    return make.problem("gaussian_histograms", C, a / a.sum(), b / b.sum(), x, x, reg=reg, value=value)
