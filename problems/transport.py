"""The families on which solvers of entropic transport are compared: random assignments, digit images, clouds.

Each is drawn on the host in float64 from NumPy's generator, so that all libraries see the same numbers, and moved once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends.errors import InputError, MissingDependencyError
from ..backends.namespace import Array, Namespace
from ..backends.random import Sampler
from ..backends.validation import check_choice, check_count, check_floating, check_scalar


@dataclass(frozen=True, eq=False)
class TransportProblem:
    """One balanced transport problem.

    Attributes
    ----------
    name : str
        What it is called in tables.
    cost : array (n, m)
        Costs, divided by their maximum unless the family says otherwise.
    a, b : array (n,), (m,)
        Positive weights of sum 1.
    x, y : array (n, d), (m, d), optional
        Points, where the cost comes from points.
    scale : float
        What the cost between the points was divided by.
    reg : float, optional
        The regularisation that ``value`` belongs to.
    value : float, optional
        The exact entropic value in the KL gauge, where it is known.
    plan : tuple of tuples, optional
        The exact plan, where it is known.
    """

    name: str
    cost: Array
    a: Array
    b: Array
    x: Array | None = None
    y: Array | None = None
    scale: float = 1.0
    reg: float | None = None
    value: float | None = None
    plan: tuple[tuple[float, ...], ...] | None = None


class Maker:
    """Host arrays in, arrays of the caller's library out."""

    def __init__(self, xp: Namespace, dtype: Any, device: Any) -> None:
        self.xp, self.dtype, self.device = xp, check_floating(dtype, "dtype", xp), device

    def generator(self, seed: Any) -> Any:
        """NumPy's generator of a seed."""
        return Sampler(seed, xp=self.xp).generator

    def array(self, host: Any) -> Array:
        """One array."""
        return self.xp.asarray(host, dtype=self.dtype, device=self.device)

    def problem(
        self, name: str, C: Any, a: Any = None, b: Any = None, x: Any = None, y: Any = None, **more: Any
    ) -> TransportProblem:
        """Weights default to uniform."""
        import numpy as np

        a = np.full(C.shape[0], 1.0 / C.shape[0]) if a is None else a
        b = np.full(C.shape[1], 1.0 / C.shape[1]) if b is None else b
        points = {key: self.array(p) for key, p in (("x", x), ("y", y)) if p is not None}
        return TransportProblem(name, self.array(C), self.array(a), self.array(b), **points, **more)


def lap(n: int, seed: Any = 0, *, xp: Namespace, dtype: Any = None, device: Any = None) -> TransportProblem:
    """Random assignment: costs uniform in [0, 1), uniform weights.

    Its plans are sparse at weak regularisation, and plain Sinkhorn can need ten thousands of iterations.

    Parameters
    ----------
    n : int
        Points on each side.
    seed : int or Generator
        Draws the costs.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    TransportProblem
        Cost, weights, and what is known of the solution.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import lap
    >>> lap(3, xp=xp).cost.round(2).tolist()
    [[0.64, 0.27, 0.04], [0.02, 0.81, 0.91], [0.61, 0.73, 0.54]]
    """
    make = Maker(xp, dtype, device)
    check_count(n, "n")
    return make.problem(f"lap{n}", make.generator(seed).uniform(size=(n, n)))


def random_marginals(
    n: int, seed: Any = 0, *, xp: Namespace, dtype: Any = None, device: Any = None
) -> TransportProblem:
    """The costs of `lap` and, from the same generator, weights uniform in [0.1, 1) before they are normalised.

    Parameters
    ----------
    n : int
        Points on each side.
    seed : int or Generator
        Draws costs and weights.
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    TransportProblem
        Cost, weights, and what is known of the solution.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import random_marginals
    >>> float(random_marginals(3, xp=xp).a.sum().round(12))
    1.0
    """
    make = Maker(xp, dtype, device)
    check_count(n, "n")
    rng = make.generator(seed)
    C = rng.uniform(size=(n, n))
    a, b = rng.uniform(0.1, 1.0, n), rng.uniform(0.1, 1.0, n)
    return make.problem(f"randmarg{n}", C, a / a.sum(), b / b.sum())


