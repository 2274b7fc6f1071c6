"""Deployed ledgers, each party's in a place of its own, against one another: what is forged is found and located."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_forms import KEYS, PARTIES, TRUST, read, record, release, relink

from medfed.core.errors import LedgerError
from medfed.govern.entries import OpenedEntry
from medfed.govern.heads import Head, decode_head, encode_head
from medfed.govern.keys import SigningKey
from medfed.govern.ledger import LedgerFolder
from medfed.govern.merkle import leaf_hash, root_of
from medfed.govern.places import Holding, Trust
from medfed.govern.verify import Findings, verify_holdings

ROUNDS = 3
Copy = Callable[[], Path]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("honest")
    record(root, rounds=ROUNDS)
    return root


@pytest.fixture(scope="module")
def scratch(honest: Path, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A fresh copy of the parties' folders at each call."""
    numbers, root = itertools.count(), tmp_path_factory.mktemp("copies")
    return lambda: Path(shutil.copytree(honest, root / str(next(numbers))))


def check(*folders: Path, complete: bool = False) -> Findings:
    holdings = [Holding(str(folder), folder.name, folder, finished=False) for folder in folders]
    return verify_holdings(holdings, Trust(TRUST), complete=complete)


def rejected(*folders: Path, complete: bool = False) -> LedgerError:
    findings = check(*folders, complete=complete)
    assert findings.wrong, findings
    return findings.wrong[0]


def everywhere(root: Path) -> list[Path]:
    return [root / party for party in PARTIES]


def rewrite(folder: Path, party: str, content: list[bytes], key: SigningKey) -> None:
    """The party's ledger with this content, its heads signed anew at the sizes at which it signed before."""
    sizes = [json.loads(line)["size"] for line in read(folder / f"{party}.heads.jsonl")]
    leaves = [leaf_hash(line[:-1]) for line in content]
    heads = [Head.sign(party, size, root_of(leaves[:size]), 1, key) for size in sizes if size <= len(leaves)]
    (folder / f"{party}.jsonl").write_bytes(b"".join(content))
    (folder / f"{party}.heads.jsonl").write_bytes(b"".join(encode_head(head) + b"\n" for head in heads))


def test_three_parties_places_agree(honest: Path) -> None:
    findings = check(*everywhere(honest), complete=True)
    assert (findings.wrong, findings.absent) == ((), ())
    assert [each.party for each in findings.verified] == list(PARTIES)
    assert all(each.signed == each.entries and each.run == "run" for each in findings.verified)


def test_a_party_that_is_elsewhere_is_told_and_with_complete_an_error(honest: Path) -> None:
    findings = check(honest / "coordinator", honest / "north")
    assert [(each.party, each.run, each.heads) for each in findings.absent] == [("south", "run", ROUNDS)]
    assert [each.party for each in findings.verified] == ["coordinator", "north"]
    error = rejected(honest / "coordinator", honest / "north", complete=True)
    assert error.where == "south"
    assert "its ledger is missing, though coordinator witnessed its head at size 2" in error.cause


@settings(deadline=None, max_examples=80)
@given(data=st.data(), party=st.sampled_from(PARTIES), position=st.integers(0, 10**6), bit=st.integers(1, 255))
def test_any_byte_of_any_line_that_changes_is_located(
    data: st.DataObject, party: str, position: int, bit: int, scratch: Copy
) -> None:
    root = scratch()
    path = root / party / f"{party}.jsonl"
    content = read(path)
    index = data.draw(st.integers(0, len(content) - 1))
    line = bytearray(content[index])
    line[position % (len(line) - 1)] ^= bit
    path.write_bytes(b"".join([*content[:index], bytes(line), *content[index + 1 :]]))
    told = str(rejected(*everywhere(root)))
    named = re.match(rf"{party}: entry (\d+) \(line", told) or re.search(r"between head at size (\d+)", told)
    assert told.startswith(party)
    assert named
    assert int(named[1]) <= index


@settings(deadline=None, max_examples=40)
@given(data=st.data(), party=st.sampled_from(PARTIES), heads_too=st.booleans())
def test_a_truncated_log_is_found_with_its_heads_cut_too(
    data: st.DataObject, party: str, heads_too: bool, scratch: Copy
) -> None:
    root = scratch()
    path, heads = root / party / f"{party}.jsonl", root / party / f"{party}.heads.jsonl"
    content, signed = read(path), read(heads)
    sizes = [json.loads(line)["size"] for line in signed]
    left = data.draw(st.integers(sizes[0], sizes[-2] - 1))
    path.write_bytes(b"".join(content[:left]))
    if heads_too:
        heads.write_bytes(b"".join(line for line, size in zip(signed, sizes, strict=True) if size <= left))
    error = rejected(*everywhere(root))
    assert str(error).startswith(party)
    assert "truncated" in error.cause
    assert (
        (f"entry {left} (line {left + 1})" in error.where) if heads_too else (f"{left} entries are left" in error.cause)
    )


