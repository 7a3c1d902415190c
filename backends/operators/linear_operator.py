"""Linear operators: the action ``A @ v`` that hides how, and whether, a matrix is stored."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import BackendError, BreakdownError, InputError
from ..namespace import Array, array_namespace, device, finfo_eps, is_array
from ..transfer import from_host, host_float
from ..validation import check_callable

Action = Callable[[Array], Array]


class LinearOperator:
    """A linear map given by its actions.

    Operators are composed with ``A @ B``, added, subtracted, and multiplied or divided by numbers; ``A.H`` is the adjoint,
    ``A.T`` the transpose.

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
        What is known of the operator: ``"symmetric"`` (Hermitian, if complex), ``"positive"``.
    precise_matvec : callable, optional
        ``v -> A v`` computed in float64, where the entries are stored: makes residuals of float32 systems trustworthy.
    diagonal : callable, optional
        Returns the diagonal, for preconditioners that need it.
    name : str
        Name used in errors.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.operators import LinearOperator
    >>> A = LinearOperator((3, 3), lambda v: 2.0 * v, rmatvec=lambda v: 2.0 * v, dtype=np.float64)
    >>> (A @ A @ np.ones(3)).tolist()
    [4.0, 4.0, 4.0]
    >>> ((A - 0.5 * A) @ np.ones(3)).tolist()
    [1.0, 1.0, 1.0]
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
        diagonal: Callable[[], Array] | None = None,
        name: str = "A",
    ) -> None:
        if not isinstance(shape, tuple | list) or len(shape) != 2 or not all(hasattr(k, "__index__") for k in shape):
            raise InputError(f"shape is {shape!r}, expected two integers")
        if min(shape) < 0:
            raise InputError(f"shape is {shape}, expected two non-negative lengths")
        if matvec is None:
            raise BackendError("matvec must be callable, got None")
        actions = {"matvec": matvec, "rmatvec": rmatvec, "matmat": matmat, "rmatmat": rmatmat}
        for what, action in (actions | {"precise_matvec": precise_matvec, "diagonal": diagonal}).items():
            check_callable(action, what)
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = dtype
        self.tags = frozenset(tags)
        self.name = name
        self._matvec, self._rmatvec = matvec, rmatvec
        self._matmat, self._rmatmat = matmat, rmatmat
        self._precise_matvec = precise_matvec
        self._diagonal = diagonal

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
            # SciPy's and PyLops' operators cannot multiply no columns.
            out = self._matmat(other) if self._matmat and other.shape[1] else self._by_columns(other)
            expected = (self.shape[0], other.shape[1])
        else:
            raise InputError(f"{self.name} can be applied to 1-d and 2-d arrays, got shape {tuple(other.shape)}")
        # Cheap enough to be done at each product: an operator that errs must not go on.
        if type(out) is not type(other) and not is_array(out):
            if not is_array(other):
                raise BackendError(f"{self.name} can be applied to arrays, got a {type(other).__name__}")
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

        def conjugated(action: Action) -> Action:
            def apply(v: Array) -> Array:
                xp = array_namespace(v=v)
                return xp.conj(action(xp.conj(v))) if xp.isdtype(v.dtype, "complex floating") else action(v)

            return apply

        return LinearOperator(
            adjoint.shape,
            conjugated(adjoint._matvec),
            rmatvec=conjugated(self._matvec),
            matmat=self._rmatmat and conjugated(self._rmatmat),
            rmatmat=self._matmat and conjugated(self._matmat),
            dtype=self.dtype,
            tags=self.tags,
            name=f"{self.name}.T",
        )

    # SciPy's names: with them its solvers take our operators and preconditioners as they are.

    def matvec(self, v: Array) -> Array:
        """``A @ v``, under SciPy's name."""
        return self @ v

    def matmat(self, V: Array) -> Array:
        """``A @ V``, under SciPy's name."""
        return self @ V

    def rmatvec(self, u: Array) -> Array:
        """``A.H @ u``, under SciPy's name."""
        return self.H @ u

    def rmatmat(self, U: Array) -> Array:
        """``A.H @ U``, under SciPy's name."""
        return self.H @ U

    @property
    def knows_diagonal(self) -> bool:
        """Whether `diagonal` can be asked."""
        return self._diagonal is not None

    def diagonal(self) -> Array:
        """The diagonal, where the operator knows it; else an `InputError` that says how to give it."""
        if self._diagonal is None:
            raise InputError(f"{self.name} does not know its diagonal; pass diagonal=... to LinearOperator")
        return self._diagonal()

    def __add__(self, other: Any) -> LinearOperator:
        if not isinstance(other, LinearOperator) or other.shape != self.shape:
            raise InputError(f"cannot add {other!r} to {self!r}")
        first, second = self._precise_matvec, other._precise_matvec
        return _derived(
            self.shape,
            lambda v: self @ v + other @ v,
            (lambda u: self.H @ u + other.H @ u) if self._rmatvec and other._rmatvec else None,
            (lambda v: first(v) + second(v)) if first and second else None,
            dtype=_either(self.dtype, other.dtype),
            tags=self.tags & other.tags,
            name=f"({self.name} + {other.name})",
        )

    def __sub__(self, other: Any) -> LinearOperator:
        if not isinstance(other, LinearOperator) or other.shape != self.shape:
            raise InputError(f"cannot subtract {other!r} from {self!r}")
        return self + (-other)

    def __mul__(self, scalar: Any) -> LinearOperator:
        number = _number(scalar, self.name)
        conjugate, precise = number.conjugate(), self._precise_matvec
        kept = {"symmetric"} if isinstance(number, float) else set()
        if isinstance(number, float) and number > 0:
            kept.add("positive")
        return _derived(
            self.shape,
            lambda v: (self @ v) * number,
            (lambda u: (self.H @ u) * conjugate) if self._rmatvec else None,
            (lambda v: precise(v) * number) if precise else None,
            dtype=self.dtype,
            tags=self.tags & kept,
            name=f"{number} * {self.name}",
        )

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    def __truediv__(self, scalar: Any) -> LinearOperator:
        number = _number(scalar, self.name)
        if number == 0:
            raise InputError(f"{self.name} cannot be divided by zero")
        return self * (1.0 / number)

    def _by_columns(self, V: Array) -> Array:
        xp = array_namespace(V=V)
        if V.shape[1] == 0:
            return xp.zeros((self.shape[0], 0), dtype=V.dtype, device=device(V))
        return xp.stack([self @ V[:, j] for j in range(V.shape[1])], axis=1)

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
        import numpy as np

        xp = array_namespace(like=like)
        draws = np.random.default_rng(rng)

        complex_ = xp.isdtype(like.dtype, "complex floating")

        def draw(n: int) -> Array:
            # Complex vectors for a complex operator: with real ones a forgotten conjugate of the vector goes unseen.
            host = draws.standard_normal(n) + (1j * draws.standard_normal(n) if complex_ else 0.0)
            return xp.astype(from_host(host, like=like, xp=xp), like.dtype)

        def inner(x: Array, y: Array) -> Array:
            return xp.sum(x * (xp.conj(y) if complex_ else y))

        u, v = draw(self.shape[1]), draw(self.shape[0])
        left, right = inner(self @ u, v), inner(u, self.H @ v)
        scale = host_float(xp.abs(left)) + host_float(xp.abs(right))
        bound = rtol if rtol is not None else finfo_eps(like.dtype, xp) ** 0.5
        if not host_float(xp.abs(left - right)) <= bound * max(scale, 1e-300):
            raise BreakdownError(f"rmatvec of {self.name} is not the adjoint of its matvec")


