"""What every registered model keeps, asked of each by its name in the registry: a newcomer's too."""

from __future__ import annotations

import importlib
from importlib.metadata import metadata
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import medfed.api
from medfed.core import registry
from medfed.core.errors import CodecError, MissingExtra, TaskError, UserError
from medfed.models.catalogue import MODELS, build_network, outputs_for
from medfed.models.network import Network
from medfed.spec.task import ModelSpec

pytestmark = pytest.mark.parametrize("name", MODELS.names())

SHAPES = ((13,), (1, 64, 64), (12, 4))
"""A vector of features, and for models that take none an image, or a time series."""


def module_of(name: str) -> ModuleType | None:
    """The file of a model that comes with the package."""
    full_name = f"{MODELS.package}.{name}"
    return importlib.import_module(full_name) if find_spec(full_name) else None


def absent_imports(name: str) -> list[str]:
    return [package for package in getattr(module_of(name), "IMPORTS", ()) if find_spec(package) is None]


def built(name: str, outputs: int, seed: int = 0) -> tuple[Network, tuple[int, ...]]:
    """The model over the first of SHAPES that it takes."""
    if absent := absent_imports(name):
        pytest.skip(f"{', '.join(absent)} is not installed")
    for shape in SHAPES:
        try:
            return build_network(ModelSpec(name=name), shape, outputs, seed), shape
        except UserError:
            continue
    pytest.fail(f"{name} takes none of the shapes {SHAPES}")


def task(name: str, **options: Any) -> dict[str, Any]:
    kinds = getattr(module_of(name), "TASKS", ("classification",))
    model = {"name": name, **options} | ({"num_classes": 2} if kinds[0] == "segmentation" else {})
    return {"task_type": kinds[0], "model": model, "federation": {"strategy": "fedavg"}}


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_forward_and_backward(name: str, classes: int) -> None:
    outputs = outputs_for(classes)
    network, shape = built(name, outputs)
    found = network.module(torch.from_numpy(np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)))
    pixels = shape[1:] if task(name)["task_type"] == "segmentation" else ()
    assert found.shape == (5, outputs, *pixels)
    assert torch.isfinite(found).all()
    found.square().sum().backward()
    assert network.gradient.numel() == sum(p.numel() for p in network.module.parameters()) > 0
    assert torch.isfinite(network.gradient).all()
    assert network.gradient.any()


def test_the_flat_vector_is_the_models_weights(name: str) -> None:
    network, _ = built(name, 1)
    weights = np.random.default_rng(1).random(network.size, dtype=np.float32)
    network.load(weights)
    assert network.vector().tobytes() == weights.tobytes()
    buffers = [b for b in network.module.buffers() if b.is_floating_point()]
    tensors = [tensor.detach().numpy().ravel() for tensor in [*network.module.parameters(), *buffers]]
    assert np.concatenate(tensors).tobytes() == weights.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_another_models_weights_are_refused(name: str, dtype: type) -> None:
    network, _ = built(name, 1)
    length = network.size + (dtype is np.float32)
    with pytest.raises(CodecError):
        network.load(np.zeros(length, dtype))


def test_the_seed_alone_decides_the_initial_weights(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (built(name, 1, seed)[0].vector() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_an_unknown_option_is_refused_by_check(name: str) -> None:
    if absent_imports(name):
        pytest.skip("its extra is not installed")
    medfed.api.check(task(name))
    with pytest.raises(TaskError, match="no option 'breadth'") as caught:
        medfed.api.check(task(name, breadth=3))
    assert caught.value.where.startswith("task: model")
    assert caught.value.remedy


def test_a_missing_extra_is_named_with_its_pip_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is installed, it is taken away."""
    module = module_of(name)
    imports = getattr(module, "IMPORTS", ())
    if not imports:
        pytest.skip("it needs no extra")
    monkeypatch.setattr(registry, "find_spec", lambda package: None if package in imports else find_spec(package))
    with pytest.raises(MissingExtra, match=name) as caught:
        medfed.build(task(name), {"Cleveland": (np.zeros((20, *SHAPES[1])), np.arange(20) % 2)})
    extras = ",".join(module.REQUIRES)  # type: ignore[union-attr]
    assert repr(extras) in caught.value.cause
    assert caught.value.remedy == f"pip install 'medfed[{extras}]'"
    assert caught.value.exit_status == 2


def test_its_extras_exist(name: str) -> None:
    module = module_of(name)
    if module is None:
        pytest.skip("it comes from another package")
    requires = getattr(module, "REQUIRES", ())
    assert set(requires) <= set(metadata("medfed").get_all("Provides-Extra", []))
    assert bool(requires) is bool(getattr(module, "IMPORTS", ()))
