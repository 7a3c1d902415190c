"""Toeplitz matrices by FFT: products through a circulant embedding, circulant preconditioners, solves.

A Toeplitz matrix is the leading block of a circulant one of length at least ``m + n - 1``, which the FFT diagonalises; the
same block makes a preconditioner when its length is ``n`` (Strang 1986; T. Chan 1988).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ....backends.errors import BreakdownError, InputError
from ....backends.linalg import factoring
from ....backends.namespace import Array, array_namespace, device, has_float64, is_numpy
from ....backends.operators import LinearOperator
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_choice, check_scalar
from ..cg import cg
from .circulant import circulant_preconditioner, fast_length
from .kronecker import widen

# Orders up to which O(n^2) compiled steps beat the transforms of a few dozen preconditioned iterations.
_LEVINSON_UP_TO = 4096
# Backward error, relative to the matrix, beyond which the recursion has lost digits to a nearly singular leading block.
_LOST = 1e-11


def toeplitz(column: Array, row: Array | None = None) -> ToeplitzOperator:
    """The Toeplitz matrix ``T[i, j] = column[i - j]`` for ``i >= j`` and ``row[j - i]`` above, as an operator.

    Parameters
    ----------
    column : array (m,)
        First column, real or complex.
    row : array (n,), optional
        First row, whose first entry is ignored as SciPy does; default ``conj(column)``, a Hermitian matrix.

    Returns
    -------
    ToeplitzOperator
        Of shape (m, n), in the dtype of ``column``.

    Raises
    ------
    BackendError, InputError
        Not vectors, empty, of different libraries or dtypes, or with NaN; the message names the argument.

    Notes
    -----
    A product costs three FFTs of the smallest fast length that is at least ``m + n - 1``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.structured import toeplitz
    >>> T = toeplitz(np.asarray([2.0, -1.0, 0.0]))
    >>> (T @ np.asarray([1.0, 0.0, 2.0])).round(6).tolist()
    [2.0, -3.0, 4.0]
    >>> T.solve(np.ones(3)).round(6).tolist()
    [1.5, 2.0, 1.5]
    """
    return ToeplitzOperator(column, row)


class ToeplitzOperator(LinearOperator):
    """A Toeplitz matrix; made by `toeplitz`.

    Attributes
    ----------
    column, row : array (m,), array (n,)
        First column and first row; ``row[0]`` equals ``column[0]``.
    """

    def __init__(self, column: Array, row: Array | None = None) -> None:
        xp = array_namespace(column=column, row=row)
        check_array(column, "column", xp, ndim=1, allow_complex=True)
        complex_ = xp.isdtype(column.dtype, "complex floating")
        hermitian = row is None
        if row is None:
            if complex_ and host_float(xp.abs(xp.imag(column[0]))) > 0:
                raise InputError("column[0] is not real, and row was not given: a Hermitian matrix has a real diagonal")
            row = xp.conj(column) if complex_ else column
        else:
            check_array(row, "row", xp, ndim=1, allow_complex=True, dtype=column.dtype)
            row = xp.concat([column[:1], row[1:]])
        self.column, self.row, self._xp, self._hermitian = column, row, xp, hermitian
        m, n = column.shape[0], row.shape[0]
        self._length = fast_length(m + n - 1)
        # Compared one by one: NumPy's and CuPy's dtypes equal the names of the standard, but hash otherwise.
        pairs = ((xp.float32, xp.float64), (xp.complex64, xp.complex128))
        wide = next((double for single, double in pairs if column.dtype == single), None)

        def precise(v: Array) -> Array:
            target = xp.complex128 if xp.isdtype(v.dtype, "complex floating") else xp.float64
            return ToeplitzOperator(xp.astype(column, wide), xp.astype(row, wide)) @ xp.astype(v, target)

        super().__init__(
            (m, n),
            lambda v: self._apply(v, self.shape[0], conjugate=False),
            matmat=lambda v: self._apply(v, self.shape[0], conjugate=False),
            rmatvec=lambda u: self._apply(u, self.shape[1], conjugate=True),
            rmatmat=lambda u: self._apply(u, self.shape[1], conjugate=True),
            dtype=column.dtype,
            tags={"symmetric"} if hermitian else (),
            precise_matvec=precise if wide is not None and has_float64(column, xp) else None,
            diagonal=lambda: xp.zeros((min(m, n),), dtype=column.dtype, device=device(column)) + column[0],
            name="T",
        )

    @property
    def H(self) -> ToeplitzOperator:
        """Adjoint: the Toeplitz matrix of the conjugate row and column."""
        if self._hermitian:
            return self
        if self._xp.isdtype(self.column.dtype, "complex floating"):
            return ToeplitzOperator(self._xp.conj(self.row), self._xp.conj(self.column))
        return ToeplitzOperator(self.row, self.column)

    def to_array(self) -> Array:
        """The matrix itself, (m, n)."""
        xp, (m, n) = self._xp, self.shape
        lags = xp.concat([xp.flip(self.row[1:]), self.column])
        index = xp.arange(m, device=device(lags))[:, None] - xp.arange(n, device=device(lags))[None, :] + (n - 1)
        return xp.reshape(xp.take(lags, xp.reshape(index, (-1,)), axis=0), (m, n))

    def solve(
        self, b: Array, *, method: str = "auto", kind: str = "chan", rtol: float = 1e-8, maxiter: int | None = None
    ) -> Array:
        """``x`` with ``T x = b``, for ``b`` (n,) or (n, k).

        Parameters
        ----------
        b : array (n,) or (n, k)
            Right-hand sides.
        method : {"auto", "levinson", "cg", "dense"}
            ``"levinson"``: SciPy's recursion, NumPy only, O(n^2) in float64, for matrices whose leading blocks are
            regular. ``"cg"``: conjugate gradients with a circulant preconditioner, O(n log n) an iteration, positive
            definite matrices. ``"dense"``: O(n^3). ``"auto"``: Levinson with NumPy up to order 4096 (and ``"dense"`` where
            its residual shows a leading block that is nearly singular), otherwise ``"cg"`` for a Hermitian and ``"dense"``
            for any other matrix.
        kind : {"chan", "strang"}
            The preconditioner of ``"cg"``, see `circulant_preconditioner`.
        rtol, maxiter : float, int, optional
            Tolerance and limit of ``"cg"``. Call `cg` itself for a result with status and history.

        Raises
        ------
        BreakdownError
            A leading block that is singular, or nearly, met the recursion, or a singular matrix the dense solve.

        Warns
        -----
        ConvergenceWarning
            ``"cg"`` did not reach its tolerance.
        """
        xp, n = self._xp, self.shape[0]
        check_choice(method, "method", ("auto", "levinson", "cg", "dense"))
        check_choice(kind, "kind", ("chan", "strang"))
        check_scalar(rtol, "rtol", non_negative=True)
        if self.shape[0] != self.shape[1]:
            raise InputError(f"solve needs a square matrix, T has shape {self.shape}")
        array_namespace(column=self.column, b=b)
        check_array(b, "b", xp, ndim=(1, 2), allow_complex=True)
        if b.shape[0] != n:
            raise InputError(f"b has shape {tuple(b.shape)}, expected {n} rows")
        if b.dtype != self.dtype and xp.isdtype(self.dtype, "complex floating"):
            b = widen(b, self.column, xp)  # the solution is complex, whatever the right-hand side
        automatic = method == "auto"
        if automatic:
            small = is_numpy(xp) and n <= _LEVINSON_UP_TO
            method = "levinson" if small else "cg" if self._hermitian else "dense"
        if method == "cg":
            if not self._hermitian:
                raise InputError('method "cg" needs a Hermitian matrix: leave row out, or use "levinson" or "dense"')
            M = circulant_preconditioner(self.column, kind=kind)
            return cg(self, b, M=M, rtol=rtol, maxiter=maxiter).x
        if method == "dense":
            return self._dense(b)
        if not is_numpy(xp):
            raise InputError('method "levinson" is SciPy\'s and needs NumPy arrays; use "cg" or "dense"')
        try:
            return self._levinson(b)
        except BreakdownError:
            if not automatic:
                raise
        return self._dense(b)

    def _dense(self, b: Array) -> Array:
        xp = self._xp
        columns = b[:, None] if b.ndim == 1 else b
        with factoring("T is singular", xp):
            x = xp.linalg.solve(widen(self.to_array(), b, xp), columns)
        return x if b.ndim == 2 else x[:, 0]

    def _levinson(self, b: Any) -> Any:
        import numpy as np
        from scipy.linalg import solve_toeplitz

        try:
            x = solve_toeplitz((self.column, self.row), b, check_finite=False)
        except np.linalg.LinAlgError as err:
            raise BreakdownError('a leading block of T is singular; use method="dense"') from err
        # The recursion is unstable where a leading block is nearly singular, and does not notice.
        wide = ToeplitzOperator(
            *(part.astype(np.result_type(part.dtype, np.float64)) for part in (self.column, self.row))
        )
        size = np.abs(self.column).sum(dtype=float) + np.abs(self.row[1:]).sum(dtype=float)
        gap = np.linalg.norm(b - wide @ x, axis=0)
        if not np.all(gap <= _LOST * (size * np.linalg.norm(x, axis=0) + np.linalg.norm(b, axis=0))):
            raise BreakdownError('a leading block of T is nearly singular; use method="dense"')
        return x.astype(b.dtype)

    @cached_property
    def _circulant(self) -> Array:
        """First column of the embedding circulant."""
        xp = self._xp
        gap = self._length - self.column.shape[0] - self.row.shape[0] + 1
        zeros = xp.zeros((gap,), dtype=self.dtype, device=device(self.column))
        return xp.concat([self.column, zeros, xp.flip(self.row[1:])])

    @cached_property
    def _half(self) -> Array:
        return self._xp.fft.rfft(self._circulant)

    @cached_property
    def _full(self) -> Array:
        xp = self._xp
        c = self._circulant
        if not xp.isdtype(c.dtype, "complex floating"):
            c = xp.astype(c, xp.complex64 if c.dtype == xp.float32 else xp.complex128)
        return xp.fft.fft(c)

    def _apply(self, v: Array, rows: int, *, conjugate: bool) -> Array:
        xp, N = self._xp, self._length
        real = not xp.isdtype(v.dtype, "complex floating")
        symbol = self._half if real and not xp.isdtype(self.dtype, "complex floating") else self._full
        if conjugate:
            symbol = xp.conj(symbol)
        if v.ndim == 2:
            symbol = symbol[:, None]
        # Products with a complex matrix leave the reals; the operator's caller is told so by name.
        if real and not xp.isdtype(self.dtype, "complex floating"):
            return xp.fft.irfft(symbol * xp.fft.rfft(v, n=N, axis=0), n=N, axis=0)[:rows, ...]
        if real:
            v = xp.astype(v, self.dtype)
        return xp.fft.ifft(symbol * xp.fft.fft(v, n=N, axis=0), axis=0)[:rows, ...]
