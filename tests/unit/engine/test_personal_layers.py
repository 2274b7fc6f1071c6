"""Layers and models that are a site's own: by a second implementation in plain PyTorch, and by what leaves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import medfed
from medfed import api
from medfed.core.errors import MedFedError, TaskError, UserError
from medfed.core.protocols import OwnModel
from medfed.engine.personal import LocalElements
from medfed.engine.trained import TrainedModel
from medfed.models.catalogue import build_network
from medfed.models.layers import flat_tensors
from medfed.models.local_layers import local_elements
from medfed.spec.task import ModelSpec

SHAPE = (1, 6, 6)
LR, UPDATES, ROUNDS = 0.1, 2, 3


def hospitals(*rows: int) -> dict[str, tuple[Any, Any]]:
    """Images of unlike contrast; class 1 is brighter in a corner."""
    found = {}
    for number, n in enumerate(rows):
        rng = np.random.default_rng([3, number])
        labels = np.arange(n) % 2
        images = rng.normal(number, 1 + number, (n, *SHAPE)).astype(np.float32)
        images[labels == 1, :, :3, :3] += 2.0 * (1 + number)
        found[f"site-{number}"] = images, labels
    return found


def task(strategy: Any = "fedavg", norm: str = "batch", test: float = 0.0, **federation: Any) -> dict[str, Any]:
    lengths = {"rounds": ROUNDS, "local_updates": UPDATES, "batch_size": "full", "lr": LR}
    return {
        "task_type": "classification",
        "model": {"name": "cnn", "input_size": list(SHAPE), "norm": norm},
        "federation": {"strategy": strategy, **lengths, **federation},
        "data": {
            "label": {"column": "y", "classes": [0, 1]},
            "standardize": "none",
            "split": {"train": 1 - test, "validation": 0, "test": test},
        },
        "evaluation": {"every": 1000},
        "engine": {"workers": 1},
        "seed": 4,
    }


def process_of(described: dict[str, Any], sites: dict[str, Any]) -> Any:
    return medfed.build(described, sites)


def trained(described: dict[str, Any], sites: dict[str, Any]) -> tuple[Any, Any]:
    process = process_of(described, sites)
    state = process.initialize()
    while not process.done(state):
        state, _ = process.next(state)
    return process, state


def kept(process: Any, site: str, kind: Any) -> Any:
    """What a simulated site keeps."""
    node = process.federation.conversation.engine.host.nodes[site]
    return node.memory.newest(kind)


def network() -> Any:
    return build_network(ModelSpec(name="cnn", input_size=SHAPE, norm="batch"), SHAPE, 1, seed=4)


def steps(module: nn.Module, images: Any, labels: Any, parameters: list[Any], updates: int) -> None:
    """Plain gradient descent on the full batch."""
    optimizer = torch.optim.SGD(parameters, lr=LR)
    module.train()
    for _ in range(updates):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(
            module(torch.from_numpy(images)).squeeze(-1), torch.from_numpy(labels).float()
        )
        loss.backward()
        optimizer.step()


def plain(sites: dict[str, Any], stays: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """FedBN's pseudo-code over state dicts: (the shared entries, each site's whole state); ``stays`` says of a name."""
    first = network().module.state_dict()
    names = [name for name in first if "num_batches" not in name]
    shared = {name: first[name].clone() for name in names}
    own = {site: {name: first[name].clone() for name in names if stays(name)} for site in sites}
    rows = {site: len(labels) for site, (_, labels) in sites.items()}
    for _ in range(ROUNDS):
        states = {}
        for site, (images, labels) in sites.items():
            module = network().module
            module.load_state_dict(shared | own[site], strict=False)
            steps(module, images, labels, list(module.parameters()), UPDATES)
            states[site] = {name: module.state_dict()[name].clone() for name in names}
            own[site] = {name: states[site][name] for name in own[site]}
        for name in names:
            if not stays(name):
                total = sum(rows[site] * states[site][name] for site in sites)
                shared[name] = total / sum(rows.values())
    return shared, {site: shared | own[site] for site in sites}


def where(net: Any) -> dict[str, slice]:
    """Where in the flat vector each parameter and buffer stands."""
    places, position = {}, 0
    for name, tensor in flat_tensors(net):
        places[name] = slice(position, position + tensor.numel())
        position += tensor.numel()
    return places


STAYS = {
    "norm": lambda name: name.split(".")[0] in {"1", "5"},
    "statistics": lambda name: "running" in name,
    "head": lambda name: name.split(".")[0] == "11",
}
"""Of the network above: its two normalisations are its layers 1 and 5, the last linear one is 11."""


@pytest.mark.parametrize("layers", ["norm", "statistics", "head"])
def test_rounds_are_those_of_a_second_implementation(layers: str) -> None:
    sites = hospitals(12, 20)
    process, state = trained(task(local_layers=layers), sites)
    shared, whole = plain(sites, STAYS[layers])
    ours, places = process.weights(state)[""], where(network())
    for name, place in places.items():
        if not STAYS[layers](name):
            np.testing.assert_allclose(ours[place], shared[name].numpy().ravel(), rtol=2e-4, atol=2e-5)
    for site in sites:
        values, expected = kept(process, site, LocalElements).values, whole[site]
        theirs = np.concatenate([expected[name].numpy().ravel() for name in places if STAYS[layers](name)])
        np.testing.assert_allclose(values, theirs, rtol=2e-4, atol=2e-5)


def test_layers_that_stay_are_in_no_update() -> None:
    process, state = trained(task(local_layers="norm"), hospitals(12, 20))
    places = local_elements(network(), "norm")
    before = network().vector()
    after = process.weights(state)[""]
    assert after[places].tobytes() == before[places].tobytes()
    assert not np.array_equal(np.delete(after, places), np.delete(before, places))


def test_a_proximal_term_does_not_hold_a_layer_that_stays() -> None:
    """Under a huge mu the shared layers hardly move, and the site's own head learns as if there were none."""
    heavy, light = (
        trained(task({"name": "fedprox", "mu": mu}, local_layers="head", rounds=1, lr=0.001), hospitals(12, 20))
        for mu in (500.0, 0.0)
    )
    first, start = network(), network().vector()
    head = local_elements(first, "head")
    own = [kept(process, "site-0", LocalElements).values - start[head] for process, _ in (heavy, light)]
    assert np.linalg.norm(own[0]) > 0.8 * np.linalg.norm(own[1]) > 0
    others = slice(0, first.weights.numel() - head.size)
    moved = [np.linalg.norm(np.delete(p.weights(at)[""] - start, head)[others]) for p, at in (heavy, light)]
    assert moved[0] < 0.8 * moved[1]


