"""Recording the operations that a function of tensors comes down to.

``make_fx`` does the same for more kinds of functions, but imports a compiler for it (about a second).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def record(function: Callable[..., Sequence[torch.Tensor]], arguments: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
    """The operations of ``function`` as a module, which does them again for other arguments of the same shapes.

    Tensors that are neither arguments nor computed from them are constants of the module.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map

    tape = _Tape()
    for number, argument in enumerate(arguments):
        tape.remember(argument, tape.graph.placeholder(f"argument_{number}"))

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        @classmethod
        def _should_skip_dynamo(cls) -> bool:  # which would import it first
            return False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nodes = tree_map(tape.node_of, (args, kwargs or {}))
            result = func(*args, **(kwargs or {}))
            tape.remember(result, tape.graph.call_function(func, *nodes))
            return result

    with Recorder():  # type: ignore[no-untyped-call]
        results = function(*arguments)
    tape.graph.output(tuple(tape.node_of(result) for result in results))
    tape.graph.eliminate_dead_code()
    return torch.fx.GraphModule(tape.constants, tape.graph)


class _Tape:
    """A graph, and the node of every tensor met so far, each kept alive so that its identity stays its own."""

    def __init__(self) -> None:
        import torch

        self.graph = torch.fx.Graph()
        self.constants = torch.nn.Module()
        self._met: dict[int, tuple[torch.Tensor, torch.fx.Node]] = {}

    def remember(self, result: Any, node: torch.fx.Node) -> None:
        import torch

        if isinstance(result, torch.Tensor):
            self._met[id(result)] = result, node
        elif isinstance(result, (tuple, list)):
            for number, part in enumerate(result):
                self.remember(part, self.graph.call_function(operator.getitem, (node, number)))

    def node_of(self, value: Any) -> Any:
        import torch

        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self._met:
            name = f"constant_{len(self._met)}"
            self.constants.register_buffer(name, value)
            self.remember(value, self.graph.get_attr(name))
        return self._met[id(value)][1]
