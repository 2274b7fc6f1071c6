"""Secure aggregation by double masking: Bonawitz et al. 2017 (ACM CCS), with the graph of Bell et al. 2020.

Each site hides its contribution x_u under masks that cancel in the sum over all sites::

    y_u = x_u + PRG(b_u) + Σ_{v > u} PRG(s_uv) − Σ_{v < u} PRG(s_uv)    (mod 2^w)

Before that it shares b_u and the private key behind its s_uv among the others, any t of whom can give one of the two
back: b_u of a site whose contribution arrived, the key of one that dropped out after it had shared. Nobody gives both.
The docs (explanation/secure-aggregation.md) state who learns what from whom.
"""
