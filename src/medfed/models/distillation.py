"""Learning from a teacher's answers beside the labels.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Examples
from medfed.models.loss import Loss
from medfed.models.network import Network
from medfed.models.training import one_thread, outputs_in_parts

if TYPE_CHECKING:
    import torch

Answers: TypeAlias = "Callable[[NDArray[np.int64], torch.Tensor], torch.Tensor]"
"""(indices of a batch's rows (n,), its inputs (n, …)) → the teacher's outputs for them (n, k)."""


@dataclass(frozen=True)
class Teaching:
    """What a teacher adds to the loss of local training. temperature: T. alpha: α, the weight of its answers."""

    temperature: float
    alpha: float
    answers: Answers

    def beside(self, loss: Loss, batch: NDArray[np.int64], inputs: torch.Tensor) -> Loss:
        """α·T²·KL(teacher ‖ student) + (1 − α)·loss, on this batch."""
        taught = self.answers(batch, inputs)

        def both(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            divergence = softened_divergence(outputs, taught, self.temperature)
            return self.alpha * divergence + (1 - self.alpha) * loss(outputs, targets)

        return both


def softened_divergence(outputs: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """T²·KL(softmax(v/T) ‖ softmax(z/T)), the mean over rows, of a student's outputs z and a teacher's v, both (n, k).

    T² keeps the gradient's size whatever T is. One output stands for two classes, of which the first has the logit 0.
    """
    from torch.nn import functional

    student, teacher = (functional.log_softmax(_by_class(each) / temperature, dim=-1) for each in (outputs, taught))
    return temperature**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _by_class(outputs: torch.Tensor) -> torch.Tensor:
    import torch

    return outputs if outputs.shape[-1] > 1 else torch.cat((torch.zeros_like(outputs), outputs), dim=-1)


@one_thread()
def answers(teacher: Network, examples: Examples) -> NDArray[np.float32]:
    """The teacher's outputs for all rows, shape (n, k)."""
    import torch

    found: NDArray[np.float32] = torch.cat(list(outputs_in_parts(teacher, examples.features))).numpy()
    return found[: len(examples)]


def prepared_answers(known: NDArray[np.float32], device: torch.device) -> Answers:
    """Answers out of those for all rows."""
    import torch

    return lambda batch, _: torch.from_numpy(known[batch]).to(device)


def answers_to_batch(teacher: Network) -> Answers:
    """Answers to each batch as it comes."""
    import torch

    teacher.module.eval()

    def answer(_: NDArray[np.int64], inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            outputs: torch.Tensor = teacher.module(teacher.laid_out(inputs))
        return outputs

    return answer
