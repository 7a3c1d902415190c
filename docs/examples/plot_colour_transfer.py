"""
Colour transfer between two photographs
=======================================

Two thousand pixels of each photograph are two clouds of points in RGB space. The entropic transport plan between the clouds
says which colour becomes which; it is never stored, and it extends to all the other pixels.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from xpsolve.solvers.ot import PointCloud, sinkhorn

source = load_sample_image("china.jpg")[::4, ::4] / np.float32(255)
target = load_sample_image("flower.jpg")[::4, ::4] / np.float32(255)

rng = np.random.default_rng(0)
x = rng.choice(source.reshape(-1, 3), 2000, replace=False)
y = rng.choice(target.reshape(-1, 3), 2000, replace=False)

# %%
# float32 in, float32 out. The regularisation is the square of a blur of 0.1 in units of colour.

result = sinkhorn(PointCloud(x, y), reg=0.1**2, tol=1e-3)
print(result)

# %%
# Every pixel of the source moves to the mean of the colours that the plan gives it.

moved = result.transport(source.reshape(-1, 3))
recoloured = np.clip(moved, 0.0, 1.0).reshape(source.shape)

figure, axes = plt.subplots(1, 3, figsize=(11, 3))
for axis, image, title in zip(axes, (source, target, recoloured), ("source", "target", "recoloured"), strict=True):
    axis.imshow(image)
    axis.set(title=title, xticks=[], yticks=[])
figure.tight_layout()

# %%
# The marginal error at each check.

figure, axis = plt.subplots(figsize=(6, 3))
axis.semilogy(result.history)
axis.axhline(result.tolerance, color="0.6", linestyle="--")
axis.set(xlabel="check", ylabel="marginal error")
figure.tight_layout()
