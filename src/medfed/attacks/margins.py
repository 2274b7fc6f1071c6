"""How sure a model is of a row's own target: the score of membership inference and of canaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Examples
from medfed.models.network import Network
from medfed.models.training import one_thread

if TYPE_CHECKING:
    import torch

_ROWS = 512
_NEAR = 1e-12


def margins(network: Network, examples: Examples) -> NDArray[np.float64]:
    """(n,): φ = log p_y − log(1 − p_y), from the network's outputs, so that nothing saturates; for regression, whose
    targets are no classes, −log of the squared error."""
    import torch

    network.module.eval()
    parts = torch.split(torch.from_numpy(examples.features), _ROWS)
    with torch.no_grad(), one_thread():
        outputs = torch.cat([network.module(part.clone()) for part in parts]).double()
        found: NDArray[np.float64] = _margins(outputs, examples.targets).numpy()
    return found


def _margins(outputs: torch.Tensor, targets: NDArray[np.generic]) -> torch.Tensor:
    import torch

    truth = torch.from_numpy(targets)
    if truth.is_floating_point():
        return -((outputs.squeeze(-1) - truth) ** 2 + _NEAR).log()
    if outputs.shape[-1] == 1:
        return outputs.squeeze(-1) * (2 * truth - 1)
    own = outputs.gather(-1, truth[:, None])
    return own.squeeze(-1) - outputs.scatter(-1, truth[:, None], -torch.inf).logsumexp(-1)
