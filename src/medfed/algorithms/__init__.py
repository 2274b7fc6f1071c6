"""Federated algorithms: one file each, both halves, and one plugin each under its file's name.

An algorithm that trains a network takes ``initial`` (flat weights), ``rounds`` and ``tolerance`` (stop when the
model's relative change in a round falls below it), then its own hyperparameters with their papers' defaults.
"""

from typing import Any

from medfed.core.protocols import Algorithm
from medfed.core.registry import Registry

ALGORITHMS: Registry[type[Algorithm[Any]]] = Registry("algorithm", "medfed.algorithms", "ALGORITHM")