@pytest.mark.parametrize("party", PARTIES)
def test_a_party_that_rewrote_its_ledger_with_its_own_key_is_found(party: str, scratch: Copy) -> None:
    root = scratch()
    folder = root / party
    content = read(folder / f"{party}.jsonl")
    later = 4
    forged = relink([*content[:later], content[later].replace(b'"time":"2', b'"time":"3'), *content[later + 1 :]])
    rewrite(folder, party, forged, KEYS[party])
    assert not check(folder).wrong  # by itself it is faultless
    error = rejected(*everywhere(root))
    assert error.where == party
    assert "rewritten: its head there is another" in error.cause
    found = re.search(r"its histories part between size (\d+) and size (\d+)", error.cause)
    assert found
    assert int(found[1]) <= later < int(found[2])


def split(tmp_path: Path) -> dict[str, Path]:
    """The coordinator keeps two ledgers that part at entry 3, and shows the one to north and the other to south."""
    places = {each: tmp_path / each for each in ("north", "south", "to north", "to south")}
    append_rounds(places["to north"], ["aa", "aa", "aa"])
    shutil.copytree(places["to north"], places["to south"])
    append_rounds(places["to north"], ["bb", "aa"])
    append_rounds(places["to south"], ["cc", "aa"])
    for site in ("north", "south"):
        with LedgerFolder.open(places[site], KEYS[site], durable=False) as ledgers:
            ledger = ledgers.ledger(site)
            ledger.append(OpenedEntry("run", "ab" * 32, "0.1"))
            for line in read(places[f"to {site}"] / "coordinator.heads.jsonl"):
                ledger.witness(decode_head(line[:-1]), "coordinator", "run")
            ledger.sign_head(1)
    return places


def append_rounds(folder: Path, digests: list[str]) -> None:
    with LedgerFolder.open(folder, KEYS["coordinator"], durable=False) as ledgers:
        ledger = ledgers.ledger("coordinator", briefly=True)
        for digest in digests:
            ledger.append(release("run", 1, digest))
            ledger.sign_head(1)


def test_a_split_view_is_found_when_two_sites_compare(tmp_path: Path) -> None:
    places = split(tmp_path)
    for site in ("north", "south"):
        assert not check(places[site], places[f"to {site}"]).wrong, "each was shown a faultless story"
    error = rejected(places["north"], places["south"])
    assert error.where == "coordinator"
    assert "split view: north witnessed its head at size 4 (entry 4, line 5), and south witnessed" in error.cause
    assert "its histories part between size 3 and size 4" in error.cause


def test_two_histories_of_one_party_part_at_an_entry(tmp_path: Path) -> None:
    places = split(tmp_path)
    shown = [places[f"to {site}"] for site in ("north", "south")]
    error = rejected(*shown)
    assert error.where == "coordinator: entry 3 (line 4)"
    assert error.cause.startswith(f"split view: {shown[0]} and {shown[1]} hold different histories")
    assert "this party signed both" in error.cause
    error = rejected(places["north"], places["to south"])
    assert error.where == "coordinator"
    assert "its histories part between size 3 and size 4" in error.cause


def test_an_older_copy_is_no_split_view(honest: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    heads = read(honest / "north" / "north.heads.jsonl")[:2]
    size = json.loads(heads[-1])["size"]
    (older / "north.jsonl").write_bytes(b"".join(read(honest / "north" / "north.jsonl")[:size]))
    (older / "north.heads.jsonl").write_bytes(b"".join(heads))
    findings = check(older, *everywhere(honest), complete=True)
    assert not findings.wrong
    north = next(each for each in findings.verified if each.party == "north")
    assert north.places == (str(older), str(honest / "north"))
    assert north.entries > size
    error = rejected(older, honest / "coordinator")
    assert error.where == f"north: entry {size} (line {size + 1})"
    assert "get a newer one" in error.remedy


def test_a_difference_that_nobody_signed_is_told_as_such(honest: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(honest / "north", tmp_path / "changed"))
    for folder, name in ((changed, "x"), (Path(shutil.copytree(honest / "north", tmp_path / "other")), "y")):
        with LedgerFolder.open(folder, KEYS["north"], durable=False) as ledgers:
            ledgers.ledger("north").append(release("run", 9, name))
    error = rejected(changed, tmp_path / "other")
    assert f"no signed head covers it in {changed} or in {tmp_path / 'other'}" in error.cause


def test_the_same_folder_named_twice_is_one_place(honest: Path) -> None:
    folder = honest / "north"
    (verified,) = check(folder, folder / ".." / "north").verified
    assert verified.places == (str(folder / ".." / "north"),)


def test_each_run_is_checked_though_another_is_wrong(scratch: Copy, tmp_path: Path) -> None:
    root = scratch()
    record(tmp_path, run="second")
    path = root / "north" / "north.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"bytes":9', b'"bytes":8', 1))
    findings = check(root / "north", tmp_path / "north")
    assert [(each.party, each.run) for each in findings.verified] == [("north", "second")]
    assert len(findings.wrong) == 1
