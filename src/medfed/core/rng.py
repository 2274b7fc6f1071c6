"""Randomness: every generator derives from (task seed, and what it is for), never from a global state.

The same names give the same stream whatever the engine, the order of calls or the number of workers. Keys,
masks and the noise of differential privacy never come from here: those are cryptographic and unseeded.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_sequence(seed: int, *names: str | int) -> np.random.SeedSequence:
    """The seed sequence of (seed, names); names are told apart by type and hashed, so no two collide."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    width = 4 * max(1, -(-seed.bit_length() // 32))
    return np.random.SeedSequence(np.frombuffer(seed.to_bytes(width, "little") + digest, np.uint32))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64) for (seed, names)."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, *names)))


def torch_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for ``torch.manual_seed``, where a layer (dropout, say) draws from torch's own stream."""
    return int(seed_sequence(seed, *names).generate_state(1, np.uint64)[0] >> np.uint64(1))
