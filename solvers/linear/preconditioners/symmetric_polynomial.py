"""The symmetric-polynomial preconditioners of Doikov and Rodomanov (ICML 2023), which cut the largest eigenvalues unseen.

``P_tau`` needs no bounds and no eigenvectors, only traces of powers: its eigenvalue on an eigenvector of ``B`` is an
elementary symmetric polynomial of all the *other* eigenvalues. The gradient methods built on it are in
`gradient_methods`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array, array_namespace, is_array
from ....backends.operators import LinearOperator
from ....backends.transfer import to_host
from ....backends.validation import check_count, check_scalar
from .common import operator_and_vector, symmetric


def symmetric_polynomial(
    B: Any,
    tau: int,
    traces: Sequence[float] | None = None,
    *,
    like: Array | None = None,
    normalized: bool = False,
) -> LinearOperator:
    """``P_tau(B)``, an operator that makes ``P_tau B`` better conditioned by cutting the ``tau`` largest eigenvalues.

    Parameters
    ----------
    B : array (n, n), sparse matrix, LinearOperator or callable
        Hermitian positive definite; see `as_operator`.
    tau : int
        Degree, ``0 <= tau < n``: products with ``B`` for each product with the operator.
    traces : sequence of float, optional
        ``tr B, tr B^2, ..., tr B^tau``. By default from the eigenvalues of a dense ``B``; anything else needs them.
    like : array (n,), optional
        Decides library, dtype and device where ``B`` does not store its entries.
    normalized : bool
        Return ``P_tau / sigma_tau`` instead, whose norm is below one: ``sigma_tau`` grows like ``(tr B)^tau / tau!``, which
        float32 may not hold.

    Returns
    -------
    LinearOperator
        ``P_tau`` (n, n), symmetric and positive.

    Raises
    ------
    InputError
        ``tau`` not below ``n``, missing or too few traces, or traces that no positive definite matrix has.
    BackendError
        A bad operator; the message names the argument.

    Notes
    -----
    ``P_0 = I``, ``P_tau = sigma_tau(lambda) I - B P_{tau-1}`` with the elementary symmetric polynomials ``sigma`` of all
    eigenvalues, so a product is ``y = g``, then ``y = sigma_t g - B y`` for ``t = 1 .. tau``. Its eigenvalue on
    eigenvector ``i`` is ``sigma_tau`` of the others, hence ``cond(P_tau B) <= cond(B)`` always and
    ``<= C(n-1, tau) lambda_{tau+1} / lambda_n``. ``P_{n-1} B = det(B) I``. Worth it for a few large eigenvalues and
    unknown bounds; for a flat spectrum `chebyshev_polynomial` is better.

    In floating point the loop cancels along the largest eigenvectors: the error there is about
    ``eps lambda_1^tau``, beside an eigenvalue of ``sigma_tau`` of the others. Degrees far above the number of outliers
    lose digits, in the end positive definiteness.

    References
    ----------
    N. Doikov, A. Rodomanov, Polynomial preconditioning for gradient methods, ICML 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import symmetric_polynomial
    >>> P = symmetric_polynomial(np.diag(np.asarray([5.0, 2.0, 1.0])), 2)
    >>> (P @ np.ones(3)).round(12).tolist()
    [2.0, 5.0, 10.0]
    """
    operator, vector = operator_and_vector(B, like, "B")
    degree, n = check_count(tau, "tau", minimum=0), operator.shape[0]
    if degree >= n:
        raise InputError(f"tau is {degree}, expected at most n - 1 = {n - 1}")
    sigma = _from_eigenvalues(B, degree) if traces is None else elementary_symmetric(traces, degree)
    if not all(0 < s < math.inf for s in sigma):
        source = "B" if traces is None else "traces"
        raise InputError(f"{source} gives elementary symmetric polynomials {sigma}: B is not positive definite")
    if normalized:
        # P_t / sigma_t = I - (sigma_{t-1} / sigma_t) B (P_{t-1} / sigma_{t-1})
        ahead, behind = [1.0] * degree, [sigma[t - 1] / sigma[t] for t in range(1, degree + 1)]
    else:
        ahead, behind = sigma[1:], [1.0] * degree

    def apply(g: Array) -> Array:
        y = g
        for first, second in zip(ahead, behind, strict=True):
            y = first * g - second * (operator @ y)
        return y

    return symmetric(n, apply, vector.dtype, f"symmetric_polynomial({degree})")


def elementary_symmetric(traces: Sequence[float], tau: int) -> list[float]:
    """Elementary symmetric polynomials of the eigenvalues, by Newton's identities.

    ``sigma_0, ..., sigma_tau`` follow from the traces of the first ``tau`` powers.

    ``sigma_t = (1/t) sum_{i=1}^{t} (-1)^{i-1} sigma_{t-i} tr B^i``. The terms cancel: with many small eigenvalues beside a
    few large ones, and ``t`` beyond the number of the large ones, digits are lost.

    Parameters
    ----------
    traces : sequence of float
        Of the powers 1 to ``tau``, at least.
    tau : int
        Highest degree.

    Returns
    -------
    list of float
        ``sigma_0`` to ``sigma_tau``.

    Raises
    ------
    InputError
        Fewer than ``tau`` traces.

    Examples
    --------
    >>> from xpsolve.solvers.linear.preconditioners.symmetric_polynomial import elementary_symmetric
    >>> elementary_symmetric([6.0, 14.0, 36.0], 3)
    [1.0, 6.0, 11.0, 6.0]
    """
    powers = [check_scalar(t, "traces") for t in traces]
    if len(powers) < tau:
        raise InputError(f"traces has {len(powers)} entries, expected {tau}: of the powers 1 to tau")
    sigma = [1.0]
    for t in range(1, tau + 1):
        terms = ((-1.0) ** (i - 1) * sigma[t - i] * powers[i - 1] for i in range(1, t + 1))
        sigma.append(math.fsum(terms) / t)
    return sigma


def _from_eigenvalues(B: Any, tau: int) -> list[float]:
    """The same from the eigenvalues of a dense matrix, by sums of positive terms that cannot cancel."""
    import numpy as np

    if tau == 0:
        return [1.0]
    if not is_array(B):
        raise InputError("traces is missing: only a dense B tells its eigenvalues; pass tr B, ..., tr B^tau")
    xp = array_namespace(B=B)
    values = to_host(xp.linalg.eigvalsh(B)).astype(float)
    if not values[0] > -10 * len(values) * float(xp.finfo(B.dtype).eps) * abs(values[-1]):
        raise InputError("B is not positive definite: it has a negative eigenvalue")
    sigma = np.zeros(tau + 1)
    sigma[0] = 1.0
    for value in np.maximum(values, 0.0):
        sigma[1:] = sigma[1:] + value * sigma[:-1]
    return [float(s) for s in sigma]
