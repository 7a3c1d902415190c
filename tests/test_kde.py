"""Gaussian kernel density: against formulas, quadrature, peers, brute force, and itself under maps of the space."""

from __future__ import annotations

import math
from typing import Any

import array_api_compat.numpy as np_xp
import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from sklearn.neighbors import KernelDensity
from xpsolve.backends.errors import BackendError, BreakdownError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.problems.kde import gaussian_mixture
from xpsolve.solvers.kde import GaussianKDE, loo_bandwidth


def direct(x: np.ndarray, y: np.ndarray, covariance: np.ndarray, w: np.ndarray | None = None) -> np.ndarray:
    """The formula, by differences, in float64."""
    n, d = x.shape
    w = np.full(n, 1 / n) if w is None else w / w.sum()
    with np.errstate(divide="ignore"):
        log_w = np.log(w)
    factor = np.linalg.cholesky(covariance)
    u = np.linalg.solve(factor, (y[:, None, :] - x[None, :, :]).reshape(-1, d).T)
    t = log_w - 0.5 * (u**2).sum(0).reshape(len(y), n)
    top = t.max(1)
    norm = -np.log(np.diag(factor)).sum() - 0.5 * d * math.log(2 * math.pi)
    return top + np.log(np.exp(t - top[:, None]).sum(1)) + norm


def brute_loo(x: np.ndarray, covariance: np.ndarray, w: np.ndarray | None = None) -> float:
    w = np.ones(len(x)) if w is None else w
    keep = ~np.eye(len(x), dtype=bool)
    terms = [w[i] * direct(x[keep[i]], x[i : i + 1], covariance, w[keep[i]])[0] for i in range(len(x)) if w[i] > 0]
    return float(np.sum(terms) / w.sum())


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)) @ np.array([[1.0, 0.4, 0], [0, 0.7, 0.2], [0, 0, 2.0]])
    return x, rng.normal(size=(23, 3)), rng.uniform(0.1, 1.0, 60)


BANDWIDTHS = {
    "scott": lambda x, w: np.cov(x.T, aweights=w) * ((w.sum() ** 2 / (w**2).sum()) ** (-1 / 7)) ** 2,
    "silverman": lambda x, w: np.cov(x.T, aweights=w) * ((w.sum() ** 2 / (w**2).sum() * 5 / 4) ** (-1 / 7)) ** 2,
    0.4: lambda x, w: 0.16 * np.eye(3),
    (0.3, 0.5, 0.9): lambda x, w: np.diag([0.09, 0.25, 0.81]),
    ((1.0, 0.2, 0.0), (0.2, 0.5, 0.1), (0.0, 0.1, 0.8)): lambda x, w: np.array(
        [[1.0, 0.2, 0.0], [0.2, 0.5, 0.1], [0.0, 0.1, 0.8]]
    ),
}


