"""The audit of a finished run: its task trained again on changed rows, and the attacks of :mod:`medfed.audit` on it."""
