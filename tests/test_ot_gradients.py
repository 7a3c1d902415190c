"""Gradients of transport: central differences, unrolled iterations, invariances, every library, torch's autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import (
    PointCloud,
    TransportResult,
    self_transport,
    sinkhorn,
    sinkhorn_divergence,
    sinkhorn_divergence_from_costs,
    transport_1d,
    unbalanced,
)
from xpsolve.solvers.ot.gradients import gradients
from xpsolve.solvers.ot.implicit import plan_vjp, potentials_vjp, sharp_cost

REG = 0.1
COSTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sqeuclidean": lambda x, y: ((x[:, None] - y) ** 2).sum(axis=2),
    "half_sqeuclidean": lambda x, y: 0.5 * ((x[:, None] - y) ** 2).sum(axis=2),
    "euclidean": lambda x, y: np.sqrt(((x[:, None] - y) ** 2).sum(axis=2)),
    "cityblock": lambda x, y: np.abs(x[:, None] - y).sum(axis=2),
}


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = rng.random(6) + 0.1, rng.random(8) + 0.1
    return {"x": rng.random((6, 2)), "y": rng.random((8, 2)), "a": a / a.sum(), "b": b / b.sum()}


def cloud(data: dict[str, Any], metric: Any = "sqeuclidean", reg: float = REG, **options: Any) -> TransportResult:
    """Solved to rounding."""
    return sinkhorn(
        PointCloud(data["x"], data["y"], metric),
        data["a"],
        data["b"],
        reg=reg,
        maxiter=10**5,
        **{"tol": 1e-14, **options},
    )


def matrix(C: Any, data: dict[str, Any], reg: float = REG, **options: Any) -> TransportResult:
    return sinkhorn(C, data["a"], data["b"], reg=reg, maxiter=10**5, **{"tol": 1e-14, **options})


def differences(loss: Callable[[np.ndarray], float], at: Any, h: float = 1e-5, simplex: bool = False) -> np.ndarray:
    """Central differences by every entry; on the simplex by moving mass from each entry to the first."""
    at = np.asarray(at, dtype=float)
    out = np.zeros(at.shape)
    for i in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[i] += h
        if simplex:
            step[0] -= h
        out[i] = (loss(at + step) - loss(at - step)) / (2 * h)
    return out


def close(gradient: Any, expected: np.ndarray, simplex: bool = False) -> None:
    """To 1e-6 of the largest entry."""
    gradient = to_host(gradient)
    gradient = gradient - gradient[0] if simplex else gradient
    np.testing.assert_allclose(gradient, expected, atol=1e-6 * max(1.0, np.abs(expected).max()))


# -- the value -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", COSTS)
def test_value_by_points_weights_and_regularisation(data: dict[str, np.ndarray], metric: str) -> None:
    found = gradients(cloud(data, metric))
    assert set(found) == {"a", "b", "x", "y", "reg"}
    for name in ("x", "y", "a", "b"):
        weight = name in ("a", "b")
        expected = differences(lambda z, name=name: cloud(data | {name: z}, metric).value, data[name], simplex=weight)
        close(found[name], expected, simplex=weight)
    close(found["reg"], differences(lambda z: cloud(data, metric, reg=float(z)).value, REG))


def test_value_by_a_stored_cost(data: dict[str, np.ndarray]) -> None:
    C = COSTS["sqeuclidean"](data["x"], data["y"])
    result = matrix(C, data)
    close(gradients(result, "cost")["cost"], differences(lambda z: matrix(z, data).value, C))
    close(gradients(result, ("reg",))["reg"], differences(lambda z: matrix(C, data, reg=float(z)).value, REG))
    assert set(gradients(result)) == {"a", "b", "reg"}


def test_closed_form_two_by_two() -> None:
    c, reg = 0.7, 0.3
    # value = -reg log((1 + exp(-c / reg)) / 2), of which everything follows.
    result = sinkhorn(np.asarray([[0.0, c], [c, 0.0]]), reg=reg, tol=1e-14)
    found = gradients(result, ("cost", "reg"))
    off = 0.5 / (1.0 + math.exp(c / reg))
    np.testing.assert_allclose(found["cost"], [[0.5 - off, off], [off, 0.5 - off]], atol=1e-14)
    np.testing.assert_allclose(found["reg"], -math.log((1 + math.exp(-c / reg)) / 2) - c / reg * 2 * off, atol=1e-13)
    np.testing.assert_allclose(result.transport_cost, 2 * off * c, atol=1e-14)


def test_coincident_points_have_a_finite_gradient(data: dict[str, np.ndarray]) -> None:
    same = data | {"y": np.concatenate([data["x"], data["x"][:2]])}
    for metric in ("euclidean", "cityblock"):
        found = gradients(cloud(same, metric), ("x", "y"))
        assert np.isfinite(found["x"]).all()
        # The cost does not change when all points move together.
        np.testing.assert_allclose(found["x"].sum(axis=0) + found["y"].sum(axis=0), 0.0, atol=1e-14)
    single = {"x": np.ones((1, 2)), "y": np.ones((1, 2)), "a": np.ones(1), "b": np.ones(1)}
    for metric in COSTS:
        assert gradients(cloud(single, metric), "x")["x"].tolist() == [[0.0, 0.0]]


def test_zero_weights_grow_from_zero(data: dict[str, np.ndarray]) -> None:
    a = data["a"].copy()
    a[1], a[2] = 0.0, a[1] + a[2]
    result = cloud(data | {"a": a})
    found, h = gradients(result), 1e-6
    step = np.zeros(6)
    step[1], step[0] = h, -h
    # One-sided: a weight cannot be negative; second order takes the error to h^2.
    values = [cloud(data | {"a": a + k * step}).value for k in (0, 1, 2)]
    measured = (-1.5 * values[0] + 2 * values[1] - 0.5 * values[2]) / h
    np.testing.assert_allclose(found["a"][1] - found["a"][0], measured, rtol=1e-6)
    np.testing.assert_array_equal(found["x"][1], 0.0)
    np.testing.assert_allclose(result.duality_gap, 0.0, atol=1e-13)


def test_far_from_the_origin(data: dict[str, np.ndarray]) -> None:
    near, far = cloud(data), cloud(data | {"x": data["x"] + 1e4, "y": data["y"] + 1e4})
    np.testing.assert_allclose(far.transport_cost, near.transport_cost, atol=1e-10)
    for name in ("x", "y"):
        np.testing.assert_allclose(gradients(far, name)[name], gradients(near, name)[name], atol=1e-9)


# -- implicit differentiation ------------------------------------------------------------------------------------------


def losses(data: dict[str, np.ndarray]) -> dict[str, tuple[Callable[..., float], Callable[..., dict[str, Any]]]]:
    """A function of a result and its derivatives, for the plan, the potentials and the sharp cost."""
    rng = np.random.default_rng(1)
    W, u, v = rng.standard_normal((6, 8)), rng.standard_normal(6), rng.standard_normal(8)

    def potentials(r: TransportResult) -> float:
        shift = 0.5 * (r.b @ r.g - r.a @ r.f) / r.a.sum()
        return float(u @ (r.f + shift) + v @ (r.g - shift))

    return {
        "plan": (lambda r: float((W * r.dense_plan()).sum()), lambda r, wrt: plan_vjp(r, W, wrt)),
        "potentials": (potentials, lambda r, wrt: potentials_vjp(r, u, v, wrt)),
        "sharp": (lambda r: r.transport_cost, lambda r, wrt: sharp_cost(r, wrt).gradients),
    }


@pytest.mark.parametrize("kind", ["plan", "potentials", "sharp"])
def test_implicit_on_a_matrix(data: dict[str, np.ndarray], kind: str) -> None:
    C = COSTS["sqeuclidean"](data["x"], data["y"])
    loss, derivative = losses(data)[kind]
    found = derivative(matrix(C, data), ("a", "b", "cost", "reg"))
    close(found["cost"], differences(lambda z: loss(matrix(z, data)), C))
    close(found["reg"], differences(lambda z: loss(matrix(C, data, reg=float(z))), REG))
    for name in ("a", "b"):
        expected = differences(lambda z, name=name: loss(matrix(C, data | {name: z})), data[name], simplex=True)
        close(found[name], expected, simplex=True)


@pytest.mark.parametrize("metric", ["half_sqeuclidean", "euclidean", "cityblock"])
@pytest.mark.parametrize("kind", ["plan", "potentials", "sharp"])
def test_implicit_on_a_cloud(data: dict[str, np.ndarray], kind: str, metric: str) -> None:
    loss, derivative = losses(data)[kind]
    found = derivative(cloud(data, metric), None)
    for name in ("x", "y"):
        close(found[name], differences(lambda z, name=name: loss(cloud(data | {name: z}, metric)), data[name]))
    close(found["reg"], differences(lambda z: loss(cloud(data, metric, reg=float(z))), REG))


def test_forms_of_the_sensitivity(data: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(2)
    u, v = rng.standard_normal((6, 3)), rng.standard_normal((8, 3))
    for result, wrt in (
        (cloud(data), ("a", "b", "x", "y")),
        (matrix(COSTS["euclidean"](data["x"], data["y"]), data), "cost"),
    ):
        dense = plan_vjp(result, u @ v.T, wrt)
        for other in (
            plan_vjp(result, (u, v), wrt),
            plan_vjp(result, lambda tile: u[tile.start : tile.stop] @ v.T, wrt),
        ):
            for name in dense:
                np.testing.assert_allclose(other[name], dense[name], atol=1e-10)
    single = plan_vjp(cloud(data), (u[:, 0], v[:, 0]), "a")["a"]
    np.testing.assert_allclose(single, plan_vjp(cloud(data), np.outer(u[:, 0], v[:, 0]), "a")["a"], atol=1e-10)


def test_a_sensitivity_that_the_marginals_fix(data: dict[str, np.ndarray]) -> None:
    """``W = p 1^T + 1 q^T`` sees only the marginals: the cost does not matter, the weights do, by ``p`` and ``q``."""
    p, q = np.arange(6.0), np.arange(8.0) ** 2
    found = plan_vjp(matrix(COSTS["euclidean"](data["x"], data["y"]), data), p[:, None] + q, ("a", "b", "cost", "reg"))
    np.testing.assert_allclose(found["cost"], 0.0, atol=1e-8)
    np.testing.assert_allclose(found["a"] - found["a"][0], p, atol=1e-8)
    np.testing.assert_allclose(found["b"] - found["b"][0], q, atol=1e-8)
    np.testing.assert_allclose(found["reg"], 0.0, atol=1e-8)


def test_implicit_with_zero_weights(data: dict[str, np.ndarray]) -> None:
    a, b = data["a"].copy(), data["b"].copy()
    a[1], a[2], b[3], b[4] = 0.0, a[1] + a[2], 0.0, b[3] + b[4]
    data = data | {"a": a, "b": b}
    C = COSTS["sqeuclidean"](data["x"], data["y"])
    for kind in ("plan", "sharp"):
        loss, derivative = losses(data)[kind]
        found = derivative(matrix(C, data), ("a", "cost"))
        close(found["cost"], differences(lambda z, loss=loss: loss(matrix(z, data)), C))
        h, step = 1e-5, np.zeros(6)
        step[1], step[0] = h, -h
        values = [loss(matrix(C, data | {"a": a + k * step})) for k in (0, 1, 2)]
        measured = (-1.5 * values[0] + 2 * values[1] - 0.5 * values[2]) / h
        np.testing.assert_allclose(found["a"][1] - found["a"][0], measured, rtol=1e-6, atol=1e-7)
    # A potential without weight is not read: the others' derivatives are those of the smaller problem.
    u, v, i, j = np.linspace(-1, 1, 6), np.linspace(0, 3, 8), a > 0, b > 0
    whole = potentials_vjp(matrix(C, data), u, v, ("a", "b", "cost", "reg"))
    part = potentials_vjp(matrix(C[i][:, j], {"a": a[i], "b": b[j]}), u[i], v[j], ("a", "b", "cost", "reg"))
    np.testing.assert_allclose(whole["a"][i], part["a"], atol=1e-9)
    np.testing.assert_allclose(whole["b"][j], part["b"], atol=1e-9)
    np.testing.assert_allclose(whole["cost"][i][:, j], part["cost"], atol=1e-9)
    np.testing.assert_allclose(whole["reg"], part["reg"], atol=1e-9)
    assert np.isfinite(whole["a"]).all()


def test_against_unrolled_iterations() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    C, W = rng.random((20, 20)), rng.standard_normal((20, 20))
    a, b = rng.dirichlet(np.full(20, 5.0)), rng.dirichlet(np.full(20, 5.0))
    tensors = [torch.tensor(z, requires_grad=True) for z in (C, a, b)]
    reg, (tC, ta, tb) = 0.05, tensors
    G = torch.zeros(20, dtype=torch.float64)
    for _ in range(400):
        F = torch.log(ta) - torch.logsumexp(G[None, :] - tC / reg, dim=1)
        G = torch.log(tb) - torch.logsumexp(F[:, None] - tC / reg, dim=0)
    (torch.exp(F[:, None] + G[None, :] - tC / reg) * torch.tensor(W)).sum().backward()
    found = plan_vjp(sinkhorn(C, a, b, reg=reg, tol=1e-14), W, ("a", "b", "cost"))
    np.testing.assert_allclose(found["cost"], tC.grad.numpy(), atol=1e-8)
    for name, tensor in (("a", ta), ("b", tb)):
        expected = tensor.grad.numpy()
        np.testing.assert_allclose(found[name] - found[name].mean(), expected - expected.mean(), atol=1e-7)


# -- free marginals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", COSTS)
@pytest.mark.parametrize(("reg_a", "reg_b"), [(1.0, 2.0), (math.inf, 0.5), (0.3, math.inf)])
def test_gradients_of_unbalanced_transport(data: dict[str, Any], metric: str, reg_a: float, reg_b: float) -> None:
    at = {**data, "a": 3.0 * data["a"], "reg": np.asarray(REG), "reg_a": np.asarray(reg_a), "reg_b": np.asarray(reg_b)}

    def run(**change: Any) -> Any:
        now = at | change
        regs = {name: float(now[name]) for name in ("reg", "reg_a", "reg_b")}
        return unbalanced(PointCloud(now["x"], now["y"], metric), now["a"], now["b"], **regs, tol=1e-13, maxiter=10**5)

    found = gradients(run())
    assert set(found) == {name for name in at if np.isfinite(at[name]).all()}
    for name, gradient in found.items():
        expected = differences(lambda z, name=name: run(**{name: z}).value, at[name])
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


def test_free_marginals_have_no_balanced_quantities(xp: Any, make: Any, data: dict[str, Any]) -> None:
    C = COSTS["sqeuclidean"](data["x"], data["y"])
    host = unbalanced(C, data["a"], 2.0 * data["b"], reg=REG, reg_a=1.0, reg_b=0.5, tol=1e-10)
    result = unbalanced(make(C), make(data["a"]), make(2.0 * data["b"]), reg=REG, reg_a=1.0, reg_b=0.5, tol=1e-10)
    names = ("a", "b", "cost", "reg", "reg_a", "reg_b")
    found, expected = gradients(result, names), gradients(host, names)
    np.testing.assert_allclose(expected["cost"], host.dense_plan(), rtol=1e-12)
    for name in names:
        np.testing.assert_allclose(to_host(found[name]), expected[name], atol=1e-8)
    assert host.duality_gap == max(host.gap, 0.0) < 1e-8
    for call in (
        lambda: plan_vjp(host, C),
        lambda: sharp_cost(host),
        lambda: potentials_vjp(host, data["a"], data["b"]),
    ):
        with pytest.raises(InputError, match="result must be of balanced transport"):
            call()
    with pytest.raises(InputError, match="entropy gauge"):
        _ = host.entropy_value
    with pytest.raises(InputError, match="no marginal is relaxed by a finite reg_a"):
        gradients(matrix(C, data), "reg_a")


# -- libraries and precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock"])
def test_every_library_agrees(xp: Any, make: Any, data: dict[str, np.ndarray], metric: str) -> None:
    theirs = {name: make(z) for name, z in data.items()}
    one, other = cloud(data, metric), cloud(theirs, metric)
    u, v = np.linspace(-1, 1, 12).reshape(6, 2), np.linspace(0, 1, 16).reshape(8, 2)
    pairs = [
        (gradients(one), gradients(other)),
        (plan_vjp(one, (u, v)), plan_vjp(other, (make(u), make(v)))),
        (potentials_vjp(one, u[:, 0], v[:, 0]), potentials_vjp(other, make(u[:, 0]), make(v[:, 0]))),
        (sharp_cost(one).gradients, sharp_cost(other).gradients),
    ]
    for ours, found in pairs:
        for name, value in found.items():
            assert type(value) is type(theirs["x"])
            np.testing.assert_allclose(to_host(value), ours[name], atol=1e-9)
    C = COSTS[metric](data["x"], data["y"])
    dense = matrix(make(C), theirs)
    np.testing.assert_allclose(to_host(gradients(dense, "cost")["cost"]), one.dense_plan(), atol=1e-12)
    W = np.outer(u[:, 0], v[:, 1])
    here = plan_vjp(dense, make(W), ("cost", "a"))
    np.testing.assert_allclose(to_host(here["cost"]), plan_vjp(matrix(C, data), W, "cost")["cost"], atol=1e-9)


@pytest.mark.parametrize("metric", COSTS)
def test_float32(xp: Any, make: Any, data: dict[str, np.ndarray], metric: str) -> None:
    singles = {name: make(z.astype(np.float32)) for name, z in data.items()}
    doubles = {name: z.astype(np.float32).astype(float) for name, z in data.items()}
    doubles["a"], doubles["b"] = doubles["a"] / doubles["a"].sum(), doubles["b"] / doubles["b"].sum()
    one, other = cloud(singles, metric, tol=1e-6), cloud(doubles, metric)
    u, v = np.linspace(-1, 1, 6, dtype=np.float32), np.linspace(0, 1, 8, dtype=np.float32)
    for found, exact in (
        (gradients(one), gradients(other)),
        (plan_vjp(one, (make(u), make(v))), plan_vjp(other, (u.astype(float), v.astype(float)))),
        (sharp_cost(one).gradients, sharp_cost(other).gradients),
    ):
        for name, value in found.items():
            assert value.dtype == xp.float32
            np.testing.assert_allclose(to_host(value), exact[name], atol=3e-5 * max(1.0, np.abs(exact[name]).max()))
    assert abs(one.transport_cost - other.transport_cost) < 1e-6
    assert one.dense_plan().dtype == xp.float32


# -- invariances -------------------------------------------------------------------------------------------------------


def test_gauge(data: dict[str, np.ndarray]) -> None:
    from dataclasses import replace

    result = cloud(data)
    moved = replace(result, f=result.f + 0.3, g=result.g - 0.3)
    for function in (
        gradients,
        lambda r: potentials_vjp(r, data["a"] * 2, data["b"]),
        lambda r: sharp_cost(r).gradients,
    ):
        one, other = function(result), function(moved)
        for name in one:
            np.testing.assert_allclose(other[name], one[name], atol=1e-10)
    found = gradients(result)
    np.testing.assert_allclose(data["a"] @ found["a"], data["b"] @ found["b"], atol=1e-15)


def test_splitting_an_atom(data: dict[str, np.ndarray]) -> None:
    """A point in two halves: each half has the same potential and half the gradient."""
    split = data | {
        "x": np.concatenate([data["x"], data["x"][:1]]),
        "a": np.concatenate([[data["a"][0] / 2], data["a"][1:], [data["a"][0] / 2]]),
    }
    one, other = gradients(cloud(data)), gradients(cloud(split))
    np.testing.assert_allclose(other["a"][:6], one["a"], atol=1e-11)
    np.testing.assert_allclose(other["a"][6], one["a"][0], atol=1e-11)
    np.testing.assert_allclose(other["x"][0], one["x"][0] / 2, atol=1e-11)
    np.testing.assert_allclose(other["x"][0] + other["x"][6], one["x"][0], atol=1e-11)
    np.testing.assert_allclose(other["reg"], one["reg"], atol=1e-11)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    d=st.integers(1, 3),
    reg=st.floats(0.1, 3.0),
    metric=st.sampled_from(list(COSTS)),
    seed=st.integers(0, 2**16),
)
def test_shapes_permutations_and_scaling(n: int, m: int, d: int, reg: float, metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = {
        "x": rng.random((n, d)),
        "y": rng.random((m, d)),
        "a": rng.dirichlet(np.ones(n)),
        "b": rng.dirichlet(np.ones(m)),
    }
    result = cloud(data, metric, reg=reg, tol=1e-12)
    found, sharp = gradients(result), sharp_cost(result)
    C, P = COSTS[metric](data["x"], data["y"]), result.dense_plan()
    np.testing.assert_allclose(result.transport_cost, (C * P).sum(), atol=1e-12)
    np.testing.assert_allclose(sharp.value + reg * found["reg"], result.value, atol=1e-11)
    # All points moved together change nothing.
    np.testing.assert_allclose(found["x"].sum(axis=0) + found["y"].sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(sharp.gradients["x"].sum(axis=0) + sharp.gradients["y"].sum(axis=0), 0.0, atol=1e-8)
    # The value is homogeneous in cost and regularisation together, and the cost of degree p in the points.
    degree = 2 if "sq" in metric else 1
    along = (found["x"] * data["x"]).sum() + (found["y"] * data["y"]).sum()
    np.testing.assert_allclose(along + degree * reg * found["reg"], degree * result.value, atol=1e-10)
    order = rng.permutation(n)
    permuted = gradients(cloud(data | {"x": data["x"][order], "a": data["a"][order]}, metric, reg=reg, tol=1e-12))
    np.testing.assert_allclose(permuted["x"], found["x"][order], atol=1e-9)
    np.testing.assert_allclose(permuted["y"], found["y"], atol=1e-9)


# -- what a result knows -----------------------------------------------------------------------------------------------


def test_marginals_values_and_the_gap(xp: Any, make: Any, data: dict[str, np.ndarray]) -> None:
    theirs = {name: make(z) for name, z in data.items()}
    for loose in (1e-2, 1e-5, 1e-13):
        result = cloud(theirs, tol=loose)
        f, g = to_host(result.f), to_host(result.g)
        C, product = COSTS["sqeuclidean"](data["x"], data["y"]), np.outer(data["a"], data["b"])
        plan = product * np.exp((f[:, None] + g - C) / REG)
        np.testing.assert_allclose(to_host(result.dense_plan()), plan, atol=1e-13)
        rows, columns = (to_host(z) for z in result.marginals())
        np.testing.assert_allclose(rows, plan.sum(axis=1), atol=1e-14)
        np.testing.assert_allclose(columns, plan.sum(axis=0), atol=1e-14)
        assert sum(result.marginal_errors) == pytest.approx(result.residual, rel=1e-6, abs=1e-14)
        np.testing.assert_allclose(result.transport_cost, (C * plan).sum(), rtol=1e-12)
        # The rounding of Altschuler, Weed and Rigollet, and both objectives, term by term.
        rounded = np.minimum(1, data["a"] / rows)[:, None] * plan
        rounded = rounded * np.minimum(1, data["b"] / rounded.sum(axis=0))
        lack = data["a"] - rounded.sum(axis=1), data["b"] - rounded.sum(axis=0)
        rounded = rounded + np.outer(*lack) / max(lack[0].sum(), 1e-300)
        primal = (C * rounded).sum() + REG * (rounded * np.log(rounded / product)).sum()
        dual = data["a"] @ f + data["b"] @ g - REG * (plan.sum() - 1)
        np.testing.assert_allclose(result.duality_gap, primal - dual, atol=1e-14)
        assert result.duality_gap >= 0
    entropy = (C * plan).sum() + REG * (plan * (np.log(plan) - 1)).sum()
    np.testing.assert_allclose(result.entropy_value, entropy, rtol=1e-11)


def test_gap_where_the_plan_underflows() -> None:
    C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    result = sinkhorn(C, np.asarray([0.5, 0.5]), np.asarray([0.4, 0.6]), reg=1e-3, tol=0.5, maxiter=1)
    plan = result.dense_plan()
    assert plan.min() == 0.0
    assert 0 < result.duality_gap < math.inf
    assert result.transport_cost >= 0


def test_forbidden_pairs() -> None:
    C = np.asarray([[0.0, math.inf], [math.inf, 0.0]])
    result = sinkhorn(C, reg=0.1)
    assert result.transport_cost == 0.0
    assert result.duality_gap == pytest.approx(0.0, abs=1e-15)
    for found in (gradients(result, ("cost", "reg")), sharp_cost(result, ("cost", "reg")).gradients):
        assert all(np.isfinite(z).all() for z in found.values())
        np.testing.assert_allclose(found["cost"], np.eye(2) / 2, atol=1e-14)


def test_dense_plan_is_guarded(data: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="limit"):
        cloud(data).dense_plan(limit=100)
    assert cloud(data).dense_plan(limit=math.inf).shape == (6, 8)


def test_pot_reads_our_potentials(data: dict[str, np.ndarray]) -> None:
    ot = pytest.importorskip("ot")
    C = COSTS["sqeuclidean"](data["x"], data["y"])
    result = matrix(C, data)
    ours = result.to_pot()
    _, log = ot.bregman.sinkhorn_log(data["a"], data["b"], C, REG, stopThr=1e-14, numItermax=10**5, log=True)
    for name in ("log_u", "log_v"):
        np.testing.assert_allclose(ours[name] - ours[name][0], log[name] - log[name][0], atol=1e-9)
    K = np.exp(-C / REG)
    np.testing.assert_allclose(ours["u"][:, None] * K * ours["v"], result.dense_plan(), atol=1e-13)
    np.testing.assert_allclose(ours["alpha"], result.f + REG * np.log(data["a"]), atol=1e-13)
    solution = ot.solve(C, data["a"], data["b"], reg=REG, reg_type="entropy", tol=1e-14, max_iter=10**5)
    np.testing.assert_allclose(result.entropy_value + REG, solution.value, rtol=1e-9)
    _, warm = ot.sinkhorn(data["a"], data["b"], C, REG, warmstart=(ours["log_u"], ours["log_v"]), log=True)
    assert warm["err"][0] < 1e-12


def test_memory_of_a_large_cloud() -> None:
    import tracemalloc

    rng = np.random.default_rng(0)
    n = 1500
    data = {"x": rng.random((n, 2)), "y": rng.random((n, 2)), "a": np.full(n, 1 / n), "b": np.full(n, 1 / n)}
    for metric in ("sqeuclidean", "cityblock"):
        result = cloud(data, metric, reg=0.5, tol=1e-8)
        tracemalloc.start()
        gradients(result)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.5 * n * n * 8


# -- torch -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", COSTS)
def test_gradcheck(data: dict[str, np.ndarray], metric: str) -> None:
    torch = pytest.importorskip("torch")
    from xpsolve.solvers.ot.autograd import ot_value

    x, y, a, b, reg = (torch.tensor(z, requires_grad=True) for z in (*data.values(), np.asarray(0.2)))

    def value(x: Any, y: Any, a: Any, b: Any, reg: Any) -> Any:
        return ot_value(PointCloud(x, y, metric), torch.softmax(a, 0), torch.softmax(b, 0), reg=reg, tol=1e-14)

    def stored(C: Any, a: Any, reg: Any) -> Any:
        return 3.0 * ot_value(C, a / a.sum(), reg=reg, tol=1e-14) ** 2

    assert torch.autograd.gradcheck(value, (x, y, a, b, reg), eps=1e-5, atol=1e-7)
    C = torch.tensor(COSTS[metric](data["x"], data["y"]), requires_grad=True)
    assert torch.autograd.gradcheck(stored, (C, a, reg), eps=1e-5, atol=1e-7)


@pytest.mark.parametrize("solver", ["sinkhorn", "kernel_sinkhorn", "newton", "sns", "cloud_newton", "solve_exact"])
def test_every_solver_carries_the_gradient_of_its_value(data: dict[str, np.ndarray], solver: str) -> None:
    torch = pytest.importorskip("torch")
    import xpsolve.solvers.ot as ot

    x, y, a = (torch.tensor(data[name], requires_grad=True) for name in ("x", "y", "a"))
    cost = PointCloud(x, y) if solver in ("cloud_newton", "solve_exact") else ((x[:, None] - y) ** 2).sum(dim=2)
    options = {} if solver == "solve_exact" else {"reg": 0.05, "tol": 1e-11}
    result = getattr(ot, solver)(cost, a, torch.tensor(data["b"]), **options)
    assert not result.f.requires_grad
    result.value.backward()
    host = getattr(ot, solver if solver in ("cloud_newton", "solve_exact") else "sinkhorn")(
        PointCloud(data["x"], data["y"]), data["a"], data["b"], **options
    )
    assert isinstance(host.value, float)
    assert result.value.item() == pytest.approx(host.value, rel=1e-9)
    for name, tensor in (("x", x), ("y", y), ("a", a)):
        np.testing.assert_allclose(tensor.grad.numpy(), gradients(host, name)[name], atol=1e-7)


def test_gradcheck_of_unbalanced_transport(data: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    numbers = (np.asarray(0.2), np.asarray(1.0), np.asarray(3.0))
    tensors = [torch.tensor(z, requires_grad=True) for z in (*data.values(), *numbers)]

    def value(x: Any, y: Any, a: Any, b: Any, reg: Any, reg_a: Any, reg_b: Any) -> Any:
        cloud = PointCloud(x, y)
        return unbalanced(cloud, a, 2.0 * b, reg=reg, reg_a=reg_a, reg_b=reg_b, tol=1e-13, maxiter=10**5).value

    assert torch.autograd.gradcheck(value, tensors, eps=1e-5, atol=1e-7)
    C = torch.tensor(COSTS["sqeuclidean"](data["x"], data["y"]), requires_grad=True)
    assert abs(unbalanced(C, reg=0.1, reg_a=1.0, reg_b=1.0).gap) < 1e-6


@pytest.mark.parametrize("metric", COSTS)
def test_gradcheck_of_the_divergence(data: dict[str, np.ndarray], metric: str) -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(z, requires_grad=True) for z in (*data.values(), np.asarray(0.2))]

    def value(x: Any, y: Any, a: Any, b: Any, reg: Any) -> Any:
        a, b = torch.softmax(a, 0), torch.softmax(b, 0)
        return sinkhorn_divergence(x, y, a, b, reg=reg, cost=metric, tol=1e-13).value

    def stored(x: Any, y: Any, a: Any, b: Any, reg: Any) -> Any:
        a, b = torch.softmax(a, 0), torch.softmax(b, 0)
        C = [((s[:, None] - t) ** 2).sum(dim=2) for s, t in ((x, y), (x, x), (y, y))]
        return sinkhorn_divergence_from_costs(*C, a, b, reg=reg, tol=1e-13).value

    assert torch.autograd.gradcheck(value, tensors, eps=1e-5, atol=1e-7)
    if metric == "sqeuclidean":
        assert torch.autograd.gradcheck(stored, tensors, eps=1e-5, atol=1e-7)


def test_gradients_of_one_tensor_used_twice_and_of_sensitivities_add_up(data: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    x, a = torch.tensor(data["x"], requires_grad=True), torch.tensor(data["a"], requires_grad=True)
    result = self_transport(PointCloud(x, x), a, reg=0.1, tol=1e-13)
    result.value.backward()
    host = self_transport(PointCloud(data["x"], data["x"]), data["a"], reg=0.1, tol=1e-13)
    np.testing.assert_allclose(a.grad.numpy(), 2.0 * host.f, atol=1e-9)
    np.testing.assert_allclose(x.grad.numpy(), 2.0 * gradients(host, "x")["x"], atol=1e-9)
    assert not plan_vjp(result, torch.outer(a, a), "a")["a"].requires_grad
    line = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    transport_1d(line, line.detach() + 3.0).value.backward()
    assert line.grad.tolist() == [-3.0, -3.0]


def test_autograd_is_once_and_only_where_asked(data: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    from xpsolve.solvers.ot.autograd import detached, ot_value, with_gradient

    x, y = (torch.tensor(data[name], dtype=torch.float32) for name in ("x", "y"))
    assert not ot_value(PointCloud(x, y), reg=0.1).requires_grad
    x.requires_grad_()
    value = ot_value(PointCloud(x, y), reg=0.1, tol=1e-6)
    assert value.dtype == torch.float32
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(BackendError, match="second derivatives"):
        gradient.sum().backward()
    with torch.no_grad():
        assert not ot_value(PointCloud(x, y), reg=0.1).requires_grad
    problem = detached(PointCloud(x, y), None, None)
    result = sinkhorn(*problem, reg=0.1)
    assert not result.f.requires_grad
    attached = with_gradient(result, PointCloud(x, y), None, None, 0.1)
    assert attached.value.requires_grad
    assert with_gradient(result, *problem, 0.1) is result
    with pytest.raises(BackendError, match="torch"):
        ot_value(PointCloud(data["x"], data["y"]), reg=0.1)
    # The same points on both sides: their gradients add up.
    x64 = torch.tensor(data["x"], requires_grad=True)
    ot_value(PointCloud(x64, x64), reg=0.1, tol=1e-12).backward()
    own = {"x": data["x"], "y": data["x"], "a": np.full(6, 1 / 6), "b": np.full(6, 1 / 6)}
    found = gradients(cloud(own), ("x", "y"))
    np.testing.assert_allclose(x64.grad.numpy(), found["x"] + found["y"], atol=1e-9)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_input_names_the_argument(data: dict[str, np.ndarray]) -> None:
    result, stored = cloud(data), matrix(COSTS["sqeuclidean"](data["x"], data["y"]), data)
    user = cloud(data, lambda x, y: np.abs(x[:, None] - y).max(axis=2))
    assert set(gradients(user)) == {"a", "b", "reg"}
    np.testing.assert_allclose(
        user.transport_cost, (np.abs(data["x"][:, None] - data["y"]).max(axis=2) * user.dense_plan()).sum(), rtol=1e-12
    )
    for call, message in [
        (lambda: gradients(result, "cost"), "not stored"),
        (lambda: gradients(result, ("a", "z")), "wrt names 'z'"),
        (lambda: gradients(stored, "x"), "the cost is a matrix"),
        (lambda: gradients(user, "x"), "derivative of the cost"),
        (lambda: plan_vjp(result, np.ones((8, 6))), "W has shape"),
        (lambda: plan_vjp(result, None), "W is None"),
        (lambda: plan_vjp(result, lambda tile: None), "W is None"),
        (lambda: plan_vjp(result, np.full((6, 8), np.nan)), "W contains NaN"),
        (lambda: plan_vjp(result, (np.ones(6),)), "W holds 1"),
        (lambda: plan_vjp(result, (np.ones(6), np.ones(6))), r"W\[1\] has shape"),
        (lambda: plan_vjp(result, lambda tile: np.ones((1, 1))), "W has shape"),
        (lambda: potentials_vjp(result, np.ones(8), np.ones(8)), "u has shape"),
        (lambda: sharp_cost(stored, "y"), "the cost is a matrix"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(BackendError, match="dtype"):
        potentials_vjp(result, np.ones(6, dtype=np.float32), np.ones(8))


def test_any_total_mass(data: dict[str, np.ndarray]) -> None:
    """Weights that sum to 3: three times the problem of sum 1, with its own constants."""
    heavy = data | {"a": 3 * data["a"], "b": 3 * data["b"]}
    result = cloud(heavy, tol=1e-13)
    found = gradients(result)
    close(found["x"], differences(lambda z: cloud(heavy | {"x": z}, tol=1e-13).value, data["x"]))
    close(found["reg"], differences(lambda z: cloud(heavy, reg=float(z), tol=1e-13).value, REG))
    expected = differences(lambda z: cloud(heavy | {"a": z}, tol=1e-13).value, heavy["a"], simplex=True)
    close(found["a"], expected, simplex=True)
    assert result.duality_gap == pytest.approx(0.0, abs=1e-13)
    plan = result.dense_plan()
    entropy = result.transport_cost + REG * (plan * (np.log(plan) - 1)).sum()
    np.testing.assert_allclose(result.entropy_value, entropy, rtol=1e-11)
    np.testing.assert_allclose(
        sharp_cost(result, "x").gradients["x"], 3 * sharp_cost(cloud(data), "x").gradients["x"], atol=1e-8
    )


def test_weak_regularisation() -> None:
    """Where the whole kernel underflows: a grid shifted by one, each point's partner is its own image."""
    x = np.linspace(0, 1, 31)[:, None]
    assert np.exp(-COSTS["sqeuclidean"](x[:-1], x[:-1] + 1.0) / 1e-6).max() == 0.0
    start = -2 * x[:-1, 0], 2 * x[:-1, 0] + 1
    result = sinkhorn(PointCloud(x[:-1], x[:-1] + 1.0), reg=1e-6, tol=1e-9, x0=start)
    found = gradients(result)
    np.testing.assert_allclose(found["x"], -2.0 / 30, rtol=1e-8)
    np.testing.assert_allclose(found["y"], 2.0 / 30, rtol=1e-8)
    # Of the identity as a plan: log 30 of information.
    np.testing.assert_allclose(found["reg"], math.log(30), rtol=1e-8)
    np.testing.assert_allclose(result.transport_cost, 1.0, rtol=1e-8)
    # What is lacking in the marginals is carried at most over the longest way.
    assert 0 <= result.duality_gap <= 4.0 * result.residual


