"""``cupy.RawKernel``, for the two kernels of the engine "cupy-fused": what they compute, and what a launch must look like."""

from typing import Any

import numpy as np

from ._array import ndarray

_REALS = {"float": np.float32, "double": np.float64}
_METRICS = {
    "0": lambda x, y: ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2),
    "1": lambda x, y: np.sqrt(((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2)),
    "2": lambda x, y: np.abs(x[:, None, :] - y[None, :, :]).sum(axis=2),
    "3": lambda x, y: x @ y.T,
}


class RawKernel:
    """The kernel of that name; the source is not compiled."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        assert f"void {name}(" in code
        self.name, self.defined = name, dict(option.removeprefix("-D").split("=") for option in options)

    def __call__(self, grid: tuple[int, int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        tile, parts, real = int(self.defined["TILE"]), grid[1], _REALS[self.defined["REAL"]]
        arrays = [a for a in arguments if isinstance(a, ndarray)]
        n, m, scale, *lowest = arguments[len(arrays) :]
        assert all(a.flags.c_contiguous for a in arrays), "a kernel reads memory in the order of C"
        assert [a.dtype for a in arrays] == [real, real, real, real, np.float64, real][: len(arrays)]
        # A Python number would be passed in eight bytes whatever the kernel declares.
        assert [type(a) for a in (n, m, scale, *lowest)] == [np.int64, np.int64, *[real] * (1 + len(lowest))]
        x, y, c, v, out, *tops = (a._host for a in arrays)
        d, r = int(self.defined["D"]), int(self.defined["R"])
        assert (x.shape, y.shape, c.shape, v.shape) == ((n, d), (m, d), (m,), (m, r))
        assert out.shape == (parts, n, r)
        assert block == (tile,)
        assert grid[0] * tile >= n

        with np.errstate(all="ignore"):
            t = c - scale * _METRICS[self.defined["METRIC"]](x, y)
            if self.defined["SELF"] == "1":
                np.fill_diagonal(t, 2 * lowest[0] if lowest else -np.inf)
            for part in range(parts):
                mine = (np.arange(m) // tile) % parts == part  # every parts-th tile
                top = np.zeros(n, dtype=real)
                if self.name == "pair_online":
                    top = np.maximum(t[:, mine].max(axis=1, initial=lowest[0]), lowest[0]).astype(real)
                    tops[0][part] = top
                out[part] = np.exp2(t[:, mine] - top[:, None]).astype(float) @ v[mine].astype(float)