@pytest.mark.parametrize("bandwidth", BANDWIDTHS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bandwidth_on_every_backend_is_the_formula(
    xp: Any, make: Any, points: Any, bandwidth: Any, dtype: str
) -> None:
    x, y, w = (a.astype(dtype) for a in points)
    covariance = BANDWIDTHS[bandwidth](x.astype(float), w.astype(float))
    given_bandwidth = (
        make(np.asarray(bandwidth), dtype=getattr(xp, dtype)) if isinstance(bandwidth, tuple) else bandwidth
    )
    kde = GaussianKDE(make(x), weights=make(w), bandwidth=given_bandwidth)
    queries = make(y)
    tolerance = 1e-12 if dtype == "float64" else 3e-5
    log_p = kde.log_density(queries)
    assert log_p.dtype == queries.dtype
    np.testing.assert_allclose(
        to_host(kde.covariance), covariance, rtol=1e-12 if dtype == "float64" else 1e-6, atol=1e-7
    )
    expected = direct(x.astype(float), y.astype(float), covariance, w.astype(float))
    np.testing.assert_allclose(to_host(log_p), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(to_host(kde.density(queries)), np.exp(expected), rtol=20 * tolerance)
    loo = float(kde.loo_log_likelihood())
    np.testing.assert_allclose(loo, brute_loo(x.astype(float), covariance, w.astype(float)), rtol=10 * tolerance)


def test_backends_agree_on_gradient_samples_and_search(xp: Any, make: Any, points: Any) -> None:
    x, y, w = points
    here, there = GaussianKDE(x, weights=w), GaussianKDE(make(x), weights=make(w))
    np.testing.assert_allclose(to_host(there.gradient(make(y))), here.gradient(y), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(to_host(there.sample(9, 3)), here.sample(9, 3), rtol=1e-12, atol=1e-12)
    found = loo_bandwidth(make(x), make(w))
    np.testing.assert_allclose(found.factor, loo_bandwidth(x, w).factor, rtol=1e-6)


@pytest.mark.parametrize("rule", ["scott", "silverman"])
@pytest.mark.parametrize("weighted", [False, True])
def test_scipy_gives_the_same_densities_and_covariance(points: Any, rule: str, weighted: bool) -> None:
    x, y, w = points
    peer = scipy.stats.gaussian_kde(x.T, bw_method=rule, weights=w if weighted else None)
    kde = GaussianKDE(x, bandwidth=rule, weights=w if weighted else None)
    np.testing.assert_allclose(kde.log_density(y), peer.logpdf(y.T), rtol=1e-11)
    np.testing.assert_allclose(kde.covariance, peer.covariance, rtol=1e-11, atol=1e-14)
    assert kde.effective_sample_size == pytest.approx(peer.neff)


def test_scikit_learn_scalar_bandwidth_is_ours(points: Any) -> None:
    x, y, w = points
    peer = KernelDensity(bandwidth=0.7, rtol=0, atol=0).fit(x, sample_weight=w)
    np.testing.assert_allclose(
        GaussianKDE(x, weights=w, bandwidth=0.7).log_density(y), peer.score_samples(y), rtol=1e-9
    )


def test_one_point_is_a_normal_density_with_its_score(make: Any) -> None:
    x, y = np.array([[1.0, -2.0]]), np.array([[0.0, 0.0], [3.0, 5.0], [40.0, -60.0]])
    kde = GaussianKDE(make(x), bandwidth=0.5)
    expected = -((y - x) ** 2).sum(1) / 0.5 - math.log(2 * math.pi * 0.25)
    np.testing.assert_allclose(to_host(kde.log_density(make(y))), expected, rtol=1e-13)
    np.testing.assert_allclose(to_host(kde.gradient(make(y))), (x - y) / 0.25, rtol=1e-13)


@pytest.mark.parametrize("bandwidth", ["scott", 0.3])
def test_gradient_is_the_derivative(points: Any, bandwidth: Any) -> None:
    x, y, w = points
    kde = GaussianKDE(x, weights=w, bandwidth=bandwidth)
    step = 1e-5
    numeric = np.stack(
        [(kde.log_density(y + e) - kde.log_density(y - e)) / (2 * step) for e in step * np.eye(3)], axis=1
    )
    np.testing.assert_allclose(kde.gradient(y), numeric, rtol=1e-6, atol=1e-7)


def test_gradient_survives_where_the_density_underflows() -> None:
    x = np.random.default_rng(1).normal(size=(50, 64))
    y = x[:4] + 40.0
    kde = GaussianKDE(x, bandwidth=0.5)
    assert np.all(kde.density(y) == 0)
    np.testing.assert_allclose(kde.log_density(y), direct(x, y, 0.25 * np.eye(64)), rtol=1e-12)
    assert np.all(np.isfinite(kde.gradient(y)))
    assert np.all(np.isfinite(GaussianKDE(x.astype("float32"), bandwidth=0.5).gradient(y.astype("float32"))))


def test_density_integrates_to_one() -> None:
    rng = np.random.default_rng(2)
    line = np.linspace(-12, 12, 4001)
    kde = GaussianKDE(rng.normal(size=(30, 1)), bandwidth="silverman")
    assert kde.density(line[:, None]).sum() * (line[1] - line[0]) == pytest.approx(1, abs=1e-12)
    axis = np.linspace(-9, 9, 181)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    kde = GaussianKDE(rng.normal(size=(40, 2)), weights=rng.uniform(size=40))
    assert kde.density(plane).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-10)


def test_extreme_tail_against_many_digits() -> None:
    x, w, y, h = [0.0, 0.3, 1.1], [0.2, 0.5, 0.3], 75.0, 0.25
    with mpmath.workdps(60):
        total = mpmath.fsum(
            mpmath.mpf(wj) * mpmath.exp(-((mpmath.mpf(y) - mpmath.mpf(xj)) ** 2) / (2 * mpmath.mpf(h) ** 2))
            for xj, wj in zip(x, w, strict=True)
        )
        expected = float(mpmath.log(total / mpmath.fsum(map(mpmath.mpf, w)) / (h * mpmath.sqrt(2 * mpmath.pi))))
    kde = GaussianKDE(np.array(x)[:, None], weights=np.array(w), bandwidth=h)
    assert kde.log_density(np.array([[y]]))[0] == pytest.approx(expected, rel=1e-14)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 5), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_translation_and_scale_equivariance(seed: int, d: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, d)), rng.normal(size=(5, d))
    kde, moved = GaussianKDE(x), GaussianKDE(scale * x + shift)
    z = scale * y + shift
    # The shift costs the digits that the coordinates lose in storage: eps * shift / scale in units of the spread.
    tolerance = 1e-9 + 1e-12 * abs(shift) / scale
    np.testing.assert_allclose(
        moved.log_density(z), kde.log_density(y) - d * math.log(scale), rtol=1e-9, atol=tolerance * 10
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 4))
def test_repeated_points_are_weights_and_zero_weights_are_absent(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, counts = rng.normal(size=(12, d)), rng.normal(size=(6, d)), rng.integers(0, 4, 12)
    counts[0] = 2
    repeated = GaussianKDE(np.repeat(x, counts, axis=0), bandwidth=0.6)
    weighted = GaussianKDE(x, weights=counts.astype(float), bandwidth=0.6)
    absent = GaussianKDE(x[counts > 0], weights=counts[counts > 0].astype(float), bandwidth=0.6)
    for name in ("log_density", "gradient"):
        np.testing.assert_allclose(getattr(weighted, name)(y), getattr(repeated, name)(y), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(getattr(weighted, name)(y), getattr(absent, name)(y), rtol=1e-10, atol=1e-10)
    if (counts > 0).sum() > 1:
        assert weighted.loo_log_likelihood() == pytest.approx(absent.loo_log_likelihood(), rel=1e-10)


def test_huge_offset_in_float32() -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.integers(-3000, 3000, size=(k, 3)) / 1024 for k in (200, 30))  # exact in float32 also after the shift
    plain = GaussianKDE(x, bandwidth=0.3).log_density(y)
    shifted = GaussianKDE((x + 1e4).astype("float32"), bandwidth=0.3).log_density((y + 1e4).astype("float32"))
    np.testing.assert_allclose(shifted, plain, atol=1e-4)


def test_samples_follow_the_density() -> None:
    x, w = np.array([[0.0, 0.0], [5.0, 1.0], [100.0, 100.0]]), np.array([1.0, 3.0, 0.0])
    covariance = np.array([[0.5, 0.2], [0.2, 0.3]])
    draws = GaussianKDE(x, weights=w, bandwidth=covariance).sample(20000, 0)
    mean = w[:2] @ x[:2] / 4
    spread = covariance + 3 / 16 * np.outer(x[1], x[1])
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(draws.T), spread, atol=0.15)


