"""Audits that got nothing, and that got much."""

from __future__ import annotations

from dataclasses import replace

from medfed.attacks.results import (
    Audit,
    Canaries,
    Inversion,
    Labels,
    Membership,
    Picture,
    Proportion,
    Reconstruction,
    Success,
)

NONE, ALL = Proportion(0, 40, 0.0, 0.09), Proportion(40, 40, 0.91, 1.0)
GUESS = Success(0.5, 0.48, 0.52, 0.01, 0.011, 0.005, 0.02, (0.01, 1.0), (0.011, 1.0))
SURE = replace(GUESS, auc=0.9, auc_low=0.88, auc_high=0.92, tpr=0.4, tpr_low=0.3, tpr_high=0.5)
QUIET = Audit(
    medfed="0.1.0",
    run="r",
    task_digest="9f",
    name="heart <script>alert(1)</script>",
    strategy="fedavg",
    seed=1,
    quick=False,
    simulation=True,
    total=False,
    attacked=4,
    seconds=65.0,
    inversion=Inversion(NONE, NONE, 12, 5),
    labels=Labels(NONE, 0.6, 0.3, 0.3),
    reconstruction=Reconstruction((Picture(9.0, 11.0, False),), 30, 1000),
    membership=Membership(16, 0.5, 300, GUESS, GUESS),
    canary=Canaries(8, 240, 120, 60, 0.95, 1e-5, 0.0, 3.0),
)
LOUD = replace(
    QUIET,
    inversion=Inversion(ALL, replace(ALL, count=3), 12, 1),
    labels=Labels(ALL, 0.6, 0.02, 0.3),
    reconstruction=Reconstruction((Picture(31.0, 11.0, True),), 30, 1000),
    membership=Membership(16, 0.5, 300, SURE, None),
    canary=Canaries(8, 240, 120, 118, 0.95, 1e-5, 2.7, None),
)
