"""The parts of ``python -m benchmarks.distributed``: MedFed's deployed rounds, and their peers."""
