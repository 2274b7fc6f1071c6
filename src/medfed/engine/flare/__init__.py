"""The engine over NVIDIA FLARE; the only place that imports nvflare."""
