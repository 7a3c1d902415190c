"""
Barycenters of handwritten digits
=================================

The mean of images of one digit, pixel by pixel, is a blur. The Wasserstein barycenter moves mass instead: it is the image that
is nearest, in transport cost, to all of them. The entropy that makes it fast adds a blur of its own; the debiased barycenter
takes that away.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from xpsolve.solvers.ot import barycenter, grid_costs

digits = load_digits()
chosen, count, zoom = 3, 12, 3
images = digits.images[digits.target == chosen][:count]

# %%
# Each image as a distribution on a finer grid, with a little mass everywhere.

A = np.kron(images, np.ones((zoom, zoom)))
A += 1e-3 * A.mean()
A /= A.sum(axis=(1, 2), keepdims=True)

# %%
# The cost is the squared distance, a sum over the two axes: the kernel is applied along rows and columns, and no matrix of all
# pairs of pixels exists.

axes = grid_costs(A.shape[1:], like=A)
reg = 2e-3
plain = barycenter(A, axes, reg=reg, tol=1e-6)
sharp = barycenter(A, axes, reg=reg, debiased=True, tol=1e-6)
print(plain)
print(sharp)

# %%
# How concentrated each is: the entropy of a distribution, in bits, against that of the digits themselves.


def bits(p):
    return -(p * np.log2(np.maximum(p, 1e-300))).sum()


print(f"digits {np.mean([bits(p) for p in A]):.2f}, mean {bits(A.mean(axis=0)):.2f}, "
      f"barycenter {bits(plain.p):.2f}, debiased {bits(sharp.p):.2f} bits")  # fmt: skip

figure, panels = plt.subplots(1, 4, figsize=(10, 2.8))
titles = ("one digit", "mean of pixels", "barycenter", "debiased")
for panel, image, title in zip(panels, (A[0], A.mean(axis=0), plain.p, sharp.p), titles, strict=True):
    panel.imshow(image, cmap="gray_r")
    panel.set(title=title, xticks=[], yticks=[])
figure.tight_layout()
