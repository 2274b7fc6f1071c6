"""The parts of ``python -m benchmarks.simulation``: workloads, the raw loop, our bodies, the peers', and the meter."""
