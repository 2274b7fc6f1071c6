"""Evaluation: per site as the site releases it, and federated from sums."""