def test_under_masks_the_same_layers_stay_and_the_same_are_shared() -> None:
    sites = hospitals(12, 14, 20)
    clear, masked = (
        trained(task(local_layers="norm") | {"privacy": {"aggregation": how}}, sites) for how in ("clear", "secure")
    )
    np.testing.assert_allclose(masked[0].weights(masked[1])[""], clear[0].weights(clear[1])[""], atol=2e-4)


def test_fine_tuning_changes_the_head_alone_and_by_plain_gradient_descent() -> None:
    sites = hospitals(12, 20)
    tune = {"layers": "head", "epochs": 4, "lr": LR}
    process, state = trained(task(norm="group", fine_tune=tune), sites)
    weights = process.weights(state)[""]
    for site, (images, labels) in sites.items():
        spec = ModelSpec(name="cnn", input_size=SHAPE, norm="group")
        net = build_network(spec, SHAPE, 1, seed=4, weights=weights.copy())
        module = copy.deepcopy(net.module)
        steps(module, images, labels, list(module[11].parameters()), 4)
        own = kept(process, site, OwnModel).weights
        head = local_elements(net, "head")
        assert np.delete(own, head).tobytes() == np.delete(weights, head).tobytes()
        theirs = np.concatenate([p.detach().numpy().ravel() for p in module[11].parameters()])
        np.testing.assert_allclose(own[head], theirs, rtol=1e-4, atol=1e-5)


