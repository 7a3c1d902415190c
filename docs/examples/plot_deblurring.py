"""
Deblurring a photograph
=======================

A photograph out of focus is the sharp one averaged over a disc, plus noise. Undoing it is a least-squares problem with a matrix
that is never formed: the blur is two Fourier transforms, and so is its adjoint. Its small singular values turn noise into
stripes, so the problem is damped, ``min ||A x - b||^2 + damp^2 ||x||^2``, and the amount of damping must be found.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.fft import irfft2, rfft2
from sklearn.datasets import load_sample_image
from xpsolve.backends.operators import LinearOperator
from xpsolve.solvers.linear import lsqr

sharp = load_sample_image("china.jpg")[110:302, 180:436] / 255.0
height, width, colours = sharp.shape

# %%
# The blur. The transforms make it periodic, but only pixels whose whole disc lies in the picture were photographed: the
# others are cut off, and nothing is assumed about what is beyond the edge. The adjoint fills them with zeros and correlates.

radius = 4
rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
disc = (rows**2 + columns**2 <= (radius + 0.3) ** 2).astype(float)
disc[:, : radius - 1] *= 0.5  # an uneven aperture, so that the adjoint is not the blur itself
point = np.zeros((height, width))
point[: 2 * radius + 1, : 2 * radius + 1] = disc / disc.sum()
transfer = rfft2(np.roll(point, (-radius, -radius), axis=(0, 1)))[..., None]
seen = (slice(radius, height - radius), slice(radius, width - radius))
n, m = height * width, (height - 2 * radius) * (width - 2 * radius)


def filtered(picture, response):
    return irfft2(response * rfft2(picture, axes=(0, 1)), s=(height, width), axes=(0, 1))


def blur(x):
    return filtered(x.reshape(height, width, -1), transfer)[seen].reshape(m, -1)


def correlate(y):
    picture = np.zeros((height, width, y.size // m))
    picture[seen] = y.reshape(height - 2 * radius, width - 2 * radius, -1)
    return filtered(picture, transfer.conj()).reshape(n, -1)


A = LinearOperator(
    (m, n),
    lambda x: blur(x)[:, 0],
    rmatvec=lambda y: correlate(y)[:, 0],
    matmat=blur,
    rmatmat=correlate,
    dtype=sharp.dtype,
)
rng = np.random.default_rng(0)
x, y = rng.standard_normal(n), rng.standard_normal(m)
print(f"<A x, y> - <x, A^T y> = {(A @ x) @ y - x @ (A.H @ y):.1e}")

# %%
# The photograph: half a percent of noise. Damping pulls towards zero, so the mean colour is taken off first; the disc has sum
# one and leaves it as it is. The three colours are three right-hand sides of one problem.

noise = 0.005 * rng.standard_normal((m, colours))
photograph = blur(sharp) + noise
mean = photograph.mean(axis=0)
b = photograph - mean

# %%
# From strong damping to weak, each solution is the start of the next.

damps = np.logspace(-0.5, -2, 7)
x0, path = None, []
for damp in damps:
    result = lsqr(A, b, damp=float(damp), x0=x0, atol=1e-4, btol=1e-4)
    x0 = result.x
    misfit, size = np.linalg.norm(b - A @ result.x), np.linalg.norm(result.x)
    error = np.linalg.norm(result.x + mean - sharp.reshape(n, -1)) / np.linalg.norm(sharp)
    path.append((misfit, size, error, result))
    print(f"damp {damp:.4f}: {result.n_iter:3d} iterations, misfit {misfit:6.2f}, error {error:.3f}")

# %%
# How much damping? A solution that explains the photograph better than the noise allows explains the noise. The discrepancy
# principle takes the first one of the path that is as close as the noise is large, which is known here and often in practice.

level = np.linalg.norm(noise)
misfits, sizes, errors, results = zip(*path, strict=True)
chosen = next((i for i, misfit in enumerate(misfits) if misfit <= level), len(path) - 1)
print(f"noise {level:.2f}: damp {damps[chosen]:.4f}; the smallest error is at {damps[int(np.argmin(errors))]:.4f}")

figure, axes = plt.subplots(2, 2, figsize=(9, 7))
blurred = photograph.reshape(height - 2 * radius, width - 2 * radius, colours)
pictures = [
    ("photograph", blurred),
    (f"damp {damps[chosen]:.3g}: noise explained", results[chosen].x),
    (f"damp {damps[-1]:.3g}: noise amplified", results[-1].x),
]
for axis, (title, picture) in zip(axes.flat, pictures, strict=False):
    if picture is not blurred:
        picture = (picture + mean).reshape(height, width, colours)
    axis.imshow(np.clip(picture, 0, 1))
    axis.set(title=title, xticks=[], yticks=[])

curve = axes[1, 1]
curve.loglog(misfits, sizes, "o-", color="0.4")
curve.loglog(misfits[chosen], sizes[chosen], "o", color="C3", markersize=10)
curve.axvline(level, color="0.6", linestyle="--")
curve.annotate("noise", (level, max(sizes)), xytext=(4, 0), textcoords="offset points", color="0.4")
curve.set(xlabel="misfit ||A x - b||", ylabel="size ||x||", title="the damping path")
figure.tight_layout()
