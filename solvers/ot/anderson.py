"""Anderson acceleration of a fixed-point iteration ``x <- T(x)``: the best combination of the last few images.

Anderson (1965); Walker and Ni (2011). The combination minimises the linearised residual ``T(x) - x``, by least squares with a
little regularisation. There is no guarantee: where the residual grows, the memory is emptied and a plain step taken.
"""

from __future__ import annotations

from ...backends.namespace import Array, Namespace, device
from ...backends.transfer import host_bool

# Weight of the regularisation, relative to the trace; growth of the residual that is not borne.
_RIDGE, _GROWTH = 1e-10, 2.0


class Anderson:
    """The next point of an accelerated fixed-point iteration.

    Parameters
    ----------
    memory : int
        Differences of residuals that are combined.
    xp : namespace
        Of the arrays.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.solvers.ot.anderson import Anderson
    >>> A, x = xp.asarray([[0.9, 0.1], [0.0, 0.8]]), xp.asarray([1.0, 1.0])
    >>> mixing = Anderson(5, xp)
    >>> for _ in range(4):
    ...     x = mixing.next(x, A @ x)
    >>> float(xp.max(xp.abs(x))) < 1e-7
    True
    """

    def __init__(self, memory: int, xp: Namespace) -> None:
        self.memory, self.xp = memory, xp
        self.restart()

    def restart(self) -> None:
        """Forget what was seen."""
        self._last: tuple[Array, Array] | None = None
        # Differences of residuals and of images from one point to the next.
        self._changes: list[tuple[Array, Array]] = []
        self._norm: Array | None = None

    def next(self, x: Array, image: Array, weight: Array | None = None) -> Array:
        """The point after ``x``, whose image under the iteration is ``image``; both finite.

        ``weight`` multiplies the entries of residuals wherever they are measured; default one.
        """
        xp = self.xp
        residual = image - x
        measured = residual if weight is None else weight * residual
        norm = xp.sum(measured * measured)
        if self._norm is not None and not host_bool(norm <= _GROWTH**2 * self._norm):
            self.restart()
        self._norm = norm
        if self._last is not None:
            change = residual - self._last[0], image - self._last[1]
            self._changes = [*self._changes, change][-self.memory :]
        self._last = residual, image
        if not self._changes:
            return image
        dR = xp.stack([d if weight is None else weight * d for d, _ in self._changes])
        k = dR.shape[0]
        # As if scaled to unit rows: the differences shrink by orders of magnitude from one to the next.
        gram = dR @ dR.T
        size = xp.sqrt(xp.sum(xp.where(xp.eye(k, dtype=xp.bool, device=device(x)), gram, 0.0), axis=1))
        size = xp.where(size > 0, size, 1.0)
        ridge = max(_RIDGE, 10.0 * float(xp.finfo(x.dtype).eps)) * k
        gram = gram / (size[:, None] * size[None, :]) + ridge * xp.eye(k, dtype=x.dtype, device=device(x))
        gamma = xp.linalg.solve(gram, (dR @ measured / size)[:, None])[:, 0] / size
        for i, (_, change) in enumerate(self._changes):
            image = image - gamma[i] * change
        return image
