"""Measurements against other libraries: ``python -m benchmarks report``, ``figures`` and ``compare``."""
