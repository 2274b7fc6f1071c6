from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medfed.core.errors import UserError
from medfed.models.catalogue import MODELS, NetworkCache, build_network, check_options, outputs_for
from medfed.spec.task import ModelSpec

PLUGIN = """
from torch import nn

TASKS = ("classification",)

def build(input_shape, outputs, *, width=3):
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, outputs))
"""
OTHERS = '''
from torch import nn


class Squared(nn.Module):
    """A network given as its class."""

    def __init__(self, input_shape, outputs):
        super().__init__()
        self.inner = nn.Linear(input_shape[0], outputs)

    def forward(self, x):
        return self.inner(x) ** 2


def open_ended(input_shape, outputs, **options):
    if options.get("refuse"):
        raise ValueError("refused, as asked")
    return nn.Linear(input_shape[0], outputs)
'''
ENTRY_POINTS = """[medfed.models]
hospital_net = hospital_networks:build
squared_net = other_networks:Squared
open_net = other_networks:open_ended
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An installed distribution that brings three networks."""
    (tmp_path / "hospital_networks.py").write_text(PLUGIN)
    (tmp_path / "other_networks.py").write_text(OTHERS)
    info = tmp_path / "hospital_networks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hospital-networks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    MODELS.__dict__.pop("_entry_points", None)
    yield
    MODELS.__dict__.pop("_entry_points", None)


def spec(name: str, **options: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": name, **options})


def test_the_networks_of_the_package_are_known():
    assert {"linear", "logistic", "mlp", "resnet18"} <= set(MODELS.names())


def seeded_layers(seed: int, *widths: int) -> np.ndarray:
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    return torch.cat([p.detach().flatten() for layer in layers for p in layer.parameters()]).numpy()


@pytest.mark.parametrize(
    ("model", "outputs", "widths"),
    [
        (spec("logistic"), 1, (5, 1)),
        (spec("logistic"), 4, (5, 4)),
        (spec("linear"), 1, (5, 1)),
        (spec("mlp"), 1, (5, 32, 1)),
        (spec("mlp", hidden=[7, 3], dropout=0.2), 3, (5, 7, 3, 3)),
        (spec("mlp", hidden=[]), 1, (5, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 42, 2**62])
def test_initial_weights_are_torchs_own_under_the_seed_and_the_global_stream_goes_on(model, outputs, widths, seed):
    torch.manual_seed(99)
    expected_next = torch.rand(3)
    torch.manual_seed(99)
    network = build_network(model, (5,), outputs, seed)
    assert torch.equal(torch.rand(3), expected_next)
    np.testing.assert_array_equal(network.vector(), seeded_layers(seed, *widths))


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_inputs_of_more_axes_are_flattened(name):
    network = build_network(spec(name), (2, 3), 1, 0)
    flat = build_network(spec(name), (6,), 1, 0)
    x = torch.randn(4, 2, 3)
    assert torch.equal(network.module(x), flat.module(x.reshape(4, 6)))


@pytest.mark.parametrize(("classes", "outputs"), [(0, 1), (2, 1), (3, 3), (10, 10)])
def test_outputs_by_classes(classes, outputs):
    assert outputs_for(classes) == outputs


@pytest.mark.parametrize(
    "options",
    [{"hidden": [0]}, {"hidden": [-3]}, {"hidden": ["a"]}, {"hidden": 4}, {"dropout": 1.0}, {"dropout": -0.1}],
    ids=str,
)
def test_impossible_options_are_explained(options):
    with pytest.raises(UserError, match="'mlp' cannot be built"):
        build_network(spec("mlp", **options), (4,), 1, 0)


def test_options_are_checked_before_anything_is_built():
    check_options(spec("mlp", hidden=[4]), "classification")
    with pytest.raises(UserError, match="'mlp' has no option 'hiden'") as caught:
        check_options(spec("mlp", hiden=[4]), "classification")
    assert caught.value.remedy == "options of mlp: hidden, dropout"
    with pytest.raises(UserError, match="'logistic' does not do regression") as caught:
        check_options(spec("logistic"), "regression")
    assert caught.value.remedy == "logistic does: classification"
    with pytest.raises(UserError, match="no model is called 'logistc'") as caught:
        check_options(spec("logistc"), "classification")
    assert "did you mean 'logistic'?" in caught.value.remedy


def test_an_entry_point_brings_a_network(plugin):
    assert {"hospital_net", "squared_net", "open_net", "logistic"} <= set(MODELS.names())
    check_options(spec("hospital_net", width=6), "classification")
    network = build_network(spec("hospital_net", width=6), (4,), 3, 8)
    np.testing.assert_array_equal(network.vector(), seeded_layers(8, 4, 6, 3))
    with pytest.raises(UserError, match="does not do regression"):
        check_options(spec("hospital_net"), "regression")
    with pytest.raises(UserError, match="has no option 'depth'"):
        check_options(spec("hospital_net", depth=6), "classification")


def test_any_factory_of_modules_will_do(plugin):
    check_options(spec("squared_net"), "regression")
    network = build_network(spec("squared_net"), (4,), 1, 8)
    x = torch.randn(3, 4)
    w = torch.from_numpy(seeded_layers(8, 4, 1))
    torch.testing.assert_close(network.module(x), (x @ w[:4, None] + w[4]) ** 2)
    check_options(spec("open_net", anything=1), "regression")
    with pytest.raises(UserError, match="refused, as asked"):
        build_network(spec("open_net", refuse=True), (4,), 1, 8)


def test_sites_of_one_shape_share_a_network_and_a_fresh_one_has_the_initial_weights():
    cache = NetworkCache(spec("logistic"), seed=4)
    network = cache.get((5,), 2)
    assert cache.get((5,), 2) is network
    assert cache.get((6,), 2) is not network
    network.flat.zero_()
    np.testing.assert_array_equal(cache.fresh((5,), 2).vector(), seeded_layers(4, 5, 1))
    np.testing.assert_array_equal(cache.fresh((5,), 3).vector(), seeded_layers(4, 5, 3))
