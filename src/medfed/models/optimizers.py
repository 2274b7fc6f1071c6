"""SGD and Adam over one flat vector.

``torch.optim`` would do, but building one of its optimizers imports a compiler (about a second), and a flat
vector needs one operation where a list of tensors needs many. Tests hold both to ``torch.optim``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from medfed.core.messages import Message, Vector
from medfed.spec.task import FederationSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class OptimizerState(Message, wire="training.optimizer_state"):
    """What an optimizer carries from one round to the next: its step count and its moment vectors."""

    steps: int
    moments: tuple[Vector, ...]


class Optimizer(Protocol):
    """Steps ``weights`` in place along ``gradient``."""

    def step(self, weights: torch.Tensor, gradient: torch.Tensor, lr: float) -> None:
        """One step; ``gradient`` may be used as scratch space."""
        ...

    def state(self) -> OptimizerState:
        """What it carries on, in its own memory: a later step changes it."""
        ...


class SGD:
    """w ← w − lr·v with v ← momentum·v + g + weight_decay·w (Sutskever et al. 2013, in PyTorch's form)."""

    def __init__(
        self, weight_decay: float, momentum: float, state: OptimizerState | None, device: torch.device | None = None
    ) -> None:
        self._weight_decay = weight_decay
        self._momentum = momentum
        self._steps = state.steps if state else 0
        self._velocity = _tensors(state, device)[0] if state and state.moments else None

    def step(self, weights: torch.Tensor, gradient: torch.Tensor, lr: float) -> None:
        """One step; ``gradient`` is used as scratch space."""
        self._steps += 1
        if self._weight_decay:
            gradient.add_(weights, alpha=self._weight_decay)
        if self._momentum:
            if self._velocity is None:
                self._velocity = gradient.clone()
            else:
                self._velocity.mul_(self._momentum).add_(gradient)
            gradient = self._velocity
        weights.add_(gradient, alpha=-lr)

    def state(self) -> OptimizerState:
        """The velocity, if there is one."""
        return _state(self._steps, () if self._velocity is None else (self._velocity,))


class Adam:
    """Kingma & Ba 2015, Algorithm 1 (β₁ = 0.9, β₂ = 0.999, ε = 1e-8), weight decay added to the gradient."""

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, weight_decay: float, state: OptimizerState | None, device: torch.device | None = None) -> None:
        self._weight_decay = weight_decay
        self._steps = state.steps if state else 0
        self._moments = _tensors(state, device) if state and state.moments else None

    def step(self, weights: torch.Tensor, gradient: torch.Tensor, lr: float) -> None:
        """One step; ``gradient`` is used as scratch space."""
        import torch

        if self._moments is None:
            self._moments = torch.zeros_like(weights), torch.zeros_like(weights)
        m, v = self._moments
        self._steps += 1
        if self._weight_decay:
            gradient.add_(weights, alpha=self._weight_decay)
        m.lerp_(gradient, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        v_corrected = torch.div(v, 1 - self.beta2**self._steps, out=gradient)
        weights.addcdiv_(m, v_corrected.sqrt_().add_(self.epsilon), value=-lr / (1 - self.beta1**self._steps))

    def state(self) -> OptimizerState:
        """The first and second moments."""
        return _state(self._steps, self._moments or ())


def local_optimizer(
    federation: FederationSpec, state: OptimizerState | None, device: torch.device | None = None
) -> Optimizer:
    """The task's optimizer, continued from ``state`` or fresh. device: where the weights are, if not on the CPU."""
    if federation.optimizer == "adam":
        return Adam(federation.weight_decay, state, device)
    return SGD(federation.weight_decay, federation.momentum, state, device)


def _tensors(state: OptimizerState, device: torch.device | None) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(torch.from_numpy(moment.copy()).to(device) for moment in state.moments)


def _state(steps: int, moments: tuple[torch.Tensor, ...]) -> OptimizerState:
    return OptimizerState(steps, tuple(moment.numpy(force=True) for moment in moments))