def compose(first: LinearOperator, second: LinearOperator) -> LinearOperator:
    """``first @ second`` as one operator."""
    if first.shape[1] != second.shape[0]:
        raise InputError(f"cannot compose shapes {first.shape} and {second.shape}")
    outer, inner = first._precise_matvec, second._precise_matvec
    return _derived(
        (first.shape[0], second.shape[1]),
        lambda v: first @ (second @ v),
        (lambda u: second.H @ (first.H @ u)) if first._rmatvec and second._rmatvec else None,
        (lambda v: outer(inner(v))) if outer and inner else None,
        dtype=_either(first.dtype, second.dtype),
        tags=(),
        name=f"{first.name} @ {second.name}",
    )


def _derived(
    shape: tuple[int, int],
    action: Action,
    adjoint: Action | None,
    precise: Action | None,
    *,
    dtype: Any,
    tags: Iterable[str],
    name: str,
) -> LinearOperator:
    """An operator made of others, whose actions take one or several columns alike."""
    return LinearOperator(
        shape,
        action,
        matmat=action,
        rmatvec=adjoint,
        rmatmat=adjoint,
        precise_matvec=precise,
        dtype=dtype,
        tags=tags,
        name=name,
    )


def _either(first: Any, second: Any) -> Any:
    """The dtype of a sum or product: the complex one, if any."""
    return second if "complex" in str(second) else first


def _number(value: Any, name: str) -> float | complex:
    """A finite Python number, real where it can be: NumPy scalars would widen float32 arrays."""
    refusal = f"{name} can be multiplied or divided by numbers, got a {type(value).__name__}; products with @"
    if isinstance(value, str | LinearOperator) or getattr(value, "ndim", 0) != 0:
        raise BackendError(refusal)
    try:
        number = complex(value)
    except (TypeError, ValueError, RuntimeError) as err:
        raise BackendError(refusal) from err
    if not cmath.isfinite(number):
        raise InputError(f"{name} can be multiplied or divided by finite numbers, got {value}")
    return number.real if number.imag == 0 else number
