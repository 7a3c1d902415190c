"""Solvers on arrays that are not on the default device: nothing is made on another one, and results stay where the input is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_layouts import CALLS
from xpsolve.backends.errors import ConvergenceWarning
from xpsolve.backends.namespace import device
from xpsolve.backends.pairs import gaussian, nearest
from xpsolve.backends.transfer import to_host
from xpsolve.problems import poisson2d, thermal_sequence
from xpsolve.solvers import kde, linear, ot
from xpsolve.solvers.linear import preconditioners, sketching, structured

strict = pytest.importorskip("array_api_strict")
THERE = strict.Device("device1")
N = 12
RNG = np.random.default_rng(1)
G = RNG.standard_normal((N, N))
SPD, ONE, MANY = G @ G.T + N * np.eye(N), RNG.standard_normal(N), RNG.standard_normal((N, 3))
X, COST, LINE = RNG.random((N, 2)), RNG.random((N, N)), np.linspace(0.0, 1.0, N)
SIDE = np.abs(LINE[:, None] - LINE[None, :])


def put(a: np.ndarray) -> Any:
    """The same array on the other device."""
    return strict.asarray(a, dtype=getattr(strict, a.dtype.name), device=THERE)


def _transport(C: Any) -> Any:
    return ot.sinkhorn(C, reg=0.1, tol=1e-9)


MORE: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "block_gcrodr": (lambda A, B: linear.block_gcrodr(A, B, rtol=1e-9).x, (SPD, MANY)),
    "block_cg, M": (lambda A, B: linear.block_cg(A, B, M=preconditioners.jacobi(A), rtol=1e-9).x, (SPD, MANY)),
    "enlarged_cg, split": (lambda A, b: linear.enlarged_cg(A, b, t=3, mode="split", rtol=1e-9).x, (SPD, ONE)),
    "solve_sequence": (
        lambda A, b: linear.solve_sequence([(A, b), (A, 2.0 * b)], rtol=1e-9).results[1].x,
        (SPD, ONE),
    ),
    "complete": (lambda A, m: sketching.complete(A, m > 0.2, 1, rng=0, iters=200).matrix, (np.outer(ONE, ONE), COST)),
    "sketch_project": (lambda A, b: sketching.sketch_project(A, b, block=4, rng=0, rtol=1e-6).x, (SPD, ONE)),
    **{
        f"sketch, {kind}": (lambda b, kind=kind: sketching.sketch(kind, 8, N, like=b, rng=0) @ b, (MANY,))
        for kind in ("gaussian", "srht", "fjlt", "sparse_sign", "countsketch")
    },
    "kronecker": (lambda A, b: structured.kronecker([A[:3, :3], A[:4, :4]]).solve(b), (SPD, ONE)),
    "kronecker_sum": (lambda A, b: structured.kronecker_sum([A[:3, :3], A[:4, :4]]).solve(b), (SPD, ONE)),
    "toeplitz": (lambda c, b: structured.toeplitz(c).solve(b, method="cg", rtol=1e-11), (np.exp(-5 * LINE), ONE)),
    "gp_pde": (
        lambda x, f, g: structured.gp_pde(x, f, g, components=3, max_frequency=2.0, maxiter=0).u,
        (LINE, 2.0 + 0.0 * LINE, LINE**2),
    ),
    **{
        name: (lambda A, b, name=name: getattr(preconditioners, name)(A, 3) @ b, (SPD, ONE))
        for name in ("chebyshev_polynomial", "neumann_polynomial", "symmetric_polynomial")
    },
    "rpcholesky": (lambda A, b: preconditioners.rpcholesky(A, 1.0, 5, rng=0) @ b, (SPD, ONE)),
    "landmarks": (lambda x, b: preconditioners.landmarks(x, gaussian(0.5), 0.1, rng=0) @ b, (X, ONE)),
    "multigrid": (
        lambda b, a: preconditioners.multigrid((7, 7), like=b, coefficient=a) @ b,
        (RNG.standard_normal(49), 1.0 + RNG.random((7, 7))),
    ),
    "krylov_gradient": (
        lambda A, b: preconditioners.krylov_gradient(lambda x: A @ x - b, A, 0.0 * b, 1.0, 3).x,
        (SPD, ONE),
    ),
    **{
        f"gradients, {name}": (lambda C, name=name: ot.gradients(_transport(C), name)[name], (COST,))
        for name in ("a", "cost", "reg")
    },
    "plan_vjp": (lambda C, W: ot.plan_vjp(_transport(C), W, "cost")["cost"], (COST, COST.T.copy())),
    "bounds": (lambda C: ot.bounds(_transport(C))[1], (COST,)),
    "self_transport": (lambda C: ot.self_transport(C, reg=0.1).f, (COST + COST.T,)),
    "grid": (lambda w: ot.sinkhorn(ot.Grid((3, 4), like=w), w, reg=1.0).f, (np.full(N, 1.0 / N),)),
    "barycenter": (lambda A, C: ot.barycenter(A, C, reg=0.05, tol=1e-6).p, (COST[:3] / COST[:3].sum(axis=1)[:, None], SIDE)),
    "free_support": (lambda x, y: ot.free_support_barycenter([x, y], x0=x, reg=0.1, tol=0.1).x, (X, 1.0 - X)),
    "transport_1d": (lambda x, y: ot.transport_1d(x, y).f, (ONE, LINE)),
    "unbalanced, cloud": (
        lambda x, y: ot.unbalanced(ot.PointCloud(x, y), reg=0.05, reg_a=1.0, reg_b=1.0, method="newton").f,
        (X, 1.0 - X),
    ),
    "loo": (lambda x: kde.GaussianKDE(x, bandwidth="loo").density(x), (X,)),
    "sample": (lambda x: kde.GaussianKDE(x, weights=x[:, 0]).sample(5, rng=0), (X,)),
    "nearest": (lambda x: nearest(x, x, 3, exclude_self=True)[1], (X,)),
}  # fmt: skip
NATIVE = {"ssor"}  # SciPy's


@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")  # runs are cut short
@pytest.mark.parametrize("name", [name for name in CALLS | MORE if name not in NATIVE])
def test_everything_stays_on_the_device(name: str) -> None:
    call, arrays = (MORE | CALLS)[name]
    expected, found = to_host(call(*arrays)), call(*map(put, arrays))
    if not isinstance(found, float):
        assert device(found) == THERE
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_problems_and_processes_are_made_there() -> None:
    A, b, _ = poisson2d(5, xp=strict, device=THERE)
    assert device(linear.cg(A, b).x) == THERE
    with pytest.warns(ConvergenceWarning):
        u = structured.gp_pde(
            *map(put, (LINE, 2.0 + 0.0 * LINE, LINE**2)), components=3, max_frequency=2.0, maxiter=3
        ).u
    assert device(u) == THERE
    operator, right = next(iter(thermal_sequence(6, 1, xp=strict, device=THERE)))
    assert device(linear.cg(operator, right).x) == THERE


def test_the_slope_of_a_divergence_by_its_regularisation_is_there() -> None:
    from xpsolve.solvers.ot.divergence import _GRADIENTS

    result = ot.sinkhorn_divergence(put(X), put(1.0 - X), reg=0.1)
    assert device(_GRADIENTS["reg"](result)) == THERE