def test_what_is_fine_tuned_is_what_is_measured() -> None:
    """Two hospitals whose labels mean the opposite: one model cannot serve both, and one of its own serves each."""
    sites = hospitals(60, 60)
    images, labels = sites["site-0"]
    sites = {"site-0": (images, labels), "site-1": (images, 1 - labels)}
    tune = {"layers": "all", "epochs": 30, "lr": 0.1}
    value = {}
    for name, more in {"shared": {}, "own": {"fine_tune": tune}}.items():
        process, state = trained(task(norm="group", test=0.3, **more), sites)
        value[name] = process.measure(state, "test").value("accuracy")
    assert value["own"] > 0.9 > 0.7 > value["shared"]


@pytest.mark.parametrize(
    ("federation", "norm", "told"),
    [
        ({"local_layers": "norm"}, "none", "trains no normalisation layers"),
        ({"local_layers": "statistics"}, "group", "trains no running statistics"),
        ({"local_layers": ["nowhere"]}, "none", "no layer 'nowhere'"),
        ({"fine_tune": {"layers": ["nowhere"]}}, "none", "no layer 'nowhere'"),
        ({"local_layers": ["0", "3", "7", "9"]}, "none", "nothing is left"),
    ],
)
def test_layers_that_are_not_there_are_told_before_training(federation: Any, norm: str, told: str) -> None:
    process = process_of(task(norm=norm, **federation), hospitals(12, 12))
    with pytest.raises(UserError, match=told):
        process.initialize()


@pytest.mark.parametrize("key", ["record", "site"])
def test_a_model_without_noise_is_refused_where_noise_protects(key: str) -> None:
    described = task(norm="group", fine_tune={}) | {"privacy": {key: {"noise_multiplier": 1.0}}}
    with pytest.raises((TaskError, MedFedError), match=f"privacy.{key} would not cover them"):
        process_of(described, hospitals(12, 12, 12))


def test_a_baseline_has_no_use_for_layers_of_its_own() -> None:
    """Its one trainer would keep them from itself: the keys are there for the strategies beside it."""
    sites = hospitals(12, 20)
    (one, at), (other, then) = (
        trained(task("pooled", local_layers="norm", fine_tune={}), sites),
        trained(task("pooled"), sites),
    )
    assert one.weights(at)[""].tobytes() == other.weights(then)[""].tobytes()


def test_frozen_layers_stay_beside_layers_of_a_hospitals_own_and_in_what_it_predicts_by(tmp_path: Path) -> None:
    """The first convolution is frozen, the head is each site's own: nothing but the rest is shared."""
    described = task(norm="group", test=0.3, local_layers="head", fine_tune={"layers": "head", "epochs": 2})
    described["model"]["freeze"] = ["0"]
    sites = hospitals(40, 40)
    outcome = medfed.run(described, sites, output=tmp_path / "run")
    first = build_network(ModelSpec(name="cnn", input_size=SHAPE, norm="group"), SHAPE, 1, seed=4).module[0].weight
    for site in sites:
        model = TrainedModel.load(outcome.folder.path, site)
        assert torch.equal(model.network.module[0].weight, first)
    one, other = (TrainedModel.load(outcome.folder.path, site).network.module for site in sites)
    assert torch.equal(one[4].weight, other[4].weight)
    assert not torch.equal(one[11].weight, other[11].weight)


def test_a_model_that_lacks_layers_is_neither_measured_at_sites_nor_gone_on_from(tmp_path: Path) -> None:
    sites = hospitals(40, 40)
    medfed.run(task(norm="batch", test=0.3, local_layers="norm"), sites, output=tmp_path / "run")
    with pytest.raises(UserError, match="layers of its own"):
        api.evaluate(tmp_path / "run", given=sites)
    later = task(norm="batch", test=0.3)
    later["model"]["pretrained"] = {"run": str(tmp_path / "run")}
    with pytest.raises((UserError, TaskError), match="lacks the layers"):
        medfed.run(later, sites, output=tmp_path / "later")


def test_an_optimizers_state_is_not_shared_between_the_two_models_of_ditto() -> None:
    described = task("ditto", norm="none", optimizer="adam", optimizer_state="kept")
    with pytest.raises(TaskError, match="two models at every site"):
        process_of(described, hospitals(12, 12))
