"""The key of simulated runs."""

from __future__ import annotations

from medfed.govern.keys import SigningKey, home, load_or_create_key


def simulation_key() -> SigningKey:
    """The key that signs the ledgers of simulated runs; made at first use, outside every run folder."""
    return load_or_create_key(home() / "keys", "simulation")
