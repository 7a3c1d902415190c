"""Measurements against other libraries: ``python -m benchmarks report`` and ``python -m benchmarks figures``."""
