"""Labels that spread over a neighbourhood graph: sparse, symmetric positive definite, and bounded by a maximum principle.

Zhu, Ghahramani and Lafferty (2003): with the graph Laplacian ``L`` split into free and labelled nodes, the harmonic labels of
the free ones solve ``L_ff F = -L_fl Y``. Each row of ``F`` is a probability: entries in [0, 1] that sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends.errors import BackendError, InputError
from ..backends.namespace import Array, array_namespace
from ..backends.pairs import nearest
from ..backends.validation import check_array, check_count


@dataclass(frozen=True, eq=False)
class HarmonicProblem:
    """The system of the free nodes, on the host.

    Attributes
    ----------
    A : scipy.sparse.csr_array (f, f)
        Laplacian restricted to the free nodes.
    B : array (f, classes)
        One right-hand side a class.
    labels : array (f,)
        The true classes of the free nodes.
    free : array (f,)
        Their numbers among all nodes.
    """

    A: Any
    B: Array
    labels: Array
    free: Array


def harmonic_labels(x: Array, labels: Array, *, known: int = 2, neighbours: int = 8, rng: Any = 0) -> HarmonicProblem:
    """The harmonic system of points whose classes are known for a few of each.

    Parameters
    ----------
    x : NumPy array (n, d)
        Points; the graph joins each to its nearest ``neighbours`` with the weight ``exp(-|x-y|^2 / median)``.
    labels : NumPy array (n,), integer
        Classes ``0 .. c-1``, each with more than ``known`` points.
    known : int
        Labelled points of each class, drawn by ``rng``.
    neighbours : int
        Neighbours of each point.
    rng : seed or Generator
        As in SPEC 7.

    Raises
    ------
    InputError, BackendError
        Points that are no NumPy floats, labels of another length, classes too small, or more neighbours than points.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.problems import harmonic_labels
    >>> x = np.random.default_rng(0).normal(size=(60, 2)) + 6.0 * np.repeat(np.eye(2), 30, axis=0)
    >>> problem = harmonic_labels(x, np.repeat([0, 1], 30))
    >>> problem.A.shape, problem.B.shape
    ((56, 56), (56, 2))
    """
    # A sparse system lives on the host: SciPy's formats are its point.
    import numpy as np
    import scipy.sparse as sps

    if not isinstance(x, np.ndarray) or not isinstance(labels, np.ndarray):
        raise BackendError(f"x and labels must be NumPy arrays, got {type(x).__name__} and {type(labels).__name__}")
    check_array(x, "x", array_namespace(x=x), ndim=2)
    if labels.dtype.kind not in "iu" or labels.shape != x.shape[:1] or labels.min() < 0:
        raise InputError(
            f"labels must be {x.shape[0]} non-negative integers, got {labels.dtype} of shape {labels.shape}"
        )
    check_count(known, "known")
    check_count(neighbours, "neighbours")
    n, classes = x.shape[0], int(labels.max()) + 1
    if neighbours >= n:
        raise InputError(f"neighbours is {neighbours}, but there are only {n} points")
    smallest = int(np.bincount(labels, minlength=classes).min())
    if known >= smallest:
        raise InputError(f"known is {known}, but the smallest class has {smallest} points")
    neighbour, squared = nearest(x, x, neighbours, exclude_self=True)
    weight = np.exp(-squared / max(float(np.median(squared)), np.finfo(x.dtype).tiny))
    rows = np.repeat(np.arange(n), neighbours)
    W = sps.csr_array((weight.ravel(), (rows, neighbour.ravel())), shape=(n, n))
    W = W.maximum(W.T)
    L = sps.csr_array(sps.diags_array(W.sum(axis=1)) - W)
    draws = np.random.default_rng(rng)
    chosen = np.concatenate([draws.choice(np.flatnonzero(labels == c), known, replace=False) for c in range(classes)])
    free = np.setdiff1d(np.arange(n), chosen)
    B = -(L[free][:, chosen] @ np.eye(classes, dtype=x.dtype)[labels[chosen]])
    return HarmonicProblem(sps.csr_array(L[free][:, free]), B, labels[free], free)
