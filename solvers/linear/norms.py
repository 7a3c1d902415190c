"""Norms that no units take out of range."""

from __future__ import annotations

from ...backends.namespace import Array, Namespace


def column_norms(v: Array, xp: Namespace) -> Array:
    """2-norms of a vector or of columns, whatever their units: squares of entries near one alone are taken."""
    size = xp.max(xp.abs(v), axis=0)
    unit = v / xp.where(size > 0, size, 1.0)
    if v.ndim == 1:
        return size * xp.linalg.vector_norm(unit)
    return size * xp.sqrt(xp.sum(xp.abs(unit) ** 2, axis=0))
