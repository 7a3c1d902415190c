"""Linear operators: the action ``A @ v`` that hides how, and whether, a matrix is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import BackendError, BreakdownError, InputError
from ..namespace import Array, array_namespace, device, finfo_eps, is_array
from ..transfer import from_host, host_float

Action = Callable[[Array], Array]


class LinearOperator:
    """A linear map given by its actions.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    matvec : callable
        ``v (n,) -> A v (m,)``.
    rmatvec : callable, optional
        ``u (m,) -> A^H u (n,)``.
    matmat, rmatmat : callable, optional
        The same for several columns at once; by default column by column.
    dtype : dtype
        Dtype of what ``matvec`` returns for a vector of that dtype.
    tags : iterable of str
        What is known of the operator: ``"symmetric"``, ``"positive"``.
    precise_matvec : callable, optional
        ``v -> A v`` computed in float64, where the entries are stored: makes residuals of float32 systems trustworthy.
    name : str
        Name used in errors.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.operators import LinearOperator
    >>> A = LinearOperator((3, 3), lambda v: 2.0 * v, rmatvec=lambda v: 2.0 * v, dtype=np.float64)
    >>> (A @ A @ np.ones(3)).tolist()
    [4.0, 4.0, 4.0]
    """

    # NumPy must let ``array @ operator`` fail instead of looping over entries.
    __array_ufunc__ = None

    def __init__(
        self,
        shape: Sequence[int],
        matvec: Action,
        *,
        rmatvec: Action | None = None,
        matmat: Action | None = None,
        rmatmat: Action | None = None,
        dtype: Any,
        tags: Iterable[str] = (),
        precise_matvec: Action | None = None,
        name: str = "A",
    ) -> None:
        if not isinstance(shape, tuple | list) or len(shape) != 2 or not all(hasattr(k, "__index__") for k in shape):
            raise InputError(f"shape is {shape!r}, expected two integers")
        if min(shape) < 0:
            raise InputError(f"shape is {shape}, expected two non-negative lengths")
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = dtype
        self.tags = frozenset(tags)
        self.name = name
        self._matvec, self._rmatvec = matvec, rmatvec
        self._matmat, self._rmatmat = matmat, rmatmat
        self._precise_matvec = precise_matvec

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, LinearOperator):
            return compose(self, other)
        ndim = getattr(other, "ndim", None)
        if ndim is None:
            raise BackendError(f"{self.name} can be applied to arrays, got a {type(other).__name__}")
        if ndim in (1, 2) and other.shape[0] != self.shape[1]:
            raise InputError(f"{self.name} of shape {self.shape} cannot be applied to shape {tuple(other.shape)}")
        if ndim == 1:
            out = self._matvec(other)
            expected: tuple[int, ...] = (self.shape[0],)
        elif ndim == 2:
            if other.shape[1] == 0:
                xp = array_namespace(v=other)
                return xp.zeros((self.shape[0], 0), dtype=other.dtype, device=device(other))
            out = self._matmat(other) if self._matmat is not None else _by_columns(self.__matmul__, other)
            expected = (self.shape[0], other.shape[1])
        else:
            raise InputError(f"{self.name} can be applied to 1-d and 2-d arrays, got shape {tuple(other.shape)}")
        # Cheap enough to be done at each product: an operator that errs must not go on.
        if type(out) is not type(other) and not is_array(out):
            raise BackendError(f"{self.name} returned a {type(out).__name__}, expected an array of shape {expected}")
        if out.shape != expected or out.dtype != other.dtype:
            raise InputError(
                f"{self.name} returned shape {tuple(out.shape)} and dtype {out.dtype} for a vector of shape "
                f"{tuple(other.shape)} and dtype {other.dtype}, expected shape {expected} and the same dtype"
            )
        return out

    @property
    def H(self) -> LinearOperator:
        """Adjoint operator."""
        if self._rmatvec is None:
            raise InputError(f"{self.name} has no adjoint; pass rmatvec")
        return LinearOperator(
            (self.shape[1], self.shape[0]),
            self._rmatvec,
            rmatvec=self._matvec,
            matmat=self._rmatmat,
            rmatmat=self._matmat,
            dtype=self.dtype,
            tags=self.tags,
            name=f"{self.name}.H",
        )

    @property
    def T(self) -> LinearOperator:
        """Transpose: of a real operator the adjoint, of a complex one its conjugate."""
        adjoint = self.H
        if "complex" not in str(self.dtype):
            return adjoint

        def conjugated(action: Action) -> Action:
            def apply(v: Array) -> Array:
                xp = array_namespace(v=v)
                return xp.conj(action(xp.conj(v)))

            return apply

        return LinearOperator(
            adjoint.shape,
            conjugated(adjoint._matvec),
            rmatvec=conjugated(self._matvec),
            matmat=adjoint._matmat and conjugated(adjoint._matmat),
            rmatmat=self._matmat and conjugated(self._matmat),
            dtype=self.dtype,
            tags=self.tags,
            name=f"{self.name}.T",
        )

    def __add__(self, other: Any) -> LinearOperator:
        if not isinstance(other, LinearOperator) or other.shape != self.shape:
            raise InputError(f"cannot add {other!r} to {self!r}")
        return LinearOperator(
            self.shape,
            lambda v: self @ v + other @ v,
            matmat=lambda v: self @ v + other @ v,
            rmatvec=lambda u: self.H @ u + other.H @ u,
            rmatmat=lambda u: self.H @ u + other.H @ u,
            dtype=self.dtype,
            tags=self.tags & other.tags,
            name=f"({self.name} + {other.name})",
        )

    def __mul__(self, scalar: Any) -> LinearOperator:
        if getattr(scalar, "ndim", 0) != 0 or not hasattr(scalar, "real"):
            raise BackendError(
                f"{self.name} can be multiplied by a number, got a {type(scalar).__name__}; apply it with @"
            )
        # A scalar of a library would decide the dtype of the product: a Python number adapts to the array.
        number = complex(scalar)
        factor = number if number.imag else number.real
        conjugate, tags = factor.conjugate(), self.tags
        if not number.real > 0 or number.imag:
            tags = tags - ({"positive", "symmetric"} if number.imag else {"positive"})
        return LinearOperator(
            self.shape,
            lambda v: (self @ v) * factor,
            matmat=lambda v: (self @ v) * factor,
            rmatvec=lambda u: (self.H @ u) * conjugate,
            rmatmat=lambda u: (self.H @ u) * conjugate,
            dtype=self.dtype,
            tags=tags,
            name=f"{factor} * {self.name}",
        )

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return self.__mul__(-1.0)

    def __sub__(self, other: Any) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            raise InputError(f"cannot subtract {other!r} from {self!r}")
        return self + -other

    def __truediv__(self, scalar: Any) -> LinearOperator:
        return self.__mul__(1.0 / scalar)

    def __repr__(self) -> str:
        return f"LinearOperator({self.name}, shape={self.shape}, dtype={self.dtype}, tags={sorted(self.tags)})"

    def precise_residual(self, b: Array, x: Array) -> Array:
        """``b - A x``, in float64 where the entries of ``A`` are stored, rounded back to the dtype of ``b``."""
        if self._precise_matvec is None:
            return b - self @ x
        xp = array_namespace(b=b)
        wide = self._precise_matvec(x)
        return xp.astype(xp.astype(b, wide.dtype) - wide, b.dtype)

    def check_adjoint(self, like: Array, rng: Any = 0, rtol: float | None = None) -> None:
        """Raise `BreakdownError` unless ``<A u, v> = <u, A^H v>`` for random ``u``, ``v`` in the library of ``like``."""
        xp = array_namespace(like=like)
        draws = np.random.default_rng(rng)
        imaginary = 1j if xp.isdtype(like.dtype, "complex floating") else 0.0

        def draw(n: int) -> Array:
            host = draws.standard_normal(n) + imaginary * draws.standard_normal(n)
            return xp.astype(from_host(host, like=like, xp=xp), like.dtype)

        u, v = draw(self.shape[1]), draw(self.shape[0])
        left, right = xp.vecdot(v, self @ u), xp.vecdot(self.H @ v, u)
        scale = host_float(xp.linalg.vector_norm(u) * xp.linalg.vector_norm(self.H @ v))
        bound = rtol if rtol is not None else finfo_eps(like.dtype, xp) ** 0.5
        if not host_float(xp.abs(left - right)) <= bound * max(scale, 1e-300):
            raise BreakdownError(f"rmatvec of {self.name} is not the adjoint of its matvec")


def compose(first: LinearOperator, second: LinearOperator) -> LinearOperator:
    """``first @ second`` as one operator."""
    if first.shape[1] != second.shape[0]:
        raise InputError(f"cannot compose shapes {first.shape} and {second.shape}")
    return LinearOperator(
        (first.shape[0], second.shape[1]),
        lambda v: first @ (second @ v),
        matmat=lambda v: first @ (second @ v),
        rmatvec=lambda u: second.H @ (first.H @ u),
        rmatmat=lambda u: second.H @ (first.H @ u),
        dtype=first.dtype,
        name=f"{first.name} @ {second.name}",
    )


def _by_columns(action: Action, V: Array) -> Array:
    xp = array_namespace(V=V)
    return xp.stack([action(V[:, j]) for j in range(V.shape[1])], axis=1)
