"""The audit of a finished run: its task trained again on other rows, and the attacks of :mod:`medfed.attacks`."""
