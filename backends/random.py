"""Seeded sampling that gives the same numbers on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from .namespace import Array, Namespace


class Sampler:
    """Draws on the host in float64 with a NumPy ``Generator``, then casts and moves: one stream for all backends.

    Parameters
    ----------
    rng : None, int, SeedSequence, BitGenerator or Generator
        Seed or generator (SPEC 7).
    xp : namespace
        Library of the arrays drawn.
    dtype : dtype, optional
        Floating dtype; default float64.
    device : device, optional
        Where they live.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.random import Sampler
    >>> Sampler(0, xp=xp).normal((2,)).shape
    (2,)
    """

    def __init__(self, rng: Any = None, *, xp: Namespace, dtype: Any = None, device: Any = None) -> None:
        self.generator = np.random.default_rng(rng)
        self.xp, self.device = xp, device
        self.dtype = xp.float64 if dtype is None else dtype

    def _moved(self, host: np.ndarray, dtype: Any) -> Array:
        return self.xp.asarray(np.ascontiguousarray(host), dtype=dtype, device=self.device)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers."""
        return self._moved(self.generator.standard_normal(shape), self.dtype)

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Array:
        """Uniform numbers in ``[low, high)``."""
        return self._moved(self.generator.uniform(low, high, shape), self.dtype)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        """Integers in ``[low, high)``, int64."""
        return self._moved(self.generator.integers(low, high, shape), self.xp.int64)

    def permutation(self, n: int) -> Array:
        """A random order of ``0 .. n-1``, int64."""
        return self._moved(self.generator.permutation(n).astype(np.int64), self.xp.int64)

    def choice(self, n: int, size: int) -> Array:
        """``size`` distinct indices below ``n``, int64."""
        return self._moved(self.generator.choice(n, size, replace=False).astype(np.int64), self.xp.int64)
