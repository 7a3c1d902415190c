"""Algebraic multigrid by PyAMG (extra ``amg``), for sparse matrices that no regular grid stands behind."""

from __future__ import annotations

import importlib
from typing import Any

from ....backends.errors import InputError, MissingDependencyError
from ....backends.namespace import Array
from ....backends.operators import LinearOperator
from ....backends.validation import check_choice
from .common import is_hermitian, scipy_matrix


def amg(A: Any, kind: str = "smoothed_aggregation", near_nullspace: Array | None = None) -> LinearOperator:
    """One V-cycle of PyAMG's multigrid, as an operator.

    Parameters
    ----------
    A : SciPy sparse matrix or NumPy array (n, n)
        Host only.
    kind : {"smoothed_aggregation", "ruge_stuben"}
        How the coarse problems are made. Ruge and Stuben's suits M-matrices such as discrete Laplacians; smoothed
        aggregation also elasticity, given its rigid-body modes.
    near_nullspace : NumPy array (n, q), optional
        Vectors that ``A`` nearly annihilates, one a column, for smoothed aggregation; default the constant.

    Returns
    -------
    LinearOperator
        ``M`` (n, n) for NumPy vectors; several columns are taken one by one, as PyAMG does. Tagged symmetric and
        positive if ``A`` is Hermitian with a positive diagonal.

    Raises
    ------
    MissingDependencyError
        PyAMG is not installed.
    InputError, BackendError
        A bad matrix, kind or near null space.

    Notes
    -----
    On grids of ``2^k - 1`` points a side `multigrid` is several times cheaper, and also runs on a GPU.

    References
    ----------
    N. Bell, L. N. Olson, J. Schroder, B. Southworth, PyAMG: algebraic multigrid solvers in Python, 2023.
    """
    import numpy as np
    from scipy import sparse

    word = check_choice(kind, "kind", ("smoothed_aggregation", "ruge_stuben"))
    matrix = scipy_matrix(A, "amg")
    n = matrix.shape[0]
    options: dict[str, Any] = {}
    if near_nullspace is not None:
        if word != "smoothed_aggregation":
            raise InputError("near_nullspace is used by kind='smoothed_aggregation' only")
        B = np.asarray(near_nullspace)
        if B.ndim != 2 or B.shape[0] != n or B.shape[1] == 0 or not np.all(np.isfinite(B)):
            raise InputError(f"near_nullspace has shape {B.shape}, expected finite columns ({n}, q)")
        options["B"] = B.astype(matrix.dtype)
    try:
        pyamg = importlib.import_module("pyamg")
    except ImportError as err:
        raise MissingDependencyError.for_extra("pyamg", "amg", "amg") from err
    # PyAMG wants SciPy's older matrix class with 32-bit indices.
    hierarchy = getattr(pyamg, f"{word}_solver")(sparse.csr_matrix(matrix), **options)
    cycle = hierarchy.aspreconditioner()
    hermitian = is_hermitian(matrix) and bool(np.all(matrix.diagonal().real > 0))

    def apply(v: Array) -> Array:
        if np.iscomplexobj(v) and matrix.dtype.kind == "f":
            return cycle.matvec(v.real.copy()) + 1j * cycle.matvec(v.imag.copy())
        return cycle.matvec(np.ascontiguousarray(v)).astype(v.dtype, copy=False)

    return LinearOperator(
        (n, n), apply, rmatvec=apply if hermitian else None, dtype=matrix.dtype,
        tags={"symmetric", "positive"} if hermitian else (), name=f"amg({word})",
    )  # fmt: skip
