"""What a solve leaves for the next one: a few directions, and their images while the operator stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....backends.errors import BackendError, InputError
from ....backends.linalg import conj
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.transfer import from_host, to_host, to_host_together
from ...iterate import Outcome
from ...result import LinearResult

# Directions and their images, both as rows.
Space = tuple[Array, Array]

# Directions of the images below this part of the largest are dropped, in double precision.
_RANK = 1e-12
# Right-hand sides differ, too: a little longer is no sign against the memory.
_LONGER = 1.25


@dataclass(frozen=True, eq=False)
class RecycleSpace:
    """An opaque memory of solved systems, to be passed on as ``recycle=``.

    Attributes
    ----------
    U : array (k, n)
        Directions in solution space, as rows.
    C : array (k, n)
        Their images ``A U``, orthonormal for `gcrodr` and `recycled_minres`.
    operator : object
        The operator of the images, as the caller gave it.
    baseline : int
        Steps of the sequence's first solve, which had nothing to recycle.
    """

    U: Array
    C: Array
    operator: Any
    baseline: int

    @property
    def k(self) -> int:
        """Directions kept."""
        return int(self.U.shape[0])

    def __repr__(self) -> str:
        return f"RecycleSpace({self.k} directions of length {self.U.shape[1]}, {self.U.dtype})"


@dataclass(frozen=True, kw_only=True, repr=False)
class RecyclingResult(LinearResult):
    """A `LinearResult` with what the next solve may use.

    Attributes
    ----------
    recycle : RecycleSpace or None
        To be passed to the next call; None where nothing worth keeping was found.
    """

    recycle: RecycleSpace | None = None


def remember(method: Any, outcome: Outcome[Any], recycle: RecycleSpace | None, operator: Any) -> RecyclingResult:
    """The result of a run, with what ``method`` has learnt (``learn()`` gives directions and images, or None).

    A memory with which a solve was clearly longer than the sequence's first one, which had none, is not passed on.
    """
    space = method.learn()
    baseline = outcome.n_iter if recycle is None else recycle.baseline
    kept = (
        None
        if space is None or outcome.n_iter > _LONGER * baseline
        else RecycleSpace(*clipped(space), operator, baseline)
    )
    return RecyclingResult(x=outcome.state.x, recycle=kept, evaluations={"matvec": method.matvecs}, **outcome.fields())


def clipped(space: Space) -> Space:
    """No more directions than the whole space has."""
    most = min(space[0].shape)
    return space[0][:most, :], space[1][:most, :]


def least_part(like: Array, xp: Namespace) -> float:
    """Of the largest direction, the part below which one is rounding."""
    return max(_RANK, 10 * finfo_eps(like.dtype, xp))


def check_recycling(recycle: Any, b: Array, *, block: bool = False) -> None:
    """Refuse several right-hand sides (of a block: one), and a memory of another size, library, device or dtype."""
    if b.ndim != 1 and not block:
        raise InputError(f"b has shape {tuple(b.shape)}, expected (n,)")
    if b.ndim != 2 and block:
        raise InputError(f"B has shape {tuple(b.shape)}, expected (n, p); for one right-hand side see gcrodr")
    if recycle is None:
        return
    if not isinstance(recycle, RecycleSpace):
        raise BackendError(f"recycle is a {type(recycle).__name__}, expected the .recycle of an earlier result")
    name = "B" if block else "b"
    array_namespace(**{name: b, "recycle": recycle.U})
    if recycle.U.shape[1] != b.shape[0]:
        raise InputError(f"recycle is for systems of order {recycle.U.shape[1]}, {name} has {b.shape[0]} entries")
    if recycle.U.dtype != b.dtype:
        raise BackendError(f"recycle has dtype {recycle.U.dtype}, {name} {b.dtype}; convert one of them")


class Adoption:
    """A memory on its way into a solve: what decides about it is read together with the facts of the system.

    ``small`` makes of directions and images the small square matrix that tells which of them are independent, and something
    to keep; ``finish`` takes directions, images, what was kept and that matrix on the host, and gives the space to use or
    None. ``matvecs`` counts products.
    """

    def __init__(
        self,
        recycle: RecycleSpace,
        A: Any,
        small: Callable[[Array, Array, Namespace], tuple[Array, Any]],
        finish: Callable[[Array, Array, Any, Any, Namespace], Any],
        *,
        same: bool | None = None,
        block: bool = False,
    ) -> None:
        self.recycle, self.small, self.finish, self.block = recycle, small, finish, block
        self.tested = same is None and getattr(recycle, "operator", None) is A
        self.renewed = not (self.tested or same)
        self.matvecs = 0

    def ask(self, operator: LinearOperator, b: Array) -> Array:
        """What is to be read, as a real vector."""
        check_recycling(self.recycle, b, block=self.block)
        self.operator, self.xp = operator, array_namespace(recycle=self.recycle.U)
        facts = [self.reduced()]
        if self.tested:
            self.matvecs += 1
            facts.append(departure(operator, self.recycle, self.xp))
        return self.xp.concat([_as_real(fact, self.xp) for fact in facts])

    def reduced(self) -> Array:
        """The small matrix of the directions and their images, under the present operator or believed to be."""
        U, self.images = self.recycle.U, self.recycle.C
        if self.renewed:
            self.matvecs += self.recycle.k
            self.images = images(self.operator, U)
        matrix, self.kept = self.small(U, self.images, self.xp)
        return matrix

    def space(self, answer: Any) -> Any:
        """What ``finish`` makes of what was read."""
        U, xp = self.recycle.U, self.xp
        if self.tested:
            *entries, away, size = answer.astype("float64")
            if not away <= 1e3 * finfo_eps(U.dtype, xp) ** 0.75 * size:
                # The same object, but another operator by now.
                self.renewed = True
                entries = to_host(_as_real(self.reduced(), xp))
        else:
            entries = answer
        return self.finish(U, self.images, self.kept, _as_square(entries, U.shape[0]), xp)


def _as_real(x: Array, xp: Namespace) -> Array:
    """The entries in a real vector, real and imaginary parts in turn."""
    if xp.isdtype(x.dtype, "complex floating"):
        x = xp.stack([xp.real(x), xp.imag(x)], axis=-1)
    return xp.reshape(x, (-1,))


def _as_square(entries: Any, k: int) -> Any:
    """Its inverse, on the host: a matrix (k, k) in double precision."""
    import numpy as np

    parts = np.asarray(entries, dtype=np.float64).reshape((k, k, -1))
    return parts[..., 0] if parts.shape[-1] == 1 else parts[..., 0] + 1j * parts[..., 1]


def rows_times(coefficients: Any, rows: Array, xp: Namespace) -> Array:
    """Combinations (q, n) of the rows (p, n) with host coefficients (p, q)."""
    small = from_host(coefficients, like=rows, xp=xp)
    return xp.matmul(xp.astype(small, rows.dtype).T, rows)


def gram(left: Array, right: Array, xp: Namespace) -> Array:
    """``<left_i, right_j>`` of rows."""
    return xp.matmul(conj(left, xp), right.T)


def on_host(*arrays: Array, xp: Namespace) -> list[Any]:
    """Small matrices of one dtype on the host in double precision, in one transfer."""
    kind = "complex128" if xp.isdtype(arrays[0].dtype, "complex floating") else "float64"
    return [host.astype(kind) for host in to_host_together(*arrays, xp=xp)]


def images(A: LinearOperator, U: Array) -> Array:
    """``A`` applied to each row."""
    return (A @ U.T).T


def triangle(U: Array, AU: Array, xp: Namespace) -> tuple[Array, Any]:
    """The triangular factor (k, k) of the normalised images; the orthogonal one and the norms are kept."""
    # Columns can differ by orders of magnitude: what counts as dependent must not depend on that.
    size = xp.linalg.vector_norm(AU, axis=1)[:, None]
    size = xp.where(size > 0, size, 1.0)
    Q, R = xp.linalg.qr((AU / size).T)
    return R, (Q, size)


def orthonormal(U: Array, AU: Array, kept: Any, R: Any, xp: Namespace) -> Space | None:
    """``U, C`` of the same spaces with ``A U = C`` and orthonormal ``C``, after `triangle`.

    None where fewer than half of the rows are left.
    """
    import numpy as np

    if not np.isfinite(R).all():
        return None
    (Q, size), (left, s, right) = kept, np.linalg.svd(R)
    rank = int((s > least_part(U, xp) * s[0]).sum())
    if 2 * rank < s.size or rank == 0:
        return None
    return rows_times(right[:rank].conj().T / s[:rank], U / size, xp), rows_times(left[:, :rank], Q.T, xp)


def harmonic_ritz(G: Any, F: Any, k: int) -> Any:
    """Coefficients (p, k) of the harmonic Ritz vectors of smallest absolute value: ``A Z = W G``, ``F = W^H Z``, ``W`` orthonormal.

    They solve ``G^H G y = theta G^H F y``; as ``1/theta`` are the eigenvalues of ``R^{-1} Q^H F`` with ``G = Q R``, the condition
    of ``G`` is not squared. Of a real problem a complex pair gives two real vectors and is never split.
    """
    import numpy as np
    import scipy.linalg as sl

    Q, R = np.linalg.qr(G)
    try:
        values, vectors = np.linalg.eig(sl.solve_triangular(R, Q.conj().T @ F, check_finite=False))
    except (np.linalg.LinAlgError, ValueError):
        return None
    if not (np.isfinite(values).all() and np.isfinite(vectors).all()):
        return None
    order = np.argsort(-np.abs(values), kind="stable")
    if np.iscomplexobj(G) or not np.iscomplexobj(values):
        return vectors[:, order[:k]]
    columns: list[Any] = []
    for index in order:
        if len(columns) >= k:
            break
        value, vector = values[index], vectors[:, index]
        if value.imag > 0:
            columns += [vector.real, vector.imag]
        elif value.imag == 0:
            columns.append(vector.real)
        # A negative imaginary part follows its partner with a positive one, and came with it.
    return np.stack(columns, axis=1)


def select(G: Any, P: Any, least: float) -> tuple[Any, Any] | None:
    """From ``G P`` the orthonormal basis (for the images) and the coefficients (for the directions) that belong to it.

    Directions below the part ``least`` of the largest are dropped.
    """
    import numpy as np
    import scipy.linalg as sl

    Q, R, pivots = sl.qr(G @ P, mode="economic", pivoting=True)
    size = np.abs(np.diag(R))
    rank = int((size > least * size[0]).sum()) if size.size and np.isfinite(size).all() and size[0] > 0 else 0
    if not rank:
        return None
    inverse = sl.solve_triangular(R[:rank, :rank], np.eye(rank, dtype=R.dtype), check_finite=False)
    return Q[:, :rank], P[:, pivots[:rank]] @ inverse


def departure(A: LinearOperator, space: RecycleSpace, xp: Namespace) -> Array:
    """How far ``A`` maps a combination of the directions from that of the images, and the size of the latter: one product."""
    weights = xp.cos(xp.arange(space.k, dtype=xp.float64, device=device(space.U)) + 1.0)
    weights = xp.astype(weights, space.U.dtype)
    image, kept = A @ xp.matmul(weights, space.U), xp.matmul(weights, space.C)
    return xp.stack([xp.linalg.vector_norm(image - kept), xp.linalg.vector_norm(kept)])
