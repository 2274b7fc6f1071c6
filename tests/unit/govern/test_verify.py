"""A forger is set on a run's ledgers: every tampering fails, and the report says where."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_forms import relink

from medfed.core.errors import LedgerError
from medfed.core.steps import Release
from medfed.govern.entries import OpenedEntry, ReleaseEntry
from medfed.govern.heads import Head, encode_head
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.govern.ledger import Ledger, LedgerFolder
from medfed.govern.merkle import leaf_hash, root_of
from medfed.govern.verify import verify_ledgers

PARTIES = ("coordinator", "north", "south")
KEYS = {party: SigningKey.generate() for party in PARTIES}
TRUST: dict[str, VerifyKey] = {party: key.verify_key for party, key in KEYS.items()}
ROUNDS = 4
on_disk = settings(deadline=None, max_examples=60)


def record_run(folder: Path, *, run: str = "run", close: bool = True, digest: str = "ab") -> None:
    """Three parties, four rounds: sites release twice and sign; each witnesses the other side's head.

    Each party writes with its own key in a folder of its own; the run's folder gets copies.
    """
    with ExitStack() as apart:
        places = {p: apart.enter_context(TemporaryDirectory()) for p in PARTIES}
        folders = {p: apart.enter_context(LedgerFolder.open(Path(places[p]), KEYS[p], durable=False)) for p in PARTIES}
        record_rounds({p: folders[p].ledger(p) for p in PARTIES}, run, close=close, digest=digest)
        for place in places.values():
            for path in Path(place).glob("*.jsonl"):
                shutil.copy(path, folder / path.name)


def record_rounds(ledgers: dict[str, Ledger], run: str, *, close: bool, digest: str) -> None:
    hub = ledgers["coordinator"]
    for ledger in ledgers.values():
        ledger.append(OpenedEntry(run, "ab" * 32, "0.1"))
    for round_ in range(1, ROUNDS + 1):
        for site in PARTIES[1:]:
            for call in (1, 2):
                ledgers[site].append(
                    ReleaseEntry(
                        run,
                        round_,
                        call,
                        "fedavg.train",
                        Release.SUM,
                        digest * 32,
                        ("w float32[9]",),
                        9,
                        "clear",
                    )
                )
            hub.witness(ledgers[site].sign_head(round_), site, run)
        signed = hub.sign_head(round_)
        for site in PARTIES[1:]:
            ledgers[site].witness(signed, "coordinator", run)
    for ledger in ledgers.values():
        if close:
            ledger.close(run, "done")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    record_run(folder)
    return folder


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unfinished")
    record_run(folder, close=False)
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """A fresh copy of a folder at each call, also for each of hypothesis's examples."""
    numbers = itertools.count()
    root = tmp_path_factory.mktemp("copies")

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, root / str(next(numbers))))

    return copy


Copy = Callable[[Path], Path]


