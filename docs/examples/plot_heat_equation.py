"""
A heat equation with recycling
==============================

Implicit time steps solve one linear system after another, each a little different from the last: here a plate with metal
inclusions, whose conductivity falls as it heats up. Each inclusion is a slow mode that a Krylov method has to find. What one
solve has learnt about them helps the next, so long as the solver remembers it.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sps
from xpsolve.backends.operators import FivePoint
from xpsolve.solvers.linear import cg, deflated_cg, gcrodr, gmres
from xpsolve.solvers.linear.preconditioners import jacobi

# %%
# The plate: 70 x 70 inner nodes, sixteen inclusions that conduct a thousand times better, two heaters, edges held at zero. The
# conductivity depends on the temperature, so the matrix changes with every step.

s, steps, dt = 70, 25, 0.02
x = np.linspace(0.0, 1.0, s + 2)
X, Y = np.meshgrid(x, x, indexing="ij")
inclusions = (np.abs(4 * X % 1.0 - 0.5) < 0.3) & (np.abs(4 * Y % 1.0 - 0.5) < 0.3)
base = np.where(inclusions, 1000.0, 1.0)
heaters = np.exp(-200 * ((X - 0.25) ** 2 + (Y - 0.3) ** 2)) + np.exp(-200 * ((X - 0.8) ** 2 + (Y - 0.7) ** 2))
f = 100.0 * heaters[1:-1, 1:-1].ravel()
h2 = (x[1] - x[0]) ** 2


def system(u):
    """The matrix of one step from the temperature ``u``, multiplied by ``h^2 / dt``."""
    full = np.zeros((s + 2, s + 2))
    full[1:-1, 1:-1] = u.reshape(s, s)
    stiffness = FivePoint.diffusion(base / (1.0 + 0.3 * full)).to_scipy()
    return sps.csr_array(stiffness + (h2 / dt) * sps.eye_array(s * s))


# %%
# The same steps with four solvers, all from the last temperature and with the same simple preconditioner. Two of them pass on
# what they have learnt (``recycle``), and the products that renew it for the new matrix are counted.


def march(solver, **options):
    u, kept, products = np.zeros(s * s), None, []
    for _ in range(steps):
        A = system(u)
        b = (h2 / dt) * u + h2 * f
        if solver in (deflated_cg, gcrodr):
            result = solver(A, b, M=jacobi(A), x0=u, rtol=1e-8, recycle=kept, **options)
            kept = result.recycle
        else:
            result = solver(A, b, M=jacobi(A), x0=u, rtol=1e-8, **options)
        u = result.x
        products.append(result.evaluations["matvec"])
    return u, products


runs = {
    "cg": march(cg),
    "deflated_cg": march(deflated_cg, k=20, ell=40),
    "gmres(40)": march(gmres, restart=40),
    "gcrodr(40, 20)": march(gcrodr),
}
for name, (_, products) in runs.items():
    print(f"{name:15} {sum(products):6d} products in {steps} steps")

# %%
# The temperature at the end, and what each step cost.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
image = left.imshow(runs["cg"][0].reshape(s, s).T, origin="lower", cmap="inferno")
figure.colorbar(image, ax=left)
left.set(title=f"temperature after {steps} steps", xticks=[], yticks=[])
for name, (_, products) in runs.items():
    right.plot(range(1, steps + 1), products, label=name)
right.set(xlabel="time step", ylabel="products with the matrix", yscale="log")
right.legend()
figure.tight_layout()
