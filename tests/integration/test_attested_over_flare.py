"""Evidence of builds between real processes over FLARE: bound to the TLS keys by which they are connected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from consortium_in_memory import SITES, task_over
from flare_consortium import COORDINATOR, FlareConsortium, running
from ruamel.yaml import YAML

from medfed.engine.deployed.submission import Submission
from medfed.engine.flare.certificates import read_certificate
from medfed.govern.attestors.software import measured
from medfed.govern.entries import OFFICE
from medfed.spec.loading import TaskFile, task_of

pytestmark = pytest.mark.slow

OTHER = "0" * 64


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlareConsortium]:
    with running(tmp_path_factory.mktemp("consortium")) as found:
        yield found


def named(name: str) -> TaskFile:
    task = task_over(dict.fromkeys(SITES, "rows"), rounds=2)
    return task_of(task.document.data | {"name": name})


def demand(path: Path, *measurements: str) -> None:
    """Write into a party's file what it demands."""
    yaml = YAML()
    about = yaml.load(path.read_text())
    about["attestation"] = {"demand": "software", "measurements": list(measurements)}
    with path.open("w") as file:
        yaml.dump(about, file)


def refusals(folder: Path, party: str) -> list[str]:
    lines = [json.loads(line) for line in (folder / "ledger" / OFFICE / f"{party}.jsonl").read_text().splitlines()]
    return [line["sentence"] for line in lines if line["kind"] == "refusal" and line["code"] == "attestation"]


def rounds(submission: Submission) -> int:
    return sum(event["event"] == "round" for _, event in submission.events())


def test_the_agreed_build_passes_and_another_is_refused(consortium: FlareConsortium) -> None:
    """First both ends demand the build that runs; then the coordinator another one; then a site another one."""
    kept, site_file = consortium.folder(COORDINATOR) / "consortium.yaml", consortium.folder("nord") / "site.yaml"
    demand(kept, measured())
    demand(site_file, measured())
    submission = consortium.submit(named("the agreed build"))
    assert consortium.follow(submission, 120)[-1]["event"] == "finished"
    assert rounds(submission) == 2
    for site in SITES:
        noted = (consortium.folder(COORDINATOR) / "flare" / "server" / "connections" / site).read_text()
        shown = read_certificate((consortium.folder(site) / "flare" / "startup" / "client.crt").read_bytes())
        assert noted == sha256(shown.public_key).hexdigest()

    demand(kept, OTHER)
    submission = consortium.submit(named("another build at the sites"))
    ended = consortium.follow(submission, 120)[-1]
    assert (ended["event"], ended["status"], ended["code"]) == ("failed", 3, "attestation")
    assert f"not among those allowed (its measurement: {measured()})" in ended["cause"]
    assert ended["where"] in SITES and rounds(submission) == 0
    assert len(refusals(consortium.folder(COORDINATOR), COORDINATOR)) == len(SITES)
    assert not any(consortium.ledger(submission, site).exists() for site in SITES)

    demand(kept, measured())
    demand(site_file, OTHER)
    submission = consortium.submit(named("another build at the coordinator"))
    ended = consortium.follow(submission, 120)[-1]
    assert (ended["event"], ended["status"], ended["where"]) == ("failed", 3, "nord")
    assert "demands evidence of the coordinator's build" in ended["cause"]
    assert any("not among those allowed" in each for each in refusals(consortium.folder("nord"), "nord"))