def read(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def write(path: Path, content: list[bytes]) -> None:
    path.write_bytes(b"".join(content))


def rejected(folder: Path, *, finished: bool = True, keys: dict[str, VerifyKey] | VerifyKey = TRUST) -> str:
    with pytest.raises(LedgerError) as caught:
        verify_ledgers(folder, keys, finished=finished)
    return str(caught.value)


def located(report: str, party: str) -> range:
    """The entries among which the report says the tampering lies."""
    assert report.startswith(f"{party}: ") or f" {party} " in report, report
    if found := re.search(r"entry (\d+) \(line (\d+)\)", report):
        index = int(found[1])
        assert int(found[2]) == index + 1
        also = re.search(r"or the link to it in entry (\d+) did", report)
        return range(index, (int(also[1]) if also else index) + 1)
    found = re.search(r"between head at size (\d+) and size (\d+)", report)
    assert found, report
    return range(int(found[1]), int(found[2]))


def test_an_honest_run_verifies(finished: Path, unfinished: Path) -> None:
    verified = verify_ledgers(finished, TRUST, finished=True)
    assert [(v.party, v.entries, v.heads, v.run) for v in verified] == [
        ("coordinator", 1 + 2 * ROUNDS + 1, ROUNDS + 1, "run"),
        ("north", 1 + 3 * ROUNDS + 1, ROUNDS + 1, "run"),
        ("south", 1 + 3 * ROUNDS + 1, ROUNDS + 1, "run"),
    ]
    assert all(v.signed == v.entries for v in verified)
    last = json.loads(read(finished / "north.heads.jsonl")[-1])
    assert verified[1].root == last["root"]
    north = verify_ledgers(unfinished, TRUST, finished=False)[1]
    assert (north.entries, north.signed) == (1 + 3 * ROUNDS, 3 * ROUNDS)


def test_one_key_may_serve_all_parties_of_a_simulation(tmp_path: Path) -> None:
    key = SigningKey.generate()
    with LedgerFolder.open(tmp_path, key, durable=False) as ledgers:
        for party in PARTIES:
            ledger = ledgers.ledger(party)
            ledger.append(OpenedEntry("run", "ab", "0.1"))
            ledger.close("run", "done")
    assert len(verify_ledgers(tmp_path, key.verify_key, finished=True)) == 3
    assert "signature is wrong" in rejected(tmp_path, keys=SigningKey.generate().verify_key)


parties = st.sampled_from(PARTIES)


@on_disk
@given(data=st.data(), party=parties)
def test_any_flipped_byte_of_an_entry_is_located(
    data: st.DataObject, party: str, finished: Path, scratch: Copy
) -> None:
    folder = scratch(finished)
    path = folder / f"{party}.jsonl"
    content = read(path)
    index = data.draw(st.integers(0, len(content) - 1))
    position = data.draw(st.integers(0, len(content[index]) - 2))
    flip = data.draw(st.integers(1, 255))
    line = bytearray(content[index])
    line[position] ^= flip
    content[index] = bytes(line)
    write(path, content)
    assert index in located(rejected(folder), party)


NORTH_HEADS = (3, 6, 9, 12, 14)
"""The sizes at which the site ``north`` signed: 0 opened, then two releases and a witness entry a round."""


@pytest.mark.parametrize("index", [i for i in range(14) if i + 1 not in NORTH_HEADS])
def test_a_changed_entry_is_named_by_the_link_to_it(index: int, finished: Path, scratch: Copy) -> None:
    folder = scratch(finished)
    content = read(folder / "north.jsonl")
    content[index] = content[index].replace(b'"time":"2', b'"time":"3')
    write(folder / "north.jsonl", content)
    assert rejected(folder) == (
        f"north: entry {index} (line {index + 1}): its contents changed, or the link to it in entry {index + 1} did"
    )


@pytest.mark.parametrize("index", NORTH_HEADS[:-1])
def test_a_changed_link_to_an_entry_under_a_head_is_not_blamed_on_that_entry(
    index: int, finished: Path, scratch: Copy
) -> None:
    folder = scratch(finished)
    content = read(folder / "north.jsonl")
    fields = json.loads(content[index]) | {"previous": "00" * 32}
    content[index] = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    write(folder / "north.jsonl", content)
    assert rejected(folder).startswith(f"north: entry {index} (line {index + 1}): its contents changed")


def test_what_stands_in_an_entrys_place_is_named(finished: Path, scratch: Copy) -> None:
    content = read(finished / "north.jsonl")
    folder = scratch(finished)
    write(folder / "north.jsonl", content[:4] + content[5:])
    assert rejected(folder) == ("north: entry 4 (line 5): it was dropped or reordered: entry 5 stands in its place")
    write(folder / "north.jsonl", content[:5] + content[4:])
    assert rejected(folder) == (
        "north: entry 5 (line 6): entry 4 stands here: an entry was inserted, duplicated or reordered"
    )


def test_entries_of_two_runs_in_one_ledger_are_refused(tmp_path: Path) -> None:
    with LedgerFolder.open(tmp_path, KEYS["north"], durable=False) as ledgers:
        ledger = ledgers.ledger("north")
        ledger.append(OpenedEntry("run", "ab", "0.1"))
        ledger.append(OpenedEntry("other", "ab", "0.1"))
        ledger.sign_head(0)
    report = rejected(tmp_path, finished=False)
    assert report.startswith("north: entry 1 (line 2): it belongs to another run")


@on_disk
@given(data=st.data(), party=parties)
def test_any_flipped_byte_of_a_head_is_located(data: st.DataObject, party: str, finished: Path, scratch: Copy) -> None:
    folder = scratch(finished)
    path = folder / f"{party}.heads.jsonl"
    content = read(path)
    number = data.draw(st.integers(0, len(content) - 1))
    line = bytearray(content[number])
    line[data.draw(st.integers(0, len(line) - 2))] ^= data.draw(st.integers(1, 255))
    content[number] = bytes(line)
    write(path, content)
    report = rejected(folder)
    assert report.startswith(f"{party}: signed head (line {number + 1} of {path.name})")


@on_disk
@given(data=st.data(), party=parties, repaired=st.booleans())
def test_a_dropped_entry_is_located(
    data: st.DataObject, party: str, repaired: bool, finished: Path, scratch: Copy
) -> None:
    folder = scratch(finished)
    path = folder / f"{party}.jsonl"
    content = read(path)
    index = data.draw(st.integers(0, len(content) - 1))
    del content[index]
    write(path, relink(content) if repaired else content)
    assert index in located(rejected(folder), party)


@on_disk
@given(data=st.data(), party=parties, repaired=st.booleans())
def test_swapped_entries_are_located(
    data: st.DataObject, party: str, repaired: bool, finished: Path, scratch: Copy
) -> None:
    folder = scratch(finished)
    path = folder / f"{party}.jsonl"
    content = read(path)
    first, second = sorted(data.draw(st.lists(st.integers(0, len(content) - 1), min_size=2, max_size=2, unique=True)))
    content[first], content[second] = content[second], content[first]
    write(path, relink(content) if repaired else content)
    assert first in located(rejected(folder), party)


@on_disk
@given(data=st.data(), party=parties, repaired=st.booleans())
def test_a_duplicated_or_inserted_entry_is_located(
    data: st.DataObject, party: str, repaired: bool, finished: Path, scratch: Copy
) -> None:
    folder = scratch(finished)
    path = folder / f"{party}.jsonl"
    content = read(path)
    source = data.draw(st.integers(0, len(content) - 1))
    place = data.draw(st.integers(0, len(content)))
    content.insert(place, content[source])
    write(path, relink(content) if repaired else content)
    report = rejected(folder)
    if place == len(content) - 1 and repaired:  # appended behind the last signed head
        assert "no closed entry under a signed head" in report
        assert place in located(report, party)
    else:
        first_that_differs = place + 1 if source == place else place
        where = located(report, party)
        assert first_that_differs in where or place in where


@on_disk
@given(data=st.data(), party=parties)
def test_a_changed_entry_behind_a_repaired_chain_lies_between_two_heads(
    data: st.DataObject, party: str, finished: Path, scratch: Copy
) -> None:
    folder = scratch(finished)
    path = folder / f"{party}.jsonl"
    content = read(path)
    index = data.draw(st.integers(0, len(content) - 1))
    content[index] = content[index].replace(b'"time":"2', b'"time":"3')
    write(path, relink(content))
    sizes = [0] + [json.loads(line)["size"] for line in read(folder / f"{party}.heads.jsonl")]
    report = rejected(folder)
    around = next((low, high) for low, high in itertools.pairwise(sizes) if low <= index < high)
    assert f"between head at size {around[0]} and size {around[1]}" in report
    assert index in located(report, party)


@on_disk
@given(data=st.data(), party=parties)
def test_truncated_entries_are_located(
    data: st.DataObject, party: str, finished: Path, unfinished: Path, scratch: Copy
) -> None:
    ended = data.draw(st.booleans())
    folder = scratch(finished if ended else unfinished)
    path = folder / f"{party}.jsonl"
    content = read(path)
    signed = json.loads(read(folder / f"{party}.heads.jsonl")[-1])["size"]
    left = data.draw(st.integers(0, signed - 1))
    write(path, content[:left])
    assert left in located(rejected(folder, finished=ended), party)


@on_disk
@given(data=st.data(), party=parties)
def test_entries_truncated_together_with_their_heads_are_located(
    data: st.DataObject, party: str, finished: Path, unfinished: Path, scratch: Copy
) -> None:
    ended = data.draw(st.booleans())
    folder = scratch(finished if ended else unfinished)
    heads = read(folder / f"{party}.heads.jsonl")
    kept = data.draw(st.integers(1, ROUNDS - 1))
    size = json.loads(heads[kept - 1])["size"]
    content = read(folder / f"{party}.jsonl")
    left = data.draw(st.integers(size, json.loads(heads[kept])["size"] - 1))
    write(folder / f"{party}.heads.jsonl", heads[:kept])
    write(folder / f"{party}.jsonl", content[:left])
    report = rejected(folder, finished=ended)
    assert report.startswith(f"{party}: entry ")
    assert "truncated" in report
    assert abs(located(report, party)[0] - left) <= 1
    if not ended:
        assert "witnessed" in report


@on_disk
@given(party=parties, signer=st.sampled_from(["other key", "own key"]))
def test_a_log_rewritten_whole_does_not_verify(
    party: str, signer: str, finished: Path, scratch: Copy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = scratch(finished)
    forged = tmp_path_factory.mktemp("forged")
    content = relink([line.replace(b'"time":"2', b'"time":"3') for line in read(folder / f"{party}.jsonl")])
    sizes = [json.loads(line)["size"] for line in read(folder / f"{party}.heads.jsonl")]
    key = KEYS[party] if signer == "own key" else SigningKey.generate()
    _sign_again(forged, party, key, content, sizes)
    for path in forged.iterdir():
        shutil.copy(path, folder / path.name)
    report = rejected(folder)
    if signer == "own key":
        assert report.startswith(f"{party}: rewritten: its head there is another, though ")
        assert f"witnessed its head at size {sizes[0]} (entry " in report
    else:
        assert report.startswith(f"{party}: signed head (line 1 of {party}.heads.jsonl): its signature is wrong")


def _sign_again(folder: Path, party: str, key: SigningKey, content: list[bytes], sizes: list[int]) -> None:
    leaves = [leaf_hash(line[:-1]) for line in content]
    heads = [Head.sign(party, size, root_of(leaves[:size]), n, key) for n, size in enumerate(sizes)]
    write(folder / f"{party}.jsonl", content)
    write(folder / f"{party}.heads.jsonl", [encode_head(head) + b"\n" for head in heads])


@pytest.mark.parametrize("party", PARTIES)
def test_a_party_whose_files_are_gone_is_missed(party: str, finished: Path, scratch: Copy) -> None:
    folder = scratch(finished)
    (folder / f"{party}.jsonl").unlink()
    assert rejected(folder).startswith(f"{party}: {party}.jsonl cannot be read")
    (folder / f"{party}.heads.jsonl").unlink()
    report = rejected(folder)
    assert report.startswith(f"{party}: its ledger is missing, though ")


@pytest.mark.parametrize("party", PARTIES)
def test_an_empty_file_is_refused(party: str, finished: Path, scratch: Copy) -> None:
    folder = scratch(finished)
    write(folder / f"{party}.jsonl", [])
    assert rejected(folder).startswith(f"{party}: truncated between head at size 0 and ")
    write(folder / f"{party}.heads.jsonl", [])
    assert rejected(folder) == f"{party}: its ledger is empty"


@pytest.mark.parametrize("party", PARTIES)
def test_heads_that_are_gone_are_missed(party: str, finished: Path, unfinished: Path, scratch: Copy) -> None:
    folder = scratch(unfinished)
    (folder / f"{party}.heads.jsonl").unlink()
    assert "no signed head" in rejected(folder, finished=False)
    folder = scratch(finished)
    heads = read(folder / f"{party}.heads.jsonl")
    write(folder / f"{party}.heads.jsonl", heads[:-1])
    assert "no closed entry under a signed head" in rejected(folder)
    write(folder / f"{party}.heads.jsonl", heads[1:])
    assert rejected(folder).startswith(f"{party}: rewritten: it lacks a signed head, though ")
    write(folder / f"{party}.heads.jsonl", heads[::-1])
    assert rejected(folder).startswith(f"{party}: signed head (line 2 ")


def test_a_party_without_a_known_key_is_refused(finished: Path) -> None:
    report = rejected(finished, keys={p: k for p, k in TRUST.items() if p != "south"})
    assert report.startswith("south: no public key")
    swapped = TRUST | {"north": TRUST["south"]}
    assert rejected(finished, keys=swapped).startswith("north: signed head (line 1 ")


def test_one_partys_ledger_cannot_pass_for_anothers(finished: Path, scratch: Copy) -> None:
    folder = scratch(finished)
    for suffix in (".jsonl", ".heads.jsonl"):
        shutil.copy(folder / f"north{suffix}", folder / f"south{suffix}")
    assert rejected(folder, keys=TRUST | {"south": TRUST["north"]}).startswith("south: signed head (line 1 ")


@pytest.mark.parametrize("party", PARTIES)
def test_a_ledger_of_another_run_cannot_be_put_in_its_place(
    party: str, finished: Path, scratch: Copy, tmp_path: Path
) -> None:
    folder = scratch(finished)
    record_run(tmp_path, run="other")
    for suffix in (".jsonl", ".heads.jsonl"):
        shutil.copy(tmp_path / f"{party}{suffix}", folder / f"{party}{suffix}")
    assert "different runs" in rejected(folder)


def test_a_finished_run_needs_its_last_entry(unfinished: Path, scratch: Copy) -> None:
    folder = scratch(unfinished)
    for party in PARTIES:
        with LedgerFolder.open(folder, KEYS[party], durable=False) as ledgers:
            ledgers.ledger(party).sign_head(ROUNDS)
    assert all(v.signed == v.entries for v in verify_ledgers(folder, TRUST, finished=False))
    assert "no closed entry" in rejected(folder, finished=True)


def test_a_head_in_other_words_is_refused(finished: Path, scratch: Copy) -> None:
    folder = scratch(finished)
    path = folder / "north.heads.jsonl"
    path.write_bytes(path.read_bytes().replace(b',"size"', b', "size"', 1))
    assert rejected(folder).startswith(f"north: signed head (line 1 of {path.name}): it was changed")


def test_a_folder_without_ledgers_is_refused(tmp_path: Path) -> None:
    assert "there is no ledger" in rejected(tmp_path)
    assert "there is no ledger" in rejected(tmp_path / "absent")
