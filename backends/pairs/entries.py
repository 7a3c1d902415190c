"""The large entries of a scaled kernel matrix ``exp(f_i + g_j) k(x_i, y_j)``, with its row sums, in one pass over the pairs.

A Newton step of entropic transport needs the plan only where it is not negligible. A tile of exponents is compared with a
threshold before anything is exponentiated, so that a sparse matrix costs little more than its distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..namespace import Array, device, has_float64, is_gpu, is_numpy
from ..transfer import from_host, host_float, to_host
from .engines.array_tiles import ArrayTiles
from .engines.gemm_tiles import GemmTiles
from .pairs import Pairs
from .plan import on_host
from .problem import PairProblem
from .threads import over_rows

# Entries of one tile of exponents on the host (a second-level cache), on a GPU.
_HOST_TILE, _GPU_TILE = 2**16, 2**24
# What is left out of a row sum: this share of the row's weight at most, less than its rounding.
_NEGLIGIBLE = 1e-17


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of a matrix above a threshold, by rows.

    ``values`` and ``columns`` are the numbers and their columns, ``counts`` says how many each row has; NumPy arrays where the
    pass ran on the host, else arrays of the points' library (``rows`` then holds the row of each number).
    """

    values: Any
    columns: Any
    counts: Any = None
    rows: Any = None


def large_entries(
    pairs: Pairs, f: Array, g: Array, log_weight: Array, threshold: float, limit: int
) -> tuple[Array, Entries | None]:
    """Row sums of ``exp(f_i + g_j) k_ij`` and its entries above ``threshold exp(log_weight_i)``.

    Parameters
    ----------
    pairs : Pairs
        With an exponential kernel.
    f, g, log_weight : array (n,), (m,), (n,)
        Row and column potentials, and logarithms of the weights of the rows; finite.
    threshold : float
        Share of a row's weight below which an entry is left out.
    limit : int
        Most entries; where there are more they are not kept.

    Returns
    -------
    sums : array (n,)
        In the widest dtype of the device.
    entries : Entries or None
        None where there are more than ``limit``.
    """
    problem = pairs._problem
    return (_on_host if on_host(problem) else _by_tiles)(problem, f, g, log_weight, math.log(threshold), limit)


def _on_host(
    problem: PairProblem, f: Array, g: Array, log_weight: Array, log_threshold: float, limit: int
) -> tuple[Array, Entries | None]:
    xp, (n, m, _) = problem.xp, problem.shape
    like = f
    if not is_numpy(xp):
        import array_api_compat.numpy as npx

        x, y = to_host(problem.x), to_host(problem.y)
        metric = problem.kernel.metric
        if callable(metric):
            # The user's function knows the caller's library.
            return _by_tiles(problem, f, g, log_weight, log_threshold, limit)
        problem = PairProblem(
            x, y, problem.kernel, npx, threads=problem.threads, mixed=problem.mixed, direct=problem.direct
        )
        f, g, log_weight = to_host(f), to_host(g), to_host(log_weight)
    none = math.log(_NEGLIGIBLE) - math.log(m)
    low = log_weight.astype(np.float64) + none
    shift = low - f.astype(np.float64)
    tiles = GemmTiles(problem)
    by_gemm = tiles._by_gemm
    if by_gemm:
        left, right = tiles._augmented(g.astype(tiles.x.dtype), shift.astype(tiles.x.dtype))
        right = np.ascontiguousarray(right)
    scale, dtype = problem.kernel.scale, tiles.x.dtype
    height = max(8, _HOST_TILE // m)
    sums = np.zeros(n)
    value_parts: dict[int, np.ndarray] = {}
    column_parts: dict[int, np.ndarray] = {}
    count_parts: dict[int, np.ndarray] = {}
    kept = [0]
    margin = log_threshold - none

    def work(start: int, stop: int) -> None:
        buffer, mask_buffer = np.empty((height, m), dtype=dtype), np.empty((height, m), dtype=bool)
        for i in range(start, stop, height):
            end = min(i + height, stop)
            h = end - i
            T, mask = buffer[:h], mask_buffer[:h]
            if by_gemm:
                np.matmul(left[i:end], right, out=T)
            else:
                np.multiply(tiles.metric(tiles.x[i:end], tiles.y), -scale, out=T, casting="same_kind")
                T += g
                T -= shift[i:end, None].astype(dtype)
            np.greater(T, 0.0, out=mask)
            index = np.flatnonzero(mask)
            counts = np.count_nonzero(mask, axis=1)
            logs = T.reshape(-1)[index].astype(np.float64, copy=False)
            owner = np.repeat(np.arange(h), counts)
            large = logs > margin
            logs += low[i:end][owner]
            values = np.exp(logs, out=logs)
            sums[i:end] = np.bincount(owner, weights=values, minlength=h)
            if kept[0] <= limit:
                owners = owner[large]
                columns = (index[large] - owners * m).astype(np.int32)
                value_parts[i], column_parts[i] = values[large], columns
                count_parts[i] = np.bincount(owners, minlength=h)
                kept[0] += columns.size

    with np.errstate(over="ignore"):
        over_rows(work, n, step=height, threads=problem.threads)
    out = from_host(sums, like=like, xp=xp)
    if kept[0] > limit:
        return out, None
    # One kind of array after the other, whose parts are freed on the way.
    counts = np.concatenate([count_parts[i] for i in sorted(count_parts)])
    return out, Entries(_joined(value_parts, np.float64), _joined(column_parts, np.int32), counts=counts)


def _joined(parts: dict[int, np.ndarray], dtype: Any) -> np.ndarray:
    """The parts in the order of their keys; empties ``parts``."""
    out = np.empty(sum(part.size for part in parts.values()), dtype=dtype)
    at = 0
    for key in sorted(parts):
        part = parts.pop(key)
        out[at : at + part.size] = part
        at += part.size
    return out


def _by_tiles(
    problem: PairProblem, f: Array, g: Array, log_weight: Array, log_threshold: float, limit: int
) -> tuple[Array, Entries | None]:
    """The same in plain array API."""
    xp, (n, m, _) = problem.xp, problem.shape
    tiles = ArrayTiles(problem)
    height = max(1, (_GPU_TILE if is_gpu(f) else _HOST_TILE) // m)
    wide = xp.float64 if has_float64(f, xp) else f.dtype
    bound = log_weight + log_threshold
    sums, parts, kept = [], [], 0
    for i in range(0, n, height):
        end = min(i + height, n)
        T = problem.kernel.scale * -tiles.metric(tiles.x[i:end, :], tiles.y)
        T = xp.astype(T, wide) + f[i:end][:, None] + g[None, :]
        mask = bound[i:end][:, None] < T
        E = xp.exp(T)
        sums.append(xp.sum(E, axis=1))
        if kept <= limit:
            kept += int(host_float(xp.sum(xp.astype(mask, xp.int64))))
        if kept <= limit:
            rows, columns = xp.nonzero(mask)
            parts.append((E[mask], rows + i, columns))
    total = xp.concat(sums, axis=0)
    if kept > limit:
        return total, None
    values, rows, columns = (xp.concat([p[k] for p in parts], axis=0) for k in range(3))
    assert device(values) == device(f)
    return total, Entries(values, columns, rows=rows)
