"""``cupyx.scipy`` of CuPy 13, as far as the package uses it."""
