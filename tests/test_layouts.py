"""How an array lies in memory changes nothing: column order, steps, reversed axes, read-only views, misaligned bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from xpsolve.backends.pairs import gaussian
from xpsolve.backends.transfer import to_host
from xpsolve.solvers import kde, linear, ot
from xpsolve.solvers.linear import preconditioners, sketching, structured

N, K = 300, 5
RNG = np.random.default_rng(7)
ORTHOGONAL = np.linalg.qr(RNG.standard_normal((N, N)))[0]
SPD = (ORTHOGONAL * np.linspace(1.0, 40.0, N)) @ ORTHOGONAL.T
SPD = 0.5 * (SPD + SPD.T)
LOPSIDED = SPD + np.triu(RNG.standard_normal((N, N))) / 20
TALL = RNG.standard_normal((2 * N, 40))
ONE, MANY = RNG.standard_normal(N), RNG.standard_normal((N, K))
START = RNG.standard_normal((N, K))
LONG, LONG_MANY = RNG.standard_normal(2 * N), RNG.standard_normal((2 * N, K))
X, Y, COST = RNG.random((80, 3)), RNG.random((70, 3)), RNG.random((80, 70))
P, Q = RNG.random(80), RNG.random(70)
P, Q = P / P.sum(), Q / Q.sum()
TIGHT: dict[str, Any] = {"rtol": 1e-11}


def _strided(a: np.ndarray) -> np.ndarray:
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, dtype=a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _reversed(a: np.ndarray) -> np.ndarray:
    return np.flip(np.flip(a).copy())


def _read_only(a: np.ndarray) -> np.ndarray:
    out = a.copy()
    out.flags.writeable = False
    return out


def _misaligned(a: np.ndarray) -> np.ndarray:
    raw = np.empty(a.nbytes + 1, dtype=np.uint8)
    out = raw[1:].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "columns": np.asfortranarray,
    "strided": _strided,
    "reversed": _reversed,
    "read-only": _read_only,
    "misaligned": _misaligned,
}

Call = Callable[..., Any]


def _krylov(name: str) -> Call:
    return lambda A, b: getattr(linear, name)(A, b, **TIGHT).x


def _least_squares(name: str) -> Call:
    return lambda A, b: getattr(linear, name)(A, b, atol=1e-12, btol=1e-12).x


def _inverse(name: str) -> Call:
    return lambda A, b: getattr(preconditioners, name)(A) @ b


def _transport(name: str) -> Call:
    return lambda C, a, b: getattr(ot, name)(C, a, b, reg=0.1, tol=1e-11).f


CALLS: dict[str, tuple[Call, tuple[np.ndarray, ...]]] = {
    **{
        f"{name}, {what}": (_krylov(name), (SPD, b))
        for name in ("cg", "minres", "gmres", "bicgstab", "tfqmr", "mixed_cg", "solve")
        for what, b in (("vector", ONE), ("columns", MANY))
    },
    "cg, x0": (lambda A, b, x0: linear.cg(A, b, x0=x0, **TIGHT).x, (SPD, MANY, START)),
    "cg, M": (lambda A, b, M: linear.cg(A, b, M=M, **TIGHT).x, (SPD, MANY, np.linalg.inv(SPD + np.eye(N)))),
    "cg, complex": (lambda A, b: linear.cg(A, b, **TIGHT).x, (SPD + 0j, MANY + 1j * START)),
    "flexible_cg": (lambda A, b, M: linear.flexible_cg(A, b, M=M, **TIGHT).x, (SPD, ONE, np.eye(N))),
    "fgmres": (lambda A, b, M: linear.fgmres(A, b, M=M, **TIGHT).x, (LOPSIDED, ONE, np.eye(N))),
    "gmres, lopsided": (lambda A, b: linear.gmres(A, b, **TIGHT).x, (LOPSIDED, MANY)),
    "chebyshev": (lambda A, b: linear.chebyshev(A, b, bounds=(1.0, 40.0), **TIGHT).x, (SPD, MANY)),
    "block_cg": (lambda A, b: linear.block_cg(A, b, **TIGHT).x, (SPD, MANY)),
    "enlarged_cg": (lambda A, b: linear.enlarged_cg(A, b, t=4, rng=0, **TIGHT).x, (SPD, ONE)),
    "regularization_path": (
        lambda A, b: linear.regularization_path(A, b, [0.1, 1.0], t=4, rng=0, **TIGHT).x,
        (SPD, ONE),
    ),
    "gcrodr": (lambda A, b: linear.gcrodr(A, b, **TIGHT).x, (LOPSIDED, ONE)),
    "deflated_cg": (lambda A, b: linear.deflated_cg(A, b, **TIGHT).x, (SPD, ONE)),
    "recycled_minres": (lambda A, b: linear.recycled_minres(A, b, **TIGHT).x, (SPD, ONE)),
    **{
        f"{name}, {what}": (_least_squares(name), (TALL, b))
        for name in ("lsqr", "lsmr")
        for what, b in (("vector", LONG), ("columns", LONG_MANY))
    },
    "lstsq_sketched": (lambda A, b: sketching.lstsq_sketched(A, b, rng=0).x, (TALL, LONG)),
    "randomized_svd": (lambda A: sketching.randomized_svd(A, 5, rng=0)[1], (TALL,)),
    "kernel_ridge": (lambda x, y: structured.kernel_ridge(x, y, gaussian(0.5), 0.1, rtol=1e-10).predict(x), (X, P)),
    **{name: (_inverse(name), (SPD, MANY)) for name in ("jacobi", "ssor")},
    "block_jacobi": (lambda A, b: preconditioners.block_jacobi(A, 7) @ b, (SPD, MANY)),
    "nystrom": (lambda A, b: preconditioners.nystrom(A, 1.0, 20, rng=0) @ b, (SPD, MANY)),
    "fast_poisson": (lambda b: preconditioners.fast_poisson((20, 15), like=b) @ b, (MANY,)),
    "solve_diffusion": (
        lambda a, f: linear.solve_diffusion(a, f, rtol=1e-11).x,
        (1.0 + RNG.random((3, 12, 14)), RNG.random((3, 10, 12))),
    ),
    **{
        f"ot.{name}": (_transport(name), (COST, P, Q))
        for name in ("sinkhorn", "kernel_sinkhorn", "newton", "sns", "solve")
    },
    "ot.sinkhorn, cloud": (
        lambda x, y, a, b: ot.sinkhorn(ot.PointCloud(x, y), a, b, reg=0.1, tol=1e-11).f,
        (X, Y, P, Q),
    ),
    "ot.cloud_newton": (
        lambda x, y, a, b: ot.cloud_newton(ot.PointCloud(x, y), a, b, reg=0.01, tol=1e-10).f,
        (X, Y, P, Q),
    ),
    "ot.sinkhorn_batch": (
        lambda C, a, b: ot.sinkhorn_batch(C, a, b, reg=0.1, tol=1e-11).f,
        (COST, np.stack([P, P[::-1]], axis=1), np.stack([Q, Q[::-1]], axis=1)),
    ),
    "ot.unbalanced": (
        lambda C, a, b: ot.unbalanced(C, a, b, reg=0.1, reg_a=1.0, reg_b=2.0, tol=1e-11).f,
        (COST, P, Q),
    ),
    "ot.sinkhorn_divergence": (
        lambda x, y, a, b: ot.sinkhorn_divergence(x, y, a, b, reg=0.1, tol=1e-11).value,
        (X, Y, P, Q),
    ),
    "ot.solve_exact": (lambda C, a, b: ot.solve_exact(C, a, b).transport_cost, (COST, P, Q)),
    "GaussianKDE": (lambda x, y: kde.GaussianKDE(x, bandwidth="scott").log_density(y), (X, Y)),
}


@cache
def _plain(name: str) -> np.ndarray:
    call, arrays = CALLS[name]
    return to_host(call(*(np.ascontiguousarray(a) for a in arrays)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_numpy(name: str, layout: str) -> None:
    (call, arrays), expected = CALLS[name], _plain(name)
    found = to_host(call(*(LAYOUTS[layout](a) for a in arrays)))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in CALLS if name != "ssor"])  # which is SciPy's
def test_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    (call, arrays), expected = CALLS[name], _plain(name)

    def lying(a: np.ndarray) -> Any:
        return torch.asarray(a.T.copy()).T if a.ndim == 2 else torch.asarray(np.repeat(a, 2, axis=-1))[..., ::2]

    found = to_host(call(*map(lying, arrays)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())
