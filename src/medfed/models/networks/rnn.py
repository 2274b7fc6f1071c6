"""A recurrent network for time series: GRU (Cho et al. 2014) or LSTM (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TASKS = ("classification", "regression")


def build(
    input_shape: tuple[int, ...], outputs: int, *, cell: str = "gru", hidden: int = 64, layers: int = 1
) -> torch.nn.Module:
    """Layers of recurrent cells over inputs of shape (times, variables), then a linear layer over the last state.

    cell: ``gru`` or ``lstm``. hidden: the length of a layer's state. Raises ValueError for others, and for inputs of
    another shape.
    """
    from torch import nn

    kinds: dict[str, Callable[..., nn.Module]] = {"gru": nn.GRU, "lstm": nn.LSTM}
    if len(input_shape) != 2:
        raise ValueError("rnn takes time series: model.input_size is [times, variables]")
    if cell not in kinds:
        raise ValueError("cell is `gru` or `lstm`")
    if any(type(number) is not int or number < 1 for number in (hidden, layers)):
        raise ValueError("hidden and layers are whole numbers from 1 on")

    class LastState(nn.Module):
        """The recurrent layers, and the outputs from their last state."""

        def __init__(self) -> None:
            super().__init__()
            self.recurrent = kinds[cell](input_shape[1], hidden, layers, batch_first=True)
            self.output = nn.Linear(hidden, outputs)

        def forward(self, series: torch.Tensor) -> torch.Tensor:
            states, _ = self.recurrent(series)
            found: torch.Tensor = self.output(states[:, -1])
            return found

    return LastState()
