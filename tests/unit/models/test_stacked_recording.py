from __future__ import annotations

import torch

from medfed.models.stacked.recording import record

CONSTANT = torch.tensor([1.0, -2.0, 3.0])


def function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A tensor changed in place, an operation of two results, a constant, and the gradient of it all."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        highest, where = (x * CONSTANT).max(1)
        total = (highest.exp() + y.clone().mul_(2)).sum()
    (gradient,) = torch.autograd.grad(total, [x])
    return gradient, where


def arguments(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)


def test_a_recording_does_for_other_arguments_what_the_function_does():
    with torch.no_grad():
        recording = record(function, arguments(0))
    for seed in range(5):
        x, y = arguments(seed)
        before = x.clone(), y.clone()
        for replayed, expected in zip(recording(x, y), function(x, y), strict=True):
            assert torch.equal(replayed, expected)
        assert torch.equal(x, before[0])
        assert torch.equal(y, before[1])


def test_what_no_result_depends_on_is_left_out():
    def wasteful(x: torch.Tensor) -> tuple[torch.Tensor]:
        torch.sin(x)
        return (x + 1,)

    targets = [str(node.target) for node in record(wasteful, (torch.ones(2),)).graph.nodes]
    assert not any("sin" in target for target in targets)
