"""Differential equations with high frequencies by a Gaussian process that learns them.

The solution is given a spectral-mixture prior whose frequencies and widths are found with it: Fang, Cooley, Long, Li, Kirby,
Zhe, Solving high frequency and multi-scale PDEs with Gaussian processes (ICLR 2024). Their gradient descent over all
unknowns is replaced by variable projection: for given kernel parameters the solution is a least-squares problem, and the
loss of its answer is minimised over the parameters alone by L-BFGS.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ....backends.errors import ConvergenceWarning, InputError
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, wide_dtype
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_callable, check_choice, check_count, check_scalar
from ...iterate import Callback, warn_unless_converged
from ._gp_line import Line
from ._gp_model import Model, Reaction
from ._gp_plane import Plane
from ._gp_run import GPSolution, Run
from .spectral_kernels import KINDS


def gp_pde(
    grids: Array | Sequence[Array],
    source: Array,
    boundary: Array,
    *,
    second: Any = 1.0,
    first: Any = 0.0,
    zeroth: Any = 0.0,
    nonlinearity: Reaction | None = None,
    kernel: str = "student",
    components: int = 30,
    max_frequency: float | Sequence[float] | None = None,
    weight: float = 200.0,
    jitter: float = 1e-6,
    noise: tuple[float, float] = (1e-4, 1e-2),
    rtol: float = 1e-4,
    maxiter: int = 200,
    callback: Callback | None = None,
    time_limit: float | None = None,
) -> GPSolution:
    """Solve ``sum_i (a2 d_ii u + a1 d_i u) + a0 u + c(u) = f`` with ``u = g`` on the boundary, on an interval or a rectangle.

    Parameters
    ----------
    grids : array (n,) or pair of arrays (n_1,), (n_2,)
        Uniform increasing collocation points along each axis, the boundary included; float32 or float64.
    source : array (n,) or (n_1, n_2)
        ``f`` on the grid.
    boundary : array (n,) or (n_1, n_2)
        An array whose edge entries are ``g``; the others are not used.
    second, first : float, pair of floats, or (on an interval) array (n,)
        Coefficients ``a2`` and ``a1``; a pair has one for each axis.
    zeroth : float or array like ``source``
        Coefficient ``a0``.
    nonlinearity : callable, optional
        ``u -> (c(u), c'(u))`` pointwise, e.g. ``lambda u: (u**3 - u, 3 * u**2 - 1)`` for Allen-Cahn.
    kernel : {"student", "gaussian"}
        Shape of the components in the frequency domain; ``"student"`` (Matern-5/2 factors) has the heavier tails.
    components : int
        Number ``Q`` of components along each axis.
    max_frequency : float or pair of floats, optional
        Largest starting frequency, in cycles per unit of length: the ``Q`` start evenly spread from zero to it. Default
        three quarters of the Nyquist frequency of the grid, beyond which none can be told from a lower one.
    weight : float
        Weight of the boundary values in the loss.
    jitter : float
        Added to the diagonal of the kernel matrices, relative to the prior variance.
    noise : pair of floats
        Least and most standard deviation of the noise of the source, relative to its root mean square; learned in between.
        The least should be near the true one: a noisy source under a smaller bound is interpolated, without a warning, by
        frequencies that are not there. Tried up to 1e-2; at 5e-2 several draws in eight were lost on 100 points.
    rtol : float
        Stop when the solution has changed by at most ``rtol`` of its norm in each of five steps.
    maxiter : int
        Most steps of L-BFGS.
    callback : callable, optional
        Called with an `Iterate` after each step, whose state is a `GPSolution` with ``u`` and ``loss``; may raise
        StopIteration.
    time_limit : float, optional
        Seconds.

    Returns
    -------
    GPSolution
        ``u``, the learned frequencies, and `GPSolution.predict` at other points.

    Raises
    ------
    BackendError, InputError
        Bad arrays or options; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The solution still moved when a limit was met, the loss cannot be lowered in this precision, what it settled on
        misses the boundary values or the equation by a tenth of their size or differs between the grid points from what it
        is on them, or ``max_frequency`` is above the Nyquist frequency.

    Notes
    -----
    Loss (on an interval, ``K = L L^T`` the kernel matrix, ``u = L z``, ``r`` the residual of the equation)::

        |z|^2 / 2 + log det K / 2 + weight (tau |gap|^2 - n_b log tau) / 2 + (v |r|^2 - n log v) / 2

    It has no minimum in ``tau`` and ``v`` alone and falls without end as the prior collapses; the noise levels are kept
    from 1e-4 to 1 of the size of the solution and within ``noise`` of that of the source, each component is wide enough to
    be seen by the grid, and a step to a process whose second derivatives are not those of its values is turned back. An
    evaluation costs O(n^3) on an interval, O(n^3) a conjugate gradient step on a rectangle. float32 data are computed in
    float64 where the device has it. For a smooth solution on a simple domain a Chebyshev method is far more accurate and
    faster; this one is for unknown frequencies and for sources known at grid points only.

    References
    ----------
    S. Fang, M. Cooley, D. Long, S. Li, R. Kirby, S. Zhe, Solving high frequency and multi-scale PDEs with Gaussian
    processes, ICLR 2024, arXiv:2311.04465.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.structured import gp_pde
    >>> x = np.linspace(0.0, 2.0 * np.pi, 60)
    >>> solution = gp_pde(x, -64.0 * np.sin(8.0 * x), np.zeros(60), components=8, max_frequency=3.0)
    >>> bool(np.max(np.abs(solution.u - np.sin(8.0 * x))) < 1e-2)
    True
    >>> bool(np.max(np.abs(solution.predict(x[:-1] + 0.05) - np.sin(8.0 * (x[:-1] + 0.05)))) < 1e-2)
    True
    """
    model, dtype = _model(
        grids,
        source,
        boundary,
        second,
        first,
        zeroth,
        nonlinearity,
        kernel,
        components,
        max_frequency,
        weight,
        jitter,
        noise,
    )
    rtol = check_scalar(rtol, "rtol", non_negative=True)
    check_count(maxiter, "maxiter", minimum=0)
    check_callable(callback, "callback")
    if time_limit is not None:
        check_scalar(time_limit, "time_limit", positive=True)
    model.find_scale()
    run = Run(model, rtol, dtype, callback, time_limit)
    result = run.minimise(maxiter)
    warn_unless_converged(result, "gp_pde")
    return result


def _model(
    grids: Any,
    source: Array,
    boundary: Array,
    second: Any,
    first: Any,
    zeroth: Any,
    nonlinearity: Reaction | None,
    kernel: str,
    components: int,
    max_frequency: Any,
    weight: float,
    jitter: float,
    noise: Any,
) -> tuple[Model, Any]:
    """Check everything, in the widest dtype; the caller's dtype beside it."""
    axes = tuple(grids) if isinstance(grids, tuple | list) else (grids,)
    if len(axes) not in (1, 2):
        raise InputError(f"grids has {len(axes)} axes, expected one or two")
    xp = array_namespace(**{f"grids[{i}]": x for i, x in enumerate(axes)}, source=source, boundary=boundary)
    dtype = source.dtype
    for i, x in enumerate(axes):
        check_array(x, f"grids[{i}]", xp, ndim=1, dtype=dtype)
    shape = tuple(x.shape[0] for x in axes)
    check_array(source, "source", xp, shape=shape)
    check_array(boundary, "boundary", xp, shape=shape, dtype=dtype)
    wide = wide_dtype(source, xp)
    axes = tuple(xp.astype(x, wide) for x in axes)
    nyquist = [_nyquist(x, dtype, f"grids[{i}]", xp) for i, x in enumerate(axes)]
    check_choice(kernel, "kernel", KINDS)
    check_count(components, "components")
    check_callable(nonlinearity, "nonlinearity")
    check_scalar(weight, "weight", positive=True)
    check_scalar(jitter, "jitter", positive=True)
    if not isinstance(noise, tuple | list) or len(noise) != 2:
        raise InputError(f"noise is {noise!r}, expected a pair of numbers")
    least, most = (check_scalar(level, "noise", positive=True) for level in noise)
    if least > most:
        raise InputError(f"noise is {noise!r}, expected the smaller number first")
    frequency = [0.75 * limit for limit in nyquist] if max_frequency is None else _each(max_frequency, len(axes))
    for value, limit in zip(frequency, nyquist, strict=True):
        if check_scalar(value, "max_frequency", positive=True) > limit:
            message = (
                f"gp_pde: max_frequency is {value}, but the grid carries frequencies up to {limit:.6g} (Nyquist) and confuses "
                "higher ones with lower; the start is cut off there. Refine the grid or lower max_frequency"
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=3)

    def coefficient(value: Any, name: str, allowed: tuple[int, ...]) -> Array:
        if getattr(value, "ndim", 0):
            array_namespace(source=source, **{name: value})
            return xp.astype(check_array(value, name, xp, shape=allowed, dtype=dtype), wide)
        return xp.zeros(allowed, dtype=wide, device=device(source)) + check_scalar(value, name)

    # On a rectangle the derivatives keep their Kronecker structure only under constant coefficients.
    sizes = (shape,) if len(shape) == 1 else ((1,), (1,))
    derivatives = {
        name: [coefficient(v, name, size) for v, size in zip(_each(value, len(axes)), sizes, strict=True)]
        for name, value in (("second", second), ("first", first))
    }
    kind = Line if len(axes) == 1 else Plane
    model: Model = kind(
        axes, xp.astype(source, wide), xp.astype(boundary, wide), second=derivatives["second"], first=derivatives["first"],
        zeroth=coefficient(zeroth, "zeroth", shape), nonlinearity=nonlinearity, kind=kernel, components=components,
        frequency=frequency, weight=weight, jitter=jitter, noise=(least, most), xp=xp,
    )  # fmt: skip
    return model, dtype


def _each(value: Any, axes: int) -> list[Any]:
    if isinstance(value, tuple | list):
        if len(value) != axes:
            raise InputError(f"expected {axes} values, one for each axis, got {len(value)}")
        return list(value)
    return [value] * axes


def _nyquist(x: Array, dtype: Any, name: str, xp: Namespace) -> float:
    """Half the sampling rate of a uniform increasing grid, which is checked."""
    n = x.shape[0]
    if n < 4:
        raise InputError(f"{name} has {n} points, expected at least 4")
    start, end = host_float(x[0]), host_float(x[-1])
    step: float = (end - start) / (n - 1)
    if not step > 0:
        raise InputError(f"{name} must increase")
    gaps = host_float(xp.max(xp.abs(x[1:] - x[:-1] - step)))
    if gaps > 1e-6 * step + 8 * finfo_eps(dtype, xp) * max(abs(start), abs(end)):
        raise InputError(f"{name} is not uniform: its steps differ from {step:.6g} by up to {gaps:.3g}")
    return 0.5 / step
