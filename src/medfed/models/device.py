"""Where networks are trained: on the processor, or on a graphics processor where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medfed.core.errors import UserError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]


def resolve_device(wanted: Device) -> torch.device:
    """This machine's device that ``engine.device`` means. Raises UserError where ``cuda`` is not there."""
    import torch

    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if wanted == "auto":
        return torch.device("cpu")
    raise UserError(
        "the task is for a graphics processor (engine.device: cuda), and torch finds none on this machine",
        remedy="install the driver, and a build of torch with CUDA; or write `device: auto`, which goes without",
    )
