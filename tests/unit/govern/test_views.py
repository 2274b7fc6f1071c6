"""A party's views of the others' heads, held to a second implementation of RFC 6962's consistency check."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_forms import KEYS, TRUST, read, release
from rfc6962 import extends, proof_of, tree_hash

from medfed.core.errors import LedgerError
from medfed.govern.entries import OpenedEntry
from medfed.govern.heads import Head, Seen, encode_head
from medfed.govern.keys import SigningKey
from medfed.govern.ledger import Ledger, LedgerFolder
from medfed.govern.merkle import EMPTY_ROOT
from medfed.govern.views import NOTHING, Views

NORTH = TRUST["north"]


def head(entries: Sequence[bytes], *, key: SigningKey = KEYS["north"], party: str = "north") -> Head:
    return Head.sign(party, len(entries), tree_hash(entries), 1, key)


@pytest.fixture
def north(tmp_path: Path) -> Ledger:
    return LedgerFolder.open(tmp_path, KEYS["north"], durable=False).ledger("north")


@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.integers(1, 40))
def test_a_ledgers_proofs_hold_by_the_second_implementation(
    data: st.DataObject, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    stops = sorted(data.draw(st.lists(st.integers(1, size), min_size=1, max_size=5)))
    with LedgerFolder.open(folder, KEYS["north"], durable=False) as ledgers:
        ledger = ledgers.ledger("north")
        for stop in stops:
            while ledger.size < stop:
                ledger.append(release("run", ledger.size))
            lines = [line[:-1] for line in read(folder / "north.jsonl")]
            second = data.draw(st.integers(1, stop))
            first = data.draw(st.integers(1, second))
            proof = [bytes.fromhex(node) for node in ledger.consistency(first, second)]
            assert extends(first, second, tree_hash(lines[:first]), tree_hash(lines[:second]), proof)
            assert ledger.consistency(stop) == ()
            assert ledger.consistency(0) == ()


@settings(max_examples=200)
@given(data=st.data(), second=st.integers(1, 40))
def test_a_view_accepts_just_what_the_second_implementation_accepts(data: st.DataObject, second: int) -> None:
    first = data.draw(st.integers(1, second))
    story = [b"%d" % number for number in range(second)]
    told = list(story)
    if data.draw(st.booleans()):
        told[data.draw(st.integers(0, second - 1))] = b"another"
    nodes = proof_of(told, first)
    match data.draw(st.sampled_from(["whole", "shorter", "longer", "changed"])):
        case "shorter":
            nodes = nodes[:-1]
        case "longer":
            nodes = [*nodes, tree_hash(told)]
        case "changed":
            nodes = [hashlib.sha256(node).digest() for node in nodes]
    views = Views({"north": Seen(first, tree_hash(story[:first]).hex())})
    new = head(told)
    try:
        views.accept("north", new, tuple(node.hex() for node in nodes), NORTH)
        accepted = True
    except LedgerError:
        accepted = False
    assert accepted is extends(first, second, tree_hash(story[:first]), tree_hash(told), nodes)
    assert views.last("north") == (Seen(second, new.root) if accepted else Seen(first, tree_hash(story[:first]).hex()))


def test_the_first_head_needs_no_proof_and_the_next_one_does(north: Ledger) -> None:
    views = Views()
    assert views.last("north") == NOTHING
    north.append(OpenedEntry("run", "ab", "0.1"))
    views.accept("north", first := north.sign_head(0), (), NORTH)
    views.accept("north", first, (), NORTH)
    for number in range(5):
        north.append(release("run", number))
    second = north.sign_head(1)
    with pytest.raises(LedgerError, match="at size 6 does not extend the one at size 1"):
        views.accept("north", second, (), NORTH)
    views.accept("north", second, north.consistency(1), NORTH)
    assert views.last("north") == Seen(6, second.root)


def test_an_old_proof_still_serves_when_the_ledger_went_on(north: Ledger) -> None:
    for number in range(4):
        north.append(release("run", number))
    views = Views()
    views.accept("north", north.sign_head(0), (), NORTH)
    north.append(release("run", 4))
    signed = north.sign_head(1)
    north.append(release("run", 5))
    views.accept("north", signed, north.consistency(4, signed.size), NORTH)


def test_a_head_that_went_back_or_was_rewritten_is_refused_by_name() -> None:
    story = [b"%d" % number for number in range(6)]
    views = Views()
    views.accept("north", head(story), (), NORTH)
    for told, sentence in (
        (story[:4], "its head has size 4, after one at size 6"),
        ([*story[:5], b"x"], "at size 6 does not extend the one at size 6"),
        ([*story[:2], b"x", *story[3:], b"6"], "at size 7 does not extend the one at size 6"),
    ):
        with pytest.raises(LedgerError, match=sentence) as caught:
            views.accept("north", head(told), tuple(node.hex() for node in proof_of(told, min(6, len(told)))), NORTH)
        assert caught.value.where == "north"
        assert "split view" in caught.value.cause
    assert views.last("north") == Seen(6, tree_hash(story).hex())


def test_another_keys_or_another_partys_head_is_refused() -> None:
    views = Views()
    for forged in (
        head([b"a"], key=SigningKey.generate()),
        head([b"a"], party="south"),
        replace(head([b"a"]), size=2),
        replace(head([b"a"]), root="00" * 32),
    ):
        with pytest.raises(LedgerError, match="signature"):
            views.accept("north", forged, (), NORTH)
    assert views.last("north") == NOTHING


@pytest.mark.parametrize(
    ("size", "root"),
    [(0, "00" * 32), (-1, "00" * 32), (1, ""), (1, "zz"), (1, "00" * 31), (1, "AB" * 32), (1, " " + "00" * 32)],
)
def test_a_head_that_no_ledger_has_is_refused_though_it_was_signed(size: int, root: str) -> None:
    signed = forge(size, root)
    assert signed.verifies("north", NORTH)
    with pytest.raises(LedgerError):
        Views().accept("north", signed, (), NORTH)


def forge(size: int, root: str) -> Head:
    """A head signed over any size and text of a root."""

    class Text(bytes):
        def hex(self, *_: object) -> str:
            return root

    return Head.sign("north", size, Text(), 1, KEYS["north"])


@pytest.mark.parametrize("proof", [("zz",), ("00",), ("00" * 32,) * 500, ("é" * 64,)])
def test_what_is_no_proof_is_refused(proof: tuple[str, ...]) -> None:
    views = Views({"north": Seen(2, tree_hash([b"a", b"b"]).hex())})
    with pytest.raises(LedgerError, match="does not extend"):
        views.accept("north", head([b"a", b"b", b"c"]), proof, NORTH)


def test_the_head_of_an_empty_ledger_is_the_empty_tree() -> None:
    views = Views()
    views.accept("north", Head.sign("north", 0, EMPTY_ROOT, 0, KEYS["north"]), (), NORTH)
    assert views.last("north") == NOTHING


def test_views_are_restored_from_the_ledger_after_a_restart(tmp_path: Path) -> None:
    story = [b"%d" % number for number in range(6)]
    with LedgerFolder.open(tmp_path, KEYS["south"], durable=False) as ledgers:
        ledger = ledgers.ledger("south")
        assert Views.restored(ledger).last("north") == NOTHING
        for size in (2, 5):
            ledger.witness(head(story[:size]), "north", "run")
            ledger.append(release("run", size))
        ledger.witness(Head.sign("coordinator", 1, tree_hash(story[:1]), 1, KEYS["coordinator"]), "coordinator", "run")
    with (tmp_path / "south.jsonl").open("ab") as file:
        file.write(b'{"torn')
    with LedgerFolder.open(tmp_path, KEYS["south"], durable=False) as ledgers:
        views = Views.restored(ledgers.ledger("south"))
    assert views.last("north") == Seen(5, tree_hash(story[:5]).hex())
    assert views.last("coordinator") == Seen(1, tree_hash(story[:1]).hex())
    views.accept("north", head(story), tuple(node.hex() for node in proof_of(story, 5)), NORTH)
    with pytest.raises(LedgerError):
        views.accept(
            "coordinator", Head.sign("coordinator", 1, b"\1" * 32, 1, KEYS["coordinator"]), (), TRUST["coordinator"]
        )


def test_a_party_that_lost_entries_says_so_when_it_is_to_prove(north: Ledger, tmp_path: Path) -> None:
    north.append(release("run", 1))
    with pytest.raises(LedgerError, match="saw its ledger at size 9, but it has 1 entries") as caught:
        north.consistency(9)
    assert caught.value.where == "north"


@pytest.mark.parametrize("change", ["changed", "shortened"])
def test_no_proof_comes_from_a_file_that_was_changed_under_the_writer(
    north: Ledger, tmp_path: Path, change: str
) -> None:
    for number in range(5):
        north.append(release("run", number))
    path = tmp_path / "north.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"bytes":9', b'"bytes":8', 1) if change == "changed" else content[:-9])
    with pytest.raises(LedgerError, match=r"was changed while it was written|truncated"):
        north.consistency(2)


def test_a_heads_line_in_the_file_is_what_was_shown(north: Ledger, tmp_path: Path) -> None:
    north.append(release("run", 1))
    shown = north.sign_head(1)
    assert read(tmp_path / "north.heads.jsonl") == [encode_head(shown) + b"\n"]
