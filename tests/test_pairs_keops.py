"""KeOps against the tiles; compiles formulas, so it runs by ``pytest -m keops``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xpsolve.backends.errors import InputError
from xpsolve.backends.pairs import (
    Kernel,
    Pairs,
    biweight,
    cauchy,
    epanechnikov,
    exponential,
    gaussian,
    laplace,
    matern,
    tophat,
    triangle,
    triweight,
)

pytestmark = [
    pytest.mark.keops,
    # KeOps leaves files and deprecated calls behind at import; they are its own affair.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(params=["numpy", "torch"])
def convert(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip("pykeops")
    return pytest.importorskip(request.param).asarray


@pytest.mark.parametrize(
    "kernel",
    [
        gaussian(0.3), laplace(0.3), matern(0.4, 0.5), matern(0.4), matern(0.4, 2.5), cauchy(0.3), exponential("dot", -2.0),
        tophat(0.5), triangle(0.7), epanechnikov(0.7), biweight(0.8), triweight(0.8),
    ],
    ids=lambda k: f"{k.metric}-{k.profile}",
)  # fmt: skip
def test_keops_agrees_with_the_tiles(kernel: Kernel, convert: Any) -> None:
    rng = np.random.default_rng(0)
    x, y, v, b = rng.random((60, 3)), rng.random((80, 3)), rng.standard_normal((80, 2)), rng.standard_normal(80)
    p = Pairs(convert(x), convert(y), kernel, engine="keops")
    tiles = Pairs(x, y, kernel, engine="numpy")
    np.testing.assert_allclose(np.asarray(p.sum(convert(v))), tiles.sum(v), atol=1e-10)
    if kernel.profile in {"tophat", "triangle", "biweight", "triweight"}:
        with pytest.raises(InputError, match="compact"):
            p.logsumexp(convert(b))
        return
    np.testing.assert_allclose(np.asarray(p.logsumexp(convert(b))), tiles.logsumexp(b), atol=1e-10)
    values, _ = p.softmax_sum(convert(v), convert(b))
    np.testing.assert_allclose(np.asarray(values), tiles.softmax_sum(v, b)[0], atol=1e-10)