@pytest.mark.parametrize("weighted", [False, True])
def test_loo_bandwidth_is_the_maximum(points: Any, weighted: bool) -> None:
    x, _, w = points
    w = w if weighted else None
    found = loo_bandwidth(x, w)
    assert found.converged
    assert found.n_iter <= 15
    sample = np.cov(x.T, aweights=w)
    np.testing.assert_allclose(found.covariance, found.factor**2 * sample, rtol=1e-11)
    assert found.log_likelihood == pytest.approx(brute_loo(x, found.covariance, w), rel=1e-12)
    for factor in np.geomspace(0.2, 3, 25) * found.factor:
        assert brute_loo(x, factor**2 * sample, w) <= found.log_likelihood + 1e-12
    kde = GaussianKDE(x, weights=w, bandwidth="loo")
    np.testing.assert_allclose(kde.covariance, found.covariance, rtol=1e-12)
    assert float(kde.loo_log_likelihood()) == pytest.approx(found.log_likelihood, rel=1e-12)


def test_loo_of_repeated_points_says_so_and_an_early_stop_warns(points: Any) -> None:
    x = points[0]
    with pytest.raises(BreakdownError, match=r"bandwidth.*repeated"):
        loo_bandwidth(np.concatenate([x, x]))
    with pytest.warns(ConvergenceWarning, match="loo_bandwidth"):
        assert not loo_bandwidth(x, maxiter=1).converged


