"""A deployed run without FLARE: the bits of a simulation, and what stewards, kills and lost messages do to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium_in_memory import SITES, Consortium, MemoryCarrier, task_over

from medfed import api
from medfed.core.errors import QuorumLost
from medfed.engine.deployed.partners import partners
from medfed.engine.deployed.submission import Wish
from medfed.spec.loading import TaskFile

HELD_OUT = sorted(SITES)[-1]


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    yield Consortium.make(tmp_path)


def in_one_process(consortium: Consortium, aggregation: str = "clear", **federation: object) -> bytes:
    """The model of the same task over the same rows, as a simulation gives it."""
    task = task_over({site: f"{site}.csv" for site in SITES}, aggregation, **federation)
    outcome = api.run(task, data=consortium.root / "tables", output=consortium.root / "simulated")
    return (outcome.folder.path / "model.safetensors").read_bytes()


def weights(content: bytes) -> bytes:
    """A model's file without its header, which names the task."""
    length = int.from_bytes(content[:8], "little")
    return content[8 + length :]


@pytest.mark.parametrize("aggregation", ["clear", "secure", "encrypted"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_deployed_run_gives_the_bits_of_a_simulation(consortium: Consortium, strategy: str, aggregation: str) -> None:
    """Under masks and encryption too: whole numbers add up to the same in any order."""
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows"), aggregation, strategy=strategy))
    consortium.approve(submission.proposal())
    carrier = MemoryCarrier(consortium.open_sites())
    consortium.conductor(submission, carrier).conduct()
    model = (submission.folder / "model.safetensors").read_bytes()
    assert weights(model) == weights(in_one_process(consortium, aggregation, strategy=strategy))


def test_a_site_ends_with_the_model_of_its_own_that_a_simulation_gives_it(consortium: Consortium) -> None:
    own = {"strategy": {"name": "ditto", "lam": 0.5}}
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows"), **own))
    consortium.approve(submission.proposal())
    consortium.conductor(submission, MemoryCarrier(consortium.open_sites())).conduct()
    shared = (submission.folder / "model.safetensors").read_bytes()
    assert weights(shared) == weights(in_one_process(consortium, **own))
    for site, folder in consortium.sites.items():
        kept = folder.models(submission.run)
        assert weights((kept / "federated.safetensors").read_bytes()) == weights(shared)
        assert weights((kept / "model.safetensors").read_bytes()) != weights(shared)
        rows = consortium.root / "tables" / f"{site}.csv"
        simulated = api.predict(consortium.root / "simulated", rows, site=site)
        assert api.predict(kept, rows).equals(simulated)
        assert not api.predict(consortium.root / "simulated", rows).equals(simulated)


def test_a_steward_reads_whose_keys_the_masks_rest_on(consortium: Consortium) -> None:
    """Each hospital's fingerprint is the same on every page, so that they can be compared."""
    task = task_over(dict.fromkeys(SITES, "rows"), "secure")
    submission = consortium.submit(task, Wish(wait=0.0, propose_only=True))
    consortium.conductor(submission, MemoryCarrier(consortium.open_sites())).conduct()
    pages = {
        site: partners(folder, submission.proposal().digest, task.spec).paragraphs
        for site, folder in consortium.sites.items()
    }
    for site, (_, *others, own) in pages.items():
        mine = own.removeprefix("this hospital: ")
        assert len(mine) == 64 and len(others) == len(SITES) - 1
        for other, page in pages.items():
            assert other == site or f"“{site}”: {mine}" in page


def test_without_approval_nothing_is_trained(consortium: Consortium) -> None:
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows")))
    carrier = MemoryCarrier(consortium.open_sites())
    with pytest.raises(QuorumLost, match="nord: waiting"):
        consortium.conductor(submission, carrier).conduct()
    assert not (submission.folder / "metrics.jsonl").exists()


def test_a_held_out_site_approves_and_is_measured_and_gives_nothing_to_the_model(consortium: Consortium) -> None:
    def held_out(task: TaskFile) -> TaskFile:
        return api.read_task(task, [f"evaluation.holdout=[{HELD_OUT}]"])

    submission = consortium.submit(held_out(task_over(dict.fromkeys(SITES, "rows"))))
    consortium.approve(submission.proposal())
    consortium.conductor(submission, MemoryCarrier(consortium.open_sites())).conduct()
    simulated = held_out(task_over({site: f"{site}.csv" for site in SITES}))
    outcome = api.run(simulated, data=consortium.root / "tables", output=consortium.root / "simulated")
    model = (submission.folder / "model.safetensors").read_bytes()
    assert weights(model) == weights((outcome.folder.path / "model.safetensors").read_bytes())
    deployed, expected = (
        json.loads((folder / "results.json").read_text())["metrics"]
        for folder in (submission.folder, outcome.folder.path)
    )
    assert deployed == expected and set(deployed["external"]) == {HELD_OUT}