def digits_pair(
    p: int = 2,
    scale: int = 3,
    *,
    images: tuple[int, int] = (0, 1),
    floor: float | None = None,
    xp: Namespace,
    dtype: Any = None,
    device: Any = None,
) -> TransportProblem:
    """Two handwritten digits of scikit-learn as histograms on the grid of their pixels.

    Parameters
    ----------
    p : {1, 2}
        Cost between pixels: ``sum_k |x_k - y_k|^p``, divided by its maximum.
    scale : int
        Each pixel of the 8 by 8 images becomes ``scale`` by ``scale`` pixels: 3 gives 576 points.
    images : (int, int)
        Which images of ``sklearn.datasets.load_digits``.
    floor : float, optional
        Added to every weight of sum 1; default 1 % of the mean weight. The sum is 1 afterwards.
    xp, dtype, device
        See `lap`.

    Raises
    ------
    MissingDependencyError
        scikit-learn is not installed.

    Returns
    -------
    TransportProblem
        Cost, weights, and what is known of the solution.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import digits_pair
    >>> problem = digits_pair(p=1, scale=2, xp=xp)
    >>> problem.name, problem.cost.shape
    ('dig256p1', (256, 256))
    """
    import numpy as np

    try:
        from sklearn.datasets import load_digits
    except ImportError as err:
        raise MissingDependencyError("digits_pair needs scikit-learn for its images: pip install scikit-learn") from err
    make = Maker(xp, dtype, device)
    check_count(scale, "scale")
    if p not in (1, 2):
        raise InputError(f"p is {p!r}, expected 1 or 2")
    if floor is not None:
        check_scalar(floor, "floor", non_negative=True)
    pictures = load_digits().images
    if not all(0 <= k < len(pictures) for k in images):
        raise InputError(f"images is {images}, expected two numbers below {len(pictures)}")

    def histogram(k: int) -> Any:
        w = np.kron(pictures[k], np.ones((scale, scale))).reshape(-1)
        w = w / w.sum()
        w = w + (0.01 / w.size if floor is None else floor)
        return w / w.sum()

    side = 8 * scale
    pixels = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2) * 1.0
    C = (np.abs(pixels[:, None, :] - pixels[None, :, :]) ** p).sum(axis=2)
    return make.problem(
        f"dig{side * side}p{p}", C / C.max(), histogram(images[0]), histogram(images[1]), pixels, pixels, scale=C.max()
    )


def cloud(
    n: int,
    d: int = 2,
    seed: Any = 0,
    *,
    p: int = 2,
    kind: str = "uniform",
    normalise: bool = True,
    xp: Namespace,
    dtype: Any = None,
    device: Any = None,
) -> TransportProblem:
    """Two clouds of ``n`` points with the cost ``|x - y|^p`` (Euclidean norm) and uniform weights.

    Parameters
    ----------
    n, d : int
        Points on each side, and their dimension.
    seed : int or Generator
        Draws ``x``, then ``y``.
    p : {1, 2}
        Power of the distance.
    kind : {"uniform", "gaussian"}
        Uniform in the unit cube, or normal ``x`` and ``0.5 normal + 1`` for ``y``.
    normalise : bool
        Divide the cost by its maximum.
    xp, dtype, device
        See `lap`.

    Returns
    -------
    TransportProblem
        Cost, weights, and what is known of the solution.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import cloud
    >>> problem = cloud(100, 3, xp=xp)
    >>> float(problem.cost.max()), problem.x.shape
    (1.0, (100, 3))
    """
    import numpy as np

    make = Maker(xp, dtype, device)
    check_count(n, "n")
    check_count(d, "d")
    check_choice(kind, "kind", ("uniform", "gaussian"))
    if p not in (1, 2):
        raise InputError(f"p is {p!r}, expected 1 or 2")
    rng = make.generator(seed)
    if kind == "uniform":
        x, y = rng.uniform(size=(n, d)), rng.uniform(size=(n, d))
    else:
        x, y = rng.standard_normal((n, d)), 0.5 * rng.standard_normal((n, d)) + 1.0
    C = np.zeros((n, n))
    for k in range(d):
        C += (x[:, k, None] - y[None, :, k]) ** 2
    C = np.sqrt(C) if p == 1 else C
    scale = float(C.max()) if normalise else 1.0
    name = f"{'cloud' if kind == 'uniform' else 'gauss'}{n}d{d}p{p}"
    return make.problem(name, C / scale, None, None, x, y, scale=scale)


def robustness_set(*, xp: Namespace, dtype: Any = None, device: Any = None) -> tuple[TransportProblem, ...]:
    """Ten problems that a default setting must solve at every regularisation from 1/50 to 1e-5 of the largest cost.

    Random assignment, random marginals, clouds under ``|.|^2`` and ``|.|``, Gaussians in ten dimensions, digits 3 and 8 with
    both costs, a rectangular one with weights over nine orders of magnitude, two narrow histograms on a line, and 8 by 8
    digits with almost empty pixels.

    Parameters
    ----------
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    tuple of TransportProblem
        The ten.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import robustness_set
    >>> len(robustness_set(xp=xp))
    10
    """
    import numpy as np

    where: dict[str, Any] = {"xp": xp, "dtype": dtype, "device": device}
    make = Maker(xp, dtype, device)
    rng = make.generator(7)
    C = rng.uniform(size=(200, 350))
    a, b = rng.dirichlet(np.full(200, 0.3)) + 1e-9, rng.dirichlet(np.full(350, 0.3)) + 1e-9
    line = np.linspace(0.0, 1.0, 300)
    left, right = (np.exp(-((line - c) ** 2) / w) + 1e-6 for c, w in ((0.2, 0.005), (0.8, 0.002)))
    return (
        lap(300, 5, **where),
        random_marginals(300, 5, **where),
        cloud(300, 2, 5, p=2, **where),
        cloud(300, 2, 5, p=1, **where),
        cloud(300, 10, 5, kind="gaussian", **where),
        digits_pair(2, 2, images=(3, 8), **where),
        digits_pair(1, 2, images=(3, 8), **where),
        make.problem("rectangular", C, a / a.sum(), b / b.sum()),
        make.problem(
            "histograms",
            (line[:, None] - line) ** 2,
            left / left.sum(),
            right / right.sum(),
            line[:, None],
            line[:, None],
        ),
        digits_pair(2, 1, images=(0, 4), floor=1e-8, **where),
    )