def test_singular_covariance_names_the_bandwidth(points: Any) -> None:
    x = points[0]
    cases = [
        x[:3],
        np.concatenate([x, x[:, :1]], axis=1),
        np.concatenate([x, 0.1 * np.ones((60, 1))], axis=1),
        (x @ np.ones((3, 4))).astype("float32"),
        x[:1],
    ]
    for bad in cases:
        for rule in ("scott", "loo"):
            with pytest.raises((InputError, BreakdownError), match="bandwidth"):
                GaussianKDE(bad, bandwidth=rule)
        assert np.all(np.isfinite(GaussianKDE(bad, bandwidth=0.5).log_density(bad)))
    with pytest.raises(BreakdownError, match="bandwidth"):
        GaussianKDE(x, bandwidth=-np.eye(3))


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"x": [[1.0]]}, BackendError, "x"),
        ({"x": np.ones((3, 2), dtype=int)}, BackendError, "x"),
        ({"x": np.ones(3)}, InputError, "x"),
        ({"x": np.ones((0, 2))}, InputError, "x"),
        ({"x": np.full((3, 2), np.nan)}, InputError, "x"),
        ({"weights": -np.ones(60)}, InputError, "weights"),
        ({"weights": np.zeros(60)}, InputError, "weights"),
        ({"weights": np.ones(59)}, InputError, "weights"),
        ({"bandwidth": "magic"}, InputError, "bandwidth"),
        ({"bandwidth": 0.0}, InputError, "bandwidth"),
        ({"bandwidth": 1e-200}, InputError, "bandwidth"),
        ({"bandwidth": float("nan")}, InputError, "bandwidth"),
        ({"bandwidth": None}, BackendError, "bandwidth"),
        ({"bandwidth": np.ones(2)}, InputError, "bandwidth"),
        ({"bandwidth": np.array([1.0, -1.0, 1.0])}, InputError, "bandwidth"),
        ({"bandwidth": np.triu(np.ones((3, 3)))}, InputError, "bandwidth"),
    ],
)
def test_bad_input_names_the_argument(points: Any, options: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        GaussianKDE(**{"x": points[0], **options})


def test_bad_queries_and_untouched_inputs(points: Any) -> None:
    x, y, w = points
    kept = [a.copy() for a in (x, y, w)]
    kde = GaussianKDE(x, weights=w)
    for bad, error in [(y[:, :2], InputError), (y.astype("float32"), BackendError), (y * np.inf, InputError)]:
        for call in (kde.log_density, kde.density, kde.gradient):
            with pytest.raises(error, match="y"):
                call(bad)
    kde.log_density(y), kde.gradient(y), kde.loo_log_likelihood(), kde.sample(2, 0)
    for a, b in zip((x, y, w), kept, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="one point"):
        GaussianKDE(x[:1], bandwidth=1.0).loo_log_likelihood()
    with pytest.raises(InputError, match="weights"):
        GaussianKDE(x[:2], weights=np.array([1.0, 0.0]), bandwidth=1.0).loo_log_likelihood()


def test_mixture_problem_knows_its_density_and_is_approached(xp: Any) -> None:
    problem = gaussian_mixture(300, 2, xp=xp, rng=4)
    here = gaussian_mixture(300, 2, xp=np_xp, rng=4)
    np.testing.assert_allclose(to_host(problem.x), here.x, rtol=1e-13)
    np.testing.assert_allclose(to_host(problem.log_density(problem.x)), here.log_density(here.x), rtol=1e-12)
    score = to_host(problem.score(problem.x))
    step = 1e-6
    x = here.x
    for k in range(2):
        e = step * np.eye(2)[k]
        np.testing.assert_allclose(
            score[:, k], (here.log_density(x + e) - here.log_density(x - e)) / (2 * step), rtol=1e-5, atol=1e-6
        )
    one = gaussian_mixture(1000, 1, 2, separation=2.0, xp=xp, rng=5)
    estimate = to_host(GaussianKDE(one.x, bandwidth="loo").log_density(one.x))
    assert np.corrcoef(estimate, to_host(one.log_density(one.x)))[0, 1] > 0.97
