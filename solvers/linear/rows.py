"""NumPy's arithmetic with few long columns, as CG for several right-hand sides needs it."""

from __future__ import annotations

import math

from ...backends.namespace import Array, Namespace

# Elements of a row taken together: in sums, and in products with repeated factors. NumPy copies shorter factors into a buffer
# again and again.
_SHORT, _LONG = 512, 8192


class Rows:
    """NumPy's arithmetic with the columns of (n, k) arrays at the speed of long rows.

    NumPy loops over the last axis, and few columns make short loops: here many rows are taken together, with the factors
    repeated, and the sums fold up at the end. What changes in place must be in row order.
    """

    def __init__(self, like: Array, xp: Namespace) -> None:
        n, k = like.shape
        self.xp, self.k = xp, k
        self.together = max(1, _SHORT // max(1, k))
        short = self.together * k
        self.summed = n - n % self.together
        self.ones = xp.ones((self.together, 1), dtype=like.dtype)
        self.repeated = xp.empty((max(1, _LONG // max(1, short)), short), dtype=like.dtype)
        self.long = int(self.repeated.size)
        self.cut = n * k - n * k % max(1, self.long)
        self.scratch = xp.empty(like.shape, dtype=like.dtype)
        self.complex = xp.isdtype(like.dtype, "complex floating")

    def factors(self, a: Array) -> Array:
        """A factor for each column, repeated; valid until the next call."""
        self.repeated[:] = (self.ones * a).reshape(-1)
        return self.repeated.reshape(-1)

    def ratio(self, u: Array, v: Array, where: Array) -> Array:
        """``u / v``, and zero elsewhere."""
        return self.xp.divide(u, v, out=self.xp.zeros(self.k, dtype=u.dtype), where=where)

    def signed_worst(self, norms: Array, sign: Array) -> float:
        """The largest norm with the sign of the smallest of ``sign``; the methods of small arrays cost half the functions."""
        return math.copysign(norms.max(), sign.min())

    def scaled(self, factors: Array, p: Array, out: Array) -> Array:
        """``p`` into ``out``, each column with its own factor."""
        flat, target, cut = p.reshape(-1), out.reshape(-1), self.cut
        if cut:
            wide = (-1, self.long)
            self.xp.multiply(flat[:cut].reshape(wide), factors, out=target[:cut].reshape(wide))
        if cut < flat.size:
            self.xp.multiply(flat[cut:], factors[: flat.size - cut], out=target[cut:])
        return out

    def along(self, x: Array, factors: Array, p: Array) -> Array:
        """``x + a p``, a new array."""
        out = self.scaled(factors, p, self.xp.empty(x.shape, dtype=x.dtype))
        out += x
        return out

    def less(self, r: Array, factors: Array, q: Array) -> Array:
        """``r - a q`` in place of ``r``."""
        r -= self.scaled(factors, q, self.scratch)
        return r

    def turn(self, p: Array, factors: Array, z: Array) -> Array:
        """``z + a p`` in place of ``p``."""
        self.scaled(factors, p, p)
        p += z
        return p

    def dot(self, u: Array, v: Array) -> Array:
        """The real parts of the inner products of the columns."""
        cut = self.summed
        left = u.conj() if self.complex else u
        wide = (-1, self.together * self.k)
        total = self.xp.einsum("ij,ij->j", left[:cut].reshape(wide), v[:cut].reshape(wide))
        total = self.ones[:, 0] @ total.reshape((self.together, self.k))
        if cut < len(u):
            total = total + (left[cut:] * v[cut:]).sum(axis=0)
        return total.real if self.complex else total
