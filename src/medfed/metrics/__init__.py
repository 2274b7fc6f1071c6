"""Metrics as pure functions, exact at a site, and as sums that merge over sites."""