@pytest.mark.parametrize("metric", ["sqeuclidean", "half_sqeuclidean"])
def test_reductions_agree_with_tiles_over_several_blocks(
    xp: Any, make: Any, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large enough that the tiles are many, and for both ways to the same sums."""
    from xpsolve.solvers.ot import plan_tiles
    from xpsolve.solvers.ot.plan_tiles import pair_gradients, tiles

    monkeypatch.setattr(plan_tiles, "_GPU_BLOCK", plan_tiles._HOST_BLOCK)
    rng = np.random.default_rng(4)
    x, y = rng.random((700, 3)), rng.random((450, 3))
    result = sinkhorn(PointCloud(make(x), make(y), metric), reg=0.1, tol=1e-9)
    assert len(list(tiles(result.geometry, 0.1))) > 1
    found, tiled = gradients(result), pair_gradients(result, None, {"x", "y", "scale"})
    for name in ("x", "y"):
        np.testing.assert_allclose(to_host(found[name]), to_host(tiled[name]), atol=1e-14)
    np.testing.assert_allclose(result.transport_cost, float(tiled["scale"]), rtol=1e-12)
    plan = to_host(result.dense_plan())
    C = COSTS[metric](x, y)
    np.testing.assert_allclose((C * plan).sum(), result.transport_cost, rtol=1e-11)
    information = (plan * np.log(plan * 700 * 450)).sum()
    np.testing.assert_allclose(float(found["reg"]), information, rtol=1e-11)


def test_float32_of_a_user_cost_stays_float32(data: dict[str, np.ndarray]) -> None:
    """Its tiles keep the dtype of the points, so the linear system is one of float32, with its own regularisation."""

    def largest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.abs(x[:, None] - y).max(axis=2)

    singles = {name: z.astype(np.float32) for name, z in data.items()}
    one, other = cloud(singles, largest, tol=1e-6), cloud(data, largest)
    for found, exact in (
        (gradients(one), gradients(other)),
        (sharp_cost(one).gradients, sharp_cost(other).gradients),
        (plan_vjp(one, (singles["a"], singles["b"])), plan_vjp(other, (data["a"], data["b"]))),
    ):
        for name in ("a", "b", "reg"):
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], exact[name], atol=1e-4 * max(1.0, np.abs(exact[name]).max()))
