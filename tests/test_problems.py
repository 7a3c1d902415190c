"""Problems: their answers are right, the same on every library, and bad parameters are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
import pytest
import scipy.sparse.linalg as spla
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.problems import (
    circulant,
    gaussian_mixture,
    harmonic_labels,
    poisson2d,
    spd_with_condition,
    uniform_clouds,
)
from xpsolve.solvers.linear import cg

RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((90, 3)) + 3.0 * np.repeat(np.eye(3), 30, axis=0), np.repeat([0, 1, 2], 30)


def test_harmonic_labels_obey_the_maximum_principle() -> None:
    problem = harmonic_labels(X, LABELS, known=3)
    assert problem.A.shape == (81, 81)
    assert abs(problem.A - problem.A.T).max() == 0
    F = spla.spsolve(problem.A.tocsc(), problem.B)
    np.testing.assert_allclose(F.sum(axis=1), 1.0, atol=1e-10)
    assert F.min() >= -1e-12
    assert np.mean(F.argmax(axis=1) == problem.labels) > 0.8
    np.testing.assert_allclose(cg(problem.A, problem.B, rtol=1e-11).x, F, atol=1e-8)


def test_harmonic_labels_with_coincident_points() -> None:
    x = np.concatenate([np.zeros((40, 2)), np.ones((40, 2))]) + 1e-3 * RNG.standard_normal((80, 2))
    x[:12] = 0.0  # more copies than neighbours: a point need not find itself among them
    problem = harmonic_labels(x, np.repeat([0, 1], 40), neighbours=5)
    assert problem.A.diagonal().min() > 0
    assert np.all(problem.A.sum(axis=1) >= -1e-12)


def test_spd_has_its_condition(xp: Any) -> None:
    A, b, x = (to_host(a) for a in spd_with_condition(20, 1e3, xp=xp))
    np.testing.assert_allclose(np.linalg.cond(A), 1e3, rtol=1e-9)
    np.testing.assert_allclose(A @ x, b, atol=1e-9)


def test_poisson_knows_its_mode(xp: Any) -> None:
    A, b, x = poisson2d(9, mode=(2, 3), xp=xp)
    np.testing.assert_allclose(to_host(A @ x), to_host(b), atol=1e-13)
    A.check_adjoint(b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(xp: Any, dtype: str) -> None:
    wanted = getattr(xp, dtype)
    arrays = [
        *spd_with_condition(3, 10.0, xp=xp, dtype=wanted),
        *poisson2d(3, xp=xp, dtype=wanted)[1:],
        *uniform_clouds(3, 4, 2, xp=xp, dtype=wanted),
        circulant(4, 0.1, xp=xp, dtype=wanted)[0],
        gaussian_mixture(5, 2, xp=xp, dtype=wanted).x,
    ]
    assert all(a.dtype == wanted for a in arrays)


BAD: list[tuple[Callable[..., Any], dict[str, Any], str, type[Exception]]] = [
    (spd_with_condition, {"n": 0, "condition": 2.0}, "n", InputError),
    (spd_with_condition, {"n": 2.5, "condition": 2.0}, "n", BackendError),
    (spd_with_condition, {"n": 2, "condition": 0.5}, "condition", InputError),
    (spd_with_condition, {"n": 2, "condition": float("nan")}, "condition", InputError),
    (spd_with_condition, {"n": 2, "condition": 2.0, "dtype": np.int64}, "dtype", BackendError),
    (poisson2d, {"s": 0}, "s", InputError),
    (poisson2d, {"s": 3, "mode": (0, 1)}, "mode", InputError),
    (poisson2d, {"s": 4, "mode": (1, 5)}, "mode", InputError),
    (poisson2d, {"s": 4, "mode": 3}, "mode", InputError),
    (poisson2d, {"s": 3, "dtype": "float16"}, "dtype", BackendError),
    (uniform_clouds, {"n": -1, "m": 2, "d": 2}, "n", InputError),
    (uniform_clouds, {"n": 2, "m": 0, "d": 2}, "m", InputError),
    (uniform_clouds, {"n": 2, "m": 2, "d": "2"}, "d", BackendError),
    (uniform_clouds, {"n": 2, "m": 2, "d": 2, "dtype": np.complex128}, "dtype", BackendError),
    (circulant, {"n": 0, "reg": 1.0}, "n", InputError),
    (circulant, {"n": 3, "reg": 0.0}, "reg", InputError),
    (circulant, {"n": 3, "reg": 1.0, "dtype": np.int32}, "dtype", BackendError),
    (gaussian_mixture, {"n": 0, "d": 2}, "n", InputError),
    (gaussian_mixture, {"n": 3, "d": 2, "components": 0}, "components", InputError),
    (gaussian_mixture, {"n": 3, "d": 2, "separation": -1.0}, "separation", InputError),
    (gaussian_mixture, {"n": 3, "d": 2, "offset": float("inf")}, "offset", InputError),
    (gaussian_mixture, {"n": 3, "d": 2, "dtype": bool}, "dtype", BackendError),
]
GRAPH: list[tuple[dict[str, Any], str, type[Exception]]] = [
    ({"x": X.tolist()}, "x", BackendError),
    ({"x": X.astype(int)}, "x", BackendError),
    ({"x": X * np.nan}, "x", InputError),
    ({"x": X[:, 0]}, "x", InputError),
    ({"labels": LABELS[:5]}, "labels", InputError),
    ({"labels": LABELS.astype(float)}, "labels", InputError),
    ({"labels": LABELS - 1}, "labels", InputError),
    ({"known": 0}, "known", InputError),
    ({"known": 30}, "known", InputError),
    ({"neighbours": 90}, "neighbours", InputError),
]


@pytest.mark.parametrize(("make", "arguments", "name", "error"), BAD, ids=lambda a: getattr(a, "__name__", None))
def test_bad_parameters_are_named(make: Any, arguments: dict[str, Any], name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"\b{name}\b"):
        make(**arguments, xp=npx)


@pytest.mark.parametrize(
    ("y", "error"), [(np.ones((4, 3)), InputError), (np.ones((4, 2), dtype="float32"), BackendError)]
)
def test_densities_of_the_wrong_points_are_refused(y: np.ndarray, error: type[Exception]) -> None:
    problem = gaussian_mixture(5, 2, xp=npx)
    for method in (problem.log_density, problem.score):
        with pytest.raises(error, match=r"\by\b"):
            method(y)


@pytest.mark.parametrize(("changed", "name", "error"), GRAPH)
def test_bad_graphs_are_named(changed: dict[str, Any], name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"\b{name}\b"):
        harmonic_labels(**({"x": X, "labels": LABELS} | changed))
