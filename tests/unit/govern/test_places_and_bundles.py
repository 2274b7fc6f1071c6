"""Where ledgers are found, whose keys are trusted there, and bundles of them."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_forms import KEYS, PARTIES, TRUST, read, record

from medfed.core.errors import LedgerError, RunFolderError, UserError
from medfed.govern.bundle import export
from medfed.govern.places import Trust, open_place
from medfed.govern.proofs import fingerprint
from medfed.govern.verify import verify_holdings


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return record(tmp_path_factory.mktemp("ledgers"))


def site_folder(path: Path, ledgers: dict[str, Path], site: str = "north") -> Path:
    (path / "keys").mkdir(parents=True)
    (path / "identity.json").write_text(json.dumps({"site": site}))
    (path / "keys" / "site.key").write_bytes(KEYS[site].pem())
    (path / "keys" / "site.pub").write_bytes(TRUST[site].pem())
    (path / "keys" / "coordinator.pub").write_bytes(TRUST["coordinator"].pem())
    shutil.copytree(ledgers[site], path / "ledger" / "run-1")
    shutil.copytree(ledgers[site], path / "ledger" / "office")
    (path / "log").mkdir()
    (path / "log" / "site.log").write_text("PATIENT-7421-SECRET")
    return path


def coordinator_folder(path: Path, ledgers: dict[str, Path]) -> Path:
    (path / "keys" / "sites").mkdir(parents=True)
    (path / "keys" / "coordinator.key").write_bytes(KEYS["coordinator"].pem())
    (path / "keys" / "coordinator.pub").write_bytes(TRUST["coordinator"].pem())
    (path / "keys" / "sites" / "north.pub").write_bytes(TRUST["north"].pem())
    shutil.copytree(ledgers["coordinator"], path / "runs" / "run-1" / "ledger")
    (path / "runs" / "run-1" / "results.json").write_text("{}")
    shutil.copytree(ledgers["coordinator"], path / "ledger" / "office")
    return path


def test_a_sites_folder_holds_its_office_and_runs_and_trusts_its_own_keys(
    tmp_path: Path, ledgers: dict[str, Path]
) -> None:
    site = site_folder(tmp_path / "site", ledgers)
    with open_place(site) as place:
        assert [(each.name, each.finished, each.parties()) for each in place.holdings] == [
            ("office", False, ["north"]),
            ("run-1", False, ["north"]),
        ]
        assert place.keys == {party: TRUST[party] for party in ("north", "coordinator")}
    with open_place(site / "ledger" / "run-1") as place:
        assert [each.name for each in place.holdings] == ["run-1"]
        assert place.keys["north"] == TRUST["north"]


def test_a_coordinators_folder_holds_its_runs(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    folder = coordinator_folder(tmp_path / "coordinator", ledgers)
    with open_place(folder) as place:
        assert [(each.name, each.finished) for each in place.holdings] == [("office", False), ("run-1", True)]
        assert place.keys == {party: TRUST[party] for party in ("north", "coordinator")}
    with open_place(folder / "runs" / "run-1") as place:
        assert [(each.name, each.finished) for each in place.holdings] == [("run-1", True)]
        assert place.keys["coordinator"] == TRUST["coordinator"]


def test_keys_without_the_private_one_are_not_trusted(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    site = site_folder(tmp_path / "received", ledgers)
    (site / "keys" / "site.key").unlink()
    with open_place(site) as place:
        assert place.keys == {}


@pytest.mark.parametrize("content", ["", "{}", "[]", "{"])
def test_a_damaged_identity_is_told(tmp_path: Path, ledgers: dict[str, Path], content: str) -> None:
    site = site_folder(tmp_path / "site", ledgers)
    (site / "identity.json").write_text(content)
    with pytest.raises(UserError, match="damaged"), open_place(site):
        pass


def test_a_folder_without_ledgers_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunFolderError, match="there are no ledgers in this folder"), open_place(path):
            pass


def test_a_runs_ledger_that_was_emptied_is_wrong(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    site = site_folder(tmp_path / "site", ledgers)
    for path in (site / "ledger" / "run-1").glob("*.jsonl"):
        path.unlink()
    with open_place(site) as place:
        findings = verify_holdings(place.holdings, Trust(place.keys), complete=False)
    assert [error.cause for error in findings.wrong] == ["there is no ledger in this folder"]


def test_a_bundle_verifies_as_the_ledgers_do(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    output = tmp_path / "all.zip"
    assert export(ledgers, frozenset(ledgers), TRUST, output) == list(PARTIES)
    with open_place(output) as place:
        assert place.keys == {}
        assert all(each.finished for each in place.holdings)
        findings = verify_holdings(place.holdings, Trust(TRUST), complete=True)
    assert not findings.wrong
    assert [each.party for each in findings.verified] == list(PARTIES)
    shutil.unpack_archive(output, tmp_path / "unpacked")
    with open_place(tmp_path / "unpacked") as place:
        assert verify_holdings(place.holdings, Trust(TRUST), complete=True).verified[0].places == (
            str(tmp_path / "unpacked"),
        )
    assert list(tmp_path.glob(".*")) == []


def test_a_bundle_holds_ledgers_keys_and_words_only(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    site = site_folder(tmp_path / "site", ledgers)
    folders = {name: site / "ledger" / name for name in ("office", "run-1")}
    export(folders, frozenset(), {**TRUST}, tmp_path / "one.zip")
    with zipfile.ZipFile(tmp_path / "one.zip") as bundle:
        contents = {name: bundle.read(name) for name in bundle.namelist()}
    assert sorted(contents) == [
        "README.txt",
        "bundle.json",
        "keys/north.pub",
        "ledger/office/north.heads.jsonl",
        "ledger/office/north.jsonl",
        "ledger/run-1/north.heads.jsonl",
        "ledger/run-1/north.jsonl",
    ]
    assert contents["ledger/run-1/north.jsonl"] == (ledgers["north"] / "north.jsonl").read_bytes()
    assert contents["keys/north.pub"] == TRUST["north"].pem()
    assert fingerprint(TRUST["north"]) in contents["README.txt"].decode()
    assert "medfed ledger verify one.zip --key 'north=FILE'" in contents["README.txt"].decode()
    whole = b"".join(contents.values())
    assert b"SECRET" not in whole
    assert b"PRIVATE" not in whole


def test_the_same_ledgers_give_the_same_bytes(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(ledgers, frozenset(), TRUST, tmp_path / name / "x.zip")
    assert (tmp_path / "a" / "x.zip").read_bytes() == (tmp_path / "b" / "x.zip").read_bytes()


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(ledgers["north"], tmp_path / "north"))
    with (folder / "north.jsonl").open("ab") as file:
        file.write(b'{"half a line' + b"x" * 3_000_000)
    export({"run": folder}, frozenset(), TRUST, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as bundle:
        assert bundle.read("ledger/run/north.jsonl") == (ledgers["north"] / "north.jsonl").read_bytes()


def test_a_tampered_bundle_is_found(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(ledgers["north"], tmp_path / "north"))
    content = read(folder / "north.jsonl")
    content[2] = content[2].replace(b'"time":"2', b'"time":"3')
    (folder / "north.jsonl").write_bytes(b"".join(content))
    export({"run": folder}, frozenset(), {}, tmp_path / "x.zip")
    with open_place(tmp_path / "x.zip") as place:
        (error,) = verify_holdings(place.holdings, Trust(TRUST), complete=False).wrong
    assert error.where == "north: entry 2 (line 3)"


def test_a_bundle_of_a_party_without_a_key_does_not_verify(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    export(ledgers, frozenset(), TRUST, tmp_path / "x.zip")
    with open_place(tmp_path / "x.zip") as place:
        findings = verify_holdings(place.holdings, Trust({"north": TRUST["north"]}), complete=False)
    assert [error.where for error in findings.wrong] == ["coordinator", "south"]
    assert all(isinstance(error, LedgerError) and "--key" in error.remedy for error in findings.wrong)


def test_members_that_are_no_ledgers_are_not_unpacked(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    export({"run": ledgers["north"]}, frozenset(), {}, tmp_path / "x.zip")
    names = ["../../evil.jsonl", "/evil.jsonl", "ledger/../evil.jsonl", "ledger/run/../../evil.jsonl", "keys/site.key"]
    with zipfile.ZipFile(tmp_path / "x.zip", "a") as bundle:
        for name in [*names, "identity.json", "ledger/run/.evil.jsonl"]:
            bundle.writestr(name, "{}")
    with open_place(tmp_path / "x.zip") as place:
        (holding,) = place.holdings
        assert sorted(path.name for path in holding.folder.iterdir()) == ["north.heads.jsonl", "north.jsonl"]
        assert sorted(path.name for path in holding.folder.parents[1].iterdir()) == ["bundle.json", "ledger"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4" + b"\0" * 40])
def test_another_file_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(RunFolderError, match="not a bundle"), open_place(tmp_path / "x.zip"):
        pass


@settings(max_examples=60)
@given(position=st.integers(0, 10**6), bit=st.integers(1, 255))
def test_a_damaged_bundle_is_told_or_does_not_matter(
    position: int, bit: int, ledgers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.zip"
    export(ledgers, frozenset(), TRUST, path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= bit
    path.write_bytes(content)
    try:
        with open_place(path) as place:
            findings = verify_holdings(place.holdings, Trust(TRUST), complete=True)
    except RunFolderError as error:
        assert "damaged" in error.cause or "no ledgers" in error.cause or "too large" in error.cause
        return
    assert findings.wrong or [each.entries for each in findings.verified] == [8, 8, 8]


def test_a_bundle_that_cannot_be_written_is_told(tmp_path: Path, ledgers: dict[str, Path]) -> None:
    with pytest.raises(RunFolderError, match="cannot be written"):
        export(ledgers, frozenset(), TRUST, tmp_path / "absent" / "x.zip")
