"""The question an engine is asked, and the answers it must give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..namespace import Array, Namespace
from .kernels import Kernel


@dataclass(frozen=True, eq=False)
class PairProblem:
    """Two point sets and a kernel between them, checked, with everything an engine may want to know.

    Attributes
    ----------
    x, y : array (n, d), (m, d)
        Points, same library, device and dtype (float32 or float64).
    kernel : Kernel
        The kernel; all reductions run over the rows of ``y``.
    xp : namespace
        Their namespace.
    exclude_self : bool
        Leave out the pairs (i, i): only when ``x`` and ``y`` are the same points.
    threads : int
        Threads an engine may use on the host.
    mixed : bool
        Exponents in float64 although the data are float32 (see `precision.expansion_loses`).
    direct : bool
        Distances from differences of coordinates, never from a product of the points.
    """

    x: Array
    y: Array
    kernel: Kernel
    xp: Namespace
    exclude_self: bool = False
    threads: int = 1
    mixed: bool = False
    direct: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, m, d)``."""
        return self.x.shape[0], self.y.shape[0], self.x.shape[1]


class Engine(Protocol):
    """What every engine offers. Constructed as ``EngineClass(problem)``; set-up such as centring happens there, once.

    ``v`` is (m, r); ``b`` is (m,) and may hold minus infinities (zero weights); results have the dtype of the points.
    """

    name: str

    def sum(self, v: Array) -> Array:
        """``sum_j k(x_i, y_j) v_j``, shape (n, r)."""

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        """``log sum_j exp(b_j) k(x_i, y_j)``, shape (n,). ``guess`` (n,): a value near the answer that saves the row
        maximum; a wrong guess costs time, never digits."""

    def softmax_sum(self, b: Array, v: Array) -> tuple[Array, Array]:
        """``sum_j w_ij v_j`` with ``w_ij = exp(b_j) k_ij / sum_l exp(b_l) k_il``, shape (n, r), and the log-sum-exp (n,).
        A row without any mass gives zeros and minus infinity."""

    def nearest(self, k: int) -> tuple[Array, Array]:
        """Indices (n, k) of the ``k`` smallest values of the metric in each row, ascending, and those values (n, k).
        For ``"dot"`` the largest come first."""
