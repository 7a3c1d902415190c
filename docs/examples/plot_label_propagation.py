"""
Label propagation on handwritten digits
=======================================

Twenty digits carry a label, the others none. On the graph that joins each digit to its nearest neighbours, the labels spread
as the harmonic function: each unlabelled digit takes the weighted mean of its neighbours. That is one symmetric positive
definite system with ten right-hand sides, solved by conjugate gradients.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sps
from sklearn.datasets import load_digits
from xpsolve.backends.pairs import nearest
from xpsolve.solvers.linear import cg

digits = load_digits()
x, label = digits.data / 16.0, digits.target
n = x.shape[0]

# %%
# The graph: eight nearest neighbours, the first of nine being the digit itself, with Gaussian weights.

k = 9
neighbour, squared = nearest(x, x, k)
weight = np.exp(-squared[:, 1:] / np.median(squared[:, 1:]))
rows = np.repeat(np.arange(n), k - 1)
W = sps.csr_array((weight.ravel(), (rows, neighbour[:, 1:].ravel())), shape=(n, n))
W = W.maximum(W.T)
L = sps.csr_array(sps.diags_array(W.sum(axis=1)) - W)

# %%
# Two labelled digits of each class; the system on the others, ten columns at once. The diagonal is the preconditioner.

rng = np.random.default_rng(0)
known = np.concatenate([rng.choice(np.flatnonzero(label == c), 2, replace=False) for c in range(10)])
free = np.setdiff1d(np.arange(n), known)
A = sps.csr_array(L[free][:, free])
b = -(L[free][:, known] @ np.eye(10)[label[known]])

diagonal = A.diagonal()
result = cg(A, b, rtol=1e-8, M=sps.diags_array(1.0 / diagonal))
print(result)

predicted = np.argmax(result.x, axis=1)
accuracy = np.mean(predicted == label[free])
print(f"{accuracy:.1%} of {free.size} unlabelled digits from {known.size} labels")

# %%
# How the residual fell, and the digits that the graph is least sure of.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.semilogy(result.history)
left.axhline(result.tolerance, color="0.6", linestyle="--")
left.set(xlabel="iteration", ylabel="residual", title="conjugate gradients")

unsure = np.argsort(np.max(result.x, axis=1))[:12]
mosaic = np.block([[digits.images[free[unsure[4 * i + j]]] for j in range(4)] for i in range(3)])
right.imshow(mosaic, cmap="gray_r")
right.set(title="least certain digits", xticks=[], yticks=[])
figure.tight_layout()
