"""The two parties' names, task and fingerprint, and what a site keeps of what it is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from medfed.core.errors import CodecError, TaskError, UserError
from medfed.engine.deployed.kept import Keepsakes
from medfed.engine.deployed.messages import Figure, RoundFigures, Trained
from medfed.engine.flare.twoparty.pair import fingerprint, own_rows, pair_of, pair_task, write_settings
from medfed.engine.flare.twoparty.training import differences
from medfed.spec.canonical import task_digest
from medfed.spec.loading import task_of
from medfed.spec.party import Party, PartyConfig, RemoteParty
from medfed.spec.site import load_site

TASK = {"task_type": "classification", "model": {"name": "mlp"}, "federation": {"strategy": "fedavg", "epochs": 3}}
ROOT, KEY, REQUEST = "11" * 32, "22" * 32, "33" * 32


def config(role: str, other: str, address: str = "guest.example:9380") -> PartyConfig:
    numbers = {"guest": 9999, "host": 10000, "arbiter": 3}
    remote = RemoteParty(role=other, party_id=numbers[other], address=address)
    return PartyConfig(local=Party(role=role, party_id=numbers[role]), remote=(remote,))


def test_both_sides_name_the_same_pair_and_task(tmp_path: Path) -> None:
    guest = pair_of(config("guest", "host", "host.example:9380"), tmp_path, tmp_path)
    host = pair_of(config("host", "guest"), tmp_path, tmp_path)
    assert (guest.guest, guest.host) == (host.guest, host.host) == ("guest-9999", "host-10000")
    assert guest.coordinates
    assert not host.coordinates
    assert guest.home != host.home
    task = task_of(TASK)
    assert task_digest(pair_task(task, guest).spec) == task_digest(pair_task(task, host).spec)


@pytest.mark.parametrize(
    "wrong",
    [
        config("guest", "arbiter"),
        config("host", "guest", "[::1]:9380"),
        PartyConfig(
            local=Party(role="guest", party_id=1),
            remote=tuple(RemoteParty(role="host", party_id=n, address="h:1") for n in (2, 3)),
        ),
    ],
    ids=["an arbiter", "IPv6", "three parties"],
)
def test_other_parties_are_refused(tmp_path: Path, wrong: PartyConfig) -> None:
    with pytest.raises(TaskError) as caught:
        pair_of(wrong, tmp_path / "party_config.json", tmp_path)
    assert caught.value.remedy


def test_a_task_that_names_sites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="the parties are the sites"):
        pair_task(task_of(TASK | {"sites": {"A": "a.csv"}}), pair_of(config("host", "guest"), tmp_path, tmp_path))


def test_the_fingerprint_is_160_bits_over_all_keys() -> None:
    content = bytes.fromhex(ROOT + KEY + REQUEST)
    assert fingerprint(ROOT, KEY, REQUEST) == hashlib.sha256(b"medfed two parties 1\n" + content).hexdigest()[:40]
    others = {fingerprint("44" * 32, KEY, REQUEST), fingerprint(ROOT, REQUEST, KEY), fingerprint(ROOT, KEY, "44" * 32)}
    assert len(others | {fingerprint(ROOT, KEY, REQUEST)}) == 4


def test_where_a_partys_rows_are(tmp_path: Path) -> None:
    party = Party(role="host", party_id=10000)
    assert own_rows(party, tmp_path) == tmp_path
    (tmp_path / "host").mkdir()
    assert own_rows(party, tmp_path) == tmp_path / "host"
    (tmp_path / "10000").mkdir()
    assert own_rows(party, tmp_path) == tmp_path / "10000"
    with pytest.raises(UserError, match="no such folder"):
        own_rows(party, tmp_path / "absent")


def test_the_settings_approve_the_one_task(tmp_path: Path) -> None:
    pair = pair_of(config("host", "guest"), tmp_path, tmp_path)
    pair.site.mkdir(parents=True)
    write_settings(pair, tmp_path / "rows.csv", "ab" * 32)
    settings = load_site(pair.site / "site.yaml")
    assert settings.approvals.auto_approve == ("ab" * 32,)
    assert settings.datasets["default"].path == str(tmp_path / "rows.csv")


def test_differences_are_named_by_their_place() -> None:
    here = {"federation": {"lr": 0.1, "epochs": 3}, "seed": 1}
    there = {"federation": {"lr": 0.2, "epochs": 3}, "seed": 1, "data": {"id": "id"}}
    assert differences(here, here) == []
    assert differences(here, there) == [
        "federation.lr is 0.1 here and 0.2 there",
        'data is null here and {"id": "id"} there',
    ]
    many = differences({str(n): n for n in range(9)}, {})
    assert many[5:] == ["and 4 more"]


def told(number: int, **changes: object) -> RoundFigures:
    figure = {"site": "guest-9999", "metric": "loss", "value": 0.5} | changes
    return RoundFigures(number, (Figure(**figure),))  # type: ignore[arg-type]


def test_rounds_are_kept_once_and_in_order(tmp_path: Path) -> None:
    Keepsakes(tmp_path / "run").note([told(1), told(2)], rounds=3)
    again = Keepsakes(tmp_path / "run")
    again.note([told(2), told(3, value=None)], rounds=3)
    found = list(again.rounds())
    assert [each.round for _, each in found] == [1, 2, 3]
    assert found[2][1].figures[0].value is None
    assert [each.round for _, each in again.rounds(found[1][0])] == [3]


@pytest.mark.parametrize("wrong", [told(0), told(4), told(1, site="x" * 65), told(1, metric="x" * 65)])
def test_what_no_run_has_is_not_kept(tmp_path: Path, wrong: RoundFigures) -> None:
    kept = Keepsakes(tmp_path / "run")
    with pytest.raises(CodecError):
        kept.note([wrong], rounds=3)
    assert not list(kept.rounds())


def test_a_model_is_kept_beside_its_task(tmp_path: Path) -> None:
    kept = Keepsakes(tmp_path / "run")
    kept.keep(Trained(b"weights", b"encoding"), json.dumps(TASK))
    assert kept.model.read_bytes() == b"weights"
    assert json.loads(kept.model.with_name("task.yaml").read_text()) == TASK
