"""Floor 0: messages and their codec, errors, randomness, registries, and the protocols between floors."""
