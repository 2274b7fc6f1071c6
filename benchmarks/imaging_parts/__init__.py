"""The parts of ``python -m benchmarks.imaging``: accuracy, and the time of a round."""
