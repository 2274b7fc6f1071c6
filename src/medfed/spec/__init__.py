"""Floor 1: task, site and consortium files as typed, frozen models; every error carries ``file:line``."""
