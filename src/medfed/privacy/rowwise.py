"""Networks whose every operation treats each row of a batch by itself, so that one pass serves all rows.

A network is traced symbolically (``torch.fx``), and each operation found is looked up in short lists of those that keep
rows apart; with one that is on none of them the network is not taken. What a list leaves out is slower, never wrong:
such a network goes row by row.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import fx, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from medfed.core.errors import UserError

Operation: TypeAlias = Callable[..., torch.Tensor]

_PARAMETRIC = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.GroupNorm)
_PLAIN = (
    *(nn.Identity, nn.Dropout, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
_SUMS = (operator.add, operator.iadd, torch.add)
_OF_ONE = (torch.relu, torch.tanh, torch.sigmoid, functional.relu)


@dataclass(frozen=True, slots=True)
class Taken:
    """What one layer took in, (n, …), the shape of what it gave out, and where in autograd's graph that left it.

    The place is kept and not the outputs, for a later operation in place changes those.
    """

    layer: nn.Module
    entering: torch.Tensor
    version: int
    leaving: torch.Size
    left: GradientEdge


@dataclass(frozen=True, slots=True)
class _Step:
    """An operation on values before it, by their numbers. order: that of its layer's parameters, -1 without any."""

    operation: Operation
    values: tuple[int, ...]
    order: int


class RowwiseNetwork:
    """A traced network that keeps rows apart, and whose parameters each belong to a layer that is used once."""

    def __init__(self, module: nn.Module, steps: Sequence[_Step]) -> None:
        self._module = module
        self._steps = steps

    @classmethod
    def of(cls, module: nn.Module) -> RowwiseNetwork | None:
        """The network as it is in training; None where some operation is not known to keep rows apart."""
        if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
            return None
        root = nn.Sequential(module) if fx.Tracer().is_leaf_module(module, "") else module
        graph = _trace(root)
        steps = None if graph is None else _steps(graph, root)
        return None if steps is None or not _each_used_once(steps, module) else cls(module, steps)

    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, list[Taken]]:
        """Outputs (n, k), and what each layer with parameters took in, in the order of the network's parameters.

        Raises UserError where what a layer took in is changed in place later: its gradient cannot be known then.
        """
        values, taken = [features], []
        for step in self._steps:
            entering = [values[number] for number in step.values]
            found = step.operation(*entering)
            values.append(found)
            if isinstance(step.operation, nn.Module) and step.order >= 0:
                first = entering[0]
                place = get_gradient_edge(found)
                taken.append((step.order, Taken(step.operation, first.detach(), first._version, found.shape, place)))
        if any(each.entering._version != each.version for _, each in taken):
            raise _changed_in_place()
        return values[-1], [each for _, each in sorted(taken, key=lambda pair: pair[0])]

    def checked(self, features: torch.Tensor) -> list[Taken]:
        """What the layers take in of some rows, whose outputs were compared with those of the network itself.

        Raises UserError where they differ: the trace takes ``x += y`` for a sum that leaves x as it was, which matters
        where x is used again.
        """
        with torch.random.fork_rng(devices=[]):
            state = torch.get_rng_state()
            outputs, taken = self(features.clone())
            torch.set_rng_state(state)
            expected: torch.Tensor = self._module(features.clone())
        if not torch.allclose(outputs, expected, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise _changed_in_place()
        return taken


def _changed_in_place() -> UserError:
    return UserError(
        "the network changes values in place that others of its layers use, so no row's gradient can be formed",
        remedy="build it with inplace=False, and with `x = x + y` in place of `x += y`",
    )


def _trace(root: nn.Module) -> fx.Graph | None:
    """The network's operations in training; None where it cannot be traced, whatever that raises."""
    training = root.training
    root.train()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fx.Tracer().trace(root)
    except Exception:
        return None
    finally:
        root.train(training)


def _steps(graph: fx.Graph, root: nn.Module) -> list[_Step] | None:
    """The operations in turn; None where one is not known to make a row of each row, or a value is no rows."""
    rows: dict[object, int] = {}
    counts: set[object] = set()
    steps: list[_Step] = []
    order = {name: number for number, (name, _) in enumerate(root.named_modules())}
    for node in graph.nodes:
        if node.op == "placeholder" and not rows:
            rows[node] = 0
        elif node.op == "output" and rows.get(node.args[0]) == len(steps):
            return steps
        elif not node.args or node.args[0] not in rows:
            return None
        elif node.op == "call_method" and node.target == "size" and node.args[1:] == (0,):
            counts.add(node)
        else:
            operation = _operation(node, root, rows, counts)
            if operation is None:
                return None
            with_parameters = isinstance(operation, nn.Module) and any(p.requires_grad for p in operation.parameters())
            numbers = tuple(rows[each] for each in node.args if each in rows)
            steps.append(_Step(operation, numbers, order[str(node.target)] if with_parameters else -1))
            rows[node] = len(steps)
    return None


def _operation(node: fx.Node, root: nn.Module, rows: dict[object, int], counts: set[object]) -> Operation | None:
    """What the node does to its arguments that are rows, where they stay rows."""
    rest, plain = node.args[1:], not node.kwargs
    match node.op, node.target:
        case "call_module", name:
            layer = root.get_submodule(str(name))
            return layer if not rest and plain and _known(layer) else None
        case "call_function", function if function in _SUMS and len(rest) == 1 and rest[0] in rows and plain:
            return _in_place_sum if function is operator.iadd else _sum
        case "call_function", function if function in _OF_ONE and not rest and plain:
            return function
        case ("call_function", torch.flatten) | ("call_method", "flatten") if rest == (1,) and plain:
            return lambda value: value.flatten(1)
        case "call_method", "view" | "reshape" if len(rest) > 1 and rest[0] in counts:
            sizes = rest[1:]
            return _viewed(sizes) if all(type(size) is int for size in sizes) else None
    return None


def _viewed(sizes: tuple[object, ...]) -> Operation:
    return lambda value: value.reshape(len(value), *sizes)


def _sum(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    _check_dimensions(one, other)
    return one + other


def _in_place_sum(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    _check_dimensions(one, other)
    return one.add_(other)


def _check_dimensions(one: torch.Tensor, other: torch.Tensor) -> None:
    if one.dim() != other.dim():
        raise UserError(
            "the network adds values of different dimensions, which may mix the rows of a batch",
            remedy="bring both to one shape (n, …) before they are added",
        )


def _known(layer: nn.Module) -> bool:
    """Whether a layer treats each row by itself, and the gradient by its parameters, all or none, is known here."""
    if len({p.requires_grad for p in layer.parameters()}) > 1:
        return False
    if type(layer) is nn.Conv1d or type(layer) is nn.Conv2d or type(layer) is nn.Conv3d:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if type(layer) is nn.Flatten:
        return layer.start_dim == 1
    return type(layer) in _PARAMETRIC or type(layer) in _PLAIN


def _each_used_once(steps: Sequence[_Step], module: nn.Module) -> bool:
    """Whether each trained parameter of the module is in one call of one layer."""
    layers = [step.operation for step in steps if isinstance(step.operation, nn.Module)]
    used = [id(p) for layer in layers for p in layer.parameters() if p.requires_grad]
    return sorted(used) == sorted(id(p) for p in module.parameters() if p.requires_grad)
