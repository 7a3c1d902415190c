"""The small systems on which SciPy tests its own Krylov solvers, indefinite, singular-looking and badly scaled ones among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..backends.namespace import Array, Namespace
from ..backends.validation import check_floating


@dataclass(frozen=True, eq=False)
class KrylovCase:
    """``A x = b`` with what is known of ``A``.

    Attributes
    ----------
    name : str
        SciPy's name of the case.
    A : array (n, n)
        The matrix.
    b : array (n,)
        The right-hand side.
    hermitian, positive : bool
        Whether ``A`` is Hermitian, and positive definite.
    """

    name: str
    A: Array
    b: Array
    hermitian: bool
    positive: bool


def krylov_cases(*, xp: Namespace, dtype: Any = None, device: Any = None) -> Iterator[KrylovCase]:
    """The cases in the given real precision (complex ones in the complex dtype of the same precision).

    Parameters
    ----------
    xp, dtype, device
        Library, floating dtype (default float64) and device of the arrays.

    Returns
    -------
    iterator of KrylovCase
        The twelve cases.

    Raises
    ------
    InputError, BackendError
        A value that cannot be, or a dtype that is not floating; the message names the argument.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import krylov_cases
    >>> [case.name for case in krylov_cases(xp=xp)][:3]
    ['poisson1d', '-poisson1d', 'poisson2d']
    """
    import numpy as np

    dtype = check_floating(dtype, "dtype", xp)
    wide = xp.complex128 if dtype == xp.float64 else xp.complex64
    for name, A, b, hermitian, positive in _host_cases():
        kind = wide if np.iscomplexobj(A) else dtype
        yield KrylovCase(
            name,
            xp.asarray(np.ascontiguousarray(A), dtype=kind, device=device),
            xp.asarray(b.astype(A.dtype), dtype=kind, device=device),
            hermitian,
            positive,
        )


def _host_cases() -> Iterator[tuple[str, Any, Any, bool, bool]]:
    import numpy as np

    line = 2.0 * np.eye(40) - np.eye(40, k=1) - np.eye(40, k=-1)
    yield "poisson1d", line, np.arange(40.0), True, True
    yield "-poisson1d", -line, np.arange(40.0), True, False
    plane = np.kron(line, np.eye(40)) + np.kron(np.eye(40), line)
    yield "poisson2d", plane, np.arange(1600.0), True, True
    yield "rand-diag", np.diag([6.0, -5, 2, 7, -1, 10, 4, -3, -8, 9]), np.arange(10.0), True, False
    # The legacy generators are what these cases are defined by.
    square = np.random.RandomState(1234).rand(4, 4)
    yield "rand", square, np.arange(4.0), False, False
    yield "rand-sym", square + square.T, np.arange(4.0), True, False
    tall = np.random.RandomState(1234).rand(9, 9)
    yield "rand-sym-pd", tall @ tall.T, np.arange(9.0), True, True
    state = np.random.RandomState(1234)
    square = state.rand(4, 4) + 1j * state.rand(4, 4)
    yield "rand-cmplx", square, np.arange(4.0), False, False
    yield "rand-cmplx-herm", square + square.conj().T, np.arange(4.0), True, False
    state = np.random.RandomState(1234)
    tall = state.rand(9, 9) + 1j * state.rand(9, 9)
    yield "rand-cmplx-sym-pd", tall @ tall.conj().T, np.arange(9.0), True, True
    yield "nonsymposdef", 2.0 * np.eye(10) - np.eye(10, k=-1), np.arange(10.0), False, False
    centre = np.asarray([1.0, 2.0, 2.0, 2.0, 1.0])
    A = np.zeros((11, 11))
    A[:5, 5], A[5, :5] = centre, centre
    A[:5, 6:], A[6:, :5], A[6:, 6:] = -np.eye(5), -np.eye(5), -np.eye(5)
    yield "sym-nonpd", A, np.eye(11)[5], True, False
