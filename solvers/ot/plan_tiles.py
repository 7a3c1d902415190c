"""A transport plan seen in blocks of rows, for the few quantities that no reduction over pairs gives: no n x m array exists."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, is_gpu, wide_dtype
from ...backends.pairs import exponential
from ...backends.pairs.engines.array_tiles import ArrayTiles
from ...backends.pairs.problem import PairProblem
from ...backends.transfer import host_float
from .geometry import Dense, Geometry, PointCloud
from .grid import Grid

if TYPE_CHECKING:
    from .result import TransportResult

# Entries of one block: small enough for a CPU cache, large enough that a GPU is busy.
_HOST_BLOCK, _GPU_BLOCK = 2**17, 2**24


class Tile(NamedTuple):
    """Rows ``start`` to ``stop`` of the cost and of ``-cost / reg``, both (stop - start, m)."""

    start: int
    stop: int
    cost: Array
    logs: Array


def tiles(geometry: Geometry, reg: float) -> Iterator[Tile]:
    """Blocks of rows, in float64 where the device has it (a user's cost keeps the dtype of the points)."""
    xp, (n, m), dtype = geometry.xp, geometry.shape, tile_dtype(geometry)
    height = max(1, (_GPU_BLOCK if is_gpu(geometry.like) else _HOST_BLOCK) // m)
    costs = _costs(geometry)
    for start in range(0, n, height):
        stop = min(start + height, n)
        cost = xp.astype(costs(start, stop), dtype, copy=False)
        yield Tile(start, stop, cost, -cost / reg)


def tile_dtype(geometry: Geometry) -> Any:
    """The dtype of the tiles."""
    user = isinstance(geometry, PointCloud) and callable(geometry.metric)
    return geometry.like.dtype if user else wide_dtype(geometry.like, geometry.xp)


def _costs(geometry: Geometry) -> Callable[[int, int], Array]:
    """The rows of the cost matrix between two indices."""
    if isinstance(geometry, Dense):
        return lambda start, stop: geometry.C[start:stop, :]
    if isinstance(geometry, Grid):
        return geometry.costs
    xp, cloud, dtype = geometry.xp, geometry, tile_dtype(geometry)
    x, y = (xp.astype(points, dtype, copy=False) for points in (cloud.x, cloud.y))
    # The engine's metric, by differences of coordinates: small costs far from the origin keep their digits.
    engine = ArrayTiles(PairProblem(x, y, exponential(cloud.metric, 1.0), xp, direct=True))
    return lambda start, stop: cloud.factor * engine.metric(x[start:stop, :], y)


def plan_tiles(result: TransportResult) -> Iterator[tuple[Tile, Array]]:
    """Blocks of the cost and of the plan."""
    xp, dtype = result.geometry.xp, tile_dtype(result.geometry)
    F, G = (xp.astype(potential, dtype, copy=False) for potential in result.scaled())
    for tile in tiles(result.geometry, result.reg):
        yield tile, xp.exp(F[tile.start : tile.stop][:, None] + G[None, :] + tile.logs)


def violation(result: TransportResult) -> float:
    """``|P 1 - a|_1 + |P^T 1 - b|_1``, of the potentials as they are, in the dtype of the tiles: one pass."""
    xp, dtype = result.geometry.xp, tile_dtype(result.geometry)
    missed, columns = 0.0, -xp.astype(result.b, dtype, copy=False)
    for tile, plan in plan_tiles(result):
        a = xp.astype(result.a[tile.start : tile.stop], dtype, copy=False)
        missed = missed + xp.sum(xp.abs(xp.sum(plan, axis=1) - a))
        columns = columns + xp.sum(plan, axis=0)
    return host_float(missed + xp.sum(xp.abs(columns)))


def widened(result: TransportResult) -> TransportResult:
    """The result with all its arrays in the dtype of the tiles, the stored cost too."""
    geometry, xp, dtype = result.geometry, result.geometry.xp, tile_dtype(result.geometry)
    if result.f.dtype == dtype:
        return result

    def cast(x: Array) -> Array:
        return xp.astype(x, dtype)

    other = copy.copy(geometry)
    if isinstance(other, Dense):
        other.C = other.like = cast(other.C)
    elif isinstance(other, PointCloud):
        other.x, other.y = cast(other.x), cast(other.y)
        other.like = other.x
    else:
        other.like = cast(other.like)
    return replace(result, f=cast(result.f), g=cast(result.g), a=cast(result.a), b=cast(result.b), geometry=other)


def cost_matrix(geometry: Geometry) -> Array:
    """The whole cost matrix (n, m), in the dtype of the geometry."""
    xp, dtype = geometry.xp, geometry.like.dtype
    return xp.concat([xp.astype(tile.cost, dtype, copy=False) for tile in tiles(geometry, 1.0)], axis=0)


Weight = Callable[[Tile, Array], Array]


def pair_gradients(result: TransportResult, weight: Weight | None, wanted: set[str]) -> dict[str, Array]:
    """Gradients of a function whose derivative by the cost of a pair is ``plan * weight(tile, plan)``, in one pass.

    ``wanted`` is any of ``"cost"`` (n, m), ``"x"`` (n, d), ``"y"`` (m, d), and ``"scale"``: the sum over the pairs of that
    derivative times the cost, what a common factor of the cost would do.
    """
    if not wanted:
        return {}
    geometry, xp = result.geometry, result.geometry.xp
    rows: list[Array] = []
    found: dict[str, Array] = {}
    blocks: list[Array] = []
    points = wanted & {"x", "y"}
    if points:
        cloud = differentiable_cloud(geometry)
        x, y = (xp.astype(p, tile_dtype(geometry), copy=False) for p in (cloud.x, cloud.y))
    for tile, plan in plan_tiles(result):
        change = plan if weight is None else plan * weight(tile, plan)
        if "cost" in wanted:
            blocks.append(xp.astype(change, geometry.like.dtype))
        if "scale" in wanted:
            # A forbidden pair has an infinite cost and no mass.
            _add(found, "scale", xp.sum(change * xp.where(plan > 0, tile.cost, 0.0)))
        if points:
            along_x, along_y = _by_points(cloud, change, tile, x[tile.start : tile.stop, :], y)
            rows.append(along_x)
            _add(found, "y", along_y)
    if rows:
        found["x"] = xp.concat(rows, axis=0)
    if blocks:
        found["cost"] = xp.concat(blocks, axis=0)
    return {name: found[name] for name in wanted}


def _add(found: dict[str, Array], name: str, part: Array) -> None:
    found[name] = found[name] + part if name in found else part


def differentiable_cloud(geometry: Geometry) -> PointCloud:
    """The cloud, or an error that says why there is no derivative by its points."""
    if not isinstance(geometry, PointCloud):
        raise InputError(
            "wrt names points, but the cost is a matrix; pass a PointCloud, or take the gradient by the cost"
        )
    if callable(geometry.metric) or geometry.metric not in ("sqeuclidean", "euclidean", "cityblock"):
        raise InputError(
            f"the derivative of the cost {geometry.metric!r} by the points is not known; use 'sqeuclidean', "
            "'half_sqeuclidean', 'euclidean' or 'cityblock', or the gradient by a cost matrix and the chain rule"
        )
    return geometry


def _by_points(cloud: PointCloud, change: Array, tile: Tile, x: Array, y: Array) -> tuple[Array, Array]:
    """``sum_j change_ij dc/dx_i`` and ``sum_i change_ij dc/dy_j``, by differences of the coordinates."""
    xp, metric = cloud.xp, cloud.metric
    factor = cloud.factor * (2.0 if metric == "sqeuclidean" else 1.0)
    if metric == "euclidean":
        # |x - y| has no derivative at coincident points; zero lies in its subdifferential.
        apart = tile.cost > 0
        change = xp.where(apart, change * cloud.factor / xp.where(apart, tile.cost, 1.0), 0.0)
    along_x, along_y = [], []
    for k in range(x.shape[1]):
        difference = x[:, k][:, None] - y[:, k][None, :]
        part = change * (xp.sign(difference) if metric == "cityblock" else difference)
        along_x.append(factor * xp.sum(part, axis=1))
        along_y.append(-factor * xp.sum(part, axis=0))
    return xp.stack(along_x, axis=1), xp.stack(along_y, axis=1)
