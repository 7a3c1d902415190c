"""All pairs of two point sets, reduced and never stored (unless storing them is faster and they fit)."""

from __future__ import annotations

import math
from typing import Any

from ..errors import BackendError, InputError
from ..namespace import Array, array_namespace, device, has_float64
from ..operators import LinearOperator
from ..transfer import host_bool
from ..validation import check_array, check_choice, check_count, check_scalar
from ..validation import check_finite as check_finite_values
from .kernels import Kernel
from .plan import Plan, build, make_plan
from .precision import expansion_loses, out_of_range
from .problem import PairProblem
from .threads import default_threads

_PRECISIONS = ("auto", "single", "mixed")
# Pairs below which starting threads costs more than they save.
_WORTH_THREADS = 2_000_000


class Pairs:
    """Reductions over all pairs ``(x_i, y_j)`` under a kernel ``k``, along ``j``.

    Parameters
    ----------
    x : array (n, d)
        Points that index the result; float32 or float64 of any library.
    y : array (m, d)
        Points that are summed over.
    kernel : Kernel
        From `gaussian`, `laplace`, `matern`, `cauchy`, `epanechnikov`, ... or, for a cost, `exponential`.
    engine : str
        ``"auto"`` or a name of `plan.ENGINES`; `plan` says what was chosen and why.
    exclude_self : bool
        Leave out the pairs ``(i, i)``; ``x`` and ``y`` must have the same length.
    passes : int, optional
        How many sums over this kernel are expected. None means many: then a kernel that fits is stored.
    memory : int, optional
        Bytes a stored kernel may take; default 1 GiB or a quarter of the free memory.
    threads : int, optional
        Host threads; default ``OMP_NUM_THREADS`` or all processors, one for less than two million pairs.
    precision : {"auto", "single", "mixed"}
        ``"auto"`` guards against the digits that distances lose when they come from one product of the points: where that
        is more than 1e-5, float32 problems form their exponents in float64; where it is more than 1e-11, float64 problems
        take differences. ``"single"`` never does, ``"mixed"`` always (float32).
    check_finite : bool
        Whether each reduction looks for NaN and infinities in what it is given: one host transfer a call, which a solver
        on a GPU saves by False.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Notes
    -----
    Time O(n m d); memory O((n + m) d) plus one tile per thread. Points are centred first, so a large common offset
    costs no digits.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import Pairs, gaussian
    >>> x = np.asarray([[0.0], [1.0]])
    >>> p = Pairs(x, x, gaussian(1.0))
    >>> p.sum(np.ones(2)).round(4).tolist()
    [1.6065, 1.6065]
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        kernel: Kernel,
        *,
        engine: str = "auto",
        exclude_self: bool = False,
        passes: int | None = None,
        memory: int | None = None,
        threads: int | None = None,
        precision: str = "auto",
        check_finite: bool = True,
    ) -> None:
        xp = array_namespace(x=x, y=y)
        check_array(x, "x", xp, ndim=2, allow_empty=True)
        check_array(y, "y", xp, shape=(None, x.shape[1]), allow_empty=True, dtype=x.dtype)
        if not isinstance(kernel, Kernel):
            raise BackendError(f"kernel must be a Kernel such as gaussian(0.5), got {type(kernel).__name__}")
        if exclude_self and x.shape[0] != y.shape[0]:
            raise InputError(f"exclude_self needs as many x as y, got {x.shape[0]} and {y.shape[0]}")
        if passes is not None:
            check_count(passes, "passes")
        if memory is not None:
            check_scalar(memory, "memory", non_negative=True)
        check_choice(precision, "precision", _PRECISIONS)
        if threads is None:
            threads = default_threads() if x.shape[0] * y.shape[0] >= _WORTH_THREADS else 1
        check_count(threads, "threads")
        single = x.dtype == xp.float32 and has_float64(x, xp)
        loses = precision == "auto" and expansion_loses(x, y, kernel, xp)
        self._problem = PairProblem(
            x, y, kernel, xp, exclude_self=exclude_self, threads=threads,
            mixed=single and (loses or precision == "mixed" or out_of_range(kernel, x.dtype, xp)), direct=loses and not single,
        )  # fmt: skip
        self._engine, self._passes, self._memory, self._check_finite = engine, passes, memory, check_finite
        self._built: dict[str, Any] = {}
        self._transposed: Pairs | None = None
        if engine != "auto":
            self.plan()

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, m)``."""
        return self._problem.shape[:2]

    @property
    def T(self) -> Pairs:
        """The same pairs with the roles of ``x`` and ``y`` exchanged: reductions over ``i``."""
        if self._transposed is None:
            p = self._problem
            other = object.__new__(Pairs)
            metric = p.kernel.metric
            kernel = p.kernel
            if callable(metric):
                kernel = Kernel(lambda a, b: metric(b, a).T, p.kernel.scale, p.kernel.profile)
            other._problem = PairProblem(
                p.y, p.x, kernel, p.xp, exclude_self=p.exclude_self, threads=p.threads, mixed=p.mixed, direct=p.direct
            )
            other._engine, other._passes, other._memory = self._engine, self._passes, self._memory
            other._check_finite = self._check_finite
            other._built, other._transposed = {}, self
            self._transposed = other
        return self._transposed

    def plan(self, reduction: str = "sum") -> Plan:
        """The engine chosen for ``"sum"``, ``"logsumexp"``, ``"softmax_sum"`` or ``"nearest"``, and why."""
        check_choice(reduction, "reduction", ("sum", "logsumexp", "softmax_sum", "nearest"))
        return make_plan(self._problem, reduction, engine=self._engine, passes=self._passes, memory=self._memory)

    def _for(self, reduction: str) -> Any:
        # Shapes and options do not change, so neither does the plan.
        if reduction not in self._built:
            name = self.plan(reduction).engine
            same = [e for e in self._built.values() if e.name == name]
            self._built[reduction] = same[0] if same else build(name, self._problem)
        return self._built[reduction]

    def sum(self, v: Array) -> Array:
        """``sum_j k(x_i, y_j) v_j``: (n,) for ``v`` (m,), (n, r) for ``v`` (m, r)."""
        return self._sum(self._columns(v, self._check_finite), v.ndim)

    def _sum(self, v: Array, ndim: int) -> Array:
        engine = self._for("sum")
        other = self._transposed._built.get("sum") if self._transposed is not None else None
        # Both orders of a stored kernel use one matrix.
        shared = engine.name == "stored" and other is not None and other.name == "stored" and other._matrix is not None
        out = other.transposed_sum(v) if shared and other is not None else engine.sum(v)
        return out[:, 0] if ndim == 1 else out

    def logsumexp(self, b: Array | None = None, guess: Array | None = None) -> Array:
        """``log sum_j exp(b_j) k(x_i, y_j)``, (n,); ``b`` may hold minus infinities (zero weights).

        ``guess`` (n,), a value near the answer such as the previous iterate's, saves the row maximum.
        """
        if guess is not None:
            check_array(guess, "guess", self._problem.xp, shape=(self.shape[0],), finite=False, allow_empty=True)
        return self._for("logsumexp").logsumexp(self._potential(b), guess)

    def softmax_sum(self, v: Array, b: Array | None = None) -> tuple[Array, Array]:
        """Averages ``sum_j w_ij v_j`` with ``w_ij`` proportional to ``exp(b_j) k(x_i, y_j)``, and their log-sum-exp."""
        values, logs = self._for("softmax_sum").softmax_sum(self._potential(b), self._columns(v, self._check_finite))
        return (values[:, 0] if v.ndim == 1 else values), logs

    def nearest(self, k: int) -> tuple[Array, Array]:
        """Indices (n, k) and metric values (n, k) of the ``k`` nearest ``y`` of each ``x``, nearest first.

        For ``"dot"`` the largest products come first.
        """
        check_count(k, "k")
        available = self.shape[1] - self._problem.exclude_self
        if k > available:
            raise InputError(f"k is {k}, but there are only {available} points")
        indices, values = self._for("nearest").nearest(k)
        return indices, values

    def operator(self) -> LinearOperator:
        """The kernel matrix as a `LinearOperator` of shape (n, m)."""
        dtype = self._problem.x.dtype
        symmetric = self._problem.x is self._problem.y and not callable(self._problem.kernel.metric)

        # A solver that has gone astray must be stopped by its loop, with the last good iterate, not by an error from here.
        def forward(v: Array) -> Array:
            return self._sum(self._columns(v, False), v.ndim)

        def backward(u: Array) -> Array:
            return self.T._sum(self.T._columns(u, False), u.ndim)

        return LinearOperator(
            self.shape,
            forward,
            matmat=forward,
            rmatvec=backward,
            rmatmat=backward,
            dtype=dtype,
            tags={"symmetric"} if symmetric else (),
            name="K",
        )

    def _columns(self, v: Array, check_finite: bool) -> Array:
        p = self._problem
        array_namespace(x=p.x, v=v)
        check_array(v, "v", p.xp, ndim=(1, 2), dtype=p.x.dtype, allow_empty=True, finite=False)
        if v.shape[0] != p.shape[1]:
            raise InputError(f"v has shape {tuple(v.shape)}, expected {p.shape[1]} rows, one for each y")
        if check_finite:
            check_finite_values(v, "v", p.xp)
        return v[:, None] if v.ndim == 1 else v

    def _potential(self, b: Array | None) -> Array:
        p = self._problem
        if b is None:
            return p.xp.zeros((p.shape[1],), dtype=p.x.dtype, device=device(p.x))
        array_namespace(x=p.x, b=b)
        check_array(b, "b", p.xp, shape=(p.shape[1],), dtype=p.x.dtype, allow_empty=True, finite=False)
        # Minus infinity is the logarithm of a zero weight; NaN and plus infinity are no logarithms of weights.
        if self._check_finite and p.shape[1] and not host_bool(p.xp.all(b < math.inf)):
            raise InputError("b contains NaN or plus infinity; it holds logarithms of weights")
        return b
