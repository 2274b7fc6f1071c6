"""``medfed ledger``: what a person types, what is told, and the exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_runs import Ended, Workplace
from tests.unit.govern.ledger_forms import KEYS, PARTIES, TRUST, read, record

from medfed.govern.keys import SigningKey
from medfed.govern.ledger import open_briefly


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each party's ledger folder, its public key beside it."""
    root = tmp_path_factory.mktemp("recorded")
    record(root, run="4f1c")
    for party in PARTIES:
        (root / f"{party}.pub").write_bytes(TRUST[party].pem())
    return root


@pytest.fixture
def place(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    return Workplace(tmp_path, capsys)


def keys(place: Workplace, *parties: str) -> list[str]:
    return [text for party in parties or PARTIES for text in ("--key", f"{party}={place.folder / party}.pub")]


def verify(place: Workplace, *places: str, options: list[str] | None = None) -> Ended:
    return place.medfed("ledger", "verify", *(place.folder / each for each in places), *(options or keys(place)))


def test_several_places_are_verified_together(place: Workplace) -> None:
    ended = verify(place, *PARTIES, options=[*keys(place), "--complete"])
    assert (ended.status, ended.err) == (0, "")
    assert [line.partition(":")[0] for line in ended.out.splitlines()] == list(PARTIES)
    assert all(line.endswith("verified") for line in ended.out.splitlines())


def test_who_is_not_here_is_told(place: Workplace) -> None:
    ended = verify(place, "coordinator", "north")
    assert ended.status == 0
    assert ended.out.splitlines()[-1] == "south: not here: its 3 witnessed heads could not be checked"
    strict = verify(place, "coordinator", "north", options=[*keys(place), "--complete"])
    assert strict.status == 3
    assert "south: its ledger is missing, though coordinator witnessed" in strict.err


def test_json_tells_the_same(place: Workplace) -> None:
    told = verify(place, "coordinator", "north", options=[*keys(place), "--json"]).out
    north, south = [json.loads(line) for line in told.splitlines()][1:]
    assert (north["party"], north["run"], north["entries"]) == ("north", "4f1c", 8)
    assert len(north["root"]) == 64
    assert north["places"] == [str(place.folder / "north")]
    assert south == {"party": "south", "run": "4f1c", "absent": True, "witnessed": 3}


def test_tampering_is_located_and_has_status_3(place: Workplace) -> None:
    path = place.folder / "north" / "north.jsonl"
    content = read(path)
    path.write_bytes(b"".join([*content[:2], content[2].replace(b'"time":"2', b'"time":"3'), *content[3:]]))
    ended = verify(place, *PARTIES)
    assert ended.status == 3
    assert "error: north: entry 2 (line 3): its contents changed" in ended.err
    told = json.loads(verify(place, *PARTIES, options=[*keys(place), "--json"]).out.splitlines()[-1])
    assert (told["error"], told["where"]) == ("ledger", "north: entry 2 (line 3)")


def test_several_errors_are_all_told(place: Workplace) -> None:
    for party in ("north", "south"):
        path = place.folder / party / f"{party}.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"kind"', b'"king"', 1))
    ended = verify(place, *PARTIES)
    assert ended.status == 3
    assert "2 ledgers or runs do not verify" in ended.err
    assert "north: entry 0 (line 1)" in ended.err
    assert "south: entry 0 (line 1)" in ended.err


def test_one_key_may_be_named_for_all_others(place: Workplace) -> None:
    named = keys(place, "coordinator")
    assert verify(place, "coordinator", "north", options=[*named, "--key", str(place.folder / "north.pub")]).status == 0
    wrong = verify(place, "coordinator", "north", options=[*named, "--key", str(place.folder / "south.pub")])
    assert wrong.status == 3
    assert "another key than this party's signed it" in wrong.err
    twice = ["--key", str(place.folder / "north.pub"), "--key", str(place.folder / "south.pub")]
    assert verify(place, "north", options=twice).status == 2


def test_a_key_that_is_not_known_is_asked_for(place: Workplace) -> None:
    ended = verify(place, "north", "south", options=keys(place, "north"))
    assert ended.status == 3
    assert "no public key of this party is known" in ended.err
    assert "--key south=FILE" in ended.err
    assert verify(place, "north", options=["--key", "north=absent.pub"]).status == 2


def test_without_any_key_the_person_is_told(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDFED_HOME", str(place.folder / "nothing"))
    ended = place.medfed("ledger", "verify", place.folder / "north")
    assert ended.status == 2
    assert "there is no public key to trust" in ended.err


def own_folder(place: Workplace, site: str, key: SigningKey) -> Path:
    """A site's own folder, with the keys that it trusts."""
    folder = place.folder / f"{site}-folder"
    (folder / "keys").mkdir(parents=True)
    (folder / "identity.json").write_text(json.dumps({"site": site}))
    (folder / "keys" / "site.key").write_bytes(key.pem())
    (folder / "keys" / "site.pub").write_bytes(key.verify_key.pem())
    shutil.copy(place.folder / "coordinator.pub", folder / "keys" / "coordinator.pub")
    shutil.copytree(place.folder / site, folder / "ledger" / "4f1c")
    return folder


def test_a_site_verifies_its_own_folder_by_its_own_keys(place: Workplace) -> None:
    folder = own_folder(place, "north", KEYS["north"])
    with open_briefly(folder / "ledger" / "office", KEYS["north"], "north") as ledger:
        ledger.witness(ledger.sign_head(0), "north", "office")
    ended = place.medfed("ledger", "verify", folder, place.folder / "coordinator")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == "run 4f1c"
    assert "run office" in ended.out
    assert "south: not here" in ended.out


def test_a_forged_folder_that_brings_its_own_key_is_not_believed_over_another(place: Workplace) -> None:
    folder, forged = own_folder(place, "north", KEYS["north"]), SigningKey.generate()
    shutil.move(folder, place.folder / "true")
    own_folder(place, "north", forged)
    ended = place.medfed("ledger", "verify", place.folder / "true", folder)
    assert ended.status == 2
    assert "two places name different keys of this party" in ended.err


def test_an_export_is_a_file_that_verifies(place: Workplace) -> None:
    bundle = place.folder / "north.zip"
    ended = place.medfed("ledger", "export", place.folder / "north", "--output", bundle, *keys(place, "north"))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == f"{bundle}: north; north\n"
    assert verify(place, "north.zip", "coordinator", "south", options=[*keys(place), "--complete"]).status == 0
    told = json.loads(place.medfed("ledger", "export", place.folder / "north", "-o", bundle, "--json").out)
    assert told == {"bundle": str(bundle), "ledgers": ["north"], "parties": ["north"]}


def test_an_export_of_one_run_of_several(place: Workplace) -> None:
    folder = own_folder(place, "north", KEYS["north"])
    with open_briefly(folder / "ledger" / "office", KEYS["north"], "north") as ledger:
        ledger.sign_head(0)
    ended = place.medfed("ledger", "export", folder, "--run", "4f1c", "-o", place.folder / "x.zip", "--json")
    assert json.loads(ended.out)["ledgers"] == ["4f1c"]
    wrong = place.medfed("ledger", "export", folder, "--run", "other", "-o", place.folder / "x.zip")
    assert wrong.status == 2
    assert "name one by --run: 4f1c" in wrong.err.replace("office, ", "")


def prove(place: Workplace, *options: str) -> Ended:
    return place.medfed("ledger", "prove", place.folder / "north", "--party", "north", *options, *keys(place, "north"))


def test_a_proof_is_checked_without_the_ledger(place: Workplace) -> None:
    proof = place.folder / "proof.json"
    assert prove(place, "--entry", "3", "--against", "2", "--output", str(proof)).status == 0
    shutil.rmtree(place.folder / "north")
    key = place.folder / "north.pub"
    ended = place.medfed("ledger", "verify-proof", proof, "--key", key)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == "north: entry 3 (line 4) of 8: proven"
    assert "  the ledger extends the head at size 2, root " in ended.out
    assert "  step: fedavg.train" in ended.out
    told = json.loads(place.medfed("ledger", "verify-proof", proof, "--key", key, "--json").out)
    assert (told["entry"]["kind"], told["entry"]["round"], told["extends"]["size"]) == ("release", 2, 2)
    other = place.medfed("ledger", "verify-proof", proof, "--key", place.folder / "south.pub")
    assert other.status == 3
    proof.write_text(proof.read_text().replace("fedavg.train", "fedavg.trick"))
    forged = place.medfed("ledger", "verify-proof", proof, "--key", key)
    assert forged.status == 3
    assert "north: entry 3 (line 4): it is not in the ledger" in forged.err


def test_a_proof_is_printed_and_against_a_witnessed_head(place: Workplace) -> None:
    printed = json.loads(prove(place, "--entry", "1").out)
    assert (printed["index"], printed["head"]["size"], printed["earlier"]) == (1, 8, None)
    witnessed = place.folder / "seen.json"
    witnessed.write_bytes(read(place.folder / "coordinator" / "coordinator.jsonl")[1])
    assert json.loads(prove(place, "--entry", "1", "--against", str(witnessed)).out)["head"]["size"] == 2
    fields = json.loads(witnessed.read_bytes())
    witnessed.write_text(json.dumps(fields | {"root": "00" * 32}))
    ended = prove(place, "--entry", "1", "--against", str(witnessed))
    assert ended.status == 3
    assert "split view" in ended.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--entry", "8"), "no signed head covers entry 8"),
        (("--entry", "1", "--against", "3"), "it signed no head at size 3"),
        (("--entry", "1", "--against", "absent.json"), "cannot be read"),
        (("--entry", "1", "--run", "other"), "there is no ledger of a run 'other'"),
    ],
)
def test_what_cannot_be_proven_is_the_persons_mistake(
    place: Workplace, options: tuple[str, ...], sentence: str
) -> None:
    ended = prove(place, *options)
    assert ended.status == 2
    assert sentence in ended.err


def test_a_party_or_file_that_is_not_there_is_told(place: Workplace) -> None:
    ended = place.medfed("ledger", "prove", place.folder / "north", "--party", "east", "--entry", "0", *keys(place))
    assert (ended.status, "there is no ledger of this party" in ended.err) == (2, True)
    ended = place.medfed("ledger", "verify-proof", place.folder / "absent", "--key", place.folder / "north.pub")
    assert (ended.status, "cannot be read" in ended.err) == (2, True)
    ended = place.medfed("ledger", "verify", place.folder / "absent", *keys(place))
    assert (ended.status, "no ledgers in this folder" in ended.err) == (2, True)


@pytest.mark.parametrize("command", ["verify", "prove", "verify-proof", "export"])
def test_every_command_has_an_example(command: str, place: Workplace) -> None:
    shown = place.medfed("ledger", command, "--help").out
    assert f"medfed ledger {command} " in shown.partition("Example")[2]
