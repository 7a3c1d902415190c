"""``cupy.linalg`` of CuPy 13: a failure passes silently, with wrong numbers, unless ``cupyx.errstate`` asks for an error."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .._array import on_device

ERRORS = {"linalg": "ignore"}


def _silent(f: Callable[..., Any], wrong: float) -> Callable[..., Any]:
    """``f``, whose answer to a singular matrix is full of ``wrong``."""

    def call(*args: Any, **options: Any) -> Any:
        try:
            return f(*args, **options)
        except np.linalg.LinAlgError:
            if ERRORS["linalg"] == "raise":
                raise
            return np.full_like(args[-1], wrong)

    return on_device(call)


_PLAIN = (
    *("det", "eigh", "eigvalsh", "lstsq", "matrix_power", "matrix_rank", "norm", "pinv", "qr", "slogdet", "svd"),
    *("tensorinv", "tensorsolve"),
)
__all__ = ["LinAlgError", "cholesky", "inv", "solve", *_PLAIN]

LinAlgError = np.linalg.LinAlgError
# The wrong factor of an indefinite matrix is finite: no look at NaN finds it.
cholesky, inv = _silent(np.linalg.cholesky, 7.0), _silent(np.linalg.inv, 7.0)
solve = _silent(np.linalg.solve, np.nan)
globals().update({name: on_device(getattr(np.linalg, name)) for name in _PLAIN})
