"""Several simulated sites trained at once: one batched operation where each site alone would need its own.

Sites of a stack start a round from the same weights. Their weights are then tensors with a leading axis of sites,
and update u of every site is one update of the stack: its batches are padded to one shape, and rows that are padding
have the coefficient 0 in the loss.
"""

from medfed.models.stacked.eligibility import can_stack
from medfed.models.stacked.padding import Member
from medfed.models.stacked.trainer import StackTrainer

__all__ = ["Member", "StackTrainer", "can_stack"]
