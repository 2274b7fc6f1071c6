"""``medfed ledger verify`` over the ledgers of a real run, as they are and tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hospitals_on_disk import write_hospitals

from medfed import api
from medfed.cli.main import main
from medfed.govern.chain import follow_ledger
from medfed.govern.entries import Recorded, decode_entry, encode_entry
from medfed.govern.heads import Head, decode_head, encode_head
from medfed.govern.keys import SigningKey
from medfed.govern.merkle import MerkleTree, leaf_hash

PARTY = "Süd"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    return api.run(write_hospitals(folder / "data", rounds=2), output=folder / "run").folder.path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def verify(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["ledger", "verify", str(run), *options])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out + shown.err


def test_the_ledgers_of_a_fresh_run_verify(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = verify(run, capsys)
    assert status == 0
    assert [line.partition(":")[0] for line in told.splitlines()] == ["Nord", "Ost", "Süd", "West", "coordinator"]
    assert all(line.endswith("…: verified") for line in told.splitlines())


def test_as_json_it_gives_the_whole_root(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, told = verify(run, capsys, "--json")
    parties = [json.loads(line) for line in told.splitlines()]
    lines = (run / "ledger" / f"{PARTY}.jsonl").read_bytes().splitlines()
    tree = MerkleTree()
    for line in lines:
        tree.append(leaf_hash(line))
    assert {p["party"]: (p["entries"], p["root"]) for p in parties}[PARTY] == (len(lines), tree.root().hex())


def change(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3].replace(b'"time":"2', b'"time":"3'), *lines[4:]]


def drop(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], *lines[4:]]


def reorder(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def truncate(lines: list[bytes]) -> list[bytes]:
    return lines[:3]


@pytest.mark.parametrize("tamper", [change, drop, reorder, truncate])
@pytest.mark.parametrize("party", [PARTY, "coordinator"])
def test_a_tampered_entry_is_found_and_located(
    run: Path, capsys: pytest.CaptureFixture[str], tamper: Callable[[list[bytes]], list[bytes]], party: str
) -> None:
    file = run / "ledger" / f"{party}.jsonl"
    file.write_bytes(b"".join(tamper(file.read_bytes().splitlines(keepends=True))))
    status, told = verify(run, capsys)
    assert status == 3
    assert f"{party}: " in told
    assert ("truncated between head at size" if tamper is truncate else "entry 3 (line 4)") in told


def rewritten(run: Path, party: str, key: SigningKey) -> None:
    """The party's ledger with another story, each line and head made anew so that all of them agree."""
    folder = run / "ledger"
    file, heads = folder / f"{party}.jsonl", folder / f"{party}.heads.jsonl"
    tree, previous, roots = MerkleTree(), "", {}
    lines = []
    for line in file.read_bytes().splitlines():
        recorded = decode_entry(line)
        retold = encode_entry(Recorded(recorded.index, "2026-01-01T00:00:00.000000+00:00", previous, recorded.entry))
        tree.append(leaf_hash(retold))
        previous = leaf_hash(retold).hex()
        roots[tree.size] = tree.root()
        lines.append(retold + b"\n")
    signed = [decode_head(line) for line in heads.read_bytes().splitlines()]
    file.write_bytes(b"".join(lines))
    heads.write_bytes(
        b"".join(encode_head(Head.sign(party, h.size, roots[h.size], h.round, key)) + b"\n" for h in signed)
    )


def test_a_ledger_rewritten_whole_and_signed_with_another_key_does_not_verify(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forger = SigningKey.generate()
    rewritten(run, PARTY, forger)
    follow_ledger(run / "ledger", PARTY, forger.verify_key)  # by itself, under its own key, it is faultless
    status, told = verify(run, capsys)
    assert status == 3
    assert "another key" in told
    assert f"{PARTY}: " in told


def test_a_ledger_rewritten_whole_under_its_own_key_contradicts_its_witness(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(run, PARTY, api.simulation_key())
    status, told = verify(run, capsys)
    assert status == 3
    assert "coordinator witnessed its head" in told


def test_every_ledger_rewritten_by_one_forger_does_not_verify_either(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forger = SigningKey.generate()
    for party in ("Nord", "Ost", "Süd", "West", "coordinator"):
        rewritten(run, party, forger)
    assert verify(run, capsys)[0] == 3


def test_another_persons_key_does_not_verify_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.pub").write_bytes(SigningKey.generate().verify_key.pem())
    assert verify(run, capsys, "--key", str(tmp_path / "other.pub"))[0] == 3


@pytest.mark.parametrize("missing", [f"{PARTY}.jsonl", f"{PARTY}.heads.jsonl"])
def test_a_ledger_that_is_gone_is_missed(run: Path, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    (run / "ledger" / missing).unlink()
    status, told = verify(run, capsys)
    assert status == 3
    assert PARTY in told


def test_a_folder_without_ledgers_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = verify(tmp_path, capsys)
    assert status == 2
    assert "no ledgers in this folder" in told


def test_a_tampered_ledger_stops_a_resumption(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "results.json").unlink()
    file = run / "ledger" / f"{PARTY}.jsonl"
    file.write_bytes(b"".join(drop(file.read_bytes().splitlines(keepends=True))))
    with pytest.raises(SystemExit) as ended:
        main(["run", "--resume", str(run)])
    assert ended.value.code == 3
    assert "entry 3 (line 4)" in capsys.readouterr().err
