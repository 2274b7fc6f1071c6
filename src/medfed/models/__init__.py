"""Networks, and the one local training loop."""
