"""From a task's ``model`` section to a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from medfed.core.errors import UserError
from medfed.core.registry import Registry
from medfed.models.device import Device, resolve_device
from medfed.models.network import Network
from medfed.spec.task import ModelSpec, Plugin

if TYPE_CHECKING:
    import torch

    from medfed.core.messages import Vector

MODELS: Registry[Callable[..., torch.nn.Module]] = Registry("model", "medfed.models.networks", "build")

_USUAL_TASKS = ("classification", "regression")
"""Of a model that does not say what it does."""


def check_options(spec: Plugin, task_type: str) -> None:
    """Raise UserError where the model does not do this type of task, or does not take an option it is given."""
    factory = MODELS.get(spec.name)
    tasks = getattr(inspect.getmodule(factory), "TASKS", _USUAL_TASKS)
    if task_type not in tasks:
        raise UserError(
            f"the model {spec.name!r} does not do {task_type}", remedy=f"{spec.name} does: {', '.join(tasks)}"
        )
    options = _options(factory)
    if any(p.kind is p.VAR_KEYWORD for p in options):
        return
    known = [p.name for p in options]
    for option in spec.options:
        if option not in known:
            raise UserError(
                f"the model {spec.name!r} has no option {option!r}",
                remedy=f"options of {spec.name}: {', '.join(known) or 'none'}",
            )


def _options(factory: Callable[..., torch.nn.Module]) -> list[inspect.Parameter]:
    _input_shape, _outputs, *options = inspect.signature(factory).parameters.values()
    return options


def build_network(
    spec: Plugin, input_shape: tuple[int, ...], outputs: int, seed: int, weights: Vector | None = None
) -> Network:
    """The task's network with its library's default initialisation under ``torch.manual_seed(seed)``, or over weights.

    Torch's global random state is left as it was. Raises UserError for options or shapes the model cannot take,
    CodecError for another model's weights.
    """
    import torch

    factory = MODELS.get(spec.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = factory(input_shape, outputs, **spec.options)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the model {spec.name!r} cannot be built: {error}", remedy=_as_usual(spec.name, factory)
            ) from error
    return Network(module, weights)


def _as_usual(name: str, factory: Callable[..., torch.nn.Module]) -> str:
    """A remedy that shows a model's options by their defaults."""
    usual = [f"{p.name}: {_written(p.default)}" for p in _options(factory) if p.default is not p.empty]
    shown = f"; its options by default: {', '.join(usual)}" if usual else ""
    return f"mend its options, or model.input_size{shown}"


def _written(value: object) -> str:
    return str(list(value) if isinstance(value, tuple) else value)


def outputs_for(classes: int) -> int:
    """The outputs of a network: one value or logit for regression (0 classes) and two classes, else one a class."""
    return classes if classes > 2 else 1


class NetworkCache:
    """The networks of one process: sites of one task take turns with one, each loading its own weights."""

    def __init__(self, spec: ModelSpec, seed: int, device: Device = "cpu") -> None:
        """device: where the networks that take turns compute, as the task says it."""
        self._spec = spec
        self._seed = seed
        self._device = device
        self._networks: dict[tuple[tuple[int, ...], int], Network] = {}

    def get(self, input_shape: tuple[int, ...], classes: int) -> Network:
        """The network for these inputs and classes; its weights are whatever was loaded last."""
        key = (tuple(input_shape), classes)
        if key not in self._networks:
            network = self.fresh(*key)
            network.move(resolve_device(self._device))
            self._networks[key] = network
        return self._networks[key]

    def fresh(self, input_shape: tuple[int, ...], classes: int) -> Network:
        """A new network, which has the weights that training starts from; nobody else has it."""
        return build_network(self._spec, tuple(input_shape), outputs_for(classes), self._seed)
