"""
Densities of digits and novelty scores
======================================

A kernel density of handwritten digits after a projection on principal components. What has a low density is unusual: digits
that are seldom written so, and pictures that are no digits at all.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from xpsolve.solvers.kde import GaussianKDE

digits = load_digits()
data = digits.data / 16.0
mean = data.mean(axis=0)
_, _, axes = np.linalg.svd(data - mean, full_matrices=False)
z = (data - mean) @ axes[:6].T
train, test = z[:1200], z[1200:]

# %%
# The bandwidth with the largest leave-one-out likelihood: each digit is scored by all the others.

bandwidths = np.geomspace(0.1, 1.0, 9)
scores = [float(GaussianKDE(train, bandwidth=float(h)).loo_log_likelihood()) for h in bandwidths]
best = float(bandwidths[int(np.argmax(scores))])
kde = GaussianKDE(train, bandwidth=best)

# %%
# Novelty scores of digits that were not seen, and of the same digits with their pixels shuffled.

rng = np.random.default_rng(0)
shuffled = (rng.permuted(data[1200:], axis=1) - mean) @ axes[:6].T
seen, unseen, noise = kde.log_density(train), kde.log_density(test), kde.log_density(shuffled)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.semilogx(bandwidths, scores, "o-")
left.axvline(best, color="0.6", linestyle="--")
left.set(xlabel="bandwidth", ylabel="mean leave-one-out log-likelihood")
bins = np.linspace(min(noise.min(), unseen.min()), seen.max(), 40)
for values, name in ((unseen, "new digits"), (noise, "shuffled pixels")):
    right.hist(values, bins=bins, alpha=0.6, label=name, density=True)
right.set(xlabel="log-density")
right.legend()
figure.tight_layout()

# %%
# The new digits with the lowest density, in the first row, and the highest, in the second.

order = np.argsort(unseen)
rows = [np.hstack([digits.images[1200 + i] for i in picked]) for picked in (order[:8], order[-8:])]
figure, axis = plt.subplots(figsize=(8, 2.2))
axis.imshow(np.vstack(rows), cmap="gray_r")
axis.set(xticks=[], yticks=[], title="unusual, usual")
figure.tight_layout()
