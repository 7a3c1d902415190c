"""Random sketches ``S`` with ``E[S^T S] = I``: linear maps to few rows that keep the geometry of a subspace.

If ``Q`` (m, n) is an orthonormal basis, the singular values of ``S Q`` lie near ``1 - sqrt(n/d) .. 1 + sqrt(n/d)``. Five
kinds differ in what ``S A`` costs and in what they promise for single coordinates; all are real, drawn on the host with
one generator (the same sketch on every library) and moved once. Price, Song and Woodruff (2017) and Song, Ye, Yin and
Zhang (2023) show why coordinate-wise accuracy needs a dense kind; Fandina, Hogsgaard and Larsen (2023) how sparse the
projection after a Hadamard transform may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....backends.errors import InputError
from ....backends.linalg import real_dtype
from ....backends.namespace import Array, Namespace, array_namespace, device, is_cupy, is_numpy, is_torch
from ....backends.operators import LinearOperator
from ....backends.random import Sampler
from ....backends.scatter import segment_sum
from ....backends.validation import check_array, check_choice, check_count, check_scalar

KINDS = ("gaussian", "srht", "fjlt", "sparse_sign", "countsketch")

Action = Callable[[Array], Array]


def sketch(
    kind: str,
    d: int,
    m: int,
    *,
    like: Array,
    rng: Any = None,
    zeta: int = 8,
    density: float | None = None,
) -> LinearOperator:
    """Random ``(d, m)`` operator ``S`` with ``E[S^T S] = I``.

    Parameters
    ----------
    kind : {"gaussian", "srht", "fjlt", "sparse_sign", "countsketch"}
        ``"gaussian"``: entries ``N(0, 1/d)``, ``d m n`` operations for an (m, n) array.
        ``"srht"``: ``sqrt(N/d) R H D``, signs, Walsh-Hadamard transform on ``N >= m`` rows (a power of two, zeros
        appended), ``d`` of them without replacement; ``N log(N) n``. Needs ``d <= N``.
        ``"fjlt"``: ``P H D`` with a sparse ``P`` of entries ``N(0, 1/density)``, present with probability ``density``,
        over ``sqrt(d)``.
        ``"sparse_sign"``: ``zeta`` entries ``+-1/sqrt(zeta)`` in each column; ``zeta m n``.
        ``"countsketch"``: the same with one entry a column; ``m n``.
    d, m : int
        Rows and columns; more rows than columns are allowed.
    like : array
        Decides library, device and dtype (of complex arrays the real partner: the sketch is real and acts on both).
    rng : None, int or Generator
        Seed or generator.
    zeta : int
        Entries a column of ``"sparse_sign"``.
    density : float, optional
        Chance of an entry of the ``"fjlt"`` projection; default ``2 ln(N) / N``: a few logarithms of entries a row keep
        the distortion of a dense projection (of ``p`` points, ``2 ln(p)`` a row).

    Returns
    -------
    LinearOperator
        Acts on (m,) and (m, n), with adjoint.

    Raises
    ------
    InputError
        Unknown kind, ``d`` above the padded length of ``"srht"``, or a density outside (0, 1].

    Notes
    -----
    Sparse kinds can lose single coordinates: an outlier that shares a row with coordinate ``i`` lands on it with its whole
    weight (CountSketch) or ``1/zeta`` of it. Use ``"gaussian"`` or ``"srht"`` where each coefficient matters.

    References
    ----------
    E. Price, Z. Song, D. P. Woodruff, Fast regression with an l-infinity guarantee, 2017.
    O. N. Fandina, M. M. Hogsgaard, K. G. Larsen, The fast Johnson-Lindenstrauss transform is even faster, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.sketching import sketch
    >>> S = sketch("srht", 8, 8, like=np.ones(1), rng=0)
    >>> S.shape, round(float(np.linalg.norm(S @ np.ones(8)) ** 2), 6)
    ((8, 8), 8.0)
    """
    kind = check_choice(kind, "kind", KINDS)
    d, m, zeta = check_count(d, "d"), check_count(m, "m"), check_count(zeta, "zeta")
    if density is not None and not 0 < check_scalar(density, "density") <= 1:
        raise InputError(f"density is {density}, expected a probability in (0, 1]")
    xp = array_namespace(like=like)
    check_array(like, "like", xp, allow_complex=True, allow_empty=True, finite=False)
    dtype = real_dtype(like.dtype, xp)
    draws = Sampler(rng, xp=xp, dtype=dtype, device=device(like))
    if kind == "gaussian":
        S = draws.normal((d, m)) / math.sqrt(d)
        forward, adjoint = S.__matmul__, S.T.__matmul__
    elif kind == "srht":
        forward, adjoint = _srht(d, m, draws)
    elif kind == "fjlt":
        forward, adjoint = _fjlt(d, m, density, draws)
    else:
        forward, adjoint = _sparse_sign(d, m, 1 if kind == "countsketch" else zeta, draws)
    forward, adjoint = _also_complex(forward, xp), _also_complex(adjoint, xp)
    return LinearOperator(
        (d, m), forward, matmat=forward, rmatvec=adjoint, rmatmat=adjoint, dtype=dtype, name=f"{kind} sketch"
    )


def _also_complex(action: Action, xp: Namespace) -> Action:
    """Apply a real map to real and imaginary parts, side by side: torch multiplies only equal dtypes."""

    def apply(v: Array) -> Array:
        if not xp.isdtype(v.dtype, "complex floating"):
            return action(v)
        columns = v if v.ndim == 2 else v[:, None]
        both = xp.astype(action(xp.concat([xp.real(columns), xp.imag(columns)], axis=1)), v.dtype)
        k = columns.shape[1]
        out = both[:, :k] + 1j * both[:, k:]
        return out if v.ndim == 2 else out[:, 0]

    return apply


def _sparse_sign(d: int, m: int, zeta: int, draws: Sampler) -> tuple[Action, Action]:
    import numpy as np

    zeta = min(zeta, d)
    # Floyd's sampling of distinct rows, all columns at once: step j draws from 0..j and takes j where that was taken.
    rows = np.empty((m, zeta), dtype=np.int64)
    for k, j in enumerate(range(d - zeta, d)):
        drawn = draws.generator.integers(0, j + 1, m)
        taken = (rows[:, :k] == drawn[:, None]).any(axis=1)
        rows[:, k] = np.where(taken, j, drawn)
    signs = draws.generator.integers(0, 2, (m, zeta)) * (2 / math.sqrt(zeta)) - 1 / math.sqrt(zeta)
    columns = np.repeat(np.arange(m), zeta)
    return _sparse((d, m), rows.reshape(-1), columns, signs.reshape(-1), draws)


def _fjlt(d: int, m: int, density: float | None, draws: Sampler) -> tuple[Action, Action]:
    import numpy as np

    length = _padded(m)
    q = min(1.0, 2 * math.log(max(length, 2)) / length) if density is None else float(density)
    signs = _signs(m, draws)
    entries = d * length
    places = np.sort(draws.generator.choice(entries, int(draws.generator.binomial(entries, q)), replace=False))
    values = draws.generator.standard_normal(places.size) / math.sqrt(q * d)
    P, PT = _sparse((d, length), places // length, places % length, values, draws)

    def forward(v: Array) -> Array:
        return P(_hadamard(_signed(v, signs), length, draws.xp))

    def adjoint(u: Array) -> Array:
        return _signed(_hadamard(PT(u), length, draws.xp)[:m, ...], signs)

    return forward, adjoint


def _srht(d: int, m: int, draws: Sampler) -> tuple[Action, Action]:
    import numpy as np

    xp, length = draws.xp, _padded(m)
    if d > length:
        raise InputError(f"d is {d}, but the transform of m = {m} rows has only {length}; take fewer rows")
    signs = _signs(m, draws)
    chosen = draws.generator.choice(length, d, replace=False)
    home = np.full(length, d, dtype=np.int64)  # the row of u that each transformed row came from; d is a row of zeros
    home[chosen] = np.arange(d)
    rows, places = (xp.asarray(index, dtype=xp.int64, device=draws.device) for index in (chosen, home))
    scale = math.sqrt(length / d)

    def forward(v: Array) -> Array:
        return xp.take(_hadamard(_signed(v, signs), length, xp), rows, axis=0) * scale

    def adjoint(u: Array) -> Array:
        zero = xp.zeros((1, *u.shape[1:]), dtype=u.dtype, device=device(u))
        spread = xp.take(xp.concat([u * scale, zero], axis=0), places, axis=0)
        return _signed(_hadamard(spread, length, xp)[:m, ...], signs)

    return forward, adjoint


def _signs(m: int, draws: Sampler) -> Array:
    return draws.xp.asarray(draws.generator.choice([-1.0, 1.0], m), dtype=draws.dtype, device=draws.device)


def _signed(v: Array, signs: Array) -> Array:
    return v * (signs if v.ndim == 1 else signs[:, None])


def _padded(m: int) -> int:
    """The next power of two."""
    return 1 << max(0, m - 1).bit_length()


def _hadamard(v: Array, length: int, xp: Namespace) -> Array:
    """Orthonormal Walsh-Hadamard transform of the rows, zeros appended to ``length``.

    ``H`` is a Kronecker product; four of its factors of order two are applied in one product with a 16 x 16 matrix, so the
    array is read a quarter as often as by the butterfly.
    """
    missing = length - v.shape[0]
    if missing:
        v = xp.concat([v, xp.zeros((missing, *v.shape[1:]), dtype=v.dtype, device=device(v))], axis=0)
    shape, done = v.shape, 1
    while done < length:
        radix = min(16, length // done)
        H = _hadamard_matrix(radix, v, xp)
        v = xp.matmul(H, xp.reshape(v, (done, radix, -1)))
        done *= radix
    return xp.reshape(v, shape)


def _hadamard_matrix(order: int, like: Array, xp: Namespace) -> Array:
    H = xp.ones((1, 1), dtype=like.dtype, device=device(like))
    while H.shape[0] < order:
        H = xp.concat([xp.concat([H, H], axis=1), xp.concat([H, -H], axis=1)], axis=0)
    return H / math.sqrt(order)


def _sparse(shape: tuple[int, int], rows: Any, columns: Any, values: Any, draws: Sampler) -> tuple[Action, Action]:
    """Products with a sparse matrix given by host triplets, and with its transpose, by the library's own matrices."""
    xp = draws.xp
    if is_numpy(xp):
        from scipy import sparse

        # By columns: a product then reads each row of a C-ordered array once, and that array is the long one.
        S = sparse.coo_array((values.astype(draws.dtype), (rows, columns)), shape=shape).tocsc()
        return S.__matmul__, S.T.__matmul__
    moved_rows, moved_columns = (xp.asarray(index, dtype=xp.int64, device=draws.device) for index in (rows, columns))
    moved = xp.asarray(values, dtype=draws.dtype, device=draws.device)
    if is_cupy(xp):
        from cupyx.scipy import sparse as cupy_sparse

        S = cupy_sparse.coo_matrix((moved, (moved_rows, moved_columns)), shape=shape).tocsr()
        return S.__matmul__, S.T.tocsr().__matmul__
    if is_torch(xp):
        import torch

        S = torch.sparse_coo_tensor(torch.stack([moved_rows, moved_columns]), moved, shape, check_invariants=False)
        return S.coalesce().__matmul__, S.T.coalesce().__matmul__

    def gather(source: Array, target: Array, k: int) -> Action:
        def apply(v: Array) -> Array:
            weights = moved if v.ndim == 1 else moved[:, None]
            return segment_sum(weights * xp.take(v, source, axis=0), target, k, xp=xp, trusted=True)

        return apply

    return gather(moved_columns, moved_rows, shape[0]), gather(moved_rows, moved_columns, shape[1])
