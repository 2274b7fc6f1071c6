"""Initial weights out of a safetensors file: never a pickle, which could run code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medfed.core.errors import UserError
from medfed.models.layers import flat_tensors, head_of, matching
from medfed.spec.task import Pretrained

if TYPE_CHECKING:
    import torch

    from medfed.models.network import Network

_NAMED = 6
"""Tensors that an error names, at most."""


def load_pretrained(network: Network, content: bytes, start: Pretrained) -> None:
    """Give a network the weights of a file; layers that are to start afresh keep theirs.

    Raises UserError, which names the tensors, where names or shapes differ, for numbers that are not finite, and for
    another kind of file.
    """
    tensors, module = tensors_of(content), network.module
    fresh = matching(module, (*start.fresh, *([head_of(module)] if start.head == "new" else ())))
    wanted = {name: tensor for name, tensor in flat_tensors(network) if name not in fresh}
    given = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and name not in fresh}
    faults = [f"{name} is {_difference(wanted, given, name)}" for name in _differing(wanted, given)]
    if faults:
        told = "; ".join(faults[:_NAMED]) + (f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else "")
        raise UserError(
            f"the pretrained weights are of another network: {told}",
            remedy="write `head: new` beside them where the last layer differs, or name other layers by `fresh`",
        )
    for name, tensor in wanted.items():
        found = given[name]
        if not found.isfinite().all():
            raise UserError(f"the pretrained weights have numbers in {name} that are not finite", remedy="take others")
        tensor.data.copy_(found)


def tensors_of(content: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name. Raises UserError for another kind of file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise UserError(
            "the pretrained weights are not a safetensors file, the only kind that is read",
            remedy="save them by safetensors.torch.save_file(model.state_dict(), ...) where they came from",
        ) from error


def _differing(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    names = dict.fromkeys((*wanted, *given))
    return [n for n in names if n not in wanted or n not in given or wanted[n].shape != given[n].shape]


def _difference(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], name: str) -> str:
    if name not in given:
        return f"not in the file, and {list(wanted[name].shape)} here"
    if name not in wanted:
        return f"{list(given[name].shape)} in the file, and not here"
    return f"{list(given[name].shape)} in the file, and {list(wanted[name].shape)} here"
