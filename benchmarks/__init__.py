"""Measurements: each is run as ``python -m benchmarks.NAME`` and prints what it measured beside its peer."""
