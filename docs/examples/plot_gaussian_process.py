"""
Gaussian process regression of a mountain range
===============================================

Heights at 20,000 randomly chosen points of a real elevation model, the Jacksboro fault in Tennessee; the others are
predicted. The kernel matrix would have 400 million entries: its products are sums over pairs, never stored, and the system is
solved by conjugate gradients with a Nystrom preconditioner.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data
from scipy.spatial import cKDTree
from xpsolve.backends.pairs import matern
from xpsolve.solvers.linear.structured import GaussianProcess

with get_sample_data("jacksboro_fault_dem.npz") as dem:
    elevation = dem["elevation"].astype(np.float32)
rows, columns = elevation.shape
points = (
    np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)
)
height = elevation.ravel()

# %%
# One point in seven is known; the rest is held out.

rng = np.random.default_rng(0)
order = rng.permutation(points.shape[0])
known, held_out = order[:20_000], order[20_000:]
mean, spread = height[known].mean(), height[known].std()

# %%
# A Matern kernel, once differentiable like an eroded surface, 20 cells wide; noise of a tenth of the spread. In float32, with
# residuals in float64.

start = time.perf_counter()
process = GaussianProcess(matern(20.0, 1.5), noise=1e-2, rank=256, rtol=1e-3, rng=0)
process.fit(points[known], (height[known] - mean) / spread)
print(process.model)
predicted = mean + spread * process.predict(points)
print(f"fitted and predicted in {time.perf_counter() - start:.0f} s")

# %%
# Against the height of the nearest known point.

nearest = height[known][cKDTree(points[known]).query(points)[1]]


def error(guess: np.ndarray) -> float:
    """Root mean square error on the points held out, in metres."""
    return float(np.sqrt(np.mean((guess[held_out] - height[held_out]) ** 2)))


print(f"error: {error(predicted):.1f} m, of the nearest point {error(nearest):.1f} m, of the mean {spread:.1f} m")

# %%
# The map, what is missed, and one row of it.

figure, axes = plt.subplots(2, 2, figsize=(9, 7))
for axis, values, title in (
    (axes[0, 0], elevation, "elevation (m)"),
    (axes[0, 1], predicted.reshape(rows, columns), "predicted from 20,000 points"),
    (axes[1, 0], np.abs(predicted - height).reshape(rows, columns), "absolute error (m)"),
):
    image = axis.imshow(values, cmap="magma" if "error" in title else "terrain")
    axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(image, ax=axis, shrink=0.7)
profile = axes[1, 1]
profile.plot(elevation[170], "k", linewidth=0.8, label="true")
profile.plot(predicted.reshape(rows, columns)[170], label="predicted")
profile.set(title="row 170", xlabel="column", ylabel="m")
profile.legend()
figure.tight_layout()
